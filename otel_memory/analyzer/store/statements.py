"""``Statements``: a connection of one's own to the store's file, each statement a transaction.

Owns when the connection is made, and made anew after the file was replaced. For one caller at a time.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from otel_memory.analyzer.store import files, schema
from otel_memory.analyzer.store.errors import wrap


class Statements:
    """See the module. ``execute`` raises StoreError where the file can't be used."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def execute(self, sql: str, parameters: tuple[str | float, ...] = ()) -> list[Any]:
        """The rows of one statement."""
        try:
            identity = files.identity(self._path)
            if self._connection is None or identity != self._identity:
                self.close()
                # Never made here: an empty file would have no tables, and stand in the writer's way.
                self._connection = schema.connect(self._path, create=False)
                self._identity = files.identity(self._path)
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise wrap(error, self._path) from error

    def close(self) -> None:
        """Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
