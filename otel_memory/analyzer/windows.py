"""Bounded columns of one number over time, and cumulative counts made monotone.

Owns the memory that a series may take and the order of its samples. A gap stays a gap: nothing is filled in or
interpolated. Never knows what a metric means.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_memory.analyzer.model import PointKind

Floats = NDArray[np.float64]


class Level(NamedTuple):
    """One resolution of a window: seconds of a bucket (0: raw samples) and how many are kept."""

    bucket_seconds: float
    capacity: int


LEVELS: Final = (Level(0.0, 256), Level(15.0, 256), Level(180.0, 256))
"""256 raw samples (4 min at 1 s, 4 h at 60 s), then about 1 h and about 13 h."""

Keep = Literal["minimum", "last"]
_BYTES_OF_A_FLOAT: Final = 8


class _Column:
    """Times and values of one level. Trimmed in batches: ``del`` at the front moves what remains."""

    __slots__ = ("bucket_seconds", "capacity", "slack", "bucket_end", "idle", "times", "values")

    def __init__(self, level: Level) -> None:
        self.bucket_seconds = level.bucket_seconds
        self.capacity = level.capacity
        self.slack = level.capacity + max(level.capacity // 8, 1)
        self.bucket_end = float("-inf")
        """Where the bucket of the youngest sample ends (s)."""
        self.idle = False
        """While no bucket has had two samples the raw ones say the same, and nothing is kept here."""
        self.times: array[float] = array("d")
        self.values: array[float] = array("d")

    def push(self, time: float, value: float) -> None:
        self.times.append(time)
        self.values.append(value)
        if len(self.times) >= self.slack:
            self.trim()

    def begin(self, raw: _Column) -> None:
        """Go on by itself from the samples that there are."""
        self.idle = False
        self.times, self.values = raw.times[:], raw.values[:]
        if self.times:
            self.bucket_end = (self.times[-1] // self.bucket_seconds + 1) * self.bucket_seconds

    def trim(self) -> None:
        excess = len(self.times) - self.capacity
        del self.times[:excess]
        del self.values[:excess]

    def view(self) -> tuple[Floats, Floats]:
        # A copy: an array can't grow while its buffer is lent out.
        times = np.frombuffer(self.times, np.float64)[-self.capacity :].copy()
        values = np.frombuffer(self.values, np.float64)[-self.capacity :].copy()
        return times, values


class Window:
    """The recent past of one number, at several resolutions.

    Coarser levels keep, of each bucket of time, the smallest sample with its own time (``keep="minimum"``, for
    levels: what a leak raises is the floor) or the last one (``keep="last"``, for cumulative counts). The
    youngest bucket is provisional until the next one begins.
    """

    __slots__ = ("_raw", "_coarse", "_minimum", "_amended", "last_time", "dropped")

    def __init__(self, keep: Keep = "minimum", levels: tuple[Level, ...] = LEVELS) -> None:
        self._raw = _Column(levels[0])
        self._coarse = tuple(_Column(level) for level in levels[1:])
        for column in self._coarse:
            column.idle = column.capacity == self._raw.capacity
        self._minimum = keep == "minimum"
        self._amended = float("-inf")
        self.last_time = float("-inf")
        self.dropped = 0
        """Samples refused because they were not younger than the last one."""

    def append(self, time: float, value: float) -> bool:
        """Take one sample if it is younger than all before; else drop and count it."""
        if time <= self.last_time:
            self.dropped += 1
            return False
        gap = time - self.last_time
        self.last_time = time
        raw = self._raw
        for column in self._coarse:
            if column.idle:
                if gap >= column.bucket_seconds:
                    continue
                column.begin(raw)
            if time >= column.bucket_end:
                column.bucket_end = (time // column.bucket_seconds + 1) * column.bucket_seconds
                column.push(time, value)
            elif not self._minimum or value < column.values[-1]:
                column.times[-1] = time
                column.values[-1] = value
        # As ``push``, without the call: this runs for every point that is kept.
        raw.times.append(time)
        raw.values.append(value)
        if len(raw.times) >= raw.slack:
            raw.trim()
        return True

    def put(self, time: float, value: float) -> bool:
        """As ``append``, but a sample of the same time as the last one replaces it: the rest of a sum came late."""
        if time != self.last_time or not self._raw.values:
            return self.append(time, value)
        self._raw.values[-1] = value
        self._amended = time
        for column in self._coarse:
            # Where the incomplete sum was the bucket's smallest, the one before it is no longer known.
            if column.idle:
                continue
            if not self._minimum or column.times[-1] == time or value < column.values[-1]:
                column.times[-1] = time
                column.values[-1] = value
        return True

    def forget_before(self, time: float) -> None:
        """Let go of every sample older than ``time`` (s, where a bucket of every level begins); the time of the last
        one stays known."""
        for column in (self._raw, *self._coarse):
            first = bisect_left(column.times, time)
            if first:
                del column.times[:first]
                del column.values[:first]
            if not column.times:
                # The bucket's own sample is gone: what comes now begins it again.
                column.bucket_end = float("-inf")

    def span(self, level: int = 0) -> float:
        """Seconds from the oldest sample of one level to the youngest."""
        times = self._column(level).times
        return times[-1] - times[max(len(times) - self._column(level).capacity, 0)] if times else 0.0

    def arrays(self, level: int = 0) -> tuple[Floats, Floats]:
        """Copies of times (s) and values of one level, oldest first."""
        return self._column(level).view()

    def since(self, time: float) -> tuple[list[float], list[float]]:
        """The raw samples younger than ``time``; also the one of that time if it was replaced after it came in."""
        first = (bisect_left if self._amended == time else bisect_right)(self._raw.times, time)
        return self._raw.times[first:].tolist(), self._raw.values[first:].tolist()

    def at(self, times: Floats, level: int = 0, tolerance: float = 0.0) -> Floats:
        """The last value at or before each of ``times`` (or ``tolerance`` seconds after); NaN before the first."""
        known, values = self._column(level).view()
        if not len(known):
            return np.full(len(times), np.nan)
        index = np.searchsorted(known, times + tolerance, side="right") - 1
        return np.where(index >= 0, values[np.maximum(index, 0)], np.nan)

    def between(self, times: Floats, level: int) -> Floats:
        """A cumulative count at each of ``times``, by a straight line between the samples that a coarser level keeps
        (and the raw ones, as far back as they reach); NaN before the first, the last value after the last.

        For samples of another series that fall anywhere inside the buckets: ``at`` would be off by up to a bucket,
        which is as much as the work that is done in one.
        """
        known, values = self._column(level).view()
        fine, fine_values = self._raw.view()
        if len(fine) and len(known):
            older = known < fine[0]
            known, values = np.concatenate([known[older], fine]), np.concatenate([values[older], fine_values])
        if not len(known):
            return np.full(len(times), np.nan)
        return np.asarray(np.interp(times, known, values, left=np.nan))

    @property
    def last_value(self) -> float | None:
        """The youngest sample, None while there is none."""
        return self._raw.values[-1] if self._raw.values else None

    def __len__(self) -> int:
        return min(len(self._raw.times), self._raw.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples held."""
        kept = len(self._raw.times) + sum(len(column.times) for column in self._coarse)
        return 2 * _BYTES_OF_A_FLOAT * kept

    def _column(self, level: int) -> _Column:
        column = self._coarse[level - 1] if level else self._raw
        return self._raw if column.idle else column


