"""Remembered readings of one metric, bounded, and their trend. Pure: reads no clock, judges nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import islice, pairwise
from statistics import median
from typing import Final, NamedTuple

MAX_READINGS: Final = 600
"""Readings a ring keeps at most; a longer window is kept at a coarser resolution."""
_BLOCKS: Final = 20
_LEAST_READINGS: Final = 6


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
    so ``latest`` is always the newest.
    """

    __slots__ = ("_growth", "_readings", "_seconds", "_spacing")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spacing = seconds / (MAX_READINGS - 2)
        self._readings: deque[Reading] = deque(maxlen=MAX_READINGS)
        self._growth: dict[float, Growth | None] = {}  # by window; several rules ask for the same one

    def add(self, time: float, value: float | None) -> None:
        """Remember a reading. ``None`` (it failed) is a gap, and so is one that is not newer than the last."""
        readings = self._readings
        if value is None or (readings and time <= readings[-1].time):
            return
        if len(readings) >= 2 and time - readings[-2].time < self._spacing:
            readings.pop()
        readings.append(Reading(time, float(value)))
        self._growth.clear()
        while readings[0].time < time - self._seconds:
            readings.popleft()

    def __len__(self) -> int:
        return len(self._readings)

    @property
    def latest(self) -> Reading | None:
        """The newest reading."""
        return self._readings[-1] if self._readings else None

    def since(self, start: float) -> list[Reading]:
        """The readings at or after ``start``."""
        first = bisect_left(self._readings, start, key=lambda reading: reading.time)
        return list(islice(self._readings, first, None))

    def growth(self, window_seconds: float) -> Growth | None:
        """The trend of the newest ``window_seconds``; None until half of them, and six readings, are there."""
        if window_seconds not in self._growth:
            self._growth[window_seconds] = self._measure_growth(window_seconds)
        return self._growth[window_seconds]

    def _measure_growth(self, window_seconds: float) -> Growth | None:
        latest = self.latest
        if latest is None:
            return None
        readings = self.since(latest.time - window_seconds)
        span = latest.time - readings[0].time
        if len(readings) < _LEAST_READINGS or span < window_seconds / 2:
            return None
        slope, start = robust_line(readings)
        return Growth(slope, start, span)


def robust_line(readings: list[Reading]) -> tuple[float, float]:
    """Slope per second and the line's level at the first reading, by the Theil-Sen estimator.

    The slope is the median of the slopes between all pairs (Theil 1950, Sen 1968), the level the median residual.
    Up to 29 % of the readings may lie anywhere without moving it, so neither a spike nor a one-off step early or late
    in the window counts as growth. More than 20 readings are first gathered into 20 blocks of equal number,
    each one's median standing for it, which bounds the cost at 190 pairs.
    """
    points = _blocks(readings)
    slopes = [
        (later.value - earlier.value) / (later.time - earlier.time)
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
    ]
    slope = median(slopes)
    origin = readings[0].time
    return slope, median([point.value - slope * (point.time - origin) for point in points])


def _blocks(readings: list[Reading]) -> list[Reading]:
    count = len(readings)
    if count <= _BLOCKS:
        return readings
    edges = [count * index // _BLOCKS for index in range(_BLOCKS + 1)]
    blocks = [readings[start:end] for start, end in pairwise(edges)]
    return [Reading(median([r.time for r in block]), median([r.value for r in block])) for block in blocks]
