"""One file of lines that many processes append to, and its rotation: bounded by size and by count.

Owns the file's bytes on disk. No descriptor is kept between two lines, so that a fork inherits none, a folder that
comes back is found again, and a file that somebody moved away is made anew. One process at a time writes or rotates:
``flock`` says who. POSIX only.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

MODE: Final = 0o600
LOCK_SECONDS: Final = 2.0
"""How long to wait for other processes that write."""

_LOCK_POLL_SECONDS: Final = 0.002
# Neither a symbolic link that somebody else put there is followed, nor does opening a named pipe wait for a reader.
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class RotatedFile:
    """``path`` and its predecessors ``path.1`` (the newest) to ``path.<keep>``, none longer than ``max_bytes``."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.keep = keep

    def append(self, line: bytes) -> None:
        """Append ``line``, which ends with a newline, whole or not at all.

        Raises:
            OSError: it could not be written: no space, no folder, no permission, not a regular file, too long a line,
                other processes held the file for longer than two seconds.
        """
        if len(line) > self.max_bytes:
            raise OSError(f"a line of {len(line)} bytes is longer than a file may be, which is {self.max_bytes}")
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            descriptor = os.open(self.path, _FLAGS, MODE)
            try:
                if self._append(descriptor, line, deadline):
                    return
            finally:
                # Said, not left to close(): a child forked just now has the same open file.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def _append(self, descriptor: int, line: bytes, deadline: float) -> bool:
        """Whether ``line`` stands in the file now; False if the file has to be opened again."""
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{self.path} is not a regular file")
        _lock(descriptor, deadline)
        found = os.fstat(descriptor)
        if not self._is_current(found):
            return False  # another process rotated it while this one waited
        size = found.st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # the system went down in the middle of the last one
        if size and size + len(line) > self.max_bytes:
            self._rotate()
            return False
        try:
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            os.ftruncate(descriptor, size)  # half a line would spoil the next one
            raise
        return True

    def _is_current(self, found: os.stat_result) -> bool:
        try:
            return os.path.samestat(found, os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        # The file itself goes last: from then on another process may make the next one.
        taken = 0
        while taken < self.keep - 1 and os.path.lexists(self._numbered(taken + 1)):
            taken += 1
        for number in range(taken, 0, -1):
            os.replace(self._numbered(number), self._numbered(number + 1))
        if self.keep:
            os.replace(self.path, self._numbered(1))
        else:
            os.unlink(self.path)

    def _numbered(self, number: int) -> str:
        return f"{self.path}.{number}"


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("other processes hold the file") from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return
