"""From samples to the floor: what stays in use when garbage, peaks and restarts are taken away.

Owns the cleaning of samples, the lives of a process that was restarted, and the lower envelope on a grid of equal
buckets of time or of work. Never judges what the floor does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_SAMPLES: Final = 24
"""Fewer samples of one life than this are not judged."""
_GRIDS: Final = ((160, 64), (56, 32), (0, 16))
"""(samples, buckets): from that many samples on, that many buckets, so that a bucket holds several samples."""
_SMOOTHER: Final = 0.6
"""The mean of each bucket is the floor where it wavers less than this share of what the least value does: then noise
comes and goes, and no garbage."""


class SeriesInput(NamedTuple):
    """One series to score: event times (s), values (bytes), the limit (bytes) and covariates aligned with times."""

    times: Floats
    values: Floats
    limit: float | None = None
    covariates: Mapping[str, Floats] | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """The samples of one life of a process: clean, in order of time. ``work`` counts requests since its beginning
    (None where unknown). ``floor`` is what collections lay bare (else the values), of ``samples`` independent looks;
    ``worth`` (0-1) how much growth counts that may still be given back. ``age``: seconds since the process began, at
    the last sample (NaN where unknown). ``whole``: its beginning was seen."""

    times: Floats
    values: Floats
    work: Floats | None
    floor: Floats
    samples: int
    worth: float = 1.0
    age: float = math.nan
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Lives on a common grid; one row a life. ``floor`` is the least value of each bucket or, where it wavers much
    less, the mean; ``spread`` the middle height of what comes and goes above the least one, ``rate`` the work per
    second, ``begin``/``end`` event times, ``looks`` how many samples there are, ``samples`` how many of them the floor
    is made of, ``worth`` and ``age`` as those of the lives."""

    floor: Floats
    spread: Floats
    rate: Floats | None
    moment: Floats
    begin: Floats
    end: Floats
    samples: Ints
    looks: Ints
    worth: Floats
    age: Floats

    @property
    def seconds(self) -> Floats:
        return self.end - self.begin


def clean(series: SeriesInput) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Finite, non-negative samples in order of time; of equal times the last one. Covariates follow."""
    times = np.asarray(series.times, dtype=np.float64).ravel()
    values = np.asarray(series.values, dtype=np.float64).ravel()
    n = min(len(times), len(values))
    times, values = times[:n], values[:n]
    columns = {}
    for name, column in (series.covariates or {}).items():
        array = np.asarray(column, dtype=np.float64).ravel()
        if len(array) == n:
            columns[name] = array
    # Beyond a float's exact integers squares would overflow; no process holds 2**60 bytes.
    good = (values >= 0) & (values < 2.0**60) & (np.abs(times) < 2.0**60)
    if not good.all():
        times, values = times[good], values[good]
        columns = {name: column[good] for name, column in columns.items()}
    if len(times) > 1 and not (times[1:] > times[:-1]).all():
        order = np.argsort(times, kind="stable")
        last = np.append(np.diff(times[order]) > 0, True)
        order = order[last]
        times, values = times[order], values[order]
        columns = {name: column[order] for name, column in columns.items()}
    return times, values, columns


def buckets(samples: int) -> int:
    """How many buckets a life of that many samples is divided into."""
    return next(count for least, count in _GRIDS if samples >= least)


def grid(rows: Sequence[Life], count: int, by_work: bool = False) -> Grid:
    """The floor of each life on ``count`` equal buckets of its time or, with ``by_work``, of its work."""
    sizes = np.array([len(life.times) for life in rows], dtype=np.int64)
    ends = np.cumsum(sizes)
    begins = ends - sizes
    times = np.concatenate([life.times for life in rows])
    row = np.repeat(np.arange(len(rows)), sizes)
    works = [life.work for life in rows]
    work = np.concatenate([w for w in works if w is not None]) if all(w is not None for w in works) else None
    clock = work if by_work and work is not None else times
    first, last = clock[begins], clock[ends - 1]
    width = np.maximum(last - first, 1e-9)
    bucket = np.minimum(((clock - first[row]) / width[row] * count).astype(np.int64), count - 1)
    cell = row * count + bucket
    edges = np.concatenate(([0], np.flatnonzero(cell[1:] != cell[:-1]) + 1))
    held = cell[edges]
    shape = (len(rows), count)

    def spread_out(reduced: Floats) -> Floats:
        flat = np.full(len(rows) * count, np.nan)
        flat[held] = reduced
        return flat.reshape(shape)

    floors = np.concatenate([life.floor for life in rows])
    counts = np.diff(np.append(edges, len(cell)))
    low = spread_out(np.minimum.reduceat(floors, edges))
    high = spread_out(np.maximum.reduceat(floors, edges))
    mean = spread_out(np.add.reduceat(floors, edges) / counts)
    moment = spread_out(np.add.reduceat(times, edges) / counts)
    empty = np.isnan(low)
    height = np.where(empty, np.nan, high - low)
    begin, end = times[begins], times[ends - 1]
    if empty.any():
        low, mean, moment = _fill(low, empty), _fill(mean, empty), _fill(moment, empty)
    rate = None
    if work is not None:
        done = spread_out(np.add.reduceat(work, edges) / counts)
        if empty.any():
            done = _fill(done, empty)
        rate = _slope(done, moment)
    smoother = _wavers(mean) < _SMOOTHER * _wavers(low)
    return Grid(
        np.where(smoother[:, None], mean, low),
        # The one that minds gaps takes ten times as long.
        np.nanmedian(height, axis=1) if empty.any() else np.median(height, axis=1),
        rate,
        moment,
        begin,
        end,
        np.array([life.samples for life in rows]),
        sizes,
        np.array([life.worth for life in rows]),
        np.array([life.age for life in rows]),
    )


def _wavers(values: Floats) -> Floats:
    """The middle bend from bucket to bucket, whatever the trend."""
    return np.asarray(np.median(np.abs(values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]), axis=1))


def _fill(values: Floats, empty: NDArray[np.bool_]) -> Floats:
    """Straight lines over empty buckets. The first and the last bucket are never empty."""
    position = np.arange(values.shape[1])
    before = np.maximum.accumulate(np.where(empty, 0, position), axis=1)
    after = np.minimum.accumulate(np.where(empty, values.shape[1] - 1, position)[:, ::-1], axis=1)[:, ::-1]
    low, high = np.take_along_axis(values, before, 1), np.take_along_axis(values, after, 1)
    share = (position - before) / np.maximum(after - before, 1)
    return np.asarray(low + (high - low) * share)


def _slope(done: Floats, moment: Floats) -> Floats:
    """Work per second at each bucket, from its neighbours."""
    rate = np.empty_like(done)
    rate[:, 1:-1] = (done[:, 2:] - done[:, :-2]) / np.maximum(moment[:, 2:] - moment[:, :-2], 1e-9)
    rate[:, 0], rate[:, -1] = rate[:, 1], rate[:, -2]
    return rate


def opened(floor: Floats) -> Floats:
    """The floor without bumps narrower than an eighth of the grid: a morphological opening (Serra 1982). What only
    rises is left as it is; a bump that has not ended yet stays."""
    half = max(floor.shape[1] // 16, 1)
    padded = np.pad(floor, ((0, 0), (2 * half, 2 * half)), constant_values=np.inf)
    eroded = sliding_window_view(padded, 2 * half + 1, axis=1).min(axis=2)
    return np.asarray(sliding_window_view(eroded, 2 * half + 1, axis=1).max(axis=2))
