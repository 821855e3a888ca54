"""The store when things go wrong: damaged, full, locked, foreign or in use. It never takes the service with it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from otel_memory.analyzer.store import Outbox, Reader, Store, StoreError, StoreSettings, schema
from tests.analyzer.store_samples import T0, alert, assessment, process

ID = process().id


def write(store: Store, count: int = 1, start: float = T0) -> None:
    with store.transaction():
        store.save_process(process(), T0, start)
        store.add_samples(ID, "memory", [start + i for i in range(count)], [float(i) for i in range(count)])


def damaged_files(path: Path) -> list[Path]:
    return [found for found in path.parent.glob("*.damaged-*") if not found.name.endswith(("-wal", "-shm"))]


def test_a_file_of_a_newer_schema_is_refused_with_file_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "analyzer.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(
        StoreError, match=r"analyzer\.db: written by a newer otel-memory \(schema 99.*up to 2\)"
    ) as caught:
        Store.open(path)
    assert caught.value.kind == "newer"
    path.with_name("analyzer.db.lock").unlink()
    assert not damaged_files(path)


def test_migrations_go_forward_one_by_one_and_a_failing_one_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = schema.connect(path)
    steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2)"]
    schema.migrate(connection, path, steps[:1])
    schema.migrate(connection, path, steps)
    assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, 2)]
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, path, [*steps, "CREATE TABLE b (x); SELECT * FROM nothing"])
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'b'").fetchone() == (0,)
    connection.close()


def test_a_second_analyzer_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "analyzer.db"
    first = Store.open(path)
    with pytest.raises(StoreError, match="another analyzer") as caught:
        Store.open(path)
    assert caught.value.kind == "in_use"
    first.close()
    Store.open(path).close()


def test_a_directory_that_can_not_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file") as caught:
        Store.open(tmp_path / "file" / "analyzer.db")
    assert caught.value.kind == "io"


def test_a_file_that_is_no_database_is_put_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "analyzer.db"
    path.write_bytes(b"this is no database" * 1000)
    store = Store.open(path)
    write(store)
    assert store.sizes().series == 1
    (aside,) = damaged_files(path)
    assert aside.read_bytes().startswith(b"this is no database")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert aside.name in caplog.text
    store.close()


def test_of_damaged_files_only_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "analyzer.db"
    for number in range(6):
        path.write_bytes(f"damaged {number} ".encode() * 1000)
        Store.open(path).close()
    kept = sorted(found.read_bytes()[:9] for found in damaged_files(path))
    assert kept == [b"damaged 3", b"damaged 4", b"damaged 5"]


def test_damage_while_running_fails_one_transaction_and_a_new_file_is_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "analyzer.db"
    store = Store.open(path)
    write(store, 30_000)
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        # Pages in the middle, so that opening succeeds and the first use of old samples does not.
        file.seek(60 * 4096)
        file.write(b"\xff" * (size - 80 * 4096))
    store = Store.open(path)
    reader, outbox = Reader(path), Outbox(path)
    with pytest.raises(StoreError) as caught:
        for number in range(300):
            write(store, 100, T0 + number * 100)
    assert caught.value.kind == "corrupt"
    assert store.writable() is not None
    write(store, 3)
    assert store.writable() is None
    assert reader.series(ID, "memory").values == [0.0, 1.0, 2.0]
    assert outbox.pending("console") == 0
    assert len(damaged_files(path)) == 1
    assert "put aside" in caplog.text
    reader.close()
    outbox.close()
    store.close()


def test_readers_and_outbox_turn_to_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "analyzer.db"
    store = Store.open(path)
    write(store, 5)
    reader, outbox = Reader(path), Outbox(path)
    assert len(reader.series(ID, "memory").values) == 5
    assert outbox.pending("console") == 0
    store.close()
    path.write_bytes(b"damaged" * 1000)
    store = Store.open(path)
    with store.transaction():
        store.record_alert_change(alert(), T0, outputs=["console"])
    assert reader.series(ID, "memory").values == []
    assert outbox.pending("console") == 1
    outbox.close()
    reader.close()
    store.close()


def test_a_full_store_fails_the_transaction_whole_then_keeps_less_and_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(tmp_path / "analyzer.db", StoreSettings(max_bytes=2**20))
    moment = T0
    with pytest.raises(StoreError, match="full") as caught:
        for _ in range(100):
            write(store, 2000, moment)
            moment += 2000
    assert caught.value.kind == "full"
    samples = next(store.restore(0)).samples["memory"][0]
    assert len(samples) % 2000 == 0, "the failed transaction left nothing"
    assert "goes on in memory" in caplog.text
    for _ in range(100):
        store.maintain(moment)
    write(store, 2000, moment)
    assert store.writable() is None
    assert next(store.restore(moment)).samples["memory"][0][-1] == moment + 1999
    store.close()


def test_a_nearly_full_store_halves_what_it_keeps_so_that_it_never_gets_full(tmp_path: Path) -> None:
    limit = 2 * 2**20
    store = Store.open(tmp_path / "analyzer.db", StoreSettings(max_bytes=limit))
    moment = T0
    for _ in range(600):
        write(store, 300, moment)
        moment += 300
        store.maintain(moment)
    assert store.sizes().file_bytes <= limit
    assert next(store.restore(0)).samples["memory"][0][-1] == moment - 1
    store.close()


def test_a_foreign_lock_fails_the_transaction_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    path = tmp_path / "analyzer.db"
    store = Store.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="lock") as caught:
        write(store)
    assert caught.value.kind == "locked"
    other.execute("ROLLBACK")
    other.close()
    with store.transaction():
        store.save_assessment(assessment())
    assert store.load_assessments() == [assessment()]
    store.close()


def test_a_closed_reader_says_so_and_a_missing_file_is_a_store_error(tmp_path: Path) -> None:
    missing = Reader(tmp_path / "none.db")
    with pytest.raises(StoreError):
        missing.series(ID, "memory")
    missing.close()
    with pytest.raises(StoreError, match="closed"):
        missing.alert_changes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"raw_seconds": 10},
        {"raw_seconds": 86400.0, "five_minute_seconds": 3600.0},
        {"hour_seconds": 3600.0},
        {"max_bytes": 1000},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="store"):
        StoreSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("lost", ["file", "file and companions", "directory"])
def test_a_file_removed_while_running_is_noticed_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    path = tmp_path / "data" / "analyzer.db"
    store = Store.open(path)
    reader, outbox = Reader(path), Outbox(path)
    write(store, 5)
    assert outbox.pending("console") == 0
    if lost == "directory":
        shutil.rmtree(path.parent)
    else:
        for suffix in ("",) if lost == "file" else ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
    write(store, 3)
    with store.transaction():
        store.record_alert_change(alert(), T0, outputs=["console"])
    assert "removed or replaced" in caplog.text
    assert store.writable() is None
    assert reader.series(ID, "memory").values == [0.0, 1.0, 2.0]
    assert outbox.pending("console") == 1
    with pytest.raises(StoreError) as second:
        Store.open(path)
    assert second.value.kind == "in_use"
    reader.close()
    outbox.close()
    store.close()
    again = Store.open(path)
    assert len(again.load_alerts()) == 1
    again.close()


def test_a_file_that_can_not_be_begun_anew_makes_the_store_unwritable_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "data" / "analyzer.db"
    store = Store.open(path)
    write(store, 5)
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"a file where the directory was")
    with pytest.raises(StoreError):
        write(store, 3)
    assert store.writable() is not None
    path.parent.unlink()
    write(store, 3)
    assert store.writable() is None
    store.close()


def test_another_database_put_in_place_while_running_is_used_from_then_on(tmp_path: Path) -> None:
    path, other = tmp_path / "analyzer.db", tmp_path / "other" / "analyzer.db"
    backup = Store.open(other)
    write(backup, 7)
    backup.close()
    store = Store.open(path)
    write(store, 2)
    other.rename(path)
    write(store, 1, T0 + 7)
    store.close()
    reader = Reader(path)
    assert reader.series(ID, "memory").times == [T0 + i for i in range(8)]
    reader.close()


def test_a_write_ahead_log_left_over_from_a_removed_file_is_not_replayed_into_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "analyzer.db"
    store = Store.open(path)
    write(store, 5)
    left_over = path.with_name("analyzer.db-wal").read_bytes()
    store.close()
    path.unlink()
    path.with_name("analyzer.db-wal").write_bytes(left_over)
    store = Store.open(path)
    assert list(store.restore(0.0)) == []
    store.close()


def test_the_outbox_makes_no_file(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "analyzer.db")
    with pytest.raises(StoreError):
        outbox.pending("console")
    outbox.close()
    assert list(tmp_path.iterdir()) == []
