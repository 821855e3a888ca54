"""Evictors: what of the application can give memory back, and calling on it until enough is free.

``register_evictor`` names something; ``evict`` runs what is registered by priority and weight. Owns the registry, the
order, and the counts behind ``otel_memory.evictor.*``. What is freed is measured, never taken from what an evictor
says of itself. Works with and without a running probe; with one, each run is an event ``otel_memory.eviction``.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe import events
from otel_memory.probe.errors import EvictionError, MonitoringError
from otel_memory.probe.evictors import MEASURABLE_BYTES, Adapter, Gone, Lock, adapt
from otel_memory.probe.held import Freed, Held, difference, read_heap, read_held
from otel_memory.probe.isolation import Isolated, in_thread, on_loop, refuse_where_waiting_harms, running_loop
from otel_memory.probe.units import human_bytes

if TYPE_CHECKING:
    import asyncio

__all__ = ["EvictionResult", "EvictorHandle", "EvictorResult", "evict", "evict_async", "register_evictor"]
__all__ += ["registered_evictors", "unregister_evictor"]

PART: Final = "eviction"
MAX_EVICTORS: Final = 64
MAX_NAME: Final = 100
USELESS_IN_A_ROW: Final = 3
"""So many evictors after one another that freed nothing measurable end a run with a target."""
MAX_ROUNDS: Final = 3
"""Times that the evictors of one priority are asked at most, while they still give."""
LOOP_GRACE_SECONDS: Final = 1.0
EMPTY: Final = "was empty"
OTHER: Final = "other"
"""Counts of evictors beyond the 64th name are summed under this one."""

Outcome = Literal["freed", "useless", "failed", "timed_out", "skipped"]
Ended = Literal["reached", "no_evictor_left", "useless", "stopped"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvictorResult:
    """What one call of one evictor did. Bytes are measured; None is "could not be measured"."""

    name: str
    outcome: Outcome
    asked_bytes: int | None
    """Its share of the target; None where all was asked for."""
    freed_heap_bytes: int | None
    freed_rss_bytes: int | None
    duration_seconds: float
    detail: str = ""
    """Why it failed, timed out or was skipped; that it was empty."""

    @property
    def freed_bytes(self) -> int | None:
        """The larger of the two that are known; negative where the process grew meanwhile."""
        return Freed(self.freed_heap_bytes, self.freed_rss_bytes).known_bytes


@dataclass(frozen=True, slots=True)
class EvictionResult:
    """What one run did. Its totals are measured from its beginning to its end, and are no sum of the parts."""

    target_bytes: int | None
    evictors: tuple[EvictorResult, ...]
    """In the order in which they were called; one that was asked again stands there again."""
    freed_heap_bytes: int | None
    freed_rss_bytes: int | None
    duration_seconds: float
    ended: Ended
    """Why it ended: the target is reached, all were asked, several in a row were useless, or the probe stops."""

    @property
    def freed_bytes(self) -> int | None:
        """The larger of the two that are known; this is what the target is compared with."""
        return Freed(self.freed_heap_bytes, self.freed_rss_bytes).known_bytes

    @property
    def reached(self) -> bool:
        """Whether the target was reached; always so without a target."""
        return self.target_bytes is None or self.ended == "reached"

    @property
    def errors(self) -> tuple[str, ...]:
        """One sentence for each evictor that failed, timed out or was skipped."""
        troubled = ("failed", "timed_out", "skipped")
        return tuple(f"{each.name} {each.outcome}: {each.detail}" for each in self.evictors if each.outcome in troubled)


class _Entry:
    """One registration."""

    def __init__(
        self, name: str, adapter: Adapter, priority: float, weight: float, timeout: float, harmless: bool
    ) -> None:
        self.name = name
        self.adapter = adapter
        self.priority = priority
        self.weight = weight
        self.timeout_seconds = timeout
        self.harmless = harmless
        self.loop: asyncio.AbstractEventLoop | None = None
        self.last: Isolated | None = None

    @property
    def gone(self) -> bool:
        return self.adapter.target() is None or (self.loop is not None and self.loop.is_closed())


@dataclass(frozen=True, slots=True)
class EvictorHandle:
    """A registration, to take it back. Also a context manager that takes it back at the end."""

    name: str
    _entry: _Entry

    def unregister(self) -> bool:
        """Take it back; False if it was before, or another one has its name now."""
        with _state.lock:
            if _state.entries.get(self.name) is not self._entry:
                return False
            del _state.entries[self.name]
            return True

    def __enter__(self) -> EvictorHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()


class _State:
    """All that this module remembers; made anew in a forked child but for the registrations."""

    def __init__(self, entries: dict[str, _Entry] | None = None) -> None:
        self.lock = threading.Lock()
        self.turn = threading.Lock()
        """Held by the run under way: two at once would measure each other."""
        self.entries: dict[str, _Entry] = {} if entries is None else entries
        self.counts: dict[tuple[str, Outcome], int] = {}
        self.freed: dict[str, int] = {}


_state = _State()


def _after_fork_in_child() -> None:
    global _state
    _state = _State(dict(_state.entries))
    for entry in _state.entries.values():
        entry.last = None  # its thread is the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# --- registering ----------------------------------------------------------------------------------------------


@overload
def register_evictor(
    name: str,
    evictor: None = None,
    *,
    priority: float = 0,
    weight: float = 1,
    harmless: bool = False,
    lock: Lock | None = None,
    timeout_seconds: float = 5,
    replace: bool = False,
) -> Callable[[T], T]: ...


@overload
def register_evictor(
    name: str,
    evictor: object,
    *,
    priority: float = 0,
    weight: float = 1,
    harmless: bool = False,
    lock: Lock | None = None,
    timeout_seconds: float = 5,
    replace: bool = False,
) -> EvictorHandle: ...


def register_evictor(
    name: str,
    evictor: Any = None,
    *,
    priority: float = 0,
    weight: float = 1,
    harmless: bool = False,
    lock: Lock | None = None,
    timeout_seconds: float = 5,
    replace: bool = False,
) -> Any:
    """Register something that can give memory back; without ``evictor`` this is a decorator.

    ``evictor`` is a function (called with nothing, or, if it has one positional parameter, with the bytes asked for
    or None for "all you can"), a ``functools.lru_cache``/``cache`` or ``cachetools.cached`` function, a ``cachetools``
    cache or another mapping, or any object with ``expire``, ``evict``, ``cull`` or ``clear``. Caches, objects and
    bound methods are held weakly and leave the registry when they die; what is only called (functions, lambdas,
    ``functools.partial``) is held, and so is what can't be referred to weakly: dicts, lists, and their methods.

    A coroutine function, or an object whose methods are, runs on the event loop on which it was registered.

    ``priority``: what has the **lowest goes first**; a high one says that the data is dear. ``weight``: among those of
    one priority, the share of the target that is asked of this one. ``harmless``: nobody misses what it frees (expired
    sessions, say), so a cleanup that isn't aggressive calls it too. ``lock``: held while it works; a cache that
    several threads use needs the lock that guards it, a ``cachetools.cached`` function brings its own.
    ``timeout_seconds``: after that it is left alone until it has returned.

    Raises:
        MonitoringError: nothing of it can be evicted, the name is taken (unless ``replace``), or there are 64 already.
        ValueError: an argument is out of its range.
    """
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"name {name!r}: expected a text of 1 to {MAX_NAME} characters")
    if not math.isfinite(priority):
        raise ValueError(f"priority {priority!r}: expected a number; what has the lowest goes first")
    for label, value in (("weight", weight), ("timeout_seconds", timeout_seconds)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{label} {value!r}: expected a number above 0")
    if evictor is None:

        def decorate(decorated: T) -> T:
            _register(_Entry(name, adapt(decorated, lock), priority, weight, timeout_seconds, harmless), replace)
            return decorated

        return decorate
    entry = _Entry(name, adapt(evictor, lock), priority, weight, timeout_seconds, harmless)
    _register(entry, replace)
    return EvictorHandle(name, entry)


def _register(entry: _Entry, replace: bool) -> None:
    if entry.adapter.is_async:
        entry.loop = running_loop()
        if entry.loop is None:
            raise MonitoringError(
                f"evictor {entry.name!r} is asynchronous and would run on the event loop on which it is registered, "
                "but no loop runs here; register it from a coroutine, at the start of the application, say"
            )
    with _state.lock:
        _forget_gone()
        if entry.name in _state.entries and not replace:
            raise MonitoringError(
                f"there is an evictor named {entry.name!r} already; unregister_evictor({entry.name!r}) it, pick "
                "another name, or pass replace=True"
            )
        if entry.name not in _state.entries and len(_state.entries) >= MAX_EVICTORS:
            raise MonitoringError(
                f"{MAX_EVICTORS} evictors are registered, and {entry.name!r} would be one more; register one for a "
                "whole kind of cache rather than one for each object"
            )
        _state.entries[entry.name] = entry


def unregister_evictor(name: str) -> bool:
    """Take back what was registered as ``name``; False if there was nothing."""
    with _state.lock:
        return _state.entries.pop(name, None) is not None


def registered_evictors() -> list[dict[str, object]]:
    """What is registered, in the order in which it goes; ready for JSON."""
    return [
        {
            "name": entry.name,
            "kind": entry.adapter.kind,
            "priority": entry.priority,
            "weight": entry.weight,
            "harmless": entry.harmless,
            "running": entry.last is not None and entry.last.running,
        }
        for entry in _ordered()
    ]


def _forget_gone() -> None:
    for name in [name for name, entry in _state.entries.items() if entry.gone]:
        del _state.entries[name]


def _ordered() -> list[_Entry]:
    with _state.lock:
        _forget_gone()
        return sorted(_state.entries.values(), key=lambda entry: entry.priority)  # stable: then as registered


# --- evicting -------------------------------------------------------------------------------------------------


def evict(target_bytes: int | None = None, *, strict: bool = False) -> EvictionResult:
    """Call the evictors until ``target_bytes`` are freed, or all of them where None; blocks until that is done.

    With a target it ends early where three in a row had something and freed nothing measurable (16 KiB). What an
    evictor raises is in the result; one that takes longer than its time is left running and not called again until it
    has returned.

    Raises:
        EvictionError: the target was not reached, and ``strict``.
        MonitoringError: an event loop runs on this thread (use ``evict_async``), or it is an evictor's.
        ValueError: the target is not above 0.
    """
    refuse_where_waiting_harms("evict", "evict_async")
    return _evict(target_bytes, strict=strict)


async def evict_async(target_bytes: int | None = None, *, strict: bool = False) -> EvictionResult:
    """``evict`` on a thread of its own, so that the event loop goes on."""
    return await in_thread(partial(_evict, target_bytes, strict=strict))


def run_evictors(
    target_bytes: int | None, *, only_harmless: bool = False, stop: Callable[[], bool] = lambda: False
) -> EvictionResult:
    """``evict`` for the cleanup: ``only_harmless`` frees what nobody misses, ``stop`` is asked between evictors."""
    with _state.turn:
        run = _Run(target_bytes, only_harmless, stop)
        ended = run.run()
    result = run.result(ended)
    _count(result.evictors)
    _tell(result)
    return result


def _evict(target_bytes: int | None, *, strict: bool) -> EvictionResult:
    if target_bytes is not None and (isinstance(target_bytes, bool) or not target_bytes > 0):
        raise ValueError(f"target_bytes {target_bytes!r}: expected a number of bytes above 0, or None for all")
    result = run_evictors(None if target_bytes is None else int(target_bytes))
    if strict and not result.reached and result.target_bytes is not None:
        raise EvictionError(result.target_bytes, result.freed_bytes, result.errors)
    return result


class _Run:
    """One run over the evictors."""

    def __init__(self, target_bytes: int | None, only_harmless: bool, stop: Callable[[], bool]) -> None:
        self._target = target_bytes
        self._only_harmless = only_harmless
        self._stop = stop
        self._begun = time.monotonic()
        self._results: list[EvictorResult] = []
        self._useless = 0
        self._first = self._last = read_held()

    def result(self, ended: Ended) -> EvictionResult:
        freed = difference(self._first, self._last)
        return EvictionResult(
            self._target,
            tuple(self._results),
            freed.heap_bytes,
            freed.rss_bytes,
            time.monotonic() - self._begun,
            ended,
        )

    def run(self) -> Ended:
        for _, group in groupby(_ordered(), key=lambda entry: entry.priority):
            ended = self._ask_group([entry for entry in group if self._may(entry)])
            if ended is not None:
                return ended
        return "no_evictor_left"

    def _may(self, entry: _Entry) -> bool:
        return not self._only_harmless or entry.harmless or entry.adapter.can_expire

    def _ask_group(self, entries: list[_Entry]) -> Ended | None:
        for _ in range(MAX_ROUNDS if self._target is not None else 1):
            giving: list[_Entry] = []
            for index, entry in enumerate(entries):
                if self._stop():
                    return "stopped"
                asked = self._share(entry, entries[index:])
                result = self._ask(entry, asked)
                self._results.append(result)
                if result.outcome == "freed":
                    self._useless = 0
                    if asked is not None and (result.freed_bytes or 0) >= asked / 2:
                        giving.append(entry)
                elif result.outcome == "useless" and result.detail != EMPTY:  # the others say nothing of memory
                    self._useless += 1
                if self._target is not None:
                    if self._left() == 0:
                        return "reached"
                    if self._useless >= USELESS_IN_A_ROW:
                        return "useless"
            entries = [entry for entry in giving if not entry.adapter.empty]
            if not entries:
                break
        return None

    def _left(self) -> int:
        freed = difference(self._first, self._last).known_bytes or 0
        return max(0, (self._target or 0) - freed)

    def _share(self, entry: _Entry, still_to_ask: Iterable[_Entry]) -> int | None:
        if self._target is None:
            return None
        total = sum(each.weight for each in still_to_ask)
        return max(1, math.ceil(self._left() * entry.weight / total))

    def _ask(self, entry: _Entry, asked: int | None) -> EvictorResult:
        if entry.last is not None and entry.last.running:
            detail = f"has been running for {entry.last.seconds:.0f} s and has not returned"
            return EvictorResult(entry.name, "skipped", asked, None, None, 0.0, detail)
        if entry.adapter.empty:
            return EvictorResult(entry.name, "useless", asked, 0, 0, 0.0, EMPTY)
        before = self._last
        call = Isolated(lambda: self._call(entry, asked, before))
        entry.last = call
        # One on a loop ends itself in time, if the loop lives.
        state = call.wait(entry.timeout_seconds + (0.0 if entry.loop is None else LOOP_GRACE_SECONDS))
        self._last = after = read_held()
        freed = difference(before, after)
        outcome: Outcome
        detail = call.error
        if state == "timed_out":
            outcome, detail = "timed_out", f"has not returned after {entry.timeout_seconds:g} s"
        elif state == "failed":
            outcome = "failed"
        else:
            outcome = "freed" if (freed.known_bytes or 0) >= MEASURABLE_BYTES else "useless"
        return EvictorResult(entry.name, outcome, asked, freed.heap_bytes, freed.rss_bytes, call.seconds, detail)

    def _call(self, entry: _Entry, asked: int | None, before: Held) -> None:
        def freed() -> int | None:
            if before.heap_bytes is None:
                return difference(before, read_held()).rss_bytes
            now = read_heap()
            return None if now is None else before.heap_bytes - now

        adapter = entry.adapter
        try:
            if self._only_harmless and not entry.harmless:
                result = adapter.expire()
            else:
                # A little more than asked for, because what this call itself allocates counts against it.
                more = 0 if adapter.kind == "callable" else MEASURABLE_BYTES
                result = adapter.evict(None if asked is None else asked + more, freed)
        except Gone:
            return
        if result is not None:
            loop = entry.loop
            if loop is None:
                result.close()  # type: ignore[attr-defined]  # a coroutine
                raise MonitoringError("a plain function returned a coroutine; register a coroutine function instead")
            on_loop(result, loop, entry.timeout_seconds)  # type: ignore[arg-type]


# --- telling --------------------------------------------------------------------------------------------------


def _count(results: Iterable[EvictorResult]) -> None:
    with _state.lock:
        for each in results:
            known = {name for name, _ in _state.counts}
            name = each.name if each.name in known or len(known) < MAX_EVICTORS else OTHER
            _state.counts[name, each.outcome] = _state.counts.get((name, each.outcome), 0) + 1
            _state.freed[name] = _state.freed.get(name, 0) + max(0, each.freed_bytes or 0)


def observe_runs() -> Iterator[Observation]:
    """Calls of evictors so far in this process, by name and outcome."""
    for (name, outcome), count in list(_state.counts.items()):
        yield Observation(count, {names.EVICTOR_NAME: name, names.EVICTOR_OUTCOME: outcome})


def observe_freed() -> Iterator[Observation]:
    """Bytes freed so far in this process, by name."""
    for name, freed in list(_state.freed.items()):
        yield Observation(freed, {names.EVICTOR_NAME: name})


def _tell(result: EvictionResult) -> None:
    if not result.evictors:
        return
    attributes: dict[str, Any] = {
        names.EVICTION_ENDED: result.ended,
        names.EVICTION_DURATION: result.duration_seconds,
        names.EVICTION_REPORT: [_line(each) for each in result.evictors],
    }
    measured = {
        names.EVICTION_TARGET: result.target_bytes,
        names.EVICTION_FREED_HEAP: result.freed_heap_bytes,
        names.EVICTION_FREED_RSS: result.freed_rss_bytes,
    }
    attributes |= {key: value for key, value in measured.items() if value is not None}
    called = len({each.name for each in result.evictors})
    freed = "an unknown amount" if result.freed_bytes is None else human_bytes(result.freed_bytes)
    of = "" if result.target_bytes is None else f" of the {human_bytes(result.target_bytes)} asked for"
    troubles = f"; {'; '.join(result.errors)}" if result.errors else ""
    body = f"Eviction freed {freed}{of} with {called} evictor{'s' if called != 1 else ''}{troubles}."
    severity = SeverityNumber.WARN if result.errors else SeverityNumber.INFO
    events.emit(names.EVENT_EVICTION, body, attributes, severity=severity)


def _line(each: EvictorResult) -> str:
    freed = "unmeasured" if each.freed_bytes is None else f"{each.freed_bytes} By"
    return f"{each.name}: {each.outcome}, {freed}, {each.duration_seconds:.3f} s"
