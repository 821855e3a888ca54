"""Cleaning up: evictors, then the cyclic garbage collector, then returning the C allocator's free pages to the system.

Owns the steps, their measurement, and the memory of which of them were useless lately: such a step is skipped, for ten
minutes at first and twice as long each time, up to four hours. Works with and without a running probe; with one, each
run is an event ``otel_memory.cleanup``. When a cleanup runs by itself is in ``cleanup_feature``.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import psutil
from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe import events
from otel_memory.probe.eviction import EvictionResult, run_evictors
from otel_memory.probe.held import Freed, Held, difference, read_held
from otel_memory.probe.isolation import in_thread, refuse_where_waiting_harms
from otel_memory.probe.units import human_bytes, human_seconds

__all__ = ["CleanupResult", "StepResult", "cleanup", "cleanup_async"]

PART: Final = "cleanup"
USEFUL_BYTES: Final = 1024 * 1024
"""A step that freed less than this was not worth its time."""
FIRST_PAUSE_SECONDS: Final = 600.0
LONGEST_PAUSE_SECONDS: Final = 4 * 3600.0
CHEAP_SECONDS: Final = 0.05
"""A full collection that takes longer is left to the aggressive cleanup: every thread stands still meanwhile."""
CHEAP_BLOCKS: Final = 300_000

Step = Literal["evict", "gc", "trim"]
Outcome = Literal["freed", "useless", "failed", "skipped"]
Trigger = Literal["manual", "periodic", "critical"]
STEPS: Final[tuple[Step, ...]] = ("evict", "gc", "trim")


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did. Bytes are measured; None is "could not be measured", or that the step was skipped."""

    step: Step
    outcome: Outcome
    freed_heap_bytes: int | None
    freed_rss_bytes: int | None
    duration_seconds: float
    detail: str = ""

    @property
    def freed_bytes(self) -> int | None:
        """The larger of the two that are known; negative where the process grew meanwhile."""
        return Freed(self.freed_heap_bytes, self.freed_rss_bytes).known_bytes


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """What one cleanup did; its totals are measured from its beginning to its end."""

    trigger: Trigger
    aggressive: bool
    steps: tuple[StepResult, ...]
    freed_heap_bytes: int | None
    freed_rss_bytes: int | None
    duration_seconds: float
    eviction: EvictionResult | None
    """What the evictors did, if that step ran."""

    @property
    def freed_bytes(self) -> int | None:
        """The larger of the two that are known; negative where the process grew meanwhile."""
        return Freed(self.freed_heap_bytes, self.freed_rss_bytes).known_bytes


@dataclass(slots=True)
class _Pause:
    """How long a step is left out."""

    until: float = 0.0
    seconds: float = 0.0

    def after(self, outcome: Outcome, now: float) -> None:
        if outcome == "freed":
            self.until = self.seconds = 0.0
        elif outcome == "useless":
            self.seconds = min(max(FIRST_PAUSE_SECONDS, 2 * self.seconds), LONGEST_PAUSE_SECONDS)
            self.until = now + self.seconds


class _Turn:
    """One cleanup under way; others may wait for it."""

    def __init__(self, aggressive: bool) -> None:
        self.aggressive = aggressive
        self.over = threading.Event()
        self.result: CleanupResult | None = None


