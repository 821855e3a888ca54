"""The lives of a process that was restarted, and in each of them what stays after full collections.

Owns where one life ends and the next begins, and the floor that collections lay bare. Never judges what it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_memory.analyzer.envelope import MIN_SAMPLES, Life, SeriesInput, clean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RESTART_SECONDS: Final = 1.0
_NO_TIME: Final = 2.0**60
_RESTART_DROP: Final = 0.35
_LEVEL_DROP: Final = 0.05
"""A fall by so much ends a life that had been level; by more than ``_RESTART_DROP`` any life."""
_LEVEL_RISE: Final = 0.25
"""A life was level before it ended if its second half rose by less than this share of the fall."""
_STANDS_OUT: Final = 6.0
_MAX_EARLIER_LIVES: Final = 3
_MOST_RESTARTS: Final = 8
"""More falls than this in one window are a collector's, not restarts."""
_FROM_THE_START: Final = 0.02
"""The beginning of a life was seen if the share of it that passed before its first sample is no more than this."""
_LEAST_TEETH: Final = 3
_ENOUGH_TEETH: Final = 6
"""Of a saw so many teeth must be seen for its floor to be worth as much as one that is seen all the time."""
_LEAST_TOOTH: Final = 4
_UP: Final = 0.2
_TOOTH: Final = 0.35
"""A fall of so much of the range is one of a saw."""
_AT_ONCE: Final = 0.6
_GAP: Final = 3.0
_SAW: Final = 0.5
"""Collections lay the floor bare if what they free makes up at least this share of what comes and goes."""


def lives(series: SeriesInput) -> list[Life]:
    """The lives of one process, oldest first; the last one is the present.

    A new life begins where the start time jumps. Where no start time is known, it begins where the value falls at once
    by more than a third to near its least, or falls out of a life that had been level to below all of that; unless it
    does so all the time.
    """
    times, values, columns = clean(series)
    if not len(times):
        return []
    edges = [0, *_breaks(values, columns), len(times)]
    first = max(len(edges) - 2 - _MAX_EARLIER_LIVES, 0)
    return [_life(times, values, columns, a, b) for a, b in zip(edges[first:-1], edges[first + 1 :], strict=True)]


def _life(times: Floats, values: Floats, columns: Mapping[str, Floats], a: int, b: int) -> Life:
    requests, collections = columns.get("requests"), columns.get("gc_gen2")
    work = None if requests is None else _work(requests[a:b])
    own = values[a:b]
    floor, samples, worth = own, b - a, 1.0
    if b - a >= MIN_SAMPLES:
        edges = _teeth(times[a:b], own, None if collections is None else collections[a:b])
        if len(edges):
            floor, samples = _floor_after(own, edges)
            worth = min((len(edges) + 1) / _ENOUGH_TEETH, 1.0)
    seconds = float(times[b - 1] - times[a])
    start = columns.get("start_time")
    known = start is not None and abs(start[b - 1]) < _NO_TIME
    age = float(times[b - 1] - start[b - 1]) if known and start is not None else math.nan
    whole = a > 0 or age - seconds <= _FROM_THE_START * seconds
    return Life(times[a:b], own, work, floor, samples, worth, age, whole)


