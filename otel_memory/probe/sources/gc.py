"""The source ``gc``: pauses of the cyclic collector, its counts, and what remains after a full collection.

The collector calls back in the middle of whatever the program was doing, perhaps while it holds a lock. So the hook
takes no lock, records no metric, emits and logs nothing and never raises: it writes numbers to arrays that were made
beforehand, and the sampler's thread reads them (``drain``, ``record_pauses``). It keeps no object either: one that is
made in the middle of the program's allocating would hold fast the whole arena around it.

What it costs is bounded: between two drains it takes ``capacity`` pauses, then it leaves ``gc.callbacks`` until the
next drain. A program that collects more often than that has a sample of its pauses in the histogram; how many aren't in
it is known from the interpreter's own counts, and told as dropped.
"""

from __future__ import annotations

import gc
import operator
import sys
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

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


CAPACITY: Final = 255
"""Pauses between two drains, which come once a second: at 2 µs each in the program and 6 in the SDK .2 % of a core.
With so many, every number that the hook keeps is one that the interpreter has ready and makes no object for."""

_GENERATION_BITS: Final = 2
_UNKNOWN: Final = -1
_STAND_IN: Final[Callable[[object, object], object]] = operator.is_
"""Stands in the hook's place while that is away and others come after it: were the place given up in the middle of a
collection, the next one's callback would be passed over. The quickest there is: called with both arguments it looks
whether they are the same."""


class Pause(NamedTuple):
    """One collection."""

    generation: int
    duration_ns: int

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
    """Collections while the hook was installed whose pause is not known: past ``capacity``, for the most part."""
    failed: int
    """Calls of the hook that failed: a floor that could not be read, a callback's arguments in another form."""


