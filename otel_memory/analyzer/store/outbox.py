"""``Outbox``: what is still to be delivered, as one output's thread sees it.

Owns a connection of its own, for one thread. Rows come into the outbox in the writer's transactions; here they are
only read, put off and taken out, each in a transaction of one statement. Never delivers anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.store import codec, files, schema
from otel_memory.analyzer.store.errors import wrap


class Pending(NamedTuple):
    """One change that one output has not got. ``created_at`` in seconds since the epoch."""

    seq: int
    change: AlertChange
    attempts: int
    created_at: float


class Outbox:
    """See the module. Every method raises StoreError where the file can't be used."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def due(self, output: str, now: float, limit: int = 50) -> list[Pending]:
        """What may be tried at ``now``, oldest first: of each alert only its oldest change, so that order is kept."""
        rows = self._execute(
            "SELECT o.seq, c.body, o.attempts, o.created_at FROM outbox AS o "
            "JOIN alert_change AS c ON c.id = o.change_id WHERE o.output = ?1 AND o.next_at <= ?2 AND NOT EXISTS "
            "(SELECT 1 FROM outbox AS e WHERE e.output = ?1 AND e.alert_id = o.alert_id AND e.seq < o.seq) "
            "ORDER BY o.seq LIMIT ?3",
            (output, now, limit),
        )
        pending = []
        for seq, body, attempts, created_at in rows:
            changes = codec.load_all(codec.CHANGE, [body])
            if changes:
                pending.append(Pending(seq, changes[0], attempts, created_at))
            else:
                # It never will fit, and would hold up what comes after it.
                self.give_up(seq)
        return pending

    def next_due(self, output: str) -> float | None:
        """When the next try is due (seconds since the epoch); None where nothing is left."""
        value = self._execute(
            "SELECT min(o.next_at) FROM outbox AS o WHERE o.output = ?1 AND NOT EXISTS "
            "(SELECT 1 FROM outbox AS e WHERE e.output = ?1 AND e.alert_id = o.alert_id AND e.seq < o.seq)",
            (output,),
        )[0][0]
        return None if value is None else float(value)

    def delivered(self, seq: int) -> None:
        """Takes a delivered change out."""
        self._execute("DELETE FROM outbox WHERE seq = ?", (seq,))

    def failed(self, seq: int, next_at: float, error: str) -> None:
        """Puts a change off until ``next_at`` (seconds since the epoch)."""
        self._execute(
            "UPDATE outbox SET attempts = attempts + 1, next_at = ?, last_error = ? WHERE seq = ?",
            (next_at, error[:500], seq),
        )

    def give_up(self, seq: int) -> None:
        """Takes out a change that was tried often enough."""
        self._execute("DELETE FROM outbox WHERE seq = ?", (seq,))

    def pending(self, output: str) -> int:
        """How many changes the output has not got."""
        return int(self._execute("SELECT count(*) FROM outbox WHERE output = ?", (output,))[0][0])

    def trim(self, output: str, keep: int) -> int:
        """Takes out the oldest changes beyond ``keep``; returns how many."""
        return len(
            self._execute(
                "DELETE FROM outbox WHERE output = ?1 AND seq <= "
                "(SELECT seq FROM outbox WHERE output = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2) RETURNING seq",
                (output, keep),
            )
        )

    def retain(self, outputs: Collection[str]) -> int:
        """Takes out what is meant for outputs that are not configured any more; returns how many."""
        marks = ", ".join("?" * len(outputs))
        return len(self._execute(f"DELETE FROM outbox WHERE output NOT IN ({marks}) RETURNING seq", tuple(outputs)))

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
                # Never made here: an empty file would have no tables, and stand in the writer's way.
                self._connection = schema.connect(self._path, create=False)
                self._identity = files.identity(self._path)
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise wrap(error, self._path) from error
