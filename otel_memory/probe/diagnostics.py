"""``diagnostic_gc_run()``: a garbage collection that says what it found, what held it together, and what it freed.

Owns the run from claim to result and its event. Finding and freeing are in ``garbage``, the looking in ``cycle_graph``.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import psutil

from otel_memory import names
from otel_memory.probe import events, garbage
from otel_memory.probe.cycle_graph import Budget, Chain, Findings, Holder, TypeCount, examine
from otel_memory.probe.cycle_suspended import Suspended
from otel_memory.probe.diagnostics_record import append
from otel_memory.probe.errors import MonitoringError
from otel_memory.probe.loaded import loaded
from otel_memory.probe.reader import read_rss
from otel_memory.probe.units import human_bytes

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

Reason = Literal["manual", "schedule", "growth"]

MAX_OBJECTS: Final = 100_000
MAX_TYPES: Final = 20
MAX_HOLDERS: Final = 20
MAX_CHAINS: Final = 5
EVENT_ITEMS: Final = 10
"""Types and holders that the event carries."""
SUSPENDED_SHARE: Final = 0.25
"""Of the time for looking, what may go to generators."""

_heap_info: Callable[[], Any] | None = getattr(psutil, "heap_info", None)

record_to: str | None = None
"""The file that runs are recorded in where the call names none (``OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC_FILE``)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What was in use, measured; None is "could not be read"."""

    rss_bytes: int | None
    heap_bytes: int | None
    """In use in the C allocator, without pymalloc's arenas."""
    blocks: int | None
    """Blocks that Python's allocator has handed out."""

    @classmethod
    def read(cls) -> Memory:
        """Read now."""
        heap: int | None = None
        if _heap_info is not None:
            try:
                info = _heap_info()
                heap = info.heap_used + info.mmap_used
            except (psutil.Error, OSError, NotImplementedError):
                pass
        count = getattr(sys, "getallocatedblocks", None)
        return cls(read_rss(), heap, None if count is None else count())


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds. All but ``examine`` and ``watch`` are pauses: no other thread of Python runs meanwhile."""

    watch: float
    """Noting the generators, before."""
    collect: tuple[float, ...]
    """The finding collection of generation 0, 1 and 2, finalizers of the program among it."""
    examine: float
    free: float
    total: float

    @property
    def pause(self) -> float:
        """The longest pause."""
        return max(*self.collect, self.free)


@dataclass(frozen=True, slots=True)
class DiagnosticRun:
    """One run. Texts name types, functions, attributes and short keys; nothing here comes from values.

    ``collected`` are the objects that were found in generation 0, 1 and 2, ``freed`` those that the collector then
    broke up (up to Python 3.12 with dicts that looking at attributes made), ``uncollectable`` those that it could not.
    ``generators`` are those that the collection closed: what they held is freed at once and not among ``collected``.
    ``types``, ``holders`` and ``chains`` begin with the most frequent; a holder's count is of the objects that were
    looked at, at most 2,000 of a type. ``incomplete`` has a sentence for each thing that a bound of time or number cut
    short; empty is all well.
    """

    time: str
    """When it began, RFC 3339 UTC."""
    pid: int
    reason: Reason
    collected: tuple[int, ...]
    freed: int
    uncollectable: int
    frozen: int
    """Objects that ``gc.freeze()`` keeps from every collection, this one too."""
    before: Memory
    after: Memory
    durations: Durations
    types: tuple[TypeCount, ...]
    holders: tuple[Holder, ...]
    chains: tuple[Chain, ...]
    generators: tuple[Chain, ...]
    closed_generators: int
    cycles: int
    """Groups of objects that hold one another, as far as was looked."""
    objects_in_cycles: int
    examined: int
    incomplete: tuple[str, ...]
    record_error: str | None = None
    """Why the line could not be written to the file."""

    @property
    def total_collected(self) -> int:
        return sum(self.collected)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "pause": self.durations.pause}

    def summary(self) -> str:
        """The run in one sentence."""
        rss = _change(self.before.rss_bytes, self.after.rss_bytes)
        rest = f", changed resident memory by {rss}" if rss else ""
        main = f"; most through {self.holders[0].path}" if self.holders else ""
        return (
            f"Diagnostic collection found {self.total_collected} unreachable objects in {self.cycles} cycles{rest}, "
            f"paused for {self.durations.pause * 1000:.3g} ms{main}."
        )


def _change(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return ""
    sign = "+" if after > before else ""
    return f"{sign}{human_bytes(after - before)} to {human_bytes(after)}"


def diagnostic_gc_run(
    *,
    max_seconds: float = 2.0,
    max_objects: int = MAX_OBJECTS,
    record: str | os.PathLike[str] | None = None,
    wait_seconds: float = 30.0,
) -> DiagnosticRun:
    """Collect garbage, say which types formed cycles and through what, and free it.

    ``max_seconds`` bounds the looking and ``max_objects`` its memory (about 200 bytes an object); the collections
    themselves can't be bounded, and pause the process for two to three times as long as a ``gc.collect()`` does.
    ``record`` is a file to append one line of JSON to. While another thread is in a run, this one waits for
    ``wait_seconds``.

    Finalizers and callbacks of weak references run once, as in any collection. The flags of ``gc``, the content of
    ``gc.garbage`` and whether the collector is enabled are afterwards what they were before, also if this is
    interrupted.

    Raises:
        MonitoringError: called on the thread of a running event loop, by code that a run is running, while other runs
            take too long, or on a free-threaded build.
        ValueError: a bound is out of its range.
    """
    _refuse_on_event_loop()
    return run(
        max_seconds=max_seconds, max_objects=max_objects, record=record, wait_seconds=wait_seconds, reason="manual"
    )


async def diagnostic_gc_run_async(
    *,
    max_seconds: float = 2.0,
    max_objects: int = MAX_OBJECTS,
    record: str | os.PathLike[str] | None = None,
    wait_seconds: float = 30.0,
) -> DiagnosticRun:
    """``diagnostic_gc_run`` on a thread, for coroutines.

    The event loop goes on while the garbage is looked at, but not during the collections: those stop every thread.
    Cancelled, it looks no further and frees what it found, soon and by itself.
    """
    import asyncio

    cancelled = threading.Event()
    try:
        return await asyncio.to_thread(
            run,
            max_seconds=max_seconds,
            max_objects=max_objects,
            record=record,
            wait_seconds=wait_seconds,
            reason="manual",
            stop=cancelled.is_set,
        )
    finally:
        cancelled.set()


def run(
    *,
    max_seconds: float,
    max_objects: int,
    record: str | os.PathLike[str] | None,
    wait_seconds: float,
    reason: Reason,
    stop: Callable[[], bool] = lambda: False,
) -> DiagnosticRun:
    """``diagnostic_gc_run`` for whoever knows that its thread may stand still. ``stop()`` true ends the looking."""
    if not 0 <= max_seconds <= 3600:
        raise ValueError(f"max_seconds={max_seconds!r}: expected seconds from 0 to 3600")
    if not 0 <= max_objects <= 10_000_000:
        raise ValueError(f"max_objects={max_objects!r}: expected a number from 0 to 10 million")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise MonitoringError(
            "diagnostic_gc_run() does not support free-threaded Python with its lock off: use gc.collect(), "
            "or run with PYTHON_GIL=1"
        )
    claim = garbage.Claim()
    try:
        try:
            claim.take(wait_seconds)
            done = _run(max_seconds, max_objects, reason, stop)
        finally:
            claim.release()
    finally:
        claim.release()
    target = record_to if record is None else record
    if target is not None:
        try:
            append(target, done.to_dict())
        except OSError as error:
            done = replace(done, record_error=f"{type(error).__name__}: {error}")
    events.emit(names.EVENT_DIAGNOSTIC_GC, done.summary(), _attributes(done))
    return done


def _run(max_seconds: float, max_objects: int, reason: Reason, stop: Callable[[], bool]) -> DiagnosticRun:
    clock = time.perf_counter
    began_at = datetime.now(UTC)
    began = clock()
    before = Memory.read()
    frozen = gc.get_freeze_count()
    suspended = Suspended(Budget(max_seconds * SUSPENDED_SHARE, stop))
    watched = clock()
    found: list[Any] = []
    try:
        found, phases = garbage.find()
        generators, closed = suspended.closed(MAX_CHAINS)
        suspended.forget()
        collected = clock()
        findings = _examine(found, max_objects, Budget(max_seconds * (1 - SUSPENDED_SHARE), stop))
        examined = clock()
    finally:
        found.clear()
    freed, uncollectable = garbage.free()
    after = Memory.read()
    unseen = (suspended.incomplete,) if suspended.incomplete else ()
    return DiagnosticRun(
        time=began_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        pid=os.getpid(),
        reason=reason,
        collected=tuple(phase.objects for phase in phases),
        freed=freed.objects,
        uncollectable=uncollectable,
        frozen=frozen,
        before=before,
        after=after,
        durations=Durations(
            watch=watched - began,
            collect=tuple(phase.seconds for phase in phases),
            examine=examined - collected,
            free=freed.seconds,
            total=clock() - began,
        ),
        types=findings.types,
        holders=findings.holders,
        chains=findings.chains,
        generators=generators,
        closed_generators=closed,
        cycles=findings.cycles,
        objects_in_cycles=findings.objects_in_cycles,
        examined=findings.examined,
        incomplete=(*findings.incomplete, *unseen),
    )


def _examine(found: list[Any], max_objects: int, budget: Budget) -> Findings:
    """The findings; what fails while strange objects are looked at costs the findings and not the run."""
    try:
        return examine(found, max_objects, budget, types=MAX_TYPES, holders=MAX_HOLDERS, chains=MAX_CHAINS)
    except Exception as error:
        return Findings((), (), (), 0, 0, 0, (f"the objects could not be looked at: {type(error).__name__}",))


def _refuse_on_event_loop() -> None:
    asyncio = loaded("asyncio")
    if asyncio is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise MonitoringError(
        "diagnostic_gc_run() would stall the event loop that runs on this thread: "
        "use `await diagnostic_gc_run_async()`, which looks at the garbage on another thread"
    )


def _attributes(done: DiagnosticRun) -> Mapping[str, AttributeValue]:
    sizes: dict[str, int | None] = {
        names.DIAGNOSTIC_GC_RSS_BEFORE: done.before.rss_bytes,
        names.DIAGNOSTIC_GC_RSS_AFTER: done.after.rss_bytes,
        names.DIAGNOSTIC_GC_HEAP_BEFORE: done.before.heap_bytes,
        names.DIAGNOSTIC_GC_HEAP_AFTER: done.after.heap_bytes,
        names.DIAGNOSTIC_GC_BLOCKS_BEFORE: done.before.blocks,
        names.DIAGNOSTIC_GC_BLOCKS_AFTER: done.after.blocks,
    }
    lists: dict[str, list[str]] = {
        names.DIAGNOSTIC_GC_TYPES: [f"{each.name} ({each.count})" for each in done.types[:EVENT_ITEMS]],
        names.DIAGNOSTIC_GC_HOLDERS: [f"{each.path} ({each.count})" for each in done.holders[:EVENT_ITEMS]],
        names.DIAGNOSTIC_GC_CHAINS: [each.path for each in (*done.chains, *done.generators)],
        names.DIAGNOSTIC_GC_INCOMPLETE: list(done.incomplete),
    }
    return {
        names.DIAGNOSTIC_GC_REASON: done.reason,
        names.DIAGNOSTIC_GC_COLLECTED_0: done.collected[0],
        names.DIAGNOSTIC_GC_COLLECTED_1: done.collected[1],
        names.DIAGNOSTIC_GC_COLLECTED_2: done.collected[2],
        names.DIAGNOSTIC_GC_FREED: done.freed,
        names.DIAGNOSTIC_GC_UNCOLLECTABLE: done.uncollectable,
        names.DIAGNOSTIC_GC_CYCLES: done.cycles,
        names.DIAGNOSTIC_GC_DURATION: done.durations.total,
        names.DIAGNOSTIC_GC_PAUSE: done.durations.pause,
        **{name: value for name, value in sizes.items() if value is not None},
        **{name: value for name, value in lists.items() if value},
    }
