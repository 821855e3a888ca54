"""Collects cyclic garbage and hands it out before it is freed, leaving the collector's flags and list as they were.

Owns the time in which ``gc.DEBUG_SAVEALL`` is set: one run of the process at a time, undone in whatever way it ends,
and in a child that was forked in the middle. The program's code runs here as in any collection: weak references are
cleared and their callbacks called, then ``__del__`` and the like, once; only the freeing comes later.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from weakref import ref

from otel_memory.probe.errors import MonitoringError

SAVE_ALL: Final = gc.DEBUG_SAVEALL
GENERATIONS: Final = (0, 1, 2)
OTHERS_SECONDS: Final = 5.0
"""How long another thread's collection is waited for."""
FORK_WAIT_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.005
_RETRY_SECONDS: Final = 0.0002


class Claim:
    """One run's hold on the collector; ``thread`` is the one that runs."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def take(self, wait_seconds: float) -> None:
        """Wait until no other run has it.

        Raises:
            MonitoringError: this thread has it already, or others have had it for ``wait_seconds``.
        """
        deadline = time.monotonic() + wait_seconds
        # One atomic step that says whose it is: an exception that comes from outside finds no moment in between.
        while (holder := _claims.setdefault("run", self)) is not self:
            if holder.thread == self.thread:
                raise MonitoringError(
                    "diagnostic_gc_run() was called by code that a diagnostic run is running (a finalizer or a "
                    "callback of the collector): call it from elsewhere"
                )
            if time.monotonic() >= deadline:
                raise MonitoringError(
                    f"another diagnostic_gc_run() has been under way for {wait_seconds:g} s: "
                    "try again later, or with a longer wait_seconds="
                )
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Give it back if it is held."""
        if _claims.get("run") is self:
            del _claims["run"]


_claims: dict[str, Claim] = {}


class Phase(NamedTuple):
    """One collection: ``objects`` found by it, ``seconds`` the program stood still."""

    objects: int
    seconds: float


class _Window(NamedTuple):
    """What has to be undone: flags and switch as found, the list of garbage, its length as found."""

    thread: int
    flags: int
    enabled: bool
    garbage: list[Any]
    mark: int


_open: _Window | None = None


class _Canary:
    """Garbage of our own: shows that a collection took place, and which list it put its finds into."""

    __slots__ = ("__weakref__", "itself")

    def __init__(self) -> None:
        self.itself = self


def find() -> tuple[list[Any], tuple[Phase, ...]]:
    """Collect each generation, youngest first. Returns the garbage, alive, and what each collection found.

    To be called by the holder of the claim, who drops the list before ``free()``.

    Raises:
        MonitoringError: another thread is collecting, and goes on.
    """
    global _open
    phases: list[Phase] = []
    ends: list[int] = []
    found: list[Any] = []
    garbage = gc.garbage
    flags = gc.get_debug()
    enabled = gc.isenabled()
    mark = len(garbage)
    whole = False
    # An exception from outside (Ctrl-C, a timeout) comes after a call, never in the middle of a step written in C. So
    # the undoing has one call to a finally, and what the next one does again is done already. No finally begins with a
    # try: that line is outside of every handler.
    try:
        try:
            try:
                try:
                    _open = _Window(threading.get_ident(), flags, enabled, garbage, mark)
                    gc.set_debug(flags | SAVE_ALL)
                    phases.append(_collect(0))
                    if not _has_canary(garbage, mark):
                        garbage, mark = _list_of_the_collector(phases[0].objects)
                        _open = _Window(threading.get_ident(), flags, enabled, garbage, mark)
                    ends.append(len(garbage) - mark)
                    for generation in GENERATIONS[1:]:
                        phases.append(_collect(generation))
                        ends.append(len(garbage) - mark)
                    whole = True
                finally:
                    gc.set_debug(flags)
            finally:
                found += garbage[mark:]
                del garbage[mark:]
        finally:
            if enabled:
                gc.enable()
            _open = None
    finally:
        gc.set_debug(flags)
        del garbage[mark:]
        if enabled:
            gc.enable()
        _open = None
        if not whole:
            found.clear()  # or a kept traceback would keep them
    return _without_canaries(found, phases, ends)


