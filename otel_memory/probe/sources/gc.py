"""The source ``gc``: pauses of the cyclic collector, its counts, and what remains after a full collection.

The collector calls back in the middle of whatever the program was doing, perhaps while it holds a lock. So the hook
takes no lock, records no metric, emits and logs nothing and never raises: it appends to bounded memory, and the
sampler's thread empties that (``drain``, ``record_pauses``).
"""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from opentelemetry.metrics import Histogram, Meter, Observation

from otel_memory import names
from otel_memory.probe.sources import Gate, Undo, create_histogram, observe_metrics, one

PART = "gc"

PAUSE_BOUNDARIES_SECONDS = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025),
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
"""From a young collection of nothing (10 µs) to a full one of ten million objects (1 s)."""

FULL_GENERATION = 2

_ATTRIBUTES = tuple({names.CPYTHON_GC_GENERATION: generation} for generation in range(FULL_GENERATION + 1))


class Pause(NamedTuple):
    """One collection. ``ended_ns`` is by the source's clock."""

    generation: int
    duration_ns: int
    collected: int
    uncollectable: int
    ended_ns: int

    @property
    def duration_seconds(self) -> float:
        return self.duration_ns / 1e9


class Floor(NamedTuple):
    """What was in use just after a full collection. None is "could not be read"."""

    rss_bytes: int | None
    blocks: int | None
    ended_ns: int


class Generation(NamedTuple):
    """Counts of one generation since the interpreter began, or since the process was forked."""

    collections: int
    collected: int
    uncollectable: int


@dataclass(frozen=True, slots=True)
class GcReading:
    generations: tuple[Generation, ...]
    floor: Floor | None
    """None until the first full collection."""
    dropped: int
    """Pauses that were overwritten before they were drained."""
    failed: int
    """Calls of the hook that failed: a floor that could not be read, a callback's arguments in another form."""


