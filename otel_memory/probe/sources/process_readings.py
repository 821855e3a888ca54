"""What is read of one process, and what a reader of it can do. No reading happens here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """What costs some 30 µs to read. None is "could not be read"."""

    rss_bytes: int | None = None
    virtual_bytes: int | None = None
    peak_bytes: int | None = None
    """Highest resident size since the process began, or since it was forked."""
    minor_faults: int | None = None
    major_faults: int | None = None
    thread_count: int | None = None
    uptime_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SlowReading:
    """What the kernel walks page tables or a directory for. None is "could not be read"."""

    shared_bytes: int | None = None
    """Resident pages that other processes map too; on kernels without smaps_rollup (before 4.14) those that belong to
    files or to shared memory."""
    private_bytes: int | None = None
    fd_count: int | None = None


class ProcessReader(Protocol):
    """A way to read one process. Readings never raise for what the operating system refuses: that is None."""

    def rss_bytes(self) -> int | None: ...
    def read(self) -> ProcessReading: ...
    def read_slow(self) -> SlowReading: ...
    def reopen(self) -> None:
        """Forget what belongs to the parent; call in the child after a fork, or to go on after ``close()``."""

    def close(self) -> None:
        """Hold nothing open any more. Idempotent."""
