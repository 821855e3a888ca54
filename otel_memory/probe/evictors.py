"""How each kind of cache gives memory back: one adapter a kind, found by looking at what was registered.

Owns the adapters and the weak hold on what they stand for. An adapter does the least harm first (what has expired,
then what the cache itself would evict next, then all of it) and stops as soon as enough was freed, by measurement.
Chooses no order among evictors and starts no thread: ``eviction`` does.
"""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from typing import Any, Final, Literal

from otel_memory.probe.errors import MonitoringError

__all__ = ["MEASURABLE_BYTES", "Adapter", "adapt"]

MEASURABLE_BYTES: Final = 16 * 1024
"""Less than this is not told from the unrest of any running program."""
MEASUREMENTS: Final = 64
"""Readings of the heap at most, about, while one mapping is emptied."""
USELESS_SHARE: Final = 0.25
"""Of its entries: a mapping that gave up that many and freed nothing measurable is left alone."""

Kind = Literal["callable", "cache_clear", "mapping", "methods"]
Lock = AbstractContextManager[object]
Freed = Callable[[], int | None]
"""Bytes freed since the evictor began."""
Step = Callable[[], object]


class Gone(Exception):
    """What was registered is no longer there."""


class Adapter:
    """One evictable thing. ``evict`` may return a coroutine, which then has to be run on its loop."""

    def __init__(self, kind: Kind, target: object, lock: Lock | None) -> None:
        self.kind = kind
        self.lock = lock
        self._target, self.weak = _hold(kind, target)
        self.is_async = _is_async(kind, target)
        self._wants_bytes = kind == "callable" and _takes_one_argument(target)

    def target(self) -> Any:
        """What was registered; None where it is gone."""
        return self._target()

    @property
    def can_expire(self) -> bool:
        """Whether it knows what nobody misses."""
        target = self.target()
        return self.kind in ("mapping", "methods") and _plain_method(target, "expire") is not None

    @property
    def empty(self) -> bool:
        """Whether it holds nothing now, as far as it can tell."""
        target = self.target()
        try:
            if self.kind == "mapping":
                return len(_mapping_of(target)) == 0
            if self.kind == "cache_clear":
                return bool(target.cache_info().currsize == 0)
        except Exception:  # gone meanwhile, or a cache that keeps no such count
            return False
        return False

    def expire(self) -> object:
        """Drop only what has expired by the thing's own rules."""
        expire = _plain_method(self._alive(), "expire")
        if expire is None:
            return None
        with _held(self.lock):
            return _nothing_but_coroutine(expire())

    def evict(self, target_bytes: int | None, freed: Freed) -> object:
        """Free about ``target_bytes``, or all that can be freed where None.

        Raises:
            Gone: there is nothing left to evict from.
            Exception: whatever the thing itself raised.
        """
        target = self._alive()
        if self.kind == "callable":
            with _held(self.lock):
                return _nothing_but_coroutine(target(target_bytes) if self._wants_bytes else target())
        if self.kind == "cache_clear":
            with _held(self.lock):
                return _nothing_but_coroutine(target.cache_clear())
        if self.is_async:
            return _run_steps_async(_steps(target, target_bytes), target_bytes, freed)
        if self.kind == "mapping":
            _empty(_mapping_of(target), self.lock or _lock_of(target), target_bytes, freed)
            return None
        for step in _steps(target, target_bytes):
            with _held(self.lock):
                step()
            if _reached(target_bytes, freed):
                break
        return None

    def _alive(self) -> Any:
        target = self._target()
        if target is None:
            raise Gone
        return target


def adapt(target: object, lock: Lock | None = None) -> Adapter:
    """The adapter for ``target``, found by what it offers.

    Raises:
        MonitoringError: nothing of it can be evicted.
    """
    return Adapter(_kind_of(target), target, lock)


