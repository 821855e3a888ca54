"""Remembered readings of one metric, bounded, and their trend. Pure: reads no clock, judges nothing."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import pairwise
from typing import Final, NamedTuple

MAX_READINGS: Final = 600
"""Readings a ring keeps at most; a longer window is kept at a coarser resolution."""
_BLOCKS: Final = 21
LEAST_READINGS: Final = 6
"""Fewer in a window are no trend."""


class Reading(NamedTuple):
    """``time`` in seconds on whatever clock the caller keeps to, ``value`` in the metric's unit."""

    time: float
    value: float


class Growth(NamedTuple):
    """A trend: per second, from the level ``start``, over ``span_seconds``."""

    per_second: float
    start: float
    span_seconds: float


class Ring:
    """The newest readings of one metric, oldest first: at most ``seconds`` of them and at most ``MAX_READINGS``.

    A window too long for that is thinned: a reading that follows too soon takes the place of the one before it,
    so ``latest`` is always the newest. A ring goes on with what ``earlier`` holds.
    """

    __slots__ = ("_first", "_growth", "_seconds", "_spacing", "_times", "_values")

    def __init__(self, seconds: float, earlier: Ring | None = None) -> None:
        self._seconds = seconds
        self._spacing = seconds / (MAX_READINGS - 2)
        # Not objects: each would hold fast the memory around it, which the program has long given back.
        self._times, self._values = array("d"), array("d")
        self._first = 0
        self._growth: dict[float, Growth | None] = {}  # by window; several rules ask for the same one
        for reading in () if earlier is None else earlier.since(float("-inf")):
            self.add(reading.time, reading.value)

    def add(self, time: float, value: float | None) -> None:
        """Remember a reading. ``None`` (it failed) is a gap, and so is one that is not newer than the last."""
        times, values = self._times, self._values
        if value is None or (len(self) and time <= times[-1]):
            return
        if len(self) >= 2 and time - times[-2] < self._spacing:
            times.pop()
            values.pop()
        times.append(time)
        values.append(value)
        self._growth.clear()
        while times[self._first] < time - self._seconds or len(self) > MAX_READINGS:
            self._first += 1
        if self._first >= MAX_READINGS:
            del times[: self._first], values[: self._first]
            self._first = 0

    def __len__(self) -> int:
        return len(self._times) - self._first

    @property
    def latest(self) -> Reading | None:
        """The newest reading."""
        return Reading(self._times[-1], self._values[-1]) if len(self) else None

    def since(self, start: float) -> list[Reading]:
        """The readings at or after ``start``."""
        first = bisect_left(self._times, start, self._first)
        return list(map(Reading, self._times[first:], self._values[first:]))

    def growth(self, window_seconds: float) -> Growth | None:
        """The trend of the newest ``window_seconds``; None until half of them, and six readings, are there."""
        if window_seconds not in self._growth:
            self._growth[window_seconds] = self._measure_growth(window_seconds)
        return self._growth[window_seconds]

    def forget_growth(self) -> None:
        """Keep no trend that was asked for: to be called when all have asked, rather than with the next reading."""
        self._growth.clear()

    def _measure_growth(self, window_seconds: float) -> Growth | None:
        latest = self.latest
        if latest is None:
            return None
        readings = self.since(latest.time - window_seconds)
        span = latest.time - readings[0].time
        if len(readings) < LEAST_READINGS or span < window_seconds / 2:
            return None
        slope, start = robust_line(readings)
        return Growth(slope, start, span)


def robust_line(readings: list[Reading]) -> tuple[float, float]:
    """Slope per second and the line's level at the first reading, by repeated medians.

    The slope is the median over the readings of the median slope from each to all others, the level the median residual
    (Siegel, "Robust regression using repeated medians", Biometrika 1982). Up to half of the readings may lie anywhere
    without moving it, so a spike is no growth. Neither is one step, wherever in the window it stands (a model that is
    loaded, a gap in which the process was stopped): of each reading's slopes the lower median is taken, and the
    readings are odd in number, so that the side of the step that has more of them decides. More than 21 readings are
    first gathered into 21 blocks of equal number, each one's median standing for it, which bounds the cost at 210
    pairs.
    """
    points = _blocks(readings)
    slopes: list[list[float]] = [[] for _ in points]
    for index, earlier in enumerate(points):
        for other in range(index + 1, len(points)):
            later = points[other]
            slope = (later.value - earlier.value) / (later.time - earlier.time)
            slopes[index].append(slope)
            slopes[other].append(slope)
    slope = median_low([median_low(each) for each in slopes])
    origin = readings[0].time
    return slope, median([point.value - slope * (point.time - origin) for point in points])


def _blocks(readings: list[Reading]) -> list[Reading]:
    """An odd number of readings that stand for ``readings``."""
    count = len(readings)
    blocks = min(_BLOCKS, count - (count + 1) % 2)
    if count == blocks:
        return readings
    edges = [count * index // blocks for index in range(blocks + 1)]
    # An odd number in each, so that the median is a reading's value, on one side of a step and never between.
    gathered = [readings[start + (end - start + 1) % 2 : end] for start, end in pairwise(edges)]
    return [Reading(median([r.time for r in block]), median([r.value for r in block])) for block in gathered]


def median(values: list[float]) -> float:
    """As ``statistics.median``, which would be a tenth of a megabyte more in every process."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_low(values: list[float]) -> float:
    """The smaller of the two in the middle."""
    return sorted(values)[(len(values) - 1) // 2]
