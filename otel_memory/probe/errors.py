"""The exceptions that otel-memory raises into code that asked for it, all under one base.

Owns their fields and their wording; raises nothing itself. Sizes are held in bytes; the names in ``_mb`` give the same
figures in units of 1024 * 1024 bytes. All of them survive pickling, so that they come whole out of a worker process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from otel_memory.probe.units import human_bytes

__all__ = ["EvictionError", "MemoryWatchError", "MonitoringError", "ThresholdError"]

MB: Final = 1024 * 1024
"""Bytes of one unit of the properties in ``_mb``."""


class MemoryWatchError(Exception):
    """Base of every exception of otel-memory. (Python's ``MemoryError`` means something else and isn't shadowed.)"""


class ThresholdError(MemoryWatchError):
    """A bound on memory is exceeded.

    ``threshold_type`` says which: the name of a rule, or of a severity. ``current_bytes`` is the reading,
    ``threshold_bytes`` the bound.
    """

    def __init__(self, threshold_type: str, current_bytes: int, threshold_bytes: int) -> None:
        super().__init__(threshold_type, current_bytes, threshold_bytes)  # as given, because pickle calls with these
        self.threshold_type = threshold_type
        self.current_bytes = current_bytes
        self.threshold_bytes = threshold_bytes

    def __str__(self) -> str:
        current, bound = human_bytes(self.current_bytes), human_bytes(self.threshold_bytes)
        return f"memory is {current}, over the threshold {self.threshold_type!r} of {bound}"

    @property
    def current_mb(self) -> float:
        """``current_bytes`` in units of 1024 * 1024 bytes."""
        return self.current_bytes / MB

    @property
    def threshold_mb(self) -> float:
        """``threshold_bytes`` in units of 1024 * 1024 bytes."""
        return self.threshold_bytes / MB


class EvictionError(MemoryWatchError):
    """An eviction that had to reach its target did not.

    ``target_bytes`` were asked for, ``freed_bytes`` were freed (measured; None if nothing could be measured), and
    ``errors`` says in one sentence each what went wrong with which evictor.
    """

    def __init__(self, target_bytes: int, freed_bytes: int | None, errors: Iterable[str] = ()) -> None:
        self.target_bytes = target_bytes
        self.freed_bytes = freed_bytes
        self.errors = tuple(errors)
        super().__init__(target_bytes, freed_bytes, self.errors)

    def __str__(self) -> str:
        freed = "an unknown amount" if self.freed_bytes is None else human_bytes(self.freed_bytes)
        why = f": {'; '.join(self.errors)}" if self.errors else ""
        return f"eviction freed {freed} of the {human_bytes(self.target_bytes)} asked for{why}"

    @property
    def target_mb(self) -> float:
        """``target_bytes`` in units of 1024 * 1024 bytes."""
        return self.target_bytes / MB

    @property
    def freed_mb(self) -> float | None:
        """``freed_bytes`` in units of 1024 * 1024 bytes."""
        return None if self.freed_bytes is None else self.freed_bytes / MB


class MonitoringError(MemoryWatchError):
    """Something was asked of otel-memory that it can't do here; the message says what and how to mend it."""