def _kind_of(target: object) -> Kind:
    if isinstance(target, type):
        raise MonitoringError(f"{target.__name__} is a class; register an instance of it, or a function")
    if _mapping_of(target) is not None:
        return "mapping"
    if callable(getattr(target, "cache_clear", None)):
        return "cache_clear"
    if not inspect.isroutine(target) and any(_steps(target)):
        return "methods"
    if callable(target):
        return "callable"
    raise MonitoringError(
        f"nothing of a {type(target).__name__} can be evicted: expected a function, a functools or cachetools cache, "
        "a mapping, or an object with a method expire, evict, cull or clear that needs no argument (evict: at most "
        "target_bytes)"
    )


def _mapping_of(target: object) -> Any:
    """The mapping that is emptied: the thing itself, or the cache behind a function that cachetools decorated."""
    if isinstance(target, MutableMapping):
        return target
    cache = getattr(target, "cache", None) if callable(getattr(target, "cache_clear", None)) else None
    return cache if isinstance(cache, MutableMapping) else None


def _lock_of(target: object) -> Lock | None:
    """What a function decorated by cachetools locks its cache with."""
    if isinstance(target, MutableMapping):
        return None
    lock = getattr(target, "cache_lock", None) or getattr(target, "cache_condition", None)
    return lock if hasattr(lock, "__enter__") else None


def _hold(kind: Kind, target: Any) -> tuple[Callable[[], Any], bool]:
    """(how to get at it, whether weakly).

    Caches and objects are held weakly, a bound method by the object that it belongs to. What is only called (a
    function, a lambda, a ``functools.partial``) is held: nobody else may hold it. So is what can't be referred to
    weakly.
    """
    try:
        if inspect.ismethod(target):
            return weakref.WeakMethod(target), True
        if inspect.isbuiltin(target) and target.__self__ is not None and not inspect.ismodule(target.__self__):
            # `entries.clear` of a deque or a set; the method itself is made anew each time it is looked up
            owner, name = weakref.ref(target.__self__), target.__name__
            return lambda: getattr(owner(), name, None), True
        if kind != "callable":
            return weakref.ref(target), True
    except TypeError:  # dict, list, instances with __slots__
        pass
    return lambda: target, False


def _is_async(kind: Kind, target: object) -> bool:
    if kind == "callable":
        return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
    if kind == "methods":
        return any(inspect.iscoroutinefunction(step) for step in _steps(target))
    return False


