"""The highest resident memory during an operation, from the kernel's own mark (Linux).

Owns ``/proc/self/clear_refs`` and the bookkeeping around it: the mark is one for the whole process, so a use
that resets it first tells every other open use what the mark was, and the highest value ever is kept for the
process's own peak.
"""

from __future__ import annotations

import os
import threading

_RESET_PEAK = b"5"
"""Written to clear_refs it sets VmHWM back to the present RSS (proc(5))."""
_STATUS_BYTES = 4096


class PeakUse:
    """One operation's interest in the peak; ``bytes`` is the highest seen since it began."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes: int | None = None


class PeakMark:
    """The resettable peak of this process. Where the kernel has none every answer is ``None``."""

    def __init__(self, proc_root: str = "/proc") -> None:
        self._base = f"{proc_root}/self"
        self._status: int | None = None
        self._identity: tuple[int, int] | None = None
        self.reopen()

    def reopen(self) -> None:
        """After a fork: the inherited descriptor and uses are the parent's, and its lock may be held for ever."""
        # Re-entrant: a finalizer that runs in the middle of this may end an operation of its own.
        self._lock = threading.RLock()
        self.close()
        self._open: list[PeakUse] = []
        self._broken = False
        self.highest: int | None = None
        """Highest mark that a reset has wiped out: the process's own peak is the larger of this and VmHWM."""

    def close(self) -> None:
        """Hold no descriptor any more. Idempotent; the next use opens what it needs."""
        with self._lock:
            descriptor, self._status = self._status, None
            # An application may have closed all descriptors; then the number is another file's by now.
            if descriptor is not None and _identity(descriptor) == self._identity:
                os.close(descriptor)

    def begin(self) -> PeakUse | None:
        """Start a use: the mark is set back to the present."""
        with self._lock:
            self._note()
            if self._broken:
                return None
            try:
                # Opened each time: a kept descriptor whose number has become another file's would be written to.
                descriptor = os.open(f"{self._base}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(descriptor, _RESET_PEAK)
                finally:
                    os.close(descriptor)
            except OSError:
                self._broken = True
                return None
            use = PeakUse()
            self._open.append(use)
            return use

    def end(self, use: PeakUse) -> int | None:
        """End a use; the highest resident bytes since its beginning."""
        with self._lock:
            self._note()
            if use in self._open:
                self._open.remove(use)
            return use.bytes

    def _note(self) -> None:
        """Read the mark into everybody's record."""
        mark = self._read()
        if mark is None:
            return
        if self.highest is None or mark > self.highest:
            self.highest = mark
        for use in self._open:
            if use.bytes is None or mark > use.bytes:
                use.bytes = mark

    def _read(self) -> int | None:
        if self._broken:
            return None
        try:
            mark = self._parse()
            if mark is None:
                self.close()
                mark = self._parse()
        except OSError:
            mark = None
        self._broken = mark is None
        return mark

    def _parse(self) -> int | None:
        """The mark in bytes; ``None`` if the descriptor isn't that of a status (any more)."""
        if self._status is None:
            self._status = os.open(f"{self._base}/status", os.O_RDONLY | os.O_CLOEXEC)
            self._identity = _identity(self._status)
        try:
            text = os.pread(self._status, _STATUS_BYTES, 0)
            at = text.index(b"VmHWM:")
            return int(text[at + 6 : text.index(b"kB", at)]) * 1024
        except (OSError, ValueError):
            return None


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
