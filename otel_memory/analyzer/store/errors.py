"""What can go wrong in the store, as one error family.

Owns the map from SQLite's result codes to the kinds that the rest of the analyzer tells apart. Never logs.
"""

from __future__ import annotations

import sqlite3
from typing import Final, Literal

Kind = Literal["full", "locked", "corrupt", "newer", "in_use", "io"]


class StoreError(Exception):
    """The store could not do what was asked. Nothing of the failed transaction was kept.

    ``kind``: ``full`` (disk or the configured size), ``locked`` (another program holds the file), ``corrupt``,
    ``newer`` (written by a newer otel-memory), ``in_use`` (another analyzer has the directory), ``io`` (the rest).
    """

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message)
        self.kind: Final[Kind] = kind


_KINDS: Final[dict[int, Kind]] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
}

_ADVICE: Final[dict[Kind, str]] = {
    "full": "the disk or the store's own size limit is full",
    "locked": "another program holds a lock on it",
    "corrupt": "the file is damaged",
}


def wrap(error: sqlite3.Error, path: object) -> StoreError:
    """``error`` as a StoreError that names the file."""
    # The low byte is the primary code; the rest refines it.
    kind = _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "io")
    advice = _ADVICE.get(kind)
    return StoreError(f"{path}: {advice} ({error})" if advice else f"{path}: {error}", kind)
