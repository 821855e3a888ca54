"""Switching tracemalloc on and off without bringing the process down.

Before CPython 3.12.9 and 3.13.2, ``tracemalloc.stop()`` frees what a thread that allocates without the interpreter's
lock (zlib, bz2, lzma while they work) may be about to use, and the process dies of a segmentation fault
(gh-128679). On those interpreters the hooks are taken out first, by ``PyMem_SetAllocator`` as tracemalloc itself does,
the threads that are inside get time to leave, and only then it is stopped. Owns that difference and nothing else: who
uses tracing, and when, is ``traced.py``'s.
"""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from typing import Any, Final

from otel_memory.probe.threads import DaemonThread

SAFE_TO_STOP: Final = sys.version_info >= (3, 13, 2) or (3, 12, 9) <= sys.version_info < (3, 13)
"""Whether this interpreter's ``tracemalloc.stop()`` may be called while other threads work."""

LEAVE_SECONDS: Final = 1.0
"""How long threads have at least to get out of the hooks: each waits for the interpreter's lock, no more."""
_TURNS: Final = 20
"""How many times the thread that waits for them must itself have got that lock: where many want it, it waits longer."""
THREAD_NAME: Final = "otel-memory-tracing-stop"
_DOMAINS: Final = 3  # raw, mem, object


class Switch:
    """Tracing that was started here. ``start`` and ``stop`` are called under the owner's lock."""

    def __init__(self, safe_to_stop: bool = SAFE_TO_STOP, leave_seconds: float = LEAVE_SECONDS) -> None:
        self._safe = safe_to_stop
        self._leave_seconds = leave_seconds
        self._plain: list[Any] | None = None
        self._hooked: list[Any] | None = None
        self._resting = 0
        self._serial = 0
        self._lock = threading.RLock()

    @property
    def resting(self) -> bool:
        """Whether it was stopped here and is not quite off yet: ``tracemalloc.is_tracing()`` is still true."""
        return bool(self._resting)

    def start(self, frames: int) -> None:
        """Trace from now on, with at most ``frames`` frames of each allocation."""
        with self._lock:
            resting, self._resting = self._resting, 0
            if resting and self._hooked is not None and tracemalloc.is_tracing():
                tracemalloc.clear_traces()
                _put(self._hooked)
                return
            self._plain = None if self._safe else _get()
            tracemalloc.start(frames)
            self._hooked = None if self._plain is None else _get()

    def stop(self) -> None:
        """Trace no more, and give the memory back; quite off a little later, where it isn't safe at once."""
        with self._lock:
            plain = self._plain
            if plain is None:
                tracemalloc.stop()
                return
            _put(plain)
            tracemalloc.clear_traces()  # gives the memory back; what threads inside add now, the stop does
            self._serial += 1
            self._resting = serial = self._serial
        thread = DaemonThread(self._stop_later, THREAD_NAME, (serial,))
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: the traces stay until the next start
            return

    def stop_alone(self) -> None:
        """Stop where no other thread can be inside: in the child of a fork."""
        self._lock = threading.RLock()
        self._resting = 0
        tracemalloc.stop()

    def _stop_later(self, serial: int) -> None:
        for _ in range(_TURNS):
            time.sleep(self._leave_seconds / _TURNS)
        with self._lock:
            if self._resting == serial:
                self._resting = 0
                tracemalloc.stop()


def _api() -> tuple[Any, Any, Any]:
    """PyMemAllocatorEx, PyMem_GetAllocator, PyMem_SetAllocator. ImportError where the interpreter has no ctypes."""
    import ctypes

    class Allocator(ctypes.Structure):
        _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]

    read, write = ctypes.pythonapi.PyMem_GetAllocator, ctypes.pythonapi.PyMem_SetAllocator
    for function in (read, write):
        function.argtypes, function.restype = [ctypes.c_int, ctypes.c_void_p], None
    return Allocator, read, write


def _get() -> list[Any] | None:
    """The allocators of all domains as they are now; None where they can't be reached."""
    try:
        import ctypes

        allocator_type, read, _ = _api()
    except (ImportError, AttributeError):
        return None
    found = [allocator_type() for _ in range(_DOMAINS)]
    for domain, allocator in enumerate(found):
        read(domain, ctypes.byref(allocator))
    return found


def _put(allocators: list[Any]) -> None:
    import ctypes

    _, _, write = _api()
    for domain, allocator in enumerate(allocators):
        write(domain, ctypes.byref(allocator))
