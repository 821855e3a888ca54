"""``SilenceTable``: the silences on disk.

Owns a connection of its own, for one caller at a time; each write is a transaction of one statement. Never decides
what is silenced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from otel_memory.analyzer.matching import Silence
from otel_memory.analyzer.store import codec
from otel_memory.analyzer.store.statements import Statements

_FORM: Final = TypeAdapter(Silence)


class SilenceTable:
    """See the module. Every method raises StoreError where the file can't be used."""

    def __init__(self, path: Path) -> None:
        self._statements = Statements(path)

    def load(self) -> list[Silence]:
        """Every silence that is kept."""
        return codec.load_all(_FORM, (body for (body,) in self._statements.execute("SELECT body FROM silence", ())))

    def save(self, silence: Silence) -> None:
        """Keeps a silence; one of the same id is replaced."""
        self._statements.execute(
            "INSERT OR REPLACE INTO silence VALUES (?, ?, ?)",
            (silence.id, silence.ends_at, _FORM.dump_json(silence).decode()),
        )

    def prune(self, before: float) -> None:
        """Forgets the silences that ended before that time (s since the epoch)."""
        self._statements.execute("DELETE FROM silence WHERE ends_at < ?", (before,))

    def close(self) -> None:
        """Idempotent."""
        self._statements.close()
