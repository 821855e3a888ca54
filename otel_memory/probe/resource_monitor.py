"""One-off readings for people: ``ResourceMonitor.capture_memory()`` and ``format_bytes``.

Owns the wording of sizes in the probe's log lines. Never keeps "the last reading": a difference is taken
against a snapshot that the caller names, or against the process's first one, so that it does not depend on
who asked last.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from dataclasses import dataclass
from typing import Final

from otel_memory.probe.reader import read_rss

_UNITS: Final = ("B", "KB", "MB", "GB", "TB", "PB")


def format_bytes(size: float | None, *, signed: bool = False) -> str:
    """``size`` bytes for a log line: ``512.00MB`` (powers of 1024), with a leading ``+`` or ``-`` if ``signed``;
    ``unknown`` for the None of a reading that failed."""
    if size is None:
        return "unknown"
    value, unit = abs(float(size)), 0
    # From here on the number would be printed as 1024 of its unit.
    while value >= (1023.995 if unit else 1023.5) and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    figure = f"{value:.2f}" if unit else f"{value:.0f}"
    sign = "-" if size < 0 and float(figure) else "+" if signed else ""
    return f"{sign}{figure}{_UNITS[unit]}"


@dataclass(frozen=True, slots=True)
class MemoryCapture:
    """Memory of this process at one moment.

    ``timestamp``: seconds since the epoch. ``current_size``: resident bytes, ``None`` if they could not be read.
    ``size_diff``: the change in bytes since the snapshot it was compared with, ``None`` if either is not known.
    ``traced_size``: live Python bytes if tracemalloc is on.
    """

    timestamp: float
    current_size: int | None
    size_diff: int | None
    traced_size: int | None


class ResourceMonitor:
    """Readings of the process's memory on demand."""

    @staticmethod
    def capture_memory(since: MemoryCapture | None = None) -> MemoryCapture:
        """Read the memory now.

        Args:
            since: the snapshot that ``size_diff`` is taken against; without it, the first snapshot that this
                process took (whose own ``size_diff`` is 0). A forked child takes a first one of its own.
        """
        current = read_rss()
        base = _first.bytes if since is None else since.current_size
        if since is None and base is None:
            base = _first.bytes = current
        diff = None if current is None or base is None else current - base
        traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else None
        return MemoryCapture(time.time(), current, diff, traced)

    format_bytes = staticmethod(format_bytes)


class _First:
    """The module's one piece of mutable state: resident bytes of the first snapshot of this process."""

    bytes: int | None = None


_first: Final = _First()


def _forget_first() -> None:
    _first.bytes = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_first)
