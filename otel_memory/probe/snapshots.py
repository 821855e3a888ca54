"""Snapshots of a process's memory, and a ring that keeps a day of them in bounded memory.

Owns what a snapshot is, how it is written as JSON, and the ring's columns. Reads nothing and starts nothing: who takes
snapshots is in ``profiler.py``. Sizes are bytes; the properties in ``_mb`` give the same in units of 1024 * 1024.
"""

from __future__ import annotations

import json
import math
import os
import sys
import uuid
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from otel_memory.probe.errors import MB
from otel_memory.probe.sources.limits import Pressure
from otel_memory.probe.status import STATUSES, Status

__all__ = ["MAX_CUSTOM", "MemorySnapshot", "SnapshotRing", "write_jsonl"]

MAX_CUSTOM: Final = 16
"""Custom values that a ring keeps at most, by name."""

_PRESSURES: Final = tuple(level.name.lower() for level in Pressure)
_NONE: Final = -1
"""A gap in a column of whole numbers; in one of floats it is NaN. Neither ever leaves the ring."""


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """The memory of one process at one moment; None is "not known", never 0."""

    timestamp: float
    """Seconds since the epoch."""
    rss_bytes: int | None = None
    """Resident bytes."""
    heap_objects: int | None = None
    """Blocks that Python's allocator has handed out (``sys.getallocatedblocks``): objects, and what they hold apart."""
    utilization: float | None = None
    """Share of the limit in use (1 is all of it)."""
    status: Status = "unknown"
    """By use and growth: ``healthy``, ``caution``, ``warning``, ``critical``."""
    pressure: str | None = None
    """``low``, ``medium``, ``high`` or ``critical``."""
    growth_bytes_per_second: float | None = None
    """Of the resident memory, by robust regression over the last two minutes; None until one minute is known."""
    eviction_count: int | None = None
    """Calls of evictors so far."""
    custom: Mapping[str, float] = field(default_factory=dict)
    """Values of the application's own gauges."""

    @property
    def rss_mb(self) -> float | None:
        """``rss_bytes`` in units of 1024 * 1024 bytes."""
        return None if self.rss_bytes is None else self.rss_bytes / MB

    @property
    def usage_percent(self) -> float | None:
        """``utilization`` in per cent."""
        return None if self.utilization is None else self.utilization * 100

    @property
    def growth_rate_mb_per_sec(self) -> float | None:
        """``growth_bytes_per_second`` in units of 1024 * 1024 bytes."""
        return None if self.growth_bytes_per_second is None else self.growth_bytes_per_second / MB

    @property
    def metadata(self) -> Mapping[str, float]:
        """The same as ``custom``."""
        return self.custom

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the fields under their own names."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "custom"} | {
            "custom": dict(self.custom)
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave. Keys that are not fields are passed over, fields that are missing are not known.

        Raises:
            ValueError: there is no timestamp, or no such status.
        """
        known = {name: fields[name] for name in cls.__slots__ if name in fields}
        if not isinstance(known.get("timestamp"), int | float):
            raise ValueError("a snapshot needs a timestamp: seconds since the epoch")
        if known.get("status", "unknown") not in STATUSES:
            raise ValueError(f"status is {known['status']!r}; expected one of {', '.join(STATUSES)}")
        return cls(**known)


class SnapshotRing:
    """The newest ``capacity`` snapshots in columns of numbers: 50 bytes each, and 8 for each custom value.

    Not safe between threads: whoever shares it locks.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.taken = 0
        """Snapshots that were ever added."""
        self.dropped = 0
        """Custom values that were left out because more than ``MAX_CUSTOM`` names came."""
        self._times = array("d")
        self._rss = array("q")
        self._objects = array("q")
        self._use = array("d")
        self._growth = array("d")
        self._evictions = array("q")
        self._status = array("b")
        self._pressure = array("b")
        self._custom: dict[str, array[float]] = {}
        self._custom_last: dict[str, int] = {}  # the value of ``taken`` when the name came last

    def __len__(self) -> int:
        return len(self._times)

    @property
    def size_bytes(self) -> int:
        """Bytes that the columns take up."""
        columns = (self._times, self._rss, self._objects, self._use, self._growth, self._evictions)
        return sum(map(sys.getsizeof, (*columns, self._status, self._pressure, *self._custom.values())))

    def add(self, snapshot: MemorySnapshot) -> None:
        """Remember a snapshot in the place of the oldest."""
        slot = self.taken % self._capacity
        _put(self._times, slot, snapshot.timestamp)
        _put(self._rss, slot, _whole(snapshot.rss_bytes))
        _put(self._objects, slot, _whole(snapshot.heap_objects))
        _put(self._use, slot, _real(snapshot.utilization))
        _put(self._growth, slot, _real(snapshot.growth_bytes_per_second))
        _put(self._evictions, slot, _whole(snapshot.eviction_count))
        _put(self._status, slot, STATUSES.index(snapshot.status))
        _put(self._pressure, slot, _NONE if snapshot.pressure is None else _PRESSURES.index(snapshot.pressure))
        self._add_custom(slot, snapshot.custom)
        self.taken += 1

    def _add_custom(self, slot: int, values: Mapping[str, float]) -> None:
        for name in values:
            if name not in self._custom:
                self._open_column(name)
        for name, column in self._custom.items():
            _put(column, slot, values.get(name, math.nan))
            if name in values:
                self._custom_last[name] = self.taken

    def _open_column(self, name: str) -> None:
        if len(self._custom) >= MAX_CUSTOM:
            idle = min(self._custom_last, key=lambda known: self._custom_last[known])
            if self.taken - self._custom_last[idle] < self._capacity:
                self.dropped += 1
                return
            del self._custom[idle], self._custom_last[idle]  # all of its values have been written over
        self._custom[name] = array("d", [math.nan]) * (len(self._times) - (self.taken < self._capacity))
        self._custom_last[name] = self.taken

    def copy(self) -> SnapshotRing:
        """One that stays as it is now: some 20 µs for a day."""
        other = SnapshotRing(self._capacity)
        for name, value in vars(self).items():
            setattr(other, name, value[:] if isinstance(value, array) else value)
        other._custom = {name: column[:] for name, column in self._custom.items()}
        other._custom_last = dict(self._custom_last)
        return other

    def newest(self, count: int | None = None) -> Iterator[MemorySnapshot]:
        """The newest ``count`` snapshots (all of them where None), oldest first."""
        kept = len(self)
        count = kept if count is None else min(count, kept)
        for number in range(self.taken - count, self.taken):
            yield self._at(number % self._capacity)

    def _at(self, slot: int) -> MemorySnapshot:
        pressure = self._pressure[slot]
        return MemorySnapshot(
            timestamp=self._times[slot],
            rss_bytes=_known_whole(self._rss[slot]),
            heap_objects=_known_whole(self._objects[slot]),
            utilization=_known_real(self._use[slot]),
            status=STATUSES[self._status[slot]],
            pressure=None if pressure == _NONE else _PRESSURES[pressure],
            growth_bytes_per_second=_known_real(self._growth[slot]),
            eviction_count=_known_whole(self._evictions[slot]),
            custom={name: column[slot] for name, column in self._custom.items() if not math.isnan(column[slot])},
        )

    def statistics(self) -> dict[str, dict[str, float | None]]:
        """``min``, ``max``, ``avg`` and ``current`` by column, over what is known; all None where nothing is.

        ``current`` is of the newest snapshot: None where that has a gap.
        """
        last = (self.taken - 1) % self._capacity
        rss = [value / MB for value in self._rss if value != _NONE]
        objects = [float(value) for value in self._objects if value != _NONE]
        percent = [value * 100 for value in self._use if not math.isnan(value)]
        growth = [value / MB for value in self._growth if not math.isnan(value)]
        newest = self._at(last) if len(self) else MemorySnapshot(0.0)
        return {
            "rss_mb": _summary(rss, newest.rss_mb),
            "usage_percent": _summary(percent, newest.usage_percent),
            "heap_objects": _summary(objects, newest.heap_objects),
            "growth_rate_mb_per_sec": _summary(growth, newest.growth_rate_mb_per_sec),
        }


