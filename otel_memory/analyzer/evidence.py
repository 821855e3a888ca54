"""The pieces of evidence for a leak: few, each larger the more it speaks for a leak, each to be seen on the chart.

Owns what is measured of each series and its scale. Never weighs the pieces against one another: that is scoring's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_memory.analyzer import cycles, envelope, shapes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TERMS: Final = ("lowest", "recent", "sure", "steady", "material", "even", "unforced")
"""``lowest``: log odds that the floor, without passing bumps and single jumps, still grows at the end. ``recent``: the
same for its last five eighths alone. ``sure``: the slope of the floor at the end over its error, as far as the floor
grows at all, by time or by work. ``steady``: the rise over the last five eighths against the whole rise; near 1 where
it came evenly or late, 0 where it stopped. ``material``: the growth over one window against the level. ``even``: the
share of the rise that is not one jump. ``unforced``: 0, or less the more the load rose towards the end (-1: four times
and more). All from -1 to 1, and less the shorter the history is (``history``)."""

_LOG_ODDS: Final = 5.0
_FULL_HISTORY: Final = 512
_LEAST_HISTORY: Final = 0.5
_TOO_OLD: Final = 8.0
"""Times the level that growth like this would have come to since the process began, from which on it must be new."""
_JUMP_TIMES: Final = 5.0
_JUMP_SHARE: Final = 0.12
RECENT: Final = 5 / 8
LATE: Final = 9 / 16
"""The share of the window between the two places at which ``late_rise`` is taken: the middle of the last eighth, and
where the last five eighths begin."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of each series: ``terms`` (columns as ``TERMS``) and what they were made of.

    ``history``: what the evidence counts; ``new`` (0-1): how sure it is that the growth is younger than the process;
    ``classes`` are the weights of the shapes of the floor by time, ``recent`` those of its last part; ``slope`` and
    ``slope_sd`` By/s at the end; ``rise`` and ``late_rise`` (bytes) those over the whole and over the later
    ``LATE`` of it; ``wobble`` (bytes) what comes and goes, ``unrest`` (bytes) how much of it
    the floor still shows; ``jump`` (bytes) the largest rise from one bucket to the
    next but one; ``floor`` the floor less cycles and load; ``since`` the share of the grid at which the growth begins;
    ``turning`` the share at which the best shape of any class changes; ``load_change`` the load of the last part over
    that of the first, less 1 (NaN where unknown)."""

    terms: Floats
    history: Floats
    new: Floats
    classes: Floats
    recent: Floats
    slope: Floats
    slope_sd: Floats
    independent: Floats
    rise: Floats
    late_rise: Floats
    wobble: Floats
    unrest: Floats
    jump: Floats
    floor: Floats
    since: Floats
    turning: Floats
    load_change: Floats
    grid: envelope.Grid


def history(samples: Ints, new: Floats) -> Floats:
    """What the evidence of so many samples counts: all of it from ``_FULL_HISTORY`` on, half of it at the least that is
    judged, none of it there where the growth is ``new``. What has grown for a few samples only may be anything; and
    what an old process has not done before, it probably does not go on with."""
    known = np.log2(np.maximum(samples, 1) / envelope.MIN_SAMPLES) / np.log2(_FULL_HISTORY / envelope.MIN_SAMPLES)
    least = _LEAST_HISTORY * (1 - new)
    return np.asarray(least + (1 - least) * np.clip(known, 0.0, 1.0))


def newness(slope: Floats, age: Floats, level: Floats) -> Floats:
    """How sure it is that growth of ``slope`` (By/s) is younger than the process of ``age`` (s): 0 where it could have
    made up all of its ``level`` (bytes) at most, 1 where it would have come to ``_TOO_OLD`` times that. 0 where the age
    is not known."""
    times = np.maximum(slope, 0) * np.nan_to_num(age, nan=0.0) / level
    return np.asarray(np.clip(np.log2(np.maximum(times, 1)) / np.log2(_TOO_OLD), 0.0, 1.0))


def grain(floor: Floats) -> Floats:
    """The deviation (bytes) below which differences tell nothing: a hundredth of the range, a part in 5,000 of the
    level."""
    return np.asarray(np.maximum(np.maximum(0.01 * np.ptp(floor, axis=1), 2e-4 * floor.mean(axis=1)), 1.0))


def steadied(floor: Floats, slope: Floats) -> Floats:
    """The middle one of three slopes per grid length: that of the shapes at the end, and the middle slope between any
    two buckets (Theil 1950, Sen 1968) of the later half and of the later three quarters. Where the three lie apart, no
    one of them decides."""
    found = [slope]
    for begin in (floor.shape[1] // 4, floor.shape[1] // 2):
        part = floor[:, begin:]
        first, second = _pairs(part.shape[1])
        slopes = (part[:, second] - part[:, first]) * (floor.shape[1] / (second - first))
        found.append(np.median(slopes, axis=1))
    return np.asarray(np.median(np.stack(found), axis=0))


@lru_cache(maxsize=8)
def _pairs(count: int) -> tuple[Ints, Ints]:
    """Pairs of buckets that lie at least a third of all apart: nearer ones tell mostly of what comes and goes."""
    first, second = np.triu_indices(count, max(count // 3, 1))
    return first, second


def without_jumps(floor: Floats) -> Floats:
    """The floor as if its two largest upward jumps, where they stand out, had been as high as its middle step."""
    steps = np.diff(floor, axis=1)
    middle = np.median(steps, axis=1, keepdims=True)
    usual = np.median(np.abs(steps - middle), axis=1, keepdims=True)
    high = np.maximum(middle + _JUMP_TIMES * usual, _JUMP_SHARE * np.ptp(floor, axis=1, keepdims=True))
    second = np.partition(steps, -2, axis=1)[:, -2:-1]
    steps = np.where((steps >= second) & (steps > high), middle, steps)
    return np.concatenate([floor[:, :1], floor[:, :1] + np.cumsum(steps, axis=1)], axis=1)


def gather(rows: Sequence[envelope.Life], count: int) -> Evidence:
    """The evidence of lives that all have work or all have none, on grids of ``count`` buckets."""
    grid = envelope.grid(rows, count)
    floor, period, fitted = _fit(grid, grid.floor)
    sure, z = fitted.weights[:, shapes.GROWING], fitted.z
    if grid.rate is not None:
        work_grid = envelope.grid(rows, count, by_work=True)
        _, _, by_work = _fit(work_grid, work_grid.floor)
        also = by_work.weights[:, shapes.GROWING]
        sure, z = np.maximum(sure, also), np.where(also > sure, by_work.z, z)
    below = envelope.opened(cycles.lowest_of_cycle(grid.floor, period))
    _, _, by_lowest = _fit(grid, without_jumps(below))
    past = count - int(RECENT * count)
    by_recent = _fit_recent(grid, below, past)

    seconds = np.maximum(grid.seconds, 1e-9)
    level = np.maximum(floor.mean(axis=1), 1.0)
    adjusted = fitted.adjusted
    eighth = max(count // 8, 2)
    head, tail = np.median(adjusted[:, :eighth], axis=1), np.median(adjusted[:, -eighth:], axis=1)
    old = np.median(adjusted[:, past - eighth // 2 : past + (eighth + 1) // 2], axis=1)
    rise, late_rise = tail - head, tail - old
    unrest = np.maximum(fitted.residual, grain(floor))
    wobble = unrest + 0.5 * np.nan_to_num(grid.spread)
    whole = np.maximum(np.abs(rise), 2 * wobble)
    jump = np.max(adjusted[:, 2:] - adjusted[:, :-2], axis=1)
    terms = np.stack(
        [
            _log_odds(by_lowest.weights[:, shapes.GROWING]),
            _log_odds(by_recent.weights[:, shapes.GROWING]),
            sure * np.sign(z) * np.log1p(np.minimum(np.abs(z), 30)) / np.log(31),
            np.clip(2 * late_rise / whole, -1, 1),
            np.clip(np.log10(np.maximum(np.maximum(fitted.slope, 0) / level, 1e-4)) / 2 + 1, -1, 1),
            1 - np.clip(jump / whole, 0, 1),
            -_load_rose(grid, eighth, past),
        ],
        axis=1,
    )
    new = newness(fitted.slope / seconds, grid.age, level)
    known = history(grid.looks, new)
    terms *= (known * grid.worth)[:, None]
    return Evidence(
        terms=terms,
        history=known,
        new=new,
        classes=fitted.weights,
        recent=by_recent.weights,
        slope=steadied(adjusted, fitted.slope) / seconds,
        slope_sd=fitted.slope_sd / seconds,
        independent=fitted.independent,
        rise=rise,
        late_rise=late_rise,
        wobble=wobble,
        unrest=unrest,
        jump=jump,
        floor=adjusted,
        since=fitted.since,
        turning=shapes.shapes(count).since[fitted.best],
        load_change=_load_change(grid, eighth),
        grid=grid,
    )


def _fit(grid: envelope.Grid, floor: Floats) -> tuple[Floats, Ints, shapes.Fit]:
    floor, period = cycles.without_cycles(floor)
    load = None if grid.rate is None else cycles.followed(floor, grid.rate)
    return floor, period, shapes.fit(floor, grain(grid.floor), grid.samples, load)


def _fit_recent(grid: envelope.Grid, below: Floats, past: int) -> shapes.Fit:
    floor = without_jumps(below[:, past:])
    load = None if grid.rate is None else cycles.followed(below, grid.rate)[:, past:]
    samples = (grid.samples * RECENT).astype(np.int64)
    return shapes.fit(cycles.without_cycles(floor)[0], grain(floor), samples, load)


def _log_odds(growing: Floats) -> Floats:
    p = np.clip(growing, 1e-3, 1 - 1e-3)
    return np.clip(np.log(p / (1 - p)) / _LOG_ODDS, -1, 1)


def _load_rose(grid: envelope.Grid, part: int, past: int) -> Floats:
    if grid.rate is None:
        return np.zeros(len(grid.floor))
    before = grid.rate[:, past - part // 2 : past + (part + 1) // 2].mean(axis=1)
    usual = np.minimum(np.median(grid.rate, axis=1), before)
    last = grid.rate[:, -part:].mean(axis=1)
    rose: Floats = np.clip(np.log2(np.maximum(last, 1e-9) / np.maximum(usual, 1e-9)) / 2, 0, 1)
    return rose


def _load_change(grid: envelope.Grid, part: int) -> Floats:
    if grid.rate is None:
        return np.full(len(grid.floor), np.nan)
    first, last = grid.rate[:, :part].mean(axis=1), grid.rate[:, -part:].mean(axis=1)
    return np.where(first > 0, last / np.maximum(first, 1e-12) - 1, np.nan)
