"""Memory over time as one line of bars. Owns the picture; never asks and never judges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from otel_memory.clients.replies import Series

BARS: Final = "▁▂▃▄▅▆▇█"
ASCII_BARS: Final = "_.-:=+*#"
_GAP: Final = 3.0
"""Usual distances between samples after which nothing is known."""


def columns(series: Series, width: int) -> list[float | None]:
    """The highest value of each of at most ``width`` equal stretches of time; None where nothing was heard.

    A stretch that falls between two samples shows the earlier one.
    """
    samples = [
        (moment.timestamp(), value)
        for moment, value in zip(series.times, series.values, strict=True)
        if value is not None
    ]
    if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
        return []
    begin, end = samples[0][0], samples[-1][0]
    count = max(2, min(width, len(samples)))
    patience = _GAP * median(b[0] - a[0] for a, b in pairwise(samples))
    highest: list[float | None] = [None] * count
    latest: list[float] = [begin] * count
    for time, value in samples:
        # Only ascending times fall inside; a server that sends others gets no chart out of bounds.
        place = min(count - 1, max(0, int((time - begin) / (end - begin) * count)))
        known = highest[place]
        highest[place] = value if known is None else max(known, value)
        latest[place] = time
    step = (end - begin) / count
    for place in range(1, count):
        before = highest[place - 1]
        if highest[place] is None and before is not None:
            latest[place] = latest[place - 1]
            if begin + place * step - latest[place] <= patience:
                highest[place] = before
    return highest


def draw(values: Sequence[float | None], bars: str = BARS) -> str:
    """One character for each value, a blank for None, from the least to the highest of them."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    # A least span of 5 %, so that a flat series doesn't look alarming.
    span = max(high - low, 0.05 * abs(high), 1.0)
    top = len(bars) - 1
    return "".join(
        " " if value is None else bars[min(top, int((value - low) / span * len(bars)))] for value in values
    ).rstrip()