def _takes_one_argument(target: Any) -> bool:
    """Whether it is called with the bytes asked for: it has a positional parameter without a default, or one that is
    named ``target_bytes``."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):
        return False
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    needed = [each for each in positional if each.default is each.empty]
    if len(needed) > 1:
        raise MonitoringError("an evictor is called with no argument, or with the bytes asked for; this one needs more")
    return len(needed) == 1 or bool(positional and positional[0].name == "target_bytes")


def _plain_method(target: object, name: str) -> Step | None:
    """The method, if it can be called without an argument (``diskcache``'s ``evict`` needs a tag, for one)."""
    method: Step | None = getattr(target, name, None)
    if not callable(method):
        return None
    try:
        inspect.signature(method).bind()
    except TypeError:
        return None
    except ValueError:  # written in C and without a signature
        pass
    return method


def _by_bytes(target: object, target_bytes: int | None) -> Step | None:
    """Its ``evict(target_bytes)``. Without a target, which it need not expect, only where nothing else empties it."""
    method = getattr(target, "evict", None)
    if not callable(method) or (target_bytes is None and _plain_method(target, "clear") is not None):
        return None
    try:
        parameters = list(inspect.signature(method).parameters.values())
        inspect.signature(method).bind(target_bytes)
    except (TypeError, ValueError):
        return None
    return partial(method, target_bytes) if parameters[0].name == "target_bytes" else None


def _steps(target: object, target_bytes: int | None = None) -> Iterator[Step]:
    """By harm: what has expired, what the thing would evict itself, everything."""
    for name in ("expire", "evict", "cull", "clear"):
        method = _plain_method(target, name)
        if name == "evict":
            method = _by_bytes(target, target_bytes) or method
        if method is not None:
            yield method


async def _run_steps_async(steps: Iterator[Step], target_bytes: int | None, freed: Freed) -> None:
    for step in steps:
        result = step()
        if inspect.isawaitable(result):
            await result
        del result
        if _reached(target_bytes, freed):
            break


def _reached(target_bytes: int | None, freed: Freed) -> bool:
    if target_bytes is None:
        return False
    so_far = freed()
    return so_far is not None and so_far >= target_bytes


def _nothing_but_coroutine(result: object) -> object:
    """What was dropped is often returned, and must not be kept alive by that."""
    return result if inspect.iscoroutine(result) else None


# --- mappings -------------------------------------------------------------------------------------------------


def _empty(mapping: Any, lock: Lock | None, target_bytes: int | None, freed: Freed) -> None:
    """Take entries out, the oldest first (or by the mapping's own policy), until ``target_bytes`` are freed.

    In batches that follow what the entries turn out to weigh. Gives up where a quarter of them weighed nothing: they
    are small, or somebody else holds them.
    """
    expire = _plain_method(mapping, "expire")
    if expire is not None:
        with _held(lock):
            expire()
        if _reached(target_bytes, freed):
            return
    if target_bytes is None:
        with _held(lock):
            mapping.clear()
        return
    at_first = len(mapping)
    at_most = max(1, at_first // MEASUREMENTS)
    begun = freed() or 0
    taken, batch = 0, 1
    while taken < at_first:
        with _held(lock):
            count = _take(mapping, batch)
        taken += count
        so_far = freed() or 0
        if not count or so_far >= target_bytes:
            return
        weighed = so_far - begun
        if weighed < MEASURABLE_BYTES:
            if taken >= USELESS_SHARE * at_first and taken > 1:
                return
            batch = min(at_most, batch * 2)
        else:
            batch = max(1, min(at_most, round((target_bytes - so_far) * taken / weighed)))


def _take(mapping: Any, count: int) -> int:
    """Drop up to ``count`` entries; returns how many."""
    if not isinstance(mapping, dict):
        done = 0
        while done < count:
            try:
                mapping.popitem()  # by the cache's own policy
            except KeyError:
                break
            done += 1
        return done
    # One scan for all of them: looking for the first key anew each time skips every hole that was left before it.
    for _ in range(10):
        try:
            keys = list(islice(mapping, count))
            break
        except RuntimeError:  # another thread wrote to it meanwhile
            continue
    else:
        raise MonitoringError("the mapping is written to all the time; register it with the lock that guards it")
    done = 0
    for key in keys:
        try:
            del mapping[key]
        except KeyError:  # somebody else took it
            continue
        done += 1
    return done


# --- locks of the application ---------------------------------------------------------------------------------


class _Borrowing:
    """Counts who holds, or waits for, one of the application's locks. A fork waits for them a moment, because a child
    would find such a lock taken for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._borrowers = 0

    @contextmanager
    def borrow(self, lock: Lock) -> Iterator[None]:
        with self._changed:
            self._borrowers += 1
        try:
            with lock:
                yield
        finally:
            with self._changed:
                self._borrowers -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        self._changed.acquire()  # held until after the fork, so that nobody begins meanwhile
        self._changed.wait_for(lambda: not self._borrowers, FORK_WAIT_SECONDS)

    def after_fork_in_parent(self) -> None:
        self._changed.release()


FORK_WAIT_SECONDS: Final = 0.05
_borrowing = _Borrowing()


@contextmanager
def _held(lock: Lock | None) -> Iterator[None]:
    if lock is None:
        yield
    else:
        with _borrowing.borrow(lock):
            yield


def _before_fork() -> None:
    _borrowing.before_fork()


def _after_fork_in_parent() -> None:
    _borrowing.after_fork_in_parent()


def _after_fork_in_child() -> None:
    global _borrowing
    _borrowing = _Borrowing()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
