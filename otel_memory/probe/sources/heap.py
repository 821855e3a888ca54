"""The source ``heap``: memory in use in the C allocator and blocks handed out by Python's.

The C allocator's figures don't contain pymalloc's arenas. Both readings grow with the heap, so they are spaced out by
what they turn out to cost.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from opentelemetry.metrics import Meter, Observation

from otel_memory import names
from otel_memory.probe.sources import Gate, Undo, observe_metrics, one
from otel_memory.probe.sources.cadence import Budget, Latest

PART = "heap"

_heap_info: Callable[[], object] | None = getattr(psutil, "heap_info", None)
_allocated_blocks: Callable[[], int] | None = getattr(sys, "getallocatedblocks", None)


@dataclass(frozen=True, slots=True)
class HeapReading:
    """None is "could not be read". Each part is the last one measured, which is older where measuring is expensive."""

    arena_bytes: int | None = None
    """In use in the C allocator's arenas."""
    mmap_bytes: int | None = None
    """In blocks that the C allocator mapped on their own."""
    blocks: int | None = None
    """Blocks that Python's allocator has handed out."""


class HeapSource:
    """Reads the heaps of this process.

    ``share``: of the time, at most what the two readings together take. ``heap_info`` and ``allocated_blocks`` read;
    ``cost_clock`` measures them (processor time of the thread).
    """

    def __init__(
        self,
        *,
        share: float = 0.0005,
        fresh_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        cost_clock: Callable[[], float] = time.thread_time,
        heap_info: Callable[[], object] | None = _heap_info,
        allocated_blocks: Callable[[], int] | None = _allocated_blocks,
    ) -> None:
        self._heap_info = heap_info
        self._allocated_blocks = allocated_blocks
        # The interval is Latest's; the budgets only stretch it.
        self._heap_budget = Budget(0.0, share=share / 2, clock=clock, cost_clock=cost_clock)
        self._blocks_budget = Budget(0.0, share=share / 2, clock=clock, cost_clock=cost_clock)
        self._reading = HeapReading()
        self.latest: Latest[HeapReading] = Latest(self._read, fresh_seconds, clock)

    def read(self) -> HeapReading:
        """Read what is due."""
        return self.latest.read()

    def reopen(self) -> None:
        """Forget what was read; in the child after a fork."""
        self._reading = HeapReading()
        self._heap_budget.reset()
        self._blocks_budget.reset()
        self.latest.drop()

    def _read(self) -> HeapReading:
        arena_bytes, mmap_bytes, blocks = self._reading.arena_bytes, self._reading.mmap_bytes, self._reading.blocks
        if self._heap_info is not None and self._heap_budget.due():
            arena_bytes, mmap_bytes = self._heap_budget.run(self._read_heap)
        if self._allocated_blocks is not None and self._blocks_budget.due():
            blocks = self._blocks_budget.run(self._allocated_blocks)
        self._reading = HeapReading(arena_bytes, mmap_bytes, blocks)
        return self._reading

    def _read_heap(self) -> tuple[int | None, int | None]:
        if self._heap_info is None:
            return None, None
        try:
            info = self._heap_info()
        except (psutil.Error, OSError, NotImplementedError):
            return None, None
        return getattr(info, "heap_used", None), getattr(info, "mmap_used", None)

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit this source's metrics on ``meter`` until the returned function is called."""
        return observe_metrics(
            meter,
            gate,
            PART,
            {
                names.HEAP_USAGE: self._observe_heap,
                names.PYTHON_BLOCK_COUNT: lambda: one(self.latest().blocks),
            },
        )

    def _observe_heap(self) -> tuple[Observation, ...]:
        reading = self.latest()
        return (
            *one(reading.arena_bytes, {names.HEAP_KIND: "arena"}),
            *one(reading.mmap_bytes, {names.HEAP_KIND: "mmap"}),
        )
