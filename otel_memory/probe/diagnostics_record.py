"""The file of diagnostic runs: one line of JSON for each, appended by any number of processes, bounded in size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

MAX_BYTES: Final = 4 * 1024 * 1024
"""Size from which the file becomes ``<name>.1``, in the place of the one before."""


def append(path: str | os.PathLike[str], document: Mapping[str, Any], max_bytes: int = MAX_BYTES) -> None:
    """Append ``document`` as one line by one write, so that lines of several processes don't mix.

    Raises:
        OSError: the file can't be opened or written, or took only a part of the line.
    """
    line = json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    path = os.fspath(path)
    fd = _open(path)
    try:
        if os.fstat(fd).st_size + len(line) > max_bytes and _lock(fd):
            # Of several processes that wait here, one moves the file; the others find another one under its name.
            if _is_at(fd, path) and os.fstat(fd).st_size:
                os.replace(path, f"{path}.1")
            os.close(fd)
            fd = -1
            fd = _open(path)
        written = os.write(fd, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes could be written to {path}")
    finally:
        if fd >= 0:
            os.close(fd)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(fd: int) -> bool:
    """Lock the file until it is closed; False where another process has it, which then does what is to be done."""
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