def spacing_of(times: Floats) -> float:
    """The middle one of the times (s) between two samples; 0 where there are none. As ``numpy.median``, which takes ten
    times as long for so few numbers."""
    gaps = np.sort(times[1:] - times[:-1])
    count = len(gaps)
    return float((gaps[(count - 1) // 2] + gaps[count // 2]) / 2) if count else 0.0


class Reset(NamedTuple):
    """A stream began anew at ``at``, after a sample at ``last_time`` of a stream that had begun at ``last_start``."""

    at: float
    last_time: float
    last_start: float | None


class Counted:
    """One cumulative or delta stream turned into increments.

    A cumulative stream was reset when its start moved to after the sample before, or when a monotonic one fell:
    what it shows then has been counted since the reset (OpenTelemetry's data model, "Resets and Gaps"). A start
    that moves elsewhere is jitter of the sender's clock and is ignored.
    """

    __slots__ = ("_monotonic", "last_time", "_value", "_start", "reset")

    def __init__(self, monotonic: bool = True) -> None:
        self._monotonic = monotonic
        self.last_time = float("-inf")
        self._value = 0.0
        self._start: float | None = None
        self.reset: Reset | None = None
        """The youngest reset, None while there was none."""

    def increment(self, time: float, start: float | None, value: float, kind: PointKind) -> float | None:
        """What this point adds, None if it is late or was seen before. The first point adds all that it shows."""
        previous = self.last_time
        if time <= previous:
            return None
        if kind == "delta":
            self.last_time = time
            return value
        first = previous == float("-inf")
        restarted = not first and start is not None and start != self._start and start >= previous
        fell = not first and self._monotonic and value < self._value
        added = value if first or restarted or fell else value - self._value
        if restarted or fell:
            at = start if start is not None and start >= previous else previous
            self.reset = Reset(at, previous, self._start)
        self.last_time, self._value, self._start = time, value, start
        return added
