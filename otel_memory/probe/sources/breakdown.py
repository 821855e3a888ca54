"""The source ``breakdown``: what the resident memory consists of, measured part by part, adding up to it.

Takes milliseconds (the kernel walks the page tables), so it is read in the background on a slow cadence.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil
from opentelemetry.metrics import Meter, Observation

from otel_memory import names
from otel_memory.probe.feature import Feature
from otel_memory.probe.sources import Gate, Undo, observe_metrics, one
from otel_memory.probe.sources import pymalloc as python_allocator
from otel_memory.probe.sources.cadence import Budget
from otel_memory.probe.sources.pymalloc import Pymalloc
from otel_memory.probe.sources.smaps import Resident, parse

if TYPE_CHECKING:
    from otel_memory.probe.feature import Surroundings

PART: Final = "breakdown"
SHARE: Final = 0.0005
_DEFAULT_STACK: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CHeap:
    """Bytes that the C allocator has handed out: from its arenas, and as blocks mapped on their own."""

    arena_bytes: int
    mmap_bytes: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Parts of the resident bytes. They add up to ``rss``; ``error`` of them may stand in another part than its own.

    None is "could not be measured here"; its bytes are then in ``other``.
    """

    rss: int
    python_used: int | None
    """Blocks that Python's allocator has handed out (objects up to 512 bytes, and their like)."""
    python_free: int | None
    """Kept by Python's allocator: holes in its arenas, and whole free pools."""
    c_used: int | None
    """Handed out by the C allocator: larger objects, buffers, memory of extension modules."""
    c_free: int | None
    """Resident in the C allocator's arenas and not handed out."""
    file: int
    """Pages of files: code, mapped files."""
    shared: int
    """Shared memory."""
    stack: int
    """Stacks of threads."""
    other: int
    """What remains: private copies of files' data, mappings that extension modules made themselves."""
    error: int
    """Bytes that the allocators claim and that are not resident: a block that was handed out but not yet written to.
    By so much ``c_used`` and ``python_free`` may be too high and ``other`` too low."""

    @property
    def python_fragmentation(self) -> float | None:
        """Share of Python's arenas that is free and kept all the same."""
        return _share(self.python_free, self.python_used)

    @property
    def c_fragmentation(self) -> float | None:
        """Share of the C allocator's resident memory that is not handed out."""
        return _share(self.c_free, self.c_used)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: bytes by part, as the fields are named."""
        return asdict(self)


def split(resident: Resident, python: Pymalloc | None, c_heap: CHeap | None) -> Breakdown:
    """Put the allocators' own counts against what is resident. Pure.

    The kernel can tell the C arenas from other private memory, but Python's arenas and large C blocks lie among other
    mappings. They are taken to be resident as far as there is room; what is claimed beyond that is the error.
    """
    room, claimed_too_much = resident.anonymous, 0
    python_used = python_free = c_used = c_free = None
    if python is not None:
        python_used = min(python.used_bytes, room)
        python_free = min(python.free_bytes, room - python_used)
        claimed_too_much += python.arena_bytes - python_used - python_free
        room -= python_used + python_free
    if c_heap is not None:
        in_arenas = min(c_heap.arena_bytes, resident.c_arenas)
        mapped = min(c_heap.mmap_bytes, room)
        claimed_too_much += c_heap.mmap_bytes - mapped + c_heap.arena_bytes - in_arenas
        room -= mapped
        c_used, c_free = in_arenas + mapped, resident.c_arenas - in_arenas
    else:
        room += resident.c_arenas
    return Breakdown(
        rss=resident.total,
        python_used=python_used,
        python_free=python_free,
        c_used=c_used,
        c_free=c_free,
        file=resident.file,
        shared=resident.shared,
        stack=resident.stacks,
        other=room,
        error=min(claimed_too_much, resident.total),
    )


def memory_breakdown() -> Breakdown | None:
    """Measure now; some milliseconds. None where the system does not tell (no ``/proc``, or it may not be read)."""
    try:
        with open("/proc/self/smaps", "rb") as file:
            text = file.read()
        resident = parse(text, _stack_bytes())
    except (OSError, ValueError):
        return None
    return split(resident, python_allocator.read(), _c_heap())


def _stack_bytes() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return _DEFAULT_STACK if limit == resource.RLIM_INFINITY else limit


def _c_heap() -> CHeap | None:
    heap_info: Callable[[], Any] | None = getattr(psutil, "heap_info", None)
    if heap_info is None:
        return None
    try:
        info = heap_info()
    except (psutil.Error, OSError, NotImplementedError):
        return None
    return CHeap(info.heap_used, info.mmap_used)


class BreakdownFeature(Feature):
    """Measures in the background every ``slow_interval``, less often where that would take more than 0.05 % of the
    time."""

    part = PART

    def __init__(self, around: Surroundings, measure: Callable[[], Breakdown | None] = memory_breakdown) -> None:
        self._around = around
        self._measure = measure
        self._budget = Budget(around.settings.slow_interval_seconds, share=SHARE)
        self._latest: Breakdown | None = None

    @property
    def latest(self) -> Breakdown | None:
        """The last one measured; None before the first, and where the system does not tell."""
        return self._latest

    def tick(self, now: float) -> None:
        """Have it measured if it is time."""
        if self._budget.due():
            self._around.background.submit(self.part, self._run)

    def _run(self) -> None:
        self._latest = self._budget.run(self._measure)

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit the parts until undone."""
        return observe_metrics(
            meter,
            gate,
            PART,
            {
                names.MEMORY_BREAKDOWN: self._observe_parts,
                names.MEMORY_BREAKDOWN_ERROR: lambda: one(self._latest.error if self._latest else None),
                names.HEAP_FRAGMENTATION: self._observe_fragmentation,
            },
        )

    def _observe_parts(self) -> list[Observation]:
        latest = self._latest
        if latest is None:
            return []
        return [
            point
            for part in names.ATTRIBUTES[names.MEMORY_PART].values
            for point in one(getattr(latest, part), {names.MEMORY_PART: part})
        ]

    def _observe_fragmentation(self) -> list[Observation]:
        latest = self._latest
        if latest is None:
            return []
        python = one(latest.python_fragmentation, {names.ALLOCATOR: "python"})
        return [*python, *one(latest.c_fragmentation, {names.ALLOCATOR: "c"})]

    def after_fork(self) -> None:
        """The child's memory is its own."""
        self._latest = None
        self._budget.reset()

    def status(self) -> dict[str, Any]:
        """The last breakdown."""
        return self._latest.to_dict() if self._latest else {}


def _share(free: int | None, used: int | None) -> float | None:
    if free is None or used is None or not free + used:
        return None
    return free / (free + used)
