"""The tables, their versions, and how a connection is opened.

Owns every ``CREATE`` statement. A migration that was released is never edited: a change is a new one at the end.

WAL with ``synchronous=NORMAL``: after ``kill -9`` every committed transaction is there. A power cut can't damage the
file, but may lose the transactions since the last checkpoint (typically the last seconds to minutes); the processes'
next points are scored as usual, and an alert that is still true is raised again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from otel_memory.analyzer.store.errors import StoreError

PAGE_BYTES: Final = 4096
BUSY_SECONDS: Final = 2.0

_FIRST: Final = """
CREATE TABLE process (
    id TEXT PRIMARY KEY,
    info TEXT NOT NULL,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    assessment TEXT,
    alert_state TEXT
) WITHOUT ROWID;
CREATE INDEX process_last_seen ON process (last_seen);

-- rolled_to, hour_to: buckets that begin before are in rollup_5m, rollup_1h. pruned_to: raw samples before are gone.
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    process_id TEXT NOT NULL,
    metric TEXT NOT NULL,
    rolled_to INTEGER NOT NULL,
    hour_to INTEGER NOT NULL,
    pruned_to INTEGER NOT NULL DEFAULT 0,
    UNIQUE (process_id, metric)
);
CREATE TABLE sample (
    series INTEGER NOT NULL,
    time REAL NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (series, time)
) WITHOUT ROWID;
CREATE TABLE rollup_5m (
    series INTEGER NOT NULL,
    start INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    min_at REAL NOT NULL,
    max REAL NOT NULL,
    max_at REAL NOT NULL,
    last REAL NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (series, start)
) WITHOUT ROWID;
CREATE TABLE rollup_1h (
    series INTEGER NOT NULL,
    start INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    min_at REAL NOT NULL,
    max REAL NOT NULL,
    max_at REAL NOT NULL,
    last REAL NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (series, start)
) WITHOUT ROWID;

CREATE TABLE event (
    process_id TEXT NOT NULL,
    time REAL NOT NULL,
    digest TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (process_id, time, digest)
) WITHOUT ROWID;

CREATE TABLE alert (
    id TEXT PRIMARY KEY,
    process_id TEXT NOT NULL,
    state TEXT NOT NULL,
    changed_at REAL NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE alert_change (
    id TEXT PRIMARY KEY,
    alert_id TEXT NOT NULL,
    at REAL NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX alert_change_at ON alert_change (at);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    change_id TEXT NOT NULL,
    alert_id TEXT NOT NULL,
    output TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    next_at REAL NOT NULL DEFAULT 0,
    last_error TEXT,
    UNIQUE (change_id, output)
);
CREATE INDEX outbox_due ON outbox (output, next_at);
CREATE INDEX outbox_order ON outbox (output, alert_id, seq);
"""

# held: the change waits for a silence to end.
_SILENCES: Final = """
CREATE TABLE silence (
    id TEXT PRIMARY KEY,
    ends_at REAL NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
ALTER TABLE outbox ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _SILENCES)
"""The n-th brings the file from version n-1 to version n (``PRAGMA user_version``)."""


def connect(path: Path, *, read_only: bool = False, create: bool = True) -> sqlite3.Connection:
    """A connection in autocommit mode, to be closed by the caller from any thread. Raises sqlite3.Error.

    Without ``create`` it is an error that there is no such file.
    It may be handed from thread to thread, but its owner must see to it that one thread uses it at a time.
    """
    mode = "ro" if read_only else "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        if not read_only:
            # Before the first table, else it takes a VACUUM: lets pruned pages go back to the disk in small steps.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Brings the file to the newest version, each step in a transaction of its own.

    Raises:
        StoreError: the file is of a newer version than this program knows (kind ``newer``).
        sqlite3.Error: a step failed; the file is as it was before that step.
    """
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > len(migrations):
        raise StoreError(
            f"{path}: written by a newer otel-memory (schema {found}, this one knows up to {len(migrations)}); "
            "upgrade otel-memory or give another data directory",
            "newer",
        )
    for version, script in enumerate(migrations[found:], start=found + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script};\nPRAGMA user_version = {version};\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise


def probe(connection: sqlite3.Connection) -> None:
    """Reads the schema and the edge of every table. Raises sqlite3.DatabaseError where they are damaged.

    Cheap at any size. Damage that it doesn't touch shows at the first access, and is dealt with then.
    """
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for table in tables:
        connection.execute(f'SELECT * FROM "{table}" LIMIT 1').fetchone()