class _State:
    """All that this module remembers; made anew in a forked child."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.turn: _Turn | None = None
        self.pauses: dict[Step, _Pause] = {step: _Pause() for step in STEPS}
        self.runs: dict[Trigger, int] = {}
        self.freed: dict[Step, int] = {}
        self.seconds: dict[Step, float] = {}
        self.last: CleanupResult | None = None
        self.full_seconds: float | None = None
        """What the last collection of all generations took."""


_state = _State()


def _after_fork_in_child() -> None:
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def cleanup(aggressive: bool = False) -> CleanupResult:
    """Free what can be freed, and say what each step did; blocks until that is done.

    Otherwise: what nobody misses (``expire`` of caches, evictors that are ``harmless``), garbage (the young
    generations alone where a full collection takes more than 50 ms), the allocator's free pages; a step that was
    useless lately is skipped. ``aggressive``: all evictors, all generations, no step is skipped; caches are empty
    afterwards, and a full collection stops every thread of the program while it lasts (0.1 s for a million objects).

    Two never run at once: while one runs that does at least as much, this waits for it and returns its result.

    Raises:
        MonitoringError: an event loop runs on this thread (use ``cleanup_async``), or it is an evictor's.
    """
    refuse_where_waiting_harms("cleanup", "cleanup_async")
    return run_cleanup("manual", aggressive)


async def cleanup_async(aggressive: bool = False) -> CleanupResult:
    """``cleanup`` on a thread of its own. The event loop is held up only while the garbage collector runs, because
    that stops every thread."""
    return await in_thread(partial(run_cleanup, "manual", aggressive))


def run_cleanup(trigger: Trigger, aggressive: bool, stop: Callable[[], bool] = lambda: False) -> CleanupResult:
    """``cleanup`` for whoever knows that waiting is in order here; ``stop`` ends it between two steps."""
    while True:
        with _state.lock:
            under_way = _state.turn
            if under_way is None:
                mine = _state.turn = _Turn(aggressive)
                break
        under_way.over.wait()
        if under_way.result is not None and under_way.aggressive >= aggressive:
            return under_way.result
    state = _state
    try:
        mine.result = result = _clean(trigger, aggressive, stop)
    finally:
        with state.lock:
            state.turn = None
        mine.over.set()
    _count(result)
    _tell(result)
    return result


def last_result() -> CleanupResult | None:
    """What the last cleanup of this process did."""
    return _state.last


# --- the steps ------------------------------------------------------------------------------------------------


def _clean(trigger: Trigger, aggressive: bool, stop: Callable[[], bool]) -> CleanupResult:
    begun = time.monotonic()
    evictions: list[EvictionResult] = []

    def evictors() -> str:
        result = run_evictors(None, only_harmless=not aggressive, stop=stop)
        evictions.append(result)
        if not result.evictors:
            raise _NothingToDo("no evictor is registered for it")
        return "; ".join(result.errors)

    actions: dict[Step, Callable[[], str]] = {"evict": evictors, "gc": partial(_collect, aggressive), "trim": _trim}
    first = held = read_held()
    steps: list[StepResult] = []
    for step in STEPS:
        pause, now = _state.pauses[step], time.monotonic()
        if stop():
            result = StepResult(step, "skipped", None, None, 0.0, "the probe is being stopped")
        elif not aggressive and now < pause.until:
            left = human_seconds(pause.until - now)
            result = StepResult(step, "skipped", None, None, 0.0, f"was useless; tried again in {left}")
        else:
            result, held = _measured(step, actions[step], held)
            pause.after(result.outcome, now)
        steps.append(result)
    freed = difference(first, held)
    return CleanupResult(
        trigger,
        aggressive,
        tuple(steps),
        freed.heap_bytes,
        freed.rss_bytes,
        time.monotonic() - begun,
        evictions[0] if evictions else None,
    )


def _measured(step: Step, action: Callable[[], str], before: Held) -> tuple[StepResult, Held]:
    begun = time.monotonic()
    failed = False
    try:
        detail = action()
    except _NothingToDo as error:
        return StepResult(step, "skipped", None, None, 0.0, str(error)), before
    except Exception as error:
        failed, detail = True, f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - begun
    after = read_held()
    freed = difference(before, after)
    # What was not measured was not measured to be useless either.
    useless = freed.known_bytes is not None and freed.known_bytes < USEFUL_BYTES
    outcome: Outcome = "failed" if failed else "useless" if useless else "freed"
    return StepResult(step, outcome, freed.heap_bytes, freed.rss_bytes, seconds, detail), after


class _NothingToDo(Exception):
    """A step has nothing to work on, which says nothing of its use."""


def _collect(aggressive: bool) -> str:
    generation = 2 if aggressive or _full_is_cheap() else 1
    begun = time.perf_counter()
    unreachable = gc.collect(generation)
    if generation == 2:
        _state.full_seconds = time.perf_counter() - begun
    return f"{unreachable} objects unreachable in generations 0 to {generation}"


def _full_is_cheap() -> bool:
    """By what the last one took; before the first, by the count of Python's blocks."""
    if _state.full_seconds is not None:
        return _state.full_seconds <= CHEAP_SECONDS
    return sys.getallocatedblocks() <= CHEAP_BLOCKS


