"""The hook that measures imports: what memory and time executing each module took, on every thread.

Owns the patch of the import system and the readings around a module. It wraps the two functions of
``importlib._bootstrap`` that every load (``_load_unlocked``) and every reload (``_exec``) go through, and nothing else:
finders, loaders, specs and modules stay what they are, a module that is loaded already costs nothing more, and the
search for a file isn't counted. Installed with the first listener, and taken out with the last.

Two kinds of loading go past it: ``spec.loader.exec_module(module)`` called by hand, and the late execution of a module
of ``importlib.util.LazyLoader`` (the imports that such a module makes are seen).

What runs within an import never waits here: no lock is taken, and a listener must not take one that others wait for.
"""

from __future__ import annotations

import importlib._bootstrap as bootstrap
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final, Literal, NamedTuple

import psutil

from otel_memory.probe.packages.package_names import package_of
from otel_memory.probe.reader import read_rss

_FILE_NAME: Final = "<frozen importlib._bootstrap>"

_heap_info: Final[Callable[[], Any] | None] = getattr(psutil, "heap_info", None)
_allocated_blocks: Final[Callable[[], int] | None] = getattr(sys, "getallocatedblocks", None)


class Cost(NamedTuple):
    """What something took. Sizes are changes in bytes and may be negative; None is "not known", never 0."""

    time_seconds: float
    rss_bytes: int | None
    """Resident memory: whole pages, so a small module may show 0, and one may show what others had left over."""
    heap_bytes: int | None
    """In use in the C allocator (glibc), pymalloc's arenas not among it: buffers, large objects, C libraries."""
    blocks: int | None
    """Blocks of Python's own allocator, which holds objects up to 512 bytes; a count, because it tells no bytes.
    Only where it was asked for: counting walks the whole heap, 1 µs a megabyte and more where it isn't in the cache."""
    traced_bytes: int | None
    """What tracemalloc counted, where it was on: exact for all that Python's allocators gave out."""

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.time_seconds - other.time_seconds, *map(_less, self[1:], other[1:]))

    def plus(self, other: Cost) -> Cost:
        """The sum, where both are known."""
        return Cost(self.time_seconds + other.time_seconds, *map(_plus, self[1:], other[1:]))


