"""Sharing tracemalloc, which is one switch and one peak for the whole process.

Owns the list of our users of it. Never stops tracing that somebody else started, never resets somebody else's peak,
and never starts it twice.
"""

from __future__ import annotations

import threading
import tracemalloc
from typing import Final, NamedTuple

from otel_memory.probe.tracing_switch import Switch


class TracedUse:
    """One user: ``start_bytes`` of live Python memory when it began, and the highest that was seen since."""

    __slots__ = ("foreign_peak", "peak_bytes", "start_bytes")

    def __init__(self, start_bytes: int, foreign_peak: int | None) -> None:
        self.start_bytes = start_bytes
        self.foreign_peak = foreign_peak
        self.peak_bytes = start_bytes


class TracedGrowth(NamedTuple):
    """Change of the live Python bytes during a use, and of their peak; the peak is ``None`` where it isn't known."""

    bytes: int
    peak_bytes: int | None


class SharedTracing:
    """Counted uses of tracemalloc: on while anybody of ours needs it."""

    def __init__(self, switch: Switch | None = None) -> None:
        self._started_here = False
        self._switch = Switch() if switch is None else switch
        self._forget()

    def _forget(self) -> None:
        # Re-entrant: a finalizer that runs in the middle of this may begin a use of its own.
        self._lock = threading.RLock()
        self._open: list[TracedUse] = []

    def begin(self, frames: int = 1) -> TracedUse:
        """Start a use; tracing is switched on if it is off, with ``frames`` frames of each allocation."""
        with self._lock:
            if not self._open and (self._switch.resting or not tracemalloc.is_tracing()):
                self._switch.start(frames)
                self._started_here = True
            size, peak = tracemalloc.get_traced_memory()
            if self._started_here:
                self._note(peak)
                tracemalloc.reset_peak()
            use = TracedUse(size, None if self._started_here else peak)
            self._open.append(use)
            return use

    def end(self, use: TracedUse) -> TracedGrowth | None:
        """End a use; ``None`` if tracing was stopped meanwhile. The last one switches off what was switched on here."""
        with self._lock:
            if use not in self._open:
                return None  # begun before a fork
            growth = self._growth(use) if tracemalloc.is_tracing() else None
            self._open.remove(use)
            if not self._open and self._started_here:
                self._started_here = False
                if tracemalloc.is_tracing():
                    self._switch.stop()
            return growth

    def _growth(self, use: TracedUse) -> TracedGrowth:
        size, peak = tracemalloc.get_traced_memory()
        if use.foreign_peak is None:
            self._note(peak)
            return TracedGrowth(size - use.start_bytes, use.peak_bytes - use.start_bytes)
        # Somebody else's peak isn't reset; it speaks of this use only if this use has raised it.
        return TracedGrowth(size - use.start_bytes, peak - use.start_bytes if peak > use.foreign_peak else None)

    def _note(self, peak: int) -> None:
        """Tell every open use the peak before it is wiped out."""
        for use in self._open:
            use.peak_bytes = max(use.peak_bytes, peak)

    def reset_after_fork(self) -> None:
        """In the child: the parent's other threads, and their uses, are not here."""
        if (self._open and self._started_here) or self._switch.resting:
            self._switch.stop_alone()
        self._started_here = False
        self._forget()


TRACING: Final = SharedTracing()
"""The one of this process: decorated operations and bursts count their uses here."""