def _trim() -> str:
    trim = getattr(psutil, "heap_trim", None)
    if trim is None:
        raise NotImplementedError("the C library of this system has no way to return free pages")
    trim()
    return ""


# --- telling --------------------------------------------------------------------------------------------------


def _count(result: CleanupResult) -> None:
    with _state.lock:
        _state.last = result
        _state.runs[result.trigger] = _state.runs.get(result.trigger, 0) + 1
        for each in result.steps:
            if each.outcome != "skipped":
                _state.freed[each.step] = _state.freed.get(each.step, 0) + max(0, each.freed_bytes or 0)
                _state.seconds[each.step] = _state.seconds.get(each.step, 0.0) + each.duration_seconds


def observe_runs() -> Iterator[Observation]:
    """Cleanups so far in this process, by what set them off."""
    for trigger, count in list(_state.runs.items()):
        yield Observation(count, {names.CLEANUP_TRIGGER: trigger})


def observe_freed() -> Iterator[Observation]:
    """Bytes freed so far in this process, by step."""
    for step, freed in list(_state.freed.items()):
        yield Observation(freed, {names.CLEANUP_STEP: step})


def observe_time() -> Iterator[Observation]:
    """Seconds spent so far in this process, by step."""
    for step, seconds in list(_state.seconds.items()):
        yield Observation(seconds, {names.CLEANUP_STEP: step})


def _tell(result: CleanupResult) -> None:
    attributes: dict[str, Any] = {
        names.CLEANUP_TRIGGER: result.trigger,
        names.CLEANUP_AGGRESSIVE: result.aggressive,
        names.CLEANUP_DURATION: result.duration_seconds,
    }
    _put(attributes, names.CLEANUP_FREED_HEAP, result.freed_heap_bytes)
    _put(attributes, names.CLEANUP_FREED_RSS, result.freed_rss_bytes)
    for each in result.steps:
        attributes[names.CLEANUP_STEP_OUTCOME[each.step]] = each.outcome
        if each.outcome != "skipped":
            attributes[names.CLEANUP_STEP_DURATION[each.step]] = each.duration_seconds
        _put(attributes, names.CLEANUP_STEP_FREED_HEAP[each.step], each.freed_heap_bytes)
        _put(attributes, names.CLEANUP_STEP_FREED_RSS[each.step], each.freed_rss_bytes)
    troubled = any(each.outcome == "failed" for each in result.steps)
    severity = SeverityNumber.WARN if troubled else SeverityNumber.INFO
    events.emit(names.EVENT_CLEANUP, describe(result), attributes, severity=severity)


def _put(attributes: dict[str, Any], key: str, value: int | None) -> None:
    if value is not None:
        attributes[key] = value


def describe(result: CleanupResult) -> str:
    """The cleanup in one sentence."""
    how = "Aggressive" if result.aggressive else "Gentle"
    heap, rss = (
        "unmeasured" if freed is None else human_bytes(freed)
        for freed in (result.freed_heap_bytes, result.freed_rss_bytes)
    )
    steps = ", ".join(f"{each.step} {each.outcome}{_amount(each)}" for each in result.steps)
    freed = f"heap {heap}, resident {rss} freed in {result.duration_seconds:.2f} s"
    return f"{how} cleanup ({result.trigger}): {freed}; {steps}."


def _amount(each: StepResult) -> str:
    return f" {human_bytes(each.freed_bytes)}" if each.outcome == "freed" and each.freed_bytes is not None else ""
