"""The one descriptor that the probe keeps: on ``statm``, because the decorated call reads it.

It is never trusted or closed by its number alone. An application may close every descriptor it finds (daemons do), and
then have the same number again for a file of its own. After a fork the descriptor reads the parent: ``reopen()``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from otel_memory.probe.sources.process_readings import RAW_END, RAW_LENGTH
from otel_memory.probe.sources.procfs import Statm, parse_statm


def _no_pread(_fd: int, _length: int, _offset: int) -> bytes:
    raise OSError("no pread on this platform")


_pread: Callable[[int, int, int], bytes] = getattr(os, "pread", _no_pread)


class KeptStatm:
    """``statm`` at ``path``, opened once."""

    __slots__ = ("_closed", "_identity", "_opened_by", "_page_size", "_path", "_repairing", "descriptor", "pread")

    def __init__(self, path: str, page_size: int) -> None:
        self._path = path
        self.pread = _pread
        self._page_size = page_size
        self.descriptor = -1
        self._identity: tuple[int, int] | None = None
        self.reopen()

    def rss_bytes(self) -> int | None:
        """Resident bytes now: one ``pread``. Waits for nothing, never raises; fit for a gc callback."""
        try:
            rss_bytes = self.rss_of(self.pread(self.descriptor, RAW_LENGTH, 0))
            if rss_bytes is not None:
                return rss_bytes
        except OSError:
            pass
        statm = self._read_repaired()
        return statm.resident * self._page_size if statm else None

    def rss_of(self, raw: bytes) -> int | None:
        """Resident bytes that a reading of ``raw`` says; None if it isn't a statm's. Never raises."""
        if not raw.endswith(RAW_END):
            return None
        try:
            return int(raw.split(None, 2)[1]) * self._page_size or None
        except (ValueError, IndexError):
            return None

    def read(self) -> Statm | None:
        """Pages. Looks at the descriptor's identity first, which also tells a foreign statm from ours."""
        if self._opened_by == os.getpid() and self._is_ours():
            try:
                return parse_statm(_pread(self.descriptor, RAW_LENGTH, 0))
            except OSError:  # closed between the two calls
                pass
        return self._read_repaired()

    def reopen(self) -> None:
        # A new lock: in a child, the old one may be held by a thread that was not forked.
        self._repairing = threading.Lock()
        self._closed = False
        self._let_go()
        self._open()

    def close(self) -> None:
        self._closed = True
        self._let_go()

    def __del__(self) -> None:
        try:
            self._let_go()
        except Exception:  # at interpreter exit modules may be gone; the descriptor ends with the process
            return

    def _read_repaired(self) -> Statm | None:
        # Doesn't wait for the lock: the caller may be a gc callback on the very thread that holds it.
        if self._closed or not self._repairing.acquire(blocking=False):
            return None
        try:
            if self._opened_by != os.getpid() or not self._is_ours():
                self._let_go()
                self._open()
            return parse_statm(_pread(self.descriptor, RAW_LENGTH, 0))
        except OSError:
            return None
        finally:
            self._repairing.release()

    def _open(self) -> None:
        self._opened_by = os.getpid()
        try:
            fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return
        if fd < 3:
            # A program that was started without stdin, stdout or stderr must not find ours in their place.
            fd = _above_standard_streams(fd)
        status = os.fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        self.descriptor = fd

    def _is_ours(self) -> bool:
        try:
            status = os.fstat(self.descriptor)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _let_go(self) -> None:
        """Close the descriptor; a number that has become somebody else's file is only forgotten."""
        ours, fd = self.descriptor >= 0 and self._is_ours(), self.descriptor
        self.descriptor = -1
        if ours:
            os.close(fd)


def _above_standard_streams(fd: int) -> int:
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