class GcSource:
    """Listens to the collector between ``install()`` and ``uninstall()``.

    ``rss`` gives the resident bytes for the floor (``ProcessSource.rss``). It is called inside the hook and has to be
    what this module's docstring demands. ``capacity`` bounds the pauses between two drains. A full collection while the
    hook is away leaves the floor as it was: the floor is that of the last full collection seen.
    """

    def __init__(
        self,
        rss: Callable[[], int | None],
        *,
        capacity: int = CAPACITY,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._rss = rss
        self._clock_ns = clock_ns
        self._callbacks = gc.callbacks
        self._size = capacity + 1  # of the ring: full is not empty
        self._ring = array("q", bytes(8 * self._size))
        self._read = 0  # the last place drained
        self._floor_array = array("q", [0, 0, 0])
        self._has_floor = False
        self._installed = False
        self._away = False
        self._failed = 0
        self._drained = 0
        self._dropped = 0
        self._known_from = 0  # collections before this one are not the hook's
        self._inherited: dict[int, Generation] = {}
        self._recorder: tuple[Histogram, Gate] | None = None
        self._hook = self._make_hook()

    def _make_hook(self) -> Callable[[str, Mapping[str, int]], None]:
        # Everything is in the closure: module globals may be gone at the interpreter's last collection.
        ring, size, floor, clock_ns, rss = self._ring, self._size, self._floor_array, self._clock_ns, self._rss
        count_blocks: Callable[[], int] | None = getattr(sys, "getallocatedblocks", None)
        failure, full, bits, unknown = Exception, FULL_GENERATION, _GENERATION_BITS, _UNKNOWN
        # One for all threads: an interpreter doesn't collect while it collects (``gcstate->collecting``).
        started_ns = 0
        written = 0  # the last place written to
        last = size - 1  # the last place that may be written to

        def hook(phase: str, info: Mapping[str, int]) -> None:
            nonlocal started_ns, written
            try:
                if phase == "start":
                    started_ns = clock_ns()
                    return
                ended_ns = clock_ns()
                if not started_ns:
                    return  # it began before the hook was installed
                if written == last:
                    started_ns = 0
                    self._go_away()
                    return
                generation = info["generation"]
                written = (written + 1) % size
                ring[written] = (ended_ns - started_ns) << bits | generation
                started_ns = 0
                if generation == full:
                    rss_bytes = rss()
                    blocks = unknown if count_blocks is None else count_blocks()
                    floor[0] = unknown if rss_bytes is None else rss_bytes
                    floor[1] = blocks
                    floor[2] = ended_ns
                    self._has_floor = True
            except failure:
                self._failed += 1

        def give_room(read: int) -> None:
            nonlocal last
            last = (read - 1) % size

        def forget_start() -> None:
            nonlocal started_ns
            started_ns = 0

        self._written: Callable[[], int] = lambda: written
        self._give_room = give_room
        self._forget_start = forget_start
        return hook

    # --- listening ------------------------------------------------------------------------------------------

    # No step of these three lets another thread in between finding a place in the list and changing it: CPython looks
    # for other threads where a loop goes round, not in a comparison and the statement after it.

    def install(self) -> None:
        """Begin to listen. Idempotent."""
        if self._installed and not self._away and any(callback is self._hook for callback in self._callbacks):
            return
        self.uninstall()
        self._known_from = _collections() - self._drained - self._waiting() - self._dropped
        self._installed = True
        self._callbacks.append(self._hook)

    def uninstall(self) -> None:
        """Listen no more. Idempotent; other callbacks stay where they are."""
        if self._installed:
            self._dropped = self.dropped
        self._installed = False
        for mine in (self._hook, _STAND_IN) if self._away else (self._hook,):
            for index, callback in enumerate(self._callbacks):
                if callback is mine:
                    del self._callbacks[index]
                    break
        self._away = False
        self._forget_start()

    def _go_away(self, stand_in: Callable[[object, object], object] = _STAND_IN) -> None:
        """Listen no more until the next drain. Called by the collector, which goes through the list by index."""
        callbacks, hook = self._callbacks, self._hook
        if callbacks[-1] is hook:
            callbacks.pop()
            self._away = True
            return
        for index, callback in enumerate(callbacks):
            if callback is hook:
                callbacks[index] = stand_in
                self._away = True
                return

    def _come_back(self) -> None:
        callbacks = self._callbacks
        self._away = False
        if not self._installed:
            return
        for index, callback in enumerate(callbacks):
            if callback is _STAND_IN:
                callbacks[index] = self._hook
                return
        callbacks.append(self._hook)

    def reset_after_fork(self) -> None:
        """In the child: forget the parent's pauses and floor, and count collections from here on."""
        self.drain()
        self._forget_start()
        self._has_floor = False
        self._drained = self._dropped = self._failed = 0
        self._known_from = _collections()
        self._inherited = dict(enumerate(_count()))

    def _waiting(self) -> int:
        """Pauses that are not drained yet."""
        return (self._written() - self._read) % self._size

    def drain(self) -> list[Pause]:
        """The pauses since the last drain, oldest first; as many as there are now, so that it ends."""
        ring, size, waiting = self._ring, self._size, self._waiting()
        pauses = [ring[(self._read + number) % size] for number in range(1, waiting + 1)]
        drained = [Pause(each & (1 << _GENERATION_BITS) - 1, each >> _GENERATION_BITS) for each in pauses]
        self._drained, self._read = self._drained + waiting, (self._read + waiting) % size
        self._give_room(self._read)
        if self._away:
            self._come_back()
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
        """Collections so far, while the hook was installed, whose pause is not known."""
        if self._installed:
            # In this order: what happens between two steps then makes the result too small, until the next time.
            collections = _collections() - self._known_from
            waiting = self._waiting()
            self._dropped = max(self._dropped, collections - waiting - self._drained)
        return self._dropped

    @property
    def failed(self) -> int:
        """Calls of the hook that failed, so far."""
        return self._failed

    @property
    def floor(self) -> Floor | None:
        """What was in use just after the last full collection that was seen; None until there was one."""
        if not self._has_floor:
            return None
        rss_bytes, blocks, ended_ns = self._floor_array
        return Floor(_known(rss_bytes), _known(blocks), ended_ns)

    def read(self) -> GcReading:
        """Counts and floor now; some µs. Leaves the pauses alone."""
        return GcReading(self._generations(), self.floor, self.dropped, self._failed)

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
                names.GC_FLOOR_USAGE: lambda: one(getattr(self.floor, "rss_bytes", None)),
                names.GC_FLOOR_BLOCK_COUNT: lambda: one(getattr(self.floor, "blocks", None)),
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


def _known(number: int) -> int | None:
    return None if number == _UNKNOWN else number


def _collections() -> int:
    """Of all generations, since the interpreter began."""
    return sum(stats["collections"] for stats in gc.get_stats())


def _count() -> list[Generation]:
    return [Generation(stats["collections"], stats["collected"], stats["uncollectable"]) for stats in gc.get_stats()]
