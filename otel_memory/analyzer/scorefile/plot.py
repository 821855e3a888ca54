"""Draws the series of a file with what was found of them. Needs matplotlib (the extra ``plot``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from otel_memory import humanize
from otel_memory.analyzer.scorefile.reading import Named
from otel_memory.analyzer.scoring import ScoreResult

SUFFIXES: Final = (".png", ".svg")
MOST: Final = 24
"""Series on one picture: the worst ones."""
_POINTS: Final = 2000


class CanNotDraw(Exception):
    """There is no picture; the message says why and what to do."""


def draw(path: Path, found: Sequence[tuple[Named, ScoreResult]]) -> None:
    """One panel for each series, in the order given, at most ``MOST``. Raises ``CanNotDraw``."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CanNotDraw("--plot needs matplotlib.\n  mend: pip install 'otel-memory[plot]'") from error
    shown = found[:MOST]
    columns = math.ceil(math.sqrt(len(shown) / 2)) if len(shown) > 1 else 1
    rows = math.ceil(len(shown) / columns)
    # So that the same series give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "otel-memory", "font.size": 8}):
        figure = Figure(figsize=(6.4 * columns, 2.6 * rows + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (named, result) in zip(panels, shown, strict=False):
            _panel(panel, named, result)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
        except OSError as error:
            raise CanNotDraw(f"{path} can't be written: {error.strerror or error}") from error


def _panel(panel: Any, named: Named, result: ScoreResult) -> None:
    times, values = named.series.times, named.series.values
    good = np.isfinite(times) & np.isfinite(values)
    order = np.argsort(times[good], kind="stable")
    times, values = times[good][order], values[good][order]
    title = f"{humanize.printable(named.name)[:60]}  ·  score {result.score:.2f}"
    panel.set_title(title, loc="left", fontsize=9, parse_math=False)
    panel.set_xlabel(
        humanize.printable(result.reasons[0])[:110] if result.reasons else "", fontsize=7, parse_math=False
    )
    if not len(times):
        return
    unit, divisor = _unit(float(values.max()))
    hours = (times - times[0]) / 3600
    stride = max(len(times) // _POINTS, 1)
    panel.plot(hours[::stride], values[::stride] / divisor, linewidth=0.8, color="#4269d0")
    panel.set_ylabel(unit)
    if result.since is not None and result.growth_rate > 0:
        end, since = float(times[-1]), max(float(result.since), float(times[0]))
        level = float(np.min(values[-max(len(values) // 16, 1) :]))
        line = np.array([level - result.growth_rate * (end - since), level]) / divisor
        panel.plot([(since - times[0]) / 3600, hours[-1]], line, linewidth=1.6, color="#e4572e")
    limit = named.series.limit
    if limit is not None and math.isfinite(limit) and limit <= 2 * float(values.max()):
        panel.axhline(limit / divisor, linewidth=1, color="#888888", linestyle="--")
    panel.margins(x=0.01)
    panel.grid(alpha=0.3)
    panel.text(0.99, 1.02, "h", transform=panel.transAxes, ha="right", fontsize=7)


def _unit(largest: float) -> tuple[str, float]:
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if largest >= size:
            return name, size
    return "B", 1.0
