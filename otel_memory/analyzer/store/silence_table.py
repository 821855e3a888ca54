"""``SilenceTable``: the silences on disk.

Owns a connection of its own, for one caller at a time; each write is a transaction of one statement. Never decides
what is silenced.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from otel_memory.analyzer.matching import Silence
from otel_memory.analyzer.store import codec, files, schema
from otel_memory.analyzer.store.errors import wrap

_FORM: Final = TypeAdapter(Silence)


class SilenceTable:
    """See the module. Every method raises StoreError where the file can't be used."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def load(self) -> list[Silence]:
        """Every silence that is kept."""
        return codec.load_all(_FORM, (body for (body,) in self._execute("SELECT body FROM silence", ())))

    def save(self, silence: Silence) -> None:
        """Keeps a silence; one of the same id is replaced."""
        self._execute(
            "INSERT OR REPLACE INTO silence VALUES (?, ?, ?)",
            (silence.id, silence.ends_at, _FORM.dump_json(silence).decode()),
        )

    def prune(self, before: float) -> None:
        """Forgets the silences that ended before that time (s since the epoch)."""
        self._execute("DELETE FROM silence WHERE ends_at < ?", (before,))

    def close(self) -> None:
        """Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, sql: str, parameters: tuple[str | float, ...]) -> list[Any]:
        try:
            identity = files.identity(self._path)
            if self._connection is None or identity != self._identity:
                self.close()
                self._connection = schema.connect(self._path, create=False)
                self._identity = files.identity(self._path)
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise wrap(error, self._path) from error