def _without_canaries(found: list[Any], phases: list[Phase], ends: list[int]) -> tuple[list[Any], tuple[Phase, ...]]:
    """``found`` and the counts without our own objects. A phase has what came into the list up to its end in it:
    a collection that starts by itself in between puts its finds there, too."""
    rest: list[Any] = []
    counted: list[Phase] = []
    start = 0
    for phase, end in zip(phases, ends, strict=True):
        before = len(rest)
        rest += [thing for thing in found[start:end] if type(thing) is not _Canary]
        counted.append(phase._replace(objects=len(rest) - before))
        start = end
    rest += [thing for thing in found[start:] if type(thing) is not _Canary]
    return rest, tuple(counted)


def free() -> tuple[Phase, int]:
    """Collect once more, so that what was found and let go of is freed. Returns that, and how much can't be freed.

    Also where the program itself has ``DEBUG_SAVEALL`` set, which is set again afterwards.
    """
    global _open
    flags = gc.get_debug()
    before = gc.get_stats()[-1]["uncollectable"]
    enabled = gc.isenabled()
    try:
        try:
            try:
                _open = _Window(threading.get_ident(), flags, enabled, [], 0)
                gc.set_debug(flags & ~SAVE_ALL)
                phase = _collect(2)
            finally:
                gc.set_debug(flags)
        finally:
            if enabled:
                gc.enable()
            _open = None
    finally:
        gc.set_debug(flags)
        if enabled:
            gc.enable()
        _open = None
    return phase._replace(objects=max(0, phase.objects - 1)), gc.get_stats()[-1]["uncollectable"] - before


def _collect(generation: int, clock: Callable[[], float] = time.perf_counter) -> Phase:
    """``gc.collect``, which does nothing while another thread is in a collection (whose finalizers and callbacks let
    this one run): then once more. Counts what it found as ``gc.collect`` does, the canary among it.

    May leave the collector disabled.
    """
    deadline = time.monotonic() + OTHERS_SECONDS
    while True:
        # A new one each time: if another's collection met it alive, it would be of an older generation.
        canary = ref(_Canary())
        before = gc.get_stats()[generation]["collections"]
        began = clock()
        objects = gc.collect(generation)
        seconds = clock() - began
        if canary() is None and gc.get_stats()[generation]["collections"] > before:
            return Phase(objects, seconds)
        if time.monotonic() >= deadline:
            raise MonitoringError(
                f"another thread's garbage collection has not ended within {OTHERS_SECONDS:g} s (a finalizer or a "
                "callback of the collector hangs), so that this process can't collect at all"
            )
        gc.disable()  # or one collection of other threads follows the other; the caller puts it right
        time.sleep(_RETRY_SECONDS)


def _has_canary(garbage: list[Any], mark: int) -> bool:
    """Looked for from the end, where it is: it was the youngest."""
    return any(type(garbage[number]) is _Canary for number in range(len(garbage) - 1, mark - 1, -1))


def _list_of_the_collector(objects: int) -> tuple[list[Any], int]:
    """The list that the collector fills, where the program has bound ``gc.garbage`` to another one.

    Also its length before the last ``objects``, the canary among them, were put there.
    """
    canaries = [thing for thing in gc.get_objects() if type(thing) is _Canary]
    for holder in gc.get_referrers(*canaries):
        if type(holder) is list and holder is not canaries:
            canary_at = next(number for number, thing in enumerate(holder) if type(thing) is _Canary)
            return holder, max(0, min(len(holder) - objects, canary_at))
    raise MonitoringError("gc.garbage is not the list that the collector fills: undo what replaced it")


# --- fork -----------------------------------------------------------------------------------------------------------


def _before_fork() -> None:
    """Let a window of another thread close, so that the child isn't born in the middle of a collection."""
    deadline = time.monotonic() + FORK_WAIT_SECONDS
    while (window := _open) is not None and window.thread != threading.get_ident():
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL_SECONDS)


def _after_fork_in_child() -> None:
    """The thread that was to undo it is not here. Where it is (a finalizer that forks), it does."""
    global _open
    window, mine = _open, threading.get_ident()
    if window is not None and window.thread != mine:
        _open = None
        gc.set_debug(window.flags)
        if window.enabled:
            gc.enable()
        del window.garbage[window.mark :]
    holder = _claims.get("run")
    if holder is not None and holder.thread != mine:
        _claims.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
