"""``Store``: the one writer.

Owns the write connection and what it remembers of the series. Used by the analyzer's worker thread alone; what
readers and outputs need is in ``reader`` and ``outbox``. Never decides what is worth keeping: see ``maintenance``.

Failure. A transaction that fails is undone as a whole and raises ``StoreError``; the store stays usable and the next
transaction tries again. A file found damaged, at open or later, is put aside under another name and a new one begun;
the log says so at level ERROR. Nothing here ends the service: its judgement lives in memory.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_memory.analyzer.model import Alert, Assessment, Event, ProcessInfo
from otel_memory.analyzer.outputs.base import AlertChange, change_id
from otel_memory.analyzer.store import codec, files, schema
from otel_memory.analyzer.store.errors import StoreError, wrap
from otel_memory.analyzer.store.maintenance import Maintenance
from otel_memory.analyzer.store.rollup import FIVE_MINUTES, HOUR, floor
from otel_memory.analyzer.store.seriestable import SeriesTable
from otel_memory.analyzer.store.settings import StoreSettings

_logger = logging.getLogger(__name__)
FILE_NAME: Final = "analyzer.db"


class Sizes(NamedTuple):
    """Bytes on disk, and how many rows of what."""

    file_bytes: int
    wal_bytes: int
    processes: int
    series: int


class Restored(NamedTuple):
    """One process as it was stored. ``samples``: series key -> (times, values) in order of time."""

    process: ProcessInfo
    first_seen: float
    last_seen: float
    samples: dict[str, tuple[list[float], list[float]]]


class Store:
    """See the module. Make one with ``Store.open``."""

    def __init__(self, path: Path, settings: StoreSettings, lock: files.DirectoryLock) -> None:
        self.path: Final = path
        self.settings: Final = settings
        self._lock = lock
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._log_identity: tuple[int, int] | None = None
        self._table = SeriesTable(settings.max_series)
        self._maintenance = Maintenance(settings, self._table)
        self._samples: list[tuple[int, float, float]] = []
        self._in_transaction = False
        self._failing = False

    @classmethod
    def open(cls, path: Path, settings: StoreSettings | None = None) -> Store:
        """Opens or creates the file (its directory too), and brings its schema up to date.

        Raises:
            StoreError: ``newer`` schema, directory ``in_use``, or ``io``. A damaged file is put aside instead.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"{path.parent}: {error.strerror}", "io") from error
        lock = files.DirectoryLock(path.with_name(path.name + ".lock"))
        store = cls(path, settings or StoreSettings(), lock)
        try:
            store._connect()
        except BaseException:
            lock.release()
            raise
        return store

    def close(self) -> None:
        """Folds the write-ahead log into the file and closes. Idempotent."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
            self._connection = None
        self._lock.release()

    # --- transactions --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes go inside one; they are kept together or not at all.

        Raises:
            StoreError: nothing was kept.
        """
        if self._in_transaction:
            raise RuntimeError("a store transaction is already open")
        try:
            connection = self._connected()
        except StoreError as error:
            self._fail(error)
            raise
        try:
            self._table.ready(connection)
            connection.execute("BEGIN IMMEDIATE")
            self._in_transaction = True
            yield
            self._flush(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._undo(connection, wrap(error, self.path)) from error
        except BaseException:
            self._undo(connection, None)
            raise
        finally:
            self._in_transaction = False
        if self._failing:
            self._failing = False
            _logger.warning("store %s: works again", self.path)

    def maintain(self, now: float, budget: int = 256) -> int:
        """A small step of housekeeping: rolls up and prunes at most ``budget`` series.

        ``now`` is the time against which retention counts, in seconds since the epoch. Returns how many series still
        wait to be rolled up: come again soon where that isn't 0.

        Raises:
            StoreError: nothing was changed.
        """
        with self.transaction():
            self._maintenance.step(self._open(), now, budget)
        return len(self._table.due)

    # --- writes, inside a transaction ----------------------------------------------------------------------

    def save_process(self, process: ProcessInfo, first_seen: float, last_seen: float) -> None:
        """Says that a process is there. Belongs into the same transaction as its first samples."""
        self._open().execute(
            "INSERT INTO process (id, info, first_seen, last_seen) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET info = excluded.info, first_seen = excluded.first_seen, last_seen = excluded.last_seen",
            (process.id, codec.PROCESS.dump_json(process).decode(), first_seen, last_seen),
        )

    def save_assessment(self, assessment: Assessment) -> None:
        """Keeps the latest judgement of a process, and the process itself."""
        self._open().execute(
            "INSERT INTO process (id, info, first_seen, last_seen, assessment) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET info = excluded.info, first_seen = excluded.first_seen, "
            "last_seen = excluded.last_seen, assessment = excluded.assessment",
            (
                assessment.process.id,
                codec.PROCESS.dump_json(assessment.process).decode(),
                assessment.first_seen,
                assessment.last_seen,
                codec.ASSESSMENT.dump_json(assessment).decode(),
            ),
        )

    def save_alert_state(self, process_id: str, state: str) -> None:
        """Keeps the alerting state machine's memory of a process, in a form of its own choosing.

        The process must have been saved before, else this does nothing.
        """
        self._open().execute("UPDATE process SET alert_state = ? WHERE id = ?", (state, process_id))

    def add_samples(self, process_id: str, metric: str, times: Sequence[float], values: Sequence[float]) -> None:
        """Adds samples of the series ``metric`` (a role, or ``role:detail``) of a process.

        Times are seconds since the epoch, in any order; a second sample at the same time replaces the first. Values
        that aren't finite are gaps and left out. Samples older than what is kept, and series beyond the bound, are
        left out and counted in ``dropped_samples``.
        """
        connection = self._open()
        pairs = [
            (float(time), float(value))
            for time, value in zip(times, values, strict=True)
            if math.isfinite(value) and math.isfinite(time)
        ]
        if not pairs:
            return
        oldest = min(pairs)[0]
        series = self._table.get(connection, process_id, metric, floor(oldest, FIVE_MINUTES), floor(oldest, HOUR))
        if series is None:
            self._table.dropped += len(pairs)
            return
        kept = [pair for pair in pairs if pair[0] >= series.pruned_to]
        self._table.dropped += len(pairs) - len(kept)
        if kept:
            self._table.touch(connection, series, min(kept)[0], max(kept)[0])
            self._samples += [(series.id, time, value) for time, value in kept]

    def add_events(self, process_id: str, events: Iterable[Event]) -> None:
        """Keeps events of a process; one that came before is not kept twice, the oldest beyond the bound go."""
        connection = self._open()
        rows = []
        for event in events:
            body = codec.EVENT.dump_json(event)
            rows.append((process_id, event.time, f"{zlib.crc32(body):08x}", body.decode()))
        connection.executemany("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?)", rows)
        if rows:
            connection.execute(
                "DELETE FROM event WHERE process_id = ?1 AND time < (SELECT time FROM event WHERE process_id = ?1 "
                "ORDER BY time DESC LIMIT 1 OFFSET ?2)",
                (process_id, self.settings.max_events_per_process - 1),
            )

    def save_alert(self, alert: Alert, at: float) -> None:
        """Keeps the current form of an alert without telling anyone."""
        self._open().execute(
            "INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?, ?)",
            (alert.id, alert.process, alert.state.value, at, codec.ALERT.dump_json(alert).decode()),
        )

    def record_alert_change(
        self, alert: Alert, at: float, *, assessment: Assessment | None = None, outputs: Iterable[str] = ()
    ) -> AlertChange:
        """Keeps a change of an alert's state at event time ``at``, and queues it for each of ``outputs``.

        A change that was recorded before (same alert, state and time) is not queued again. Without outputs it is
        history only: for changes that went out past a store that failed.
        """
        change = AlertChange(change_id(alert, at), at, alert, assessment)
        self.save_alert(alert, at)
        if self._record(change):
            self._queue(change, outputs)
        return change

    def owe_alert_change(self, change: AlertChange, outputs: Iterable[str]) -> None:
        """Queues a change that was made elsewhere for ``outputs``, recorded before or not; what waits for an output
        already is not queued again."""
        self._record(change)
        self._queue(change, outputs)

    def disown_alerts(self, alert_ids: Iterable[str]) -> None:
        """Takes out what waits for outputs of these alerts: another one tells of it."""
        self._open().executemany("DELETE FROM outbox WHERE alert_id = ?", [(alert_id,) for alert_id in alert_ids])

    def _record(self, change: AlertChange) -> bool:
        """False if it was recorded before."""
        row = (change.id, change.alert.id, change.at, codec.CHANGE.dump_json(change).decode())
        return self._open().execute("INSERT OR IGNORE INTO alert_change VALUES (?, ?, ?, ?)", row).rowcount > 0

    def _queue(self, change: AlertChange, outputs: Iterable[str]) -> None:
        self._open().executemany(
            "INSERT OR IGNORE INTO outbox (change_id, alert_id, output, created_at) VALUES (?, ?, ?, ?)",
            [(change.id, change.alert.id, output, datetime.now(UTC).timestamp()) for output in outputs],
        )

    # --- reads, for the restart ----------------------------------------------------------------------------

    def restore(self, since: float) -> Iterator[Restored]:
        """The processes last seen at or after ``since`` (s since the epoch), with their raw samples from then on."""
        rows = self._query(
            "SELECT id, info, first_seen, last_seen FROM process WHERE last_seen >= ? ORDER BY id", (since,)
        )
        for process_id, info, first_seen, last_seen in rows:
            processes = codec.load_all(codec.PROCESS, [info])
            if processes:
                yield Restored(processes[0], first_seen, last_seen, self._samples_of(process_id, since))

    def load_assessments(self, since: float = 0.0) -> list[Assessment]:
        """The latest judgement of each process last seen at or after ``since`` (seconds since the epoch)."""
        rows = self._query("SELECT assessment FROM process WHERE assessment IS NOT NULL AND last_seen >= ?", (since,))
        return codec.load_all(codec.ASSESSMENT, (body for (body,) in rows))

    def load_alert_states(self, since: float = 0.0) -> dict[str, str]:
        """Process id -> what ``save_alert_state`` was given."""
        return dict(
            self._query(
                "SELECT id, alert_state FROM process WHERE alert_state IS NOT NULL AND last_seen >= ?", (since,)
            )
        )

    def load_alerts(self) -> list[Alert]:
        """Every alert that is kept, in its current form, the last changed first."""
        rows = self._query("SELECT body FROM alert ORDER BY changed_at DESC, id")
        return codec.load_all(codec.ALERT, (body for (body,) in rows))

    def load_events(self, limit: int = 100) -> dict[str, list[Event]]:
        """Process id -> its newest events (at most ``limit``), oldest first."""
        bodies: dict[str, list[str]] = {}
        for process_id, body in self._query("SELECT process_id, body FROM event ORDER BY process_id, time"):
            bodies.setdefault(process_id, []).append(body)
        return {process_id: codec.load_all(codec.EVENT, kept[-limit:]) for process_id, kept in bodies.items()}

    @property
    def dropped_samples(self) -> int:
        """Samples left out since the store was opened: too old, or of a series beyond the bound."""
        return self._table.dropped

    def sizes(self) -> Sizes:
        """What the store takes. Raises StoreError."""
        processes = self._query("SELECT count(*) FROM process")[0][0]
        series = self._query("SELECT count(*) FROM series")[0][0]
        return Sizes(files.size(self.path), files.size(files.wal(self.path)), processes, series)

    def writable(self) -> str | None:
        """None where the last transaction was kept, else why not; for the readiness page."""
        return f"{self.path} can't be written, see the log" if self._failing else None

    # --- inside --------------------------------------------------------------------------------------------

    def _samples_of(self, process_id: str, since: float) -> dict[str, tuple[list[float], list[float]]]:
        samples = {}
        for series_id, metric in self._query("SELECT id, metric FROM series WHERE process_id = ?", (process_id,)):
            points = self._query(
                "SELECT time, value FROM sample WHERE series = ? AND time >= ? ORDER BY time", (series_id, since)
            )
            if points:
                samples[metric] = ([time for time, _ in points], [value for _, value in points])
        return samples

    def _query(self, sql: str, parameters: Sequence[str | float] = ()) -> list[Any]:
        connection = self._connected()
        try:
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise wrap(error, self.path) from error

    def _open(self) -> sqlite3.Connection:
        if not self._in_transaction or self._connection is None:
            raise RuntimeError("store writes need a transaction")
        return self._connection

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and files.identity(self.path) != self._identity:
            self._connection.close()
            self._connection = None
            if files.identity(files.wal(self.path)) == self._log_identity:
                # The log of what is gone; another file's own log is left to it.
                files.remove_companions(self.path)
            _logger.error(
                "store %s: the file was removed or replaced while in use; the analyzer goes on with what is there now, "
                "history and undelivered alerts may be lost",
                self.path,
            )
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        return self._connection

    def _connect(self) -> None:
        try:
            self._try_connect()
        except StoreError as error:
            if error.kind != "corrupt":
                raise
            self._replace(error)
            self._try_connect()

    def _try_connect(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._lock.held:
                self._lock = self._lock.renew()
            if not self.path.exists():
                files.remove_companions(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}", "io") from error
        try:
            connection = schema.connect(self.path)
        except sqlite3.Error as error:
            raise wrap(error, self.path) from error
        try:
            schema.migrate(connection, self.path)
            schema.probe(connection)
            pages = self.settings.max_bytes // schema.PAGE_BYTES
            connection.execute(f"PRAGMA max_page_count = {pages}")
            self._table.load(connection)
        except sqlite3.Error as error:
            connection.close()
            raise wrap(error, self.path) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity, self._log_identity = files.identity(self.path), files.identity(files.wal(self.path))

    def _replace(self, error: StoreError) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        try:
            aside = files.put_aside(self.path, stamp)
        except OSError as trouble:
            raise StoreError(f"{self.path}: damaged, and can't be put aside: {trouble}", "corrupt") from trouble
        _logger.error(
            "store %s; it was put aside as %s and a new one begun: history and undelivered alerts are lost",
            error,
            aside.name,
        )

    def _flush(self, connection: sqlite3.Connection) -> None:
        if self._samples:
            connection.executemany("INSERT OR REPLACE INTO sample VALUES (?, ?, ?)", self._samples)
            self._samples.clear()

    def _undo(self, connection: sqlite3.Connection, error: StoreError | None) -> StoreError:
        """After a failure: nothing of the transaction stays, in the file or in memory."""
        self._samples.clear()
        self._table.forget()
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if error is None:
            return StoreError("the transaction was given up", "io")
        self._fail(error)
        if error.kind == "full":
            self._maintenance.squeeze()
        if error.kind == "corrupt":
            connection.close()
            self._connection = None
            try:
                self._replace(error)
            except StoreError as trouble:
                _logger.error("store %s", trouble)
        return error

    def _fail(self, error: StoreError) -> None:
        if not self._failing:
            self._failing = True
            _logger.error("store %s; the analyzer goes on in memory", error)
