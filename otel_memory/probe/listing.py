"""All objects that the garbage collector knows, looked at in pieces, and kept apart from forks.

A listing keeps every object alive while it is there. A process that is forked meanwhile would keep them all for good,
because the thread that would let go of them isn't in the child: so a fork breaks the listing off, waits until it is
gone (some ms), and goes on. Owns that, and the search for referrers that holds the interpreter for no longer than a
bound, however many objects there are.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final

from otel_memory.probe.referents import referents

CHUNK: Final = 2_000
HOLD_SECONDS: Final = 0.01
"""Longest time that one piece of work which can be cut up holds the interpreter."""
FORK_WAIT_SECONDS: Final = 0.5
"""A fork waits so long for a listing to break off, and then goes on all the same."""
SECONDS_AN_OBJECT: Final = 15e-9
SECONDS_A_TARGET: Final = 1e-9
"""What ``gc.get_referrers`` takes for each object that the collector knows, and for each of them and each target."""
_MANY: Final = 5_000
_MANY_KEPT: Final = 200


class Interrupted(Exception):
    """A fork broke the listing off."""


class Kept(list[Any]):
    """Objects of the program that a look keeps in hand for a moment; empty in the child of a fork, where no thread goes
    on that would let go of them."""

    __slots__ = ("__weakref__",)

    def __init__(self, things: Iterable[Any] = ()) -> None:
        super().__init__(things)
        _forks.kept.append(weakref.ref(self))
        if len(_forks.kept) > _MANY_KEPT:
            _forks.kept = [known for known in _forks.kept if known() is not None]


class _Forks:
    def __init__(self) -> None:
        self.after_in_child()

    def after_in_child(self) -> None:
        self.alone = threading.Lock()
        self.waiting = 0
        if getattr(self, "listing", None) is not None:
            self.listing.let_go()
        self.listing: Any = None
        for known in getattr(self, "kept", ()):
            kept = known()
            if kept is not None:
                kept.clear()
        self.kept: list[weakref.ref[Kept]] = []
        self._held: set[int] = set()

    def before(self) -> None:
        self.waiting += 1
        if self.alone.acquire(timeout=FORK_WAIT_SECONDS):
            self._held.add(threading.get_ident())

    def after_in_parent(self) -> None:
        self.waiting -= 1
        if threading.get_ident() in self._held:
            self._held.discard(threading.get_ident())
            self.alone.release()


_forks: Final = _Forks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.after_in_parent, after_in_child=_forks.after_in_child
    )


class Listing:
    """A context manager, iterated once: chunks, what has survived collections first. A chunk is emptied after its
    turn.

    ``extra``: objects that the collector doesn't list. Raises ``Interrupted`` from the iteration where a fork waits.
    One at a time in a process; a second waits for the first.
    """

    def __init__(self, extra: Iterable[object] = (), cost_clock: Callable[[], float] = time.thread_time) -> None:
        self._extra = extra
        self._cost_clock = cost_clock
        self._objects: list[Any] = []
        self._chunk: list[Any] = []
        self._lock = _forks.alone
        self.total = 0
        self.pause_seconds = 0.0
        """How long making the list held the interpreter: the one thing that can't be cut up."""

    def __enter__(self) -> Listing:
        lock = self._lock = _forks.alone
        lock.acquire()
        _forks.listing = self
        try:
            began = self._cost_clock()
            self._objects = gc.get_objects()
            self.pause_seconds = self._cost_clock() - began
            self._objects += self._extra
            self.total = len(self._objects)
        except BaseException:
            _forks.listing = None
            lock.release()
            raise
        return self

    def __iter__(self) -> Iterator[list[Any]]:
        objects = self._objects
        while objects:
            if _forks.waiting:
                raise Interrupted("a fork came between")
            chunk = self._chunk = objects[-CHUNK:]
            del objects[-CHUNK:]
            chunk.reverse()
            yield chunk
            chunk.clear()

    @property
    def left(self) -> int:
        """Objects that have not had their turn."""
        return len(self._objects)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        objects = self._objects
        self._chunk.clear()
        while objects:
            del objects[-CHUNK * 10 :]
        _forks.listing = None
        self._lock.release()

    def let_go(self) -> None:
        """In the child of a fork: nobody will go on with it."""
        self._chunk.clear()
        self._objects.clear()


def referrers(
    things: list[Any],
    objects: int,
    rest: Callable[[], object] = lambda: time.sleep(0),
    cost_clock: Callable[[], float] = time.thread_time,
) -> tuple[list[Any], float]:
    """``gc.get_referrers(*things)``, in pieces where it would hold the interpreter for more than ``HOLD_SECONDS``; and
    the longest time in seconds that it did.

    ``objects``: how many the collector knows, about. ``rest`` is called between the pieces.

    Raises:
        Interrupted: a fork came between.
    """
    if objects * (SECONDS_AN_OBJECT + SECONDS_A_TARGET * len(things)) <= HOLD_SECONDS:
        arguments = tuple(things)  # made here, to be known: CPython 3.13 takes it for a referrer
        began = cost_clock()
        direct = gc.get_referrers(*arguments)
        took = cost_clock() - began
        return [each for each in direct if each is not arguments], took
    wanted = set(map(id, things))
    found: list[Any] = []
    with Listing(cost_clock=cost_clock) as listing:
        for turn, chunk in enumerate(listing):
            large = [thing for thing in chunk if _is_large(thing)]
            if large:
                chunk[:] = [thing for thing in chunk if not _is_large(thing)]
                found += [thing for thing in large if _refers(thing, wanted)]
            large.clear()
            if not wanted.isdisjoint(map(id, referents(*chunk))):
                found += [thing for thing in chunk if not wanted.isdisjoint(map(id, referents(thing)))]
            if turn % 4 == 3:
                rest()
    mine = {id(listing), id(things)}
    # What is not one call of the interpreter's gives way to other threads by itself.
    return [thing for thing in found if id(thing) not in mine], listing.pause_seconds


_LARGE: Final[tuple[tuple[type, Callable[[Any], int], Callable[[Any], Iterable[Any]]], ...]] = (
    (dict, dict.__len__, dict.values),
    (list, list.__len__, list.__iter__),
    (tuple, tuple.__len__, tuple.__iter__),
    (set, set.__len__, set.__iter__),
    (frozenset, frozenset.__len__, frozenset.__iter__),
    (deque, deque.__len__, deque.__iter__),
)


def _large(thing: Any) -> Callable[[Any], Iterable[Any]] | None:
    kind = type(thing)
    for base, length, items in _LARGE:
        if issubclass(kind, base):
            return items if length(thing) > _MANY else None
    return None


def _is_large(thing: Any) -> bool:
    return _large(thing) is not None


def _refers(thing: Any, wanted: Collection[int]) -> bool:
    """Whether a large container holds one of the wanted; looked at piece by piece. False where it changed meanwhile."""
    items = _large(thing)
    if items is None:
        return False
    iterator = iter(items(thing))
    try:
        while piece := list(islice(iterator, _MANY)):
            if any(id(each) in wanted for each in piece):
                return True
    except RuntimeError:
        return False
    return False
