"""What a history of measurements says: statistics, trend, leak score. Pure: no clock, no process.

Owns the judgement of one package, or of any other series of (time in s, bytes), oldest first. Nothing is said from
fewer than six measurements, so never from two readings; the slope is that of robust regression (``robust_line``), and
a rise counts only if it is material and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, pvariance
from typing import Final, Literal, NamedTuple

from otel_memory.probe.readings import Reading, robust_line

MAX_HISTORY: Final = 100
"""Measurements that are kept of a package."""
LEAST_READINGS: Final = 6
LEAST_GROWTH_BYTES: Final = 1024 * 1024
LEAST_GROWTH_SHARE: Final = 0.04
"""A rise is material from the larger of the two on: bytes, and share of the level."""
IMMATERIAL_SCORE: Final = 0.09
"""What a rise that isn't material is worth at most: below every threshold that is worth setting."""
_BLOCKS: Final = 8

Trend = Literal["increasing", "decreasing", "stable"]
History = Sequence[tuple[float, float | None]]
"""(time in s, bytes); None, or what isn't finite, is a reading that failed, and left out."""


class Statistics(NamedTuple):
    """Bytes, bytes squared for the variance (of the population), By/s for the growth rate."""

    measurements: int
    average: float | None
    minimum: float | None
    maximum: float | None
    variance: float | None
    growth_rate: float | None
    """None until there are six measurements."""


def statistics(history: History) -> Statistics:
    """The statistics of what was measured; None where there is too little."""
    values = [value for _, value in _known(history)]
    if not values:
        return Statistics(0, None, None, None, None, None)
    return Statistics(len(values), fmean(values), min(values), max(values), pvariance(values), growth_rate(history))


def growth_rate(history: History) -> float | None:
    """By/s by robust regression; None until there are six measurements at different times."""
    readings = _readings(history)
    return None if readings is None else robust_line(readings)[0]


def trend(history: History, least_bytes: float = LEAST_GROWTH_BYTES) -> Trend:
    """Where it goes: up or down by a material amount over the whole history, or neither."""
    readings = _readings(history)
    if readings is None:
        return "stable"
    change = _change(readings)
    slope, level = robust_line(readings)
    if abs(change) < _material(level, least_bytes) or slope * change <= 0:
        return "stable"
    return "increasing" if change > 0 else "decreasing"


def leak_score(history: History, least_bytes: float = LEAST_GROWTH_BYTES) -> float:
    """0 (nothing speaks for a leak) to 1 (a material rise that never paused).

    The history is cut into at most eight blocks, of which the lowest measurement stands, so that peaks don't count.
    The score is the share of steps from block to block that go up, or that share of the newer half alone where it is
    smaller: something that has filled up and stays there scores 0, a single step little. A step goes up if it brings
    at least a quarter of an even share of the whole rise.
    """
    readings = _readings(history)
    if readings is None:
        return 0.0
    slope, level = robust_line(readings)
    rise, material = _change(readings), _material(level, least_bytes)
    if slope <= 0 or rise <= 0:
        return 0.0
    if rise < material:
        return IMMATERIAL_SCORE * rise / material
    floors = _floors(readings, _BLOCKS)
    even = rise / (len(floors) - 1)
    up = [later - earlier >= even / 4 for earlier, later in pairwise(floors)]
    newer = up[len(up) // 2 :]
    return min(sum(up) / len(up), sum(newer) / len(newer))


def _readings(history: History) -> list[Reading] | None:
    readings: list[Reading] = []
    for time, value in _known(history):
        if not readings or time > readings[-1].time:
            readings.append(Reading(time, float(value)))
    return readings if len(readings) >= LEAST_READINGS else None


def _known(history: History) -> list[tuple[float, float]]:
    """Without the readings that failed."""
    return [(time, value) for time, value in history if value is not None and math.isfinite(value)]


def _material(level: float, least_bytes: float) -> float:
    return max(least_bytes, LEAST_GROWTH_SHARE * level)


def _change(readings: list[Reading]) -> float:
    """From the floor of the first quarter to that of the last: bytes."""
    quarter = max(2, len(readings) // 4)
    return min(r.value for r in readings[-quarter:]) - min(r.value for r in readings[:quarter])


def _floors(readings: list[Reading], blocks: int) -> list[float]:
    count = min(blocks, len(readings) // 2)
    edges = [len(readings) * index // count for index in range(count + 1)]
    return [min(r.value for r in readings[start:end]) for start, end in pairwise(edges)]
