"""``Reader``: read-only access for the API's threads.

Owns a few read-only connections, each lent to one thread at a time. Never writes, and never holds a read transaction
open, which would keep the write-ahead log from being folded in.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.store import codec, files, schema
from otel_memory.analyzer.store.errors import StoreError, wrap
from otel_memory.analyzer.store.rollup import (
    FIVE_MINUTES,
    HOUR,
    Bucket,
    Piece,
    bucket_piece,
    floor,
    join,
    raw_piece,
    thin,
)

DEFAULT_SPAN: Final = 3600.0
RAW_SPAN: Final = 6 * 3600.0
"""Longer stretches are read from 5-minute buckets where those exist, ..."""
FIVE_MINUTE_SPAN: Final = 48 * 3600.0
"""... and still longer ones from hourly buckets."""
_BUCKET: Final = "start, samples, sum, min, min_at, max, max_at, last, last_at"


class SeriesData(NamedTuple):
    """For a chart: times in seconds since the epoch, ascending; a value of None marks a gap."""

    times: list[float]
    values: list[float | None]


class Reader:
    """See the module. Thread-safe."""

    MAX_IDLE: Final = 8

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._lock = threading.Lock()
        # Not one for each thread: a thread pool's threads come and go, and would leave theirs behind.
        self._idle: list[tuple[sqlite3.Connection, tuple[int, int] | None]] = []
        self._closed = False

    def series(
        self, process_id: str, metric: str, start: float | None = None, end: float | None = None, points: int = 600
    ) -> SeriesData:
        """Samples of one series from ``start`` to ``end``, thinned to at most ``points`` real samples and gaps.

        ``end`` is the newest sample unless given, ``start`` an hour before that; both in seconds since the epoch.
        Empty where there is no such series.

        Raises:
            StoreError: the file can't be read.
        """
        with self._lent() as connection:
            row = connection.execute(
                "SELECT id, rolled_to, hour_to, pruned_to FROM series WHERE process_id = ? AND metric = ?",
                (process_id, metric),
            ).fetchone()
            if row is None:
                return SeriesData([], [])
            piece = self._piece(connection, *row, start=start, end=end)
        return SeriesData(*thin(piece, points))

    def alert_changes(self, limit: int = 100) -> list[AlertChange]:
        """The last changes of alerts, newest first. Raises StoreError."""
        with self._lent() as connection:
            rows = connection.execute("SELECT body FROM alert_change ORDER BY at DESC LIMIT ?", (limit,)).fetchall()
        return codec.load_all(codec.CHANGE, (body for (body,) in rows))

    def close(self) -> None:
        """Closes every connection, a lent one when it comes back. Idempotent; later queries raise StoreError."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        """A connection for one query. What SQLite raises becomes a StoreError."""
        identity = files.identity(self._path)
        connection = self._take(identity)
        try:
            if connection is None:
                connection = schema.connect(self._path, read_only=True)
            yield connection
        except sqlite3.Error as error:
            raise wrap(error, self._path) from error
        finally:
            if connection is not None:
                self._give_back(connection, identity)

    def _take(self, identity: tuple[int, int] | None) -> sqlite3.Connection | None:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._path}: the reader is closed", "io")
            # A damaged file is replaced by the writer: the old one would go on being readable here for ever.
            outdated = [connection for connection, opened in self._idle if opened != identity]
            self._idle = [entry for entry in self._idle if entry[1] == identity]
            found = self._idle.pop()[0] if self._idle else None
        for connection in outdated:
            connection.close()
        return found

    def _give_back(self, connection: sqlite3.Connection, identity: tuple[int, int] | None) -> None:
        with self._lock:
            keep = not self._closed and len(self._idle) < self.MAX_IDLE
            if keep:
                self._idle.append((connection, identity))
        if not keep:
            connection.close()

    def _piece(
        self,
        connection: sqlite3.Connection,
        series: int,
        rolled_to: int,
        hour_to: int,
        pruned_to: int,
        *,
        start: float | None,
        end: float | None,
    ) -> Piece:
        """Hourly buckets for the oldest part, then 5-minute ones, then raw samples for the newest."""
        if end is None:
            end = self._newest(connection, series)
            if end is None:
                return raw_piece(())
        if start is None:
            start = end - DEFAULT_SPAN
        five_from = connection.execute("SELECT min(start) FROM rollup_5m WHERE series = ?", (series,)).fetchone()[0]
        five_from = rolled_to if five_from is None else five_from
        hour_end = hour_to if end - start > FIVE_MINUTE_SPAN else min(hour_to, floor(five_from, HOUR))
        five_end = rolled_to if end - start > RAW_SPAN else min(rolled_to, pruned_to)
        hours = self._buckets(connection, "rollup_1h", series, floor(start, HOUR), min(hour_end, end))
        fives = self._buckets(
            connection, "rollup_5m", series, max(floor(start, FIVE_MINUTES), hour_end), min(five_end, end)
        )
        raw = connection.execute(
            "SELECT time, value FROM sample WHERE series = ? AND time >= ? AND time <= ? ORDER BY time",
            (series, max(start, five_end, hour_end), end),
        ).fetchall()
        return join(
            [
                (_within(bucket_piece(hours, HOUR), start, end), float(HOUR)),
                (_within(bucket_piece(fives, FIVE_MINUTES), start, end), float(FIVE_MINUTES)),
                (raw_piece(raw), 0.0),
            ]
        )

    def _newest(self, connection: sqlite3.Connection, series: int) -> float | None:
        for table, column in (("sample", "time"), ("rollup_5m", "last_at"), ("rollup_1h", "last_at")):
            key = "time" if table == "sample" else "start"
            row = connection.execute(
                f"SELECT {column} FROM {table} WHERE series = ? ORDER BY {key} DESC LIMIT 1", (series,)
            ).fetchone()
            if row is not None:
                return float(row[0])
        return None

    def _buckets(
        self, connection: sqlite3.Connection, table: str, series: int, start: float, end: float
    ) -> list[Bucket]:
        rows = connection.execute(
            f"SELECT {_BUCKET} FROM {table} WHERE series = ? AND start >= ? AND start < ? ORDER BY start",
            (series, start, end),
        )
        return [Bucket(*row) for row in rows]


def _within(piece: Piece, start: float, end: float) -> Piece:
    """The part of a stretch between ``start`` and ``end``: a bucket at the edge has samples outside."""
    inside = (piece.times >= start) & (piece.times <= end)
    return Piece(piece.times[inside], piece.values[inside], piece.gap_after[inside])
