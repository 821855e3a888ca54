"""What waits for Kafka: the record, and the queue in memory that holds it.

Owns the bound in bytes and who goes first. A lane is a priority: events, then log records, then metrics; within a lane
the oldest first. Past the bound the oldest of the least urgent lane goes, because of metrics the newest say most. The
disk spool (``spool.py``) has the same methods.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

SIGNALS: Final = ("events", "logs", "metrics")
"""Lanes, the most urgent first."""

OVERHEAD: Final = 256
"""Bytes that a record takes in memory besides its value, roughly."""

BUFFER_FULL: Final = "buffer_full"

Dropped = Callable[[str, str, int], None]
"""Told (signal, reason, items) of what is dropped."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of Kafka. ``lane`` is an index into ``SIGNALS``; ``items`` the data points or log records in it."""

    lane: int
    topic: str
    key: bytes
    value: bytes
    items: int

    @property
    def size(self) -> int:
        """Bytes that it counts for in a bound."""
        return len(self.value) + OVERHEAD

    @property
    def signal(self) -> str:
        """Whose record it is."""
        return SIGNALS[self.lane]


class Window(Protocol):
    """The records that are on their way; they stay in the backlog until they are settled."""

    @property
    def records(self) -> Sequence[Record]:
        """In the order in which they are to be sent."""
        ...


class Backlog(Protocol):
    """What both kinds have in common. Every method may be called from any thread; one thread takes and settles."""

    def put(self, record: Record) -> bool:
        """Keep ``record``. Whether there was room; what was dropped for it, or instead of it, has been told."""
        ...

    def take(self, most_bytes: int) -> Window | None:
        """Records up to ``most_bytes``, at least one; None if nothing waits."""
        ...

    def settle(self, window: Window, count: int) -> None:
        """The first ``count`` records of ``window`` are done with; the others wait again, before all else."""
        ...

    @property
    def waiting(self) -> tuple[int, int]:
        """Records and bytes that are not settled."""
        ...

    def abandon(self, reason: str) -> int:
        """The end: items that are lost with it, which have been told as dropped for ``reason``."""
        ...

    def after_fork(self) -> None:
        """In the child: what waits is the parent's to send."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryWindow:
    """Records that left their lanes for the moment."""

    records: tuple[Record, ...]


class MemoryBacklog:
    """At most ``max_bytes`` of records."""

    def __init__(self, max_bytes: int, dropped: Dropped) -> None:
        self._max_bytes = max_bytes
        self._dropped = dropped
        self.after_fork()

    def after_fork(self) -> None:
        """In the child: new locks, and nothing waits."""
        self._lock = threading.Lock()
        self._lanes: list[deque[Record]] = [deque() for _ in SIGNALS]
        self._lane_bytes = [0 for _ in SIGNALS]  # without what is on its way
        self._bytes = 0
        self._count = 0

    def put(self, record: Record) -> bool:
        """Keep ``record``; the oldest of the least urgent goes where there is no room, but nothing more urgent."""
        gone: list[Record] = []
        with self._lock:
            too_much = self._bytes + record.size - self._max_bytes
            kept = too_much <= sum(self._lane_bytes[record.lane :])
            if kept:
                for number in reversed(range(record.lane, len(SIGNALS))):
                    while self._lanes[number] and self._bytes + record.size > self._max_bytes:
                        gone.append(self._pop(number))
                        self._bytes -= gone[-1].size
                self._count += 1 - len(gone)
                self._bytes += record.size
                self._lanes[record.lane].append(record)
                self._lane_bytes[record.lane] += record.size
            else:
                gone.append(record)
        for each in gone:
            self._dropped(each.signal, BUFFER_FULL, each.items)
        return kept

    def _pop(self, lane: int) -> Record:
        record = self._lanes[lane].popleft()
        self._lane_bytes[lane] -= record.size
        return record

    def take(self, most_bytes: int) -> MemoryWindow | None:
        """The most urgent. They count for the bound until they are settled."""
        taken: list[Record] = []
        size = 0
        with self._lock:
            for number, lane in enumerate(self._lanes):
                while lane and (not taken or size + lane[0].size <= most_bytes):
                    taken.append(self._pop(number))
                    size += taken[-1].size
                if lane:
                    break
        return MemoryWindow(tuple(taken)) if taken else None

    def settle(self, window: Window, count: int) -> None:
        """Let go of the first ``count``."""
        done, back = window.records[:count], window.records[count:]
        with self._lock:
            self._bytes -= sum(record.size for record in done)
            self._count -= len(done)
            for record in reversed(back):
                self._lanes[record.lane].appendleft(record)
                self._lane_bytes[record.lane] += record.size

    @property
    def waiting(self) -> tuple[int, int]:
        """Records and bytes, those on their way included."""
        return self._count, self._bytes

    def abandon(self, reason: str) -> int:
        """Drop all that waits."""
        with self._lock:
            left = [record for lane in self._lanes for record in lane]
            self._lanes = [deque() for _ in SIGNALS]
            self._lane_bytes = [0 for _ in SIGNALS]
            self._bytes = self._count = 0
        for record in left:
            self._dropped(record.signal, reason, record.items)
        return sum(record.items for record in left)