def as_before(before: Life, life: Life) -> float:
    """Which share (0-1) of what ``life`` rose over its later half ``before`` had risen at the same age too. 0 where
    that can't be said, as the beginning of ``before`` was not seen."""
    age, age_before = life.times - life.times[0], before.times - before.times[0]
    if not before.whole or age[-1] > age_before[-1]:
        return 0.0
    then = np.interp(age, age_before, before.floor)
    part = max(len(age) // 8, 2)
    middle = slice((len(age) - part) // 2, (len(age) + part) // 2)
    rose = float(np.median(life.floor[-part:]) - np.median(life.floor[middle]))
    rose_before = float(np.median(then[-part:]) - np.median(then[middle]))
    return float(np.clip(rose_before / rose, 0.0, 1.0)) if rose > 0 else 0.0


def _breaks(values: Floats, columns: Mapping[str, Floats]) -> list[int]:
    start = columns.get("start_time")
    if start is not None and len(known := np.flatnonzero(np.abs(start) < _NO_TIME)):
        return [int(at) for at in known[1:][np.abs(np.diff(start[known])) > _RESTART_SECONDS]]
    fell = values[1:] < (1 - _LEVEL_DROP) * values[:-1]
    falls = list(_falls(values, np.flatnonzero(fell) + 1)) if fell.any() else []
    return falls if len(falls) <= _MOST_RESTARTS else []


def _falls(values: Floats, candidates: Ints) -> Iterator[int]:
    steps = np.abs(np.diff(values))
    usual = float(np.quantile(steps, 0.98)) if len(steps) > 2 else 0.0
    least = 1.2 * float(values.min())
    begin = 0
    for at in candidates.tolist():
        before, now = float(values[at - 1]), float(values[at])
        if now < (1 - _RESTART_DROP) * before and now < least:
            yield at
            begin = at
            continue
        fall = before - now
        second = values[begin + (at - begin) // 2 : at]
        if len(second) < MIN_SAMPLES // 2 or fall < _STANDS_OUT * usual or now >= float(second.min()) - 0.5 * fall:
            continue
        part = max(len(second) // 4, 1)
        if abs(float(np.median(second[-part:]) - np.median(second[:part]))) < _LEVEL_RISE * fall:
            yield at
            begin = at


def _work(requests: Floats) -> Floats | None:
    """Requests since the beginning, with resets of the counter taken out; None where it tells nothing."""
    known = np.abs(requests) < _NO_TIME
    if known.sum() < MIN_SAMPLES:
        return None
    if not known.all():
        index = np.arange(len(requests))
        requests = np.interp(index, index[known], requests[known])
    done = np.zeros(len(requests))
    np.cumsum(np.maximum(np.diff(requests), 0.0), out=done[1:])
    # Less than one request is no work, and would be divided by.
    return done if done[-1] >= 1 else None


def _teeth(times: Floats, values: Floats, collections: Floats | None) -> Ints:
    """Where memory is given back: the samples right after full collections if they give back what comes and goes, else
    right after falls out of a slow rise. None where memory does not come and go so."""
    none: Ints = np.empty(0, dtype=np.int64)
    count = len(values)
    if collections is not None and (np.abs(collections) < _NO_TIME).all():
        edges = np.flatnonzero(collections[1:] > collections[:-1]) + 1
        # After a gap it isn't known how long ago the collection was.
        gaps = np.diff(times)
        edges = edges[gaps[edges - 1] <= _GAP * np.median(gaps)]
        if len(edges) and count - edges[-1] <= 3 * np.max(np.diff(edges), initial=edges[0]):
            # What is freed shows in the sample after the collection, or is spread over the one after that.
            least = np.minimum(values[edges], values[np.minimum(edges + 1, count - 1)])
            freed = float(np.maximum(values[edges - 1] - least, 0).sum())
            if freed >= _SAW * 0.5 * float(np.abs(np.diff(values)).sum()):
                return edges
    height = float(np.ptp(values))
    steps = np.diff(values)
    edges = np.flatnonzero(steps < -_TOOTH * height) + 1
    if not len(edges):
        return none
    edges = edges[np.append(np.diff(edges) > 1, True)]
    # Out of a slow rise: in the second half of the time before the fall it was up already. A peak's base was not.
    begins = np.append(0, edges[:-1])
    halves = np.stack([(begins + edges) // 2, edges], axis=1).ravel()
    lowest, after = np.minimum.reduceat(values, halves)[::2], values[edges]
    up = (edges - begins >= _LEAST_TOOTH) & (lowest - after > _UP * (values[edges - 1] - after))
    return edges if up.mean() > 0.5 and steps.max() < _TOOTH * height else none


def _floor_after(values: Floats, edges: Ints) -> tuple[Floats, int]:
    """What is in use right after ``edges``, with straight lines between, and of how many looks that is."""
    if len(edges) < _LEAST_TEETH:
        return values, len(values)
    lowest = np.minimum.reduceat(values, edges)
    positions = edges.astype(np.float64)
    if values[0] < lowest[0]:
        positions, lowest = np.append(0.0, positions), np.append(values[0], lowest)
    floor = np.interp(np.arange(len(values)), positions, lowest)
    # What rose at once did so when it did, and not slowly since the collection before.
    steps = np.diff(values)
    for a, b, low, high in zip(positions[:-1].astype(int), positions[1:].astype(int), lowest, lowest[1:], strict=False):
        at = a + int(np.argmax(steps[a:b]))
        if high > low and steps[at] > _AT_ONCE * (high - low):
            floor[a : at + 1], floor[at + 1 : b] = low, high
    return np.minimum(floor, values), len(edges)