FREE: Final = Cost(0.0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ImportCost:
    """One execution of a module. ``own`` is ``inclusive`` without the modules that were imported meanwhile, so the
    sum of ``own`` over all modules is the sum of ``inclusive`` over those that nothing measured imported."""

    name: str
    package: str
    parent: str | None
    """The module whose execution imported it; None at the top."""
    kind: Literal["load", "reload"]
    inclusive: Cost
    own: Cost
    error: str | None
    """The type of what it raised; what it cost until then is counted all the same."""
    overlapped: bool
    """Another thread imported at the same time: memory belongs to the process, so the sizes may be the other's."""
    outermost: bool
    """No module of the same package was being imported around it."""
    thread_id: int
    began: float
    """``time.perf_counter()`` when it began."""


Listener = Callable[[ImportCost], None]


class _Frame:
    """An import under way."""

    __slots__ = ("before", "began", "inner", "kind", "name", "overlapped", "package", "parent", "root")

    def __init__(self, name: str, kind: Literal["load", "reload"], parent: _Frame | None) -> None:
        self.name = name
        self.package = package_of(name)
        self.kind: Final = kind
        self.parent = parent
        self.root: _Frame = self if parent is None else parent.root
        self.overlapped = False
        self.inner = FREE
        self.began = 0.0
        self.before = FREE

    def is_outermost(self) -> bool:
        around = self.parent
        while around is not None:
            if around.package == self.package:
                return False
            around = around.parent
        return True


class _Thread(threading.local):
    top: _Frame | None = None


class _Hook:
    """The module's mutable state: there is one import system, so there is one hook."""

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self._counting: tuple[Listener, ...] = ()
        self.failed = 0
        """Measurements that went wrong; the imports themselves did not notice."""
        self._originals: dict[str, tuple[FunctionType, FunctionType]] = {}
        self.reset()

    def reset(self) -> None:
        """In the child of a fork: only the forking thread is here."""
        self._lock = threading.Lock()
        self._roots: dict[int, _Frame] = {}
        self._thread = _Thread()

    # --- in and out ---------------------------------------------------------------------------------------

    def add(self, listener: Listener, *, blocks: bool = False) -> None:
        """Tell ``listener`` of each import that ends from now on; with ``blocks``, count Python's blocks too.

        Raises:
            RuntimeError: this Python's import system isn't the one that is known here.
        """
        with self._lock:
            if not self.listeners:
                self._install()
            self.listeners = (*self.listeners, listener)
            if blocks:
                self._counting = (*self._counting, listener)

    def remove(self, listener: Listener) -> None:
        """Undo ``add``; the last one takes the hook out. Does nothing if it was done before."""
        with self._lock:
            had = bool(self.listeners)
            self.listeners = tuple(other for other in self.listeners if other != listener)
            self._counting = tuple(other for other in self._counting if other != listener)
            if had and not self.listeners:
                self._uninstall()

    @property
    def installed(self) -> bool:
        return any(getattr(bootstrap, name) is ours for name, (_, ours) in self._originals.items())

    def _install(self) -> None:
        for name, wrap in (("_load_unlocked", _around_load), ("_exec", _around_exec)):
            known = self._originals.get(name)
            if known is not None:
                if getattr(bootstrap, name) is known[0]:
                    setattr(bootstrap, name, known[1])
                # Else somebody wrapped ours after us, and it is still in the chain.
                continue
            original = getattr(bootstrap, name, None)
            if not callable(original):
                raise RuntimeError(f"importlib._bootstrap of Python {sys.version.split()[0]} has no {name}")
            ours = _as_of_importlib(wrap(original))
            self._originals[name] = (original, ours)
            setattr(bootstrap, name, ours)

    def _uninstall(self) -> None:
        for name, (original, ours) in list(self._originals.items()):
            if getattr(bootstrap, name) is ours:
                setattr(bootstrap, name, original)
                del self._originals[name]
            # Else it stays in somebody's chain, passes everything on, and measures nothing.

    # --- around one module; never raises ------------------------------------------------------------------

    def begin(self, name: str, kind: Literal["load", "reload"]) -> _Frame | None:
        if not self.listeners:
            return None
        try:
            thread = self._thread
            frame = _Frame(name, kind, thread.top)
            if frame.parent is None:
                for other in list(self._roots.values()):
                    other.overlapped = frame.overlapped = True
                self._roots[threading.get_ident()] = frame
            frame.before = self._read()
            frame.began = frame.before.time_seconds
            thread.top = frame
        except Exception:
            self.failed += 1
            return None
        return frame

    def end(self, frame: _Frame | None, error: BaseException | None) -> None:
        if frame is None:
            return
        try:
            inclusive = self._read() - frame.before
            thread, parent = self._thread, frame.parent
            if thread.top is not frame:
                frame.root.overlapped = True  # greenlets took turns within imports
            thread.top = parent
            if parent is None:
                self._roots.pop(threading.get_ident(), None)
            else:
                parent.inner = parent.inner.plus(inclusive)
            cost = ImportCost(
                name=frame.name,
                package=frame.package,
                parent=None if parent is None else parent.name,
                kind=frame.kind,
                inclusive=inclusive,
                own=inclusive - frame.inner,
                error=None if error is None else type(error).__name__,
                overlapped=frame.root.overlapped,
                outermost=frame.is_outermost(),
                thread_id=threading.get_ident(),
                began=frame.began,
            )
            for listener in self.listeners:
                listener(cost)
        except Exception:
            self.failed += 1

    def _read(self) -> Cost:
        return Cost(
            time.perf_counter(),
            read_rss(),
            read_heap(),
            _allocated_blocks() if self._counting and _allocated_blocks is not None else None,
            tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else None,
        )


def _around_load(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def _load_unlocked(spec: Any) -> Any:
        frame = HOOK.begin(spec.name, "load")
        try:
            module = original(spec)
        except BaseException as error:
            HOOK.end(frame, error)
            raise
        HOOK.end(frame, None)
        return module

    return _load_unlocked


def _around_exec(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def _exec(spec: Any, module: Any) -> Any:
        frame = HOOK.begin(spec.name, "reload")
        try:
            module = original(spec, module)
        except BaseException as error:
            HOOK.end(frame, error)
            raise
        HOOK.end(frame, None)
        return module

    return _exec


def _as_of_importlib(function: Any) -> FunctionType:
    """``function`` as part of the import system: the interpreter leaves its frame out of tracebacks, and ``warnings``
    leaves it out when it looks for who imported a deprecated module. Both go by the file's name."""
    function.__code__ = function.__code__.replace(co_filename=_FILE_NAME)
    return function  # type: ignore[no-any-return]


def read_heap() -> int | None:
    """Bytes in use in the C allocator, pymalloc's arenas not among them; 1 µs. None where it doesn't tell."""
    if _heap_info is None:
        return None
    try:
        info = _heap_info()
    except Exception:  # a platform whose C library changed its mind
        return None
    used: int = info.heap_used + info.mmap_used
    return used


def _less(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left - right


def _plus(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


HOOK: Final = _Hook()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HOOK.reset)
