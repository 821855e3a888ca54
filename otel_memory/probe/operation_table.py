"""What tracked operations did, one aggregate per name, handed out as observable metrics; and who runs right now.

Owns the aggregates and the question "did another tracked operation run at the same time". Never emits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe.loaded import loaded
from otel_memory.probe.reader import read_rss
from otel_memory.probe.sources import observe_metrics

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.sources import Gate, Undo

MAX_OPERATIONS: Final = 256
OVERFLOW_NAME: Final = "otel_memory.other"
"""Operations past ``MAX_OPERATIONS`` names are summed under this one, so that attributes stay bounded."""


UNDIVIDED: Final = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether ``sums.calls += 1`` can't be divided: from 3.10 on CPython changes threads, runs signal handlers and
collects only where a function is called or begins, where a loop goes round or where something is allocated that the
collector tracks, which numbers are not. A lock around four additions would cost a tenth of a decorated call."""


class Aggregate:
    """Sums over the calls of one operation: calls, errors, growth in bytes, time in seconds.

    No lock, if ``UNDIVIDED``: each sum is added to in one statement.
    """

    __slots__ = ("calls", "errors", "growth_bytes", "name", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Zero the sums."""
        self.calls = 0
        self.errors = 0
        self.growth_bytes = 0
        self.seconds = 0.0

    def add(self, growth_bytes: int, seconds: float, failed: bool) -> None:
        """Count one finished call."""
        self.calls += 1
        self.errors += failed
        self.growth_bytes += growth_bytes
        self.seconds += seconds


class LockedAggregate(Aggregate):
    """The same for an interpreter whose threads really run side by side."""

    __slots__ = ("_lock",)

    def reset(self) -> None:
        """Zero the sums. The lock is new too: after a fork the old one may be held by a thread that is gone."""
        # Re-entrant, because a finalizer or a signal handler may end an operation inside another one's end.
        self._lock = threading.RLock()
        super().reset()

    def add(self, growth_bytes: int, seconds: float, failed: bool) -> None:
        """Count one finished call."""
        with self._lock:
            super().add(growth_bytes, seconds, failed)


class Block(Protocol):
    """A measured block that may await (``async with``): it belongs to a task, and not to its thread."""

    task: object
    thread: int
    overlap: bool


def current_task() -> object:
    """The running asyncio task, or ``None`` where there is none or another library's."""
    asyncio = loaded("asyncio")  # never imported for this: who doesn't use it has no task
    if asyncio is None or asyncio._get_running_loop() is None:
        return None
    return asyncio.current_task()


def _owner(block: Block) -> int:
    """What stands for the block's task: without one, it is a stranger to every other block."""
    return id(block if block.task is None else block.task)


def _put(groups: dict[int, dict[Block, None]], key: int, block: Block) -> None:
    group = groups.get(key)
    if group is None:
        groups[key] = {block: None}
    else:
        group[block] = None


def _take(groups: dict[int, dict[Block, None]], key: int, block: Block) -> None:
    group = groups.get(key)
    if group is not None:
        group.pop(block, None)
        if not group:
            groups.pop(key, None)


class OperationTable:
    """All aggregates of a process, bounded, and who runs right now."""

    def __init__(self, max_operations: int = MAX_OPERATIONS) -> None:
        self._max = max_operations
        self.aggregates: dict[str, Aggregate] = {}
        self.overflowed = 0
        self.failed = 0
        self.running: dict[int, Any] = {}
        """The innermost open section (an ``Operation``) by thread. Replaced by a fork: a section that finds another one
        was begun by the parent."""
        # No step is longer with thousands of blocks open than with two: who overlaps is not looked at again.
        self.blocks: dict[Block, None] = {}
        self._alone: dict[Block, None] = {}  # those that don't overlap so far: of one task, mostly
        self._by_thread: dict[int, dict[Block, None]] = {}
        self._by_task: dict[int, dict[Block, None]] = {}
        self.mark = object()
        """A new object whenever a section begins while another thread's is open: who is open then, overlaps."""

    def aggregate(self, name: str) -> Aggregate:
        """The aggregate of ``name``, or the one for the overflow once the bound is reached."""
        found = self.aggregates.get(name)
        if found is None:
            if len(self.aggregates) >= self._max and name != OVERFLOW_NAME:
                self.overflowed += 1
                return self.aggregate(OVERFLOW_NAME)
            found = self.aggregates.setdefault(name, Aggregate(name) if UNDIVIDED else LockedAggregate(name))
        return found

    def meet_blocks(self, thread: int) -> bool:
        """A section begins on ``thread`` while blocks are open; whether one of them may run beside it.

        Blocks of other tasks have company from now on.
        """
        if self._alone:
            self._give_company(current_task())
        return len(self._by_thread) > (thread in self._by_thread)

    def open_block(self, block: Block) -> None:
        """``block`` begins: it has company if another thread's section or another task's block is open."""
        if self.running and (len(self.running) > 1 or block.thread not in self.running):
            block.overlap = True
            self.mark = object()
        self.blocks[block] = None
        _put(self._by_thread, block.thread, block)
        _put(self._by_task, _owner(block), block)
        if len(self._by_task) > 1:
            block.overlap = True
            self._give_company(block.task)
        if not block.overlap:
            self._alone[block] = None

    def blocks_of(self, task: object) -> tuple[Block, ...]:
        """Those that are open in ``task``, the oldest first; all for None, which stands for every block without one."""
        return tuple(self.blocks if task is None else self._by_task.get(id(task), ()))

    def close_block(self, block: Block) -> None:
        """``block`` ends. Does nothing if it isn't open (any more)."""
        if block in self.blocks:
            self.blocks.pop(block, None)
            self._alone.pop(block, None)
            _take(self._by_thread, block.thread, block)
            _take(self._by_task, _owner(block), block)

    def _give_company(self, task: object) -> None:
        """``task`` does something: the blocks of all others overlap from now on."""
        for block in tuple(self._alone):
            if task is None or block.task is not task:
                block.overlap = True
                self._alone.pop(block, None)

    def reset_after_fork(self) -> None:
        """In the child: its operations begin at zero, and the parent's threads are not here."""
        self.running = {}
        self.blocks = {}
        self._alone = {}
        self._by_thread = {}
        self._by_task = {}
        self.mark = object()
        self.overflowed = self.failed = 0
        for aggregate in list(self.aggregates.values()):
            aggregate.reset()

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit the metrics of operations on ``meter`` through ``gate`` until the returned function is called."""
        return observe_metrics(
            meter,
            gate,
            "operations",
            {
                names.OPERATION_CALLS: self._observe_calls,
                names.OPERATION_GROWTH: self._observe_growth,
                names.OPERATION_TIME: self._observe_time,
            },
        )

    def _called(self) -> list[Aggregate]:
        return [a for a in list(self.aggregates.values()) if a.calls]

    def _observe_calls(self) -> Iterable[Observation]:
        for a in self._called():
            # Both from one moment: errors is never more than calls, because it is read first.
            errors = a.errors
            yield Observation(a.calls - errors, {names.OPERATION_NAME: a.name, names.OPERATION_STATUS: "success"})
            if errors:
                yield Observation(errors, {names.OPERATION_NAME: a.name, names.OPERATION_STATUS: "error"})

    def _observe_growth(self) -> Iterable[Observation]:
        if read_rss() is None:
            return  # where memory can't be read, each sum is a zero that nobody measured
        for a in self._called():
            yield Observation(a.growth_bytes, {names.OPERATION_NAME: a.name})

    def _observe_time(self) -> Iterable[Observation]:
        for a in self._called():
            yield Observation(a.seconds, {names.OPERATION_NAME: a.name})
