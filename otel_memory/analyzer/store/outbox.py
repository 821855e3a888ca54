"""``Outbox``: what is still to be delivered, as one output's thread sees it.

Owns a connection of its own, for one thread. Rows come into the outbox in the writer's transactions; here they are
only read, put off and taken out, each in a transaction of one statement. Never delivers anything.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.store import codec
from otel_memory.analyzer.store.statements import Statements


class Pending(NamedTuple):
    """One change that one output has not got. ``created_at`` in seconds since the epoch."""

    seq: int
    change: AlertChange
    attempts: int
    created_at: float
    held: bool = False
    """A silence kept it back so far."""


class Outbox:
    """See the module. Every method raises StoreError where the file can't be used."""

    def __init__(self, path: Path) -> None:
        self._statements = Statements(path)

    def due(self, output: str, now: float, limit: int = 50) -> list[Pending]:
        """What may be tried at ``now``, oldest first: of each alert only its oldest change, so that order is kept."""
        rows = self._statements.execute(
            "SELECT o.seq, c.body, o.attempts, o.created_at, o.held FROM outbox AS o "
            "JOIN alert_change AS c ON c.id = o.change_id WHERE o.output = ?1 AND o.next_at <= ?2 AND NOT EXISTS "
            "(SELECT 1 FROM outbox AS e WHERE e.output = ?1 AND e.alert_id = o.alert_id AND e.seq < o.seq) "
            "ORDER BY o.seq LIMIT ?3",
            (output, now, limit),
        )
        pending = []
        for seq, body, attempts, created_at, held in rows:
            changes = codec.load_all(codec.CHANGE, [body])
            if changes:
                pending.append(Pending(seq, changes[0], attempts, created_at, bool(held)))
            else:
                # It never will fit, and would hold up what comes after it.
                self.give_up(seq)
        return pending

    def next_due(self, output: str, after: float = float("-inf")) -> float | None:
        """When the next try later than ``after`` is due (seconds since the epoch); None where there is none."""
        value = self._statements.execute(
            "SELECT min(o.next_at) FROM outbox AS o WHERE o.output = ?1 AND o.next_at > ?2 AND NOT EXISTS "
            "(SELECT 1 FROM outbox AS e WHERE e.output = ?1 AND e.alert_id = o.alert_id AND e.seq < o.seq)",
            (output, after),
        )[0][0]
        return None if value is None else float(value)

    def hold(self, seq: int, next_at: float) -> None:
        """Keeps a change back for a silence; it is looked at again at ``next_at`` (seconds since the epoch)."""
        self._statements.execute("UPDATE outbox SET held = 1, next_at = ? WHERE seq = ?", (next_at, seq))

    def recheck(self, output: str) -> None:
        """Makes all that is held due: silences have changed."""
        self._statements.execute("UPDATE outbox SET next_at = 0 WHERE output = ? AND held = 1", (output,))

    def compact(self, output: str) -> int:
        """Of the changes that wait behind a held one only the last of each alert stays; returns how many went."""
        return len(
            self._statements.execute(
                "DELETE FROM outbox WHERE output = ?1 AND EXISTS "
                "(SELECT 1 FROM outbox AS h WHERE h.output = ?1 AND h.alert_id = outbox.alert_id AND h.held = 1 "
                "AND h.seq < outbox.seq) AND EXISTS (SELECT 1 FROM outbox AS l WHERE l.output = ?1 "
                "AND l.alert_id = outbox.alert_id AND l.seq > outbox.seq) RETURNING seq",
                (output,),
            )
        )

    def release(self, output: str, alert_id: str, *, untold: bool, now: float) -> list[str]:
        """The silence of an alert is over: only its last change is left, due at once and as young as ``now``.

        ``untold``: the output knows nothing of the episode that the first held change belongs to; if it is over by
        now, nothing is left. Returns the ids of the changes that were taken out, oldest first.
        """
        dropped = self._statements.execute(
            "DELETE FROM outbox WHERE output = ?1 AND alert_id = ?2 AND (EXISTS (SELECT 1 FROM outbox AS l "
            "WHERE l.output = ?1 AND l.alert_id = ?2 AND l.seq > outbox.seq) OR (?3 AND 'resolved' = "
            "(SELECT json_extract(c.body, '$.alert.state') FROM alert_change AS c WHERE c.id = outbox.change_id))) "
            "RETURNING seq, change_id",
            (output, alert_id, int(untold)),
        )
        self._statements.execute(
            "UPDATE outbox SET held = 0, attempts = 0, next_at = 0, created_at = ?3 "
            "WHERE output = ?1 AND alert_id = ?2",
            (output, alert_id, now),
        )
        return [str(change) for _, change in sorted(dropped)]

    def alerts(self, output: str) -> frozenset[str]:
        """The ids of the alerts of which the output has not got a change."""
        rows = self._statements.execute("SELECT DISTINCT alert_id FROM outbox WHERE output = ?", (output,))
        return frozenset(str(alert_id) for (alert_id,) in rows)

    def delivered(self, seq: int) -> None:
        """Takes a delivered change out."""
        self._statements.execute("DELETE FROM outbox WHERE seq = ?", (seq,))

    def failed(self, seq: int, next_at: float, error: str) -> None:
        """Puts a change off until ``next_at`` (seconds since the epoch)."""
        self._statements.execute(
            "UPDATE outbox SET attempts = attempts + 1, next_at = ?, last_error = ? WHERE seq = ?",
            (next_at, error[:500], seq),
        )

    def give_up(self, seq: int) -> None:
        """Takes out a change that was tried often enough."""
        self._statements.execute("DELETE FROM outbox WHERE seq = ?", (seq,))

    def waiting(self, output: str) -> tuple[int, int]:
        """How many changes the output has not got, and how many of them a silence keeps back."""
        rows = self._statements.execute(
            "SELECT count(*), coalesce(sum(held), 0) FROM outbox WHERE output = ?", (output,)
        )
        return int(rows[0][0]), int(rows[0][1])

    def pending(self, output: str) -> int:
        """How many changes the output has not got."""
        return self.waiting(output)[0]

    def trim(self, output: str, keep: int) -> int:
        """Takes out the oldest changes beyond ``keep``; returns how many."""
        return len(
            self._statements.execute(
                "DELETE FROM outbox WHERE output = ?1 AND seq <= "
                "(SELECT seq FROM outbox WHERE output = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2) RETURNING seq",
                (output, keep),
            )
        )

    def retain(self, outputs: Collection[str]) -> int:
        """Takes out what is meant for outputs that are not configured any more; returns how many."""
        marks = ", ".join("?" * len(outputs))
        return len(
            self._statements.execute(f"DELETE FROM outbox WHERE output NOT IN ({marks}) RETURNING seq", tuple(outputs))
        )

    def close(self) -> None:
        """Idempotent."""
        self._statements.close()
