"""What the process holds now, measured: resident bytes, and bytes in use in the C allocator and in Python's own.

Owns the two readings before and after something that is to free memory. Freed bytes are differences of these figures:
what other threads allocate or free in between is in them too.

The C allocator's figures (``psutil.heap_info``) contain no block of pymalloc, which has arenas of its own and counts
them itself (``sources.pymalloc``): exact, at about 2 ms for each GB of Python objects
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

import psutil

from otel_memory.probe.reader import read_rss
from otel_memory.probe.sources import pymalloc

__all__ = ["Freed", "Held", "difference", "read_held", "read_heap"]

_NO_PYMALLOC: Final = (
    sys.implementation.name == "cpython"
    and not sys.flags.ignore_environment
    and os.environ.get("PYTHONMALLOC", "") in ("malloc", "malloc_debug")
)


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes; None is "could not be read"."""

    rss_bytes: int | None
    heap_bytes: int | None
    """In use in the C allocator and in pymalloc; known only where both are."""


@dataclass(frozen=True, slots=True)
class Freed:
    """Bytes freed between two readings; negative where the process grew, None where one could not be read."""

    heap_bytes: int | None
    rss_bytes: int | None

    @property
    def known_bytes(self) -> int | None:
        """The larger of the two that are known.

        Memory that goes back to an allocator leaves the heap at once and the resident set only when the allocator
        returns its pages; memory that was mapped without an allocator shows in the resident set alone.
        """
        return max((each for each in (self.heap_bytes, self.rss_bytes) if each is not None), default=None)


def read_held() -> Held:
    """Read all of it now. Never raises."""
    return Held(read_rss(), read_heap())


def read_heap() -> int | None:
    """Bytes in use in both allocators, None where one of the two can't be read (not Linux with glibc, say)."""
    python = _python_bytes()
    native = _native_bytes()
    return None if python is None or native is None else python + native


def difference(before: Held, after: Held) -> Freed:
    """What was freed from ``before`` to ``after``."""
    return Freed(_less(before.heap_bytes, after.heap_bytes), _less(before.rss_bytes, after.rss_bytes))


def _less(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else before - after


def _native_bytes() -> int | None:
    read = getattr(psutil, "heap_info", None)
    if read is None:
        return None
    try:
        info = read()
        return int(info.heap_used) + int(info.mmap_used)
    except (psutil.Error, OSError, NotImplementedError, AttributeError):
        return None


def _python_bytes() -> int | None:
    if _NO_PYMALLOC:
        return 0  # all of it is in the C allocator's figures
    reading = pymalloc.read()
    return None if reading is None else reading.used_bytes
