"""The store's files: the lock that keeps a second analyzer out, and putting a damaged file aside.

Owns names next to the database file. Never opens the database.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from otel_memory.analyzer.store.errors import StoreError

KEPT_DAMAGED: Final = 3
_COMPANIONS: Final = ("-wal", "-shm")


class DirectoryLock:
    """Held from construction until ``release``; the kernel drops it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError (kind ``in_use``, or ``io`` where the directory can't be written)."""
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}", "io") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StoreError(
                f"{path.parent}: another analyzer uses this data directory; stop it or give another one", "in_use"
            ) from error

    @property
    def held(self) -> bool:
        """False once released, and where the file was removed: another analyzer could then lock a new one."""
        if self._descriptor < 0:
            return False
        status = os.fstat(self._descriptor)
        return identity(self._path) == (status.st_dev, status.st_ino)

    def renew(self) -> DirectoryLock:
        """A lock on what has the name now; this one is released. Raises StoreError as the constructor does."""
        self.release()
        return DirectoryLock(self._path)

    def release(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def put_aside(path: Path, stamp: str) -> Path:
    """Renames a damaged database with its companions to ``<name>.damaged-<stamp>`` and returns the new name.

    Of earlier ones the newest stay, so that a bad disk can't fill itself with copies. Raises OSError.
    """
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    path.rename(target)
    for suffix in _COMPANIONS:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            # Kept under SQLite's own naming, so that the copy opens with what was not yet checkpointed.
            companion.rename(target.with_name(target.name + suffix))
    damaged = sorted(
        entry for entry in path.parent.glob(f"{path.name}.damaged-*") if not entry.name.endswith(_COMPANIONS)
    )
    for old in damaged[:-KEPT_DAMAGED]:
        for suffix in ("", *_COMPANIONS):
            old.with_name(old.name + suffix).unlink(missing_ok=True)
    return target


def remove_companions(path: Path) -> None:
    """Removes the write-ahead log of a database that is gone: SQLite would replay it into what takes its place."""
    for suffix in _COMPANIONS:
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()


def identity(path: Path) -> tuple[int, int] | None:
    """Tells one file from another at the same path (device, inode); None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def size(path: Path) -> int:
    """Bytes, 0 where there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def wal(path: Path) -> Path:
    """SQLite's write-ahead log of ``path``."""
    return path.with_name(path.name + "-wal")
