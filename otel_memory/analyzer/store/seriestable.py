"""What the writer remembers of each series, so that a sample costs no look-up in the file.

Owns the ``series`` table's image in memory. Never touches samples. It is forgotten when a transaction fails and
read again before the next one: then it says what the file says.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from otel_memory.analyzer.store.rollup import FIVE_MINUTES, HOUR, floor


@dataclass(slots=True)
class Series:
    """``rolled_to``, ``hour_to``, ``pruned_to`` as in the schema; ``newest`` is the time of the newest sample."""

    id: int
    process_id: str
    metric: str
    rolled_to: int
    hour_to: int
    pruned_to: int
    newest: float


class SeriesTable:
    """Series by process and metric; ``due`` are those with a finished bucket that is not rolled up yet."""

    def __init__(self, max_series: int) -> None:
        self._max = max_series
        self._by_key: dict[tuple[str, str], Series] = {}
        self.by_id: dict[int, Series] = {}
        self.due: dict[int, Series] = {}
        self.dropped = 0
        self._loaded = False

    def __len__(self) -> int:
        return len(self.by_id)

    def ready(self, connection: sqlite3.Connection) -> None:
        """Reads the table if it was forgotten. Raises sqlite3.Error."""
        if not self._loaded:
            self.load(connection)

    def load(self, connection: sqlite3.Connection) -> None:
        """Reads the table anew. Raises sqlite3.Error."""
        self.forget()
        rows = connection.execute(
            "SELECT id, process_id, metric, rolled_to, hour_to, pruned_to, "
            "coalesce((SELECT time FROM sample WHERE series = s.id ORDER BY time DESC LIMIT 1), 0) FROM series AS s"
        )
        for row in rows:
            self._add(Series(*row))
        self._loaded = True

    def forget(self) -> None:
        """Drops the image; ``ready`` reads it again."""
        self._by_key.clear()
        self.by_id.clear()
        self.due.clear()
        self._loaded = False

    def get(
        self, connection: sqlite3.Connection, process_id: str, metric: str, rolled_to: int, hour_to: int
    ) -> Series | None:
        """The series, made if need be; None where there are too many."""
        series = self._by_key.get((process_id, metric))
        if series is None:
            if len(self._by_key) >= self._max:
                return None
            cursor = connection.execute(
                "INSERT INTO series (process_id, metric, rolled_to, hour_to) VALUES (?, ?, ?, ?)",
                (process_id, metric, rolled_to, hour_to),
            )
            assert cursor.lastrowid is not None
            series = Series(cursor.lastrowid, process_id, metric, rolled_to, hour_to, 0, 0.0)
            self._add(series)
        return series

    def touch(self, connection: sqlite3.Connection, series: Series, oldest: float, newest: float) -> None:
        """Notes that samples between ``oldest`` and ``newest`` were added; late ones undo their buckets."""
        if oldest < series.rolled_to:
            rolled_to = floor(oldest, FIVE_MINUTES)
            self.moved(connection, series, rolled_to, min(series.hour_to, floor(rolled_to, HOUR)))
        series.newest = max(series.newest, newest)
        if floor(series.newest, FIVE_MINUTES) > series.rolled_to:
            self.due[series.id] = series

    def moved(self, connection: sqlite3.Connection, series: Series, rolled_to: int, hour_to: int) -> None:
        """Keeps how far the series is rolled up."""
        series.rolled_to, series.hour_to = rolled_to, hour_to
        connection.execute("UPDATE series SET rolled_to = ?, hour_to = ? WHERE id = ?", (rolled_to, hour_to, series.id))

    def pruned(self, connection: sqlite3.Connection, series: Series, pruned_to: int) -> None:
        """Keeps how far the raw samples are pruned."""
        if pruned_to > series.pruned_to:
            series.pruned_to = pruned_to
            connection.execute("UPDATE series SET pruned_to = ? WHERE id = ?", (pruned_to, series.id))

    def remove(self, connection: sqlite3.Connection, series: Series) -> None:
        """Takes out a series that has no rows left."""
        connection.execute("DELETE FROM series WHERE id = ?", (series.id,))
        self._by_key.pop((series.process_id, series.metric), None)
        self.by_id.pop(series.id, None)
        self.due.pop(series.id, None)

    def _add(self, series: Series) -> None:
        self._by_key[series.process_id, series.metric] = series
        self.by_id[series.id] = series
        if floor(series.newest, FIVE_MINUTES) > series.rolled_to:
            self.due[series.id] = series
