"""Rollups and retention, in small steps inside the writer's transactions.

Owns what is kept for how long. Buckets are made from raw samples once they are over, and again when a late sample
falls into one, so they never count a repeated sample twice. Raw samples go only after they were rolled up.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from otel_memory.analyzer.store.rollup import FIVE_MINUTES, HOUR, Bucket, floor, merge, summarize
from otel_memory.analyzer.store.schema import PAGE_BYTES
from otel_memory.analyzer.store.seriestable import Series, SeriesTable
from otel_memory.analyzer.store.settings import StoreSettings

ROLL_BUCKETS: Final = 72
"""Buckets of one series rolled up in one step: 6 h."""
PRUNE_ROWS: Final = 5_000
"""Raw samples of one series deleted in one step."""
VACUUM_PAGES: Final = 256
_LEAST_SHARE: Final = 1 / 64
_HIGH_WATER: Final = 0.85
_LOW_WATER: Final = 0.60


class Maintenance:
    """Goes round the series, a few at each step."""

    def __init__(self, settings: StoreSettings, table: SeriesTable) -> None:
        self._settings = settings
        self._table = table
        self._round: list[int] = []
        self._share = 1.0

    def squeeze(self) -> None:
        """The file is full: halve what is kept from now on."""
        self._share = max(_LEAST_SHARE, self._share / 2)
        self._round.clear()

    def step(self, connection: sqlite3.Connection, now: float, budget: int) -> None:
        """One step, inside a transaction. Raises sqlite3.Error."""
        for series in list(self._table.due.values())[:budget]:
            self._roll(connection, series, floor(series.newest, FIVE_MINUTES))
        if not self._round:
            self._finish_round(connection, now)
            self._round = list(self._table.by_id)
        for _ in range(min(budget, len(self._round))):
            pruned = self._table.by_id.get(self._round.pop())
            if pruned is not None:
                self._prune(connection, pruned, now)
        connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()

    def _roll(self, connection: sqlite3.Connection, series: Series, target: int) -> None:
        end = min(target, series.rolled_to + ROLL_BUCKETS * FIVE_MINUTES)
        rows = connection.execute(
            "SELECT time, value FROM sample WHERE series = ? AND time >= ? AND time < ? ORDER BY time",
            (series.id, series.rolled_to, end),
        ).fetchall()
        _write(connection, "rollup_5m", series.id, summarize(rows, FIVE_MINUTES))
        if not rows:
            # After a long silence: on to the next sample at once.
            following = connection.execute(
                "SELECT time FROM sample WHERE series = ? AND time >= ? ORDER BY time LIMIT 1", (series.id, end)
            ).fetchone()
            end = max(end, min(target, floor(following[0], FIVE_MINUTES))) if following else target
        self._table.moved(connection, series, end, series.hour_to)
        self._roll_hours(connection, series, floor(end, HOUR))
        if end >= target:
            self._table.due.pop(series.id, None)

    def _roll_hours(self, connection: sqlite3.Connection, series: Series, target: int) -> None:
        if target <= series.hour_to:
            return
        finer = connection.execute(
            "SELECT start, samples, sum, min, min_at, max, max_at, last, last_at FROM rollup_5m "
            "WHERE series = ? AND start >= ? AND start < ? ORDER BY start",
            (series.id, series.hour_to, target),
        )
        _write(connection, "rollup_1h", series.id, merge((Bucket(*row) for row in finer), HOUR))
        self._table.moved(connection, series, series.rolled_to, target)

    def _prune(self, connection: sqlite3.Connection, series: Series, now: float) -> None:
        keep = self._settings
        if not connection.execute("SELECT 1 FROM process WHERE id = ?", (series.process_id,)).fetchone():
            self._remove_orphan(connection, series)
            return
        # It went silent: no later sample will finish its last buckets.
        if series.newest < now - 2 * FIVE_MINUTES and series.newest >= series.rolled_to:
            self._roll(connection, series, floor(series.newest, FIVE_MINUTES) + FIVE_MINUTES)
        if series.rolled_to > series.newest and series.newest < now - 2 * HOUR:
            self._roll_hours(connection, series, floor(series.newest, HOUR) + HOUR)
        raw_to = min(floor(now - keep.raw_seconds * self._share, FIVE_MINUTES), series.rolled_to)
        self._table.pruned(connection, series, raw_to)
        connection.execute(
            "DELETE FROM sample WHERE series = ?1 AND time < min(?2, coalesce("
            "(SELECT time FROM sample WHERE series = ?1 ORDER BY time LIMIT 1 OFFSET ?3), ?2))",
            (series.id, raw_to, PRUNE_ROWS),
        )
        # Whole hours only, and only those that the hourly buckets have.
        five_to = min(floor(now - keep.five_minute_seconds * self._share, HOUR), series.hour_to)
        connection.execute("DELETE FROM rollup_5m WHERE series = ? AND start < ?", (series.id, five_to))
        hour_to = floor(now - keep.hour_seconds * self._share, HOUR)
        connection.execute("DELETE FROM rollup_1h WHERE series = ? AND start < ?", (series.id, hour_to))
        if series.newest < now - keep.hour_seconds * self._share and not _has_rows(connection, series.id):
            self._table.remove(connection, series)

    def _remove_orphan(self, connection: sqlite3.Connection, series: Series) -> None:
        connection.execute(
            "DELETE FROM sample WHERE series = ?1 AND time IN "
            "(SELECT time FROM sample WHERE series = ?1 ORDER BY time LIMIT ?2)",
            (series.id, PRUNE_ROWS),
        )
        connection.execute("DELETE FROM rollup_5m WHERE series = ?", (series.id,))
        connection.execute("DELETE FROM rollup_1h WHERE series = ?", (series.id,))
        if not _has_rows(connection, series.id):
            self._table.remove(connection, series)

    def _finish_round(self, connection: sqlite3.Connection, now: float) -> None:
        """Everything that isn't a series, and how tight the file is."""
        keep = self._settings
        oldest = now - keep.hour_seconds * self._share
        connection.execute(
            "DELETE FROM process WHERE last_seen < ? AND id NOT IN (SELECT process_id FROM series)", (oldest,)
        )
        # Their series follow, a few rows at a time: see _prune.
        connection.execute(
            "DELETE FROM process WHERE id IN (SELECT id FROM process ORDER BY last_seen DESC LIMIT -1 OFFSET ?)",
            (keep.max_processes,),
        )
        connection.execute("DELETE FROM event WHERE process_id NOT IN (SELECT id FROM process)")
        connection.execute("DELETE FROM alert WHERE state = 'resolved' AND changed_at < ?", (oldest,))
        connection.execute(
            "DELETE FROM alert WHERE process_id NOT IN (SELECT id FROM process) AND changed_at < ?", (oldest,)
        )
        connection.execute(
            "DELETE FROM alert_change WHERE id NOT IN (SELECT change_id FROM outbox) AND at < max(?, coalesce("
            "(SELECT at FROM alert_change ORDER BY at DESC LIMIT 1 OFFSET ?), 0))",
            (oldest, keep.max_alert_changes - 1),
        )
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        used = (pages - free) * PAGE_BYTES / keep.max_bytes
        if used > _HIGH_WATER:
            self._share = max(_LEAST_SHARE, self._share / 2)
        elif used < _LOW_WATER:
            self._share = min(1.0, self._share * 2)


def _write(connection: sqlite3.Connection, table: str, series: int, buckets: list[Bucket]) -> None:
    connection.executemany(
        f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(series, *bucket) for bucket in buckets],
    )


def _has_rows(connection: sqlite3.Connection, series: int) -> bool:
    return any(
        connection.execute(f"SELECT 1 FROM {table} WHERE series = ? LIMIT 1", (series,)).fetchone()
        for table in ("sample", "rollup_5m", "rollup_1h")
    )
