"""What is read of one process, and what a reader of it can do. No reading happens here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol


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


RAW_END: Final = b" 0\n"
"""What a raw reading of resident memory ends in, unless somebody has put another file in place of the kept descriptor.
It is the end of a statm, whose last number, "dt", is always 0."""


RAW_LENGTH: Final = 128
"""Bytes to ask for: a statm's seven numbers are 91 for a process of a petabyte."""


class Resident(Protocol):
    """Resident memory in two steps: ``pread(descriptor, RAW_LENGTH, 0)`` reads it now, ``rss_of`` says later, if
    anybody asks, how much that was. (Not one method, because of what that costs in a decorated call.)

    Two raw readings that are equal and end in ``RAW_END`` are of the same size. ``descriptor`` changes. The reading
    raises ``OSError`` where ``rss_bytes()`` may still have an answer: that opens again what somebody has closed.
    """

    @property
    def pread(self) -> Callable[[int, int, int], bytes]: ...
    @property
    def descriptor(self) -> int: ...
    def rss_of(self, raw: bytes) -> int | None: ...
    def rss_bytes(self) -> int | None: ...


class ProcessReader(Protocol):
    """A way to read one process. Readings never raise for what the operating system refuses: that is None."""

    @property
    def resident(self) -> Resident: ...
    def read(self) -> ProcessReading: ...
    def read_slow(self) -> SlowReading: ...
    def reopen(self) -> None:
        """Forget what belongs to the parent; call in the child after a fork, or to go on after ``close()``."""

    def close(self) -> None:
        """Hold nothing open any more. Idempotent."""