def write_jsonl(ring: SnapshotRing, path: str | os.PathLike[str]) -> int:
    """Write a JSON line for each snapshot, oldest first, one at a time; returns how many.

    A reader sees the old file or the whole new one: it is written beside it and then takes its name.

    Raises:
        OSError: the file could not be written; the old one is as it was.
    """
    target = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(target)
    beside = os.path.join(folder, f".{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    count = 0
    try:
        with open(beside, "x", encoding="utf-8") as file:
            for snapshot in ring.newest():
                file.write(json.dumps(snapshot.to_dict(), separators=(",", ":"), allow_nan=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        try:
            os.unlink(beside)
        except OSError:
            pass
        raise
    return count


def _put(column: array[Any], slot: int, value: float) -> None:
    if slot == len(column):
        column.append(value)
    else:
        column[slot] = value


def _whole(value: int | None) -> int:
    return _NONE if value is None else value


def _real(value: float | None) -> float:
    return math.nan if value is None else value


def _known_whole(value: int) -> int | None:
    return None if value == _NONE else value


def _known_real(value: float) -> float | None:
    return None if math.isnan(value) else value


def _summary(values: list[float], current: float | None) -> dict[str, float | None]:
    if not values:
        return {"min": None, "max": None, "avg": None, "current": current}
    least, most = min(values), max(values)
    mean = math.fsum(values) / len(values)
    # Rounding may put the mean of equal values outside of them.
    return {"min": least, "max": most, "avg": min(max(mean, least), most), "current": current}