class GcSource:
    """Listens to the collector between ``install()`` and ``uninstall()``.

    ``rss`` gives the resident bytes for the floor (``ProcessSource.rss``). It is called inside the hook and has to be
    what this module's docstring demands. ``capacity`` bounds the pauses between two drains; the oldest are dropped.
    """

    def __init__(
        self,
        rss: Callable[[], int | None],
        *,
        capacity: int = 1024,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._rss = rss
        self._clock_ns = clock_ns
        self._pauses: deque[tuple[int, int, int, int, int]] = deque(maxlen=capacity)
        self._floor: Floor | None = None
        self._dropped = 0
        self._failed = 0
        self._inherited: dict[int, Generation] = {}
        self._recorder: tuple[Histogram, Gate] | None = None
        self._hook = self._make_hook()

    def _make_hook(self) -> Callable[[str, Mapping[str, int]], None]:
        # Everything is in the closure: module globals may be gone at the interpreter's last collection.
        pauses, capacity, clock_ns, rss = self._pauses, self._pauses.maxlen, self._clock_ns, self._rss
        count_blocks: Callable[[], int] | None = getattr(sys, "getallocatedblocks", None)
        failure, full = Exception, FULL_GENERATION
        # One for all threads: an interpreter doesn't collect while it collects (``gcstate->collecting``).
        started_ns: int | None = None

        def hook(phase: str, info: Mapping[str, int]) -> None:
            nonlocal started_ns
            try:
                if phase == "start":
                    started_ns = clock_ns()
                    return
                ended_ns = clock_ns()
                if started_ns is None:
                    return  # it began before the hook was installed
                generation = info["generation"]
                if len(pauses) == capacity:
                    self._dropped += 1
                pauses.append((generation, ended_ns - started_ns, info["collected"], info["uncollectable"], ended_ns))
                started_ns = None
                if generation == full:
                    self._floor = Floor(rss(), None if count_blocks is None else count_blocks(), ended_ns)
            except failure:
                self._failed += 1

        def forget() -> None:
            nonlocal started_ns
            started_ns = None

        self._forget_start = forget
        return hook

    # --- listening ------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Begin to listen. Idempotent."""
        if not any(callback is self._hook for callback in gc.callbacks):
            gc.callbacks.append(self._hook)

    def uninstall(self) -> None:
        """Listen no more. Idempotent; other callbacks stay where they are."""
        for index, callback in enumerate(gc.callbacks):
            if callback is self._hook:
                del gc.callbacks[index]
                break
        self._forget_start()

    def reset_after_fork(self) -> None:
        """In the child: forget the parent's pauses and floor, and count collections from here on."""
        self._pauses.clear()
        self._forget_start()
        self._floor = None
        self._dropped = self._failed = 0
        self._inherited = dict(enumerate(_count()))

    def drain(self) -> list[Pause]:
        """The pauses since the last drain, oldest first; as many as there are now, so that it ends."""
        drained: list[Pause] = []
        for _ in range(len(self._pauses)):
            try:
                drained.append(Pause(*self._pauses.popleft()))
            except IndexError:  # somebody else drains too
                break
        return drained

    def record_pauses(self) -> list[Pause]:
        """Drain, and record each pause in the histogram if one is registered. Never in a gc callback."""
        pauses = self.drain()
        recorder = self._recorder
        if recorder is not None:
            histogram, gate = recorder
            try:
                if gate.passes(names.GC_PAUSE_DURATION):
                    for pause in pauses:
                        histogram.record(pause.duration_seconds, {names.CPYTHON_GC_GENERATION: pause.generation})
            except Exception as error:  # an exporter's or a view's fault is not the sampler's
                gate.failed(PART, error)
        return pauses

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """Pauses that were overwritten before they were drained, so far."""
        return self._dropped

    @property
    def failed(self) -> int:
        """Calls of the hook that failed, so far."""
        return self._failed

    @property
    def floor(self) -> Floor | None:
        """What was in use just after the last full collection; None until there was one."""
        return self._floor

    def read(self) -> GcReading:
        """Counts and floor now; some µs. Leaves the pauses alone."""
        return GcReading(self._generations(), self._floor, self._dropped, self._failed)

    def _generations(self) -> tuple[Generation, ...]:
        nothing = Generation(0, 0, 0)
        return tuple(
            Generation(*(now - before for now, before in zip(count, self._inherited.get(index, nothing), strict=True)))
            for index, count in enumerate(_count())
        )

    # --- metrics --------------------------------------------------------------------------------------------

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit this source's metrics on ``meter`` until the returned function is called.

        The histogram is filled by ``record_pauses``. What it has already counted the SDK goes on exporting after the
        undo, as with every synchronous instrument.
        """
        recorder = (create_histogram(meter, names.GC_PAUSE_DURATION, PAUSE_BOUNDARIES_SECONDS), gate)
        undo_callbacks = observe_metrics(
            meter,
            gate,
            PART,
            {
                names.GC_COLLECTIONS: lambda: self._by_generation("collections"),
                names.GC_COLLECTED_OBJECTS: lambda: self._by_generation("collected"),
                names.GC_UNCOLLECTABLE_OBJECTS: lambda: self._by_generation("uncollectable"),
                names.GC_FLOOR_USAGE: lambda: one(self._floor.rss_bytes if self._floor else None),
                names.GC_FLOOR_BLOCK_COUNT: lambda: one(self._floor.blocks if self._floor else None),
            },
        )
        self._recorder = recorder

        def undo() -> None:
            if self._recorder is recorder:
                self._recorder = None
            undo_callbacks()

        return undo

    def _by_generation(self, count: str) -> list[Observation]:
        """One of the counts, a field of ``Generation`` and of the interpreter's statistics, for each generation."""
        inherited = self._inherited
        return [
            Observation(stats[count] - (getattr(inherited[index], count) if inherited else 0), _ATTRIBUTES[index])
            for index, stats in enumerate(gc.get_stats())
        ]


def _count() -> list[Generation]:
    return [Generation(stats["collections"], stats["collected"], stats["uncollectable"]) for stats in gc.get_stats()]
