"""The store: transactions, restart, series, retention. One temporary file per test; time is an argument."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from otel_memory.analyzer.model import AlertState, Event
from otel_memory.analyzer.store import Outbox, Reader, Store, StoreSettings
from tests.analyzer.store_samples import T0, alert, assessment, process

ID = process().id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "analyzer.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(path)
    yield opened
    opened.close()


@pytest.fixture
def reader(store: Store) -> Iterator[Reader]:
    opened = Reader(store.path)
    yield opened
    opened.close()


def fill(store: Store, count: int, step: float = 1.0, start: float = T0, metric: str = "memory") -> None:
    """Samples whose value is their number."""
    with store.transaction():
        store.save_process(process(), T0, start + count * step)
        store.add_samples(ID, metric, [start + i * step for i in range(count)], [float(i) for i in range(count)])


def settle(store: Store, now: float, rounds: int = 20) -> None:
    for _ in range(rounds):
        store.maintain(now)


def test_what_a_transaction_kept_is_there_after_a_restart(path: Path) -> None:
    store = Store.open(path)
    event = Event("otel_memory.threshold.crossed", T0 + 5, 13, {"process.pid": 7, "tags": ("a", "b")}, None)
    with store.transaction():
        store.save_assessment(assessment())
        store.save_alert_state(ID, '{"since": 1}')
        store.add_samples(ID, "memory", [T0, T0 + 1], [1.5, 2.5])
        store.add_events(ID, [event])
        store.record_alert_change(alert(), T0 + 60, assessment=assessment(), outputs=["console"])
    store.close()

    again = Store.open(path)
    restored = list(again.restore(T0))
    assert [(r.process, r.first_seen, r.last_seen, r.samples) for r in restored] == [
        (process(), T0, T0 + 120, {"memory": ([T0, T0 + 1], [1.5, 2.5])})
    ]
    assert again.load_assessments() == [assessment()]
    assert again.load_alert_states() == {ID: '{"since": 1}'}
    assert again.load_alerts() == [alert()]
    assert again.load_events() == {ID: [event]}
    again.close()


def test_restore_begins_at_the_given_time_and_skips_processes_not_seen_since(store: Store) -> None:
    fill(store, 10)
    with store.transaction():
        store.save_process(process(2), T0 - 500, T0 - 100)
        store.add_samples(process(2).id, "memory", [T0 - 100], [1.0])
    (restored,) = store.restore(T0 + 7)
    assert restored.process == process()
    assert restored.samples["memory"][1] == [7.0, 8.0, 9.0]


def test_a_failing_transaction_keeps_nothing(store: Store) -> None:
    def broken() -> None:
        with store.transaction():
            store.save_assessment(assessment())
            store.add_samples(ID, "memory", [T0], [1.0])
            raise LookupError("a fault of the caller")

    with pytest.raises(LookupError):
        broken()
    assert store.load_assessments() == []
    fill(store, 3)
    assert next(store.restore(0)).samples["memory"][1] == [0.0, 1.0, 2.0]


def test_writes_outside_a_transaction_are_refused(store: Store) -> None:
    with pytest.raises(RuntimeError, match="need a transaction"):
        store.save_assessment(assessment())


def test_a_repeated_sample_counts_once_and_values_that_are_no_numbers_are_gaps(store: Store, reader: Reader) -> None:
    for _ in range(2):
        with store.transaction():
            store.add_samples(ID, "memory", [T0, T0 + 1, T0 + 2], [1.0, math.nan, 3.0])
    assert reader.series(ID, "memory").values == [1.0, 3.0]


def test_a_row_that_does_not_fit_is_left_out_and_the_rest_loads(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with store.transaction():
        store.save_assessment(assessment(1))
        store.save_assessment(assessment(2, growth_bytes_per_second=1.0))
        store._open().execute("UPDATE process SET assessment = '{}' WHERE id = ?", (process(1).id,))
    assert [found.process.id for found in store.load_assessments()] == [process(2).id]
    assert "left out" in caplog.text


# --- series and rollups ------------------------------------------------------------------------------------


def test_a_series_that_nobody_sent_is_empty(reader: Reader) -> None:
    assert reader.series("nobody", "memory") == ([], [])


def test_the_last_hour_is_shown_unless_asked_otherwise(store: Store, reader: Reader) -> None:
    fill(store, 800, step=10)
    data = reader.series(ID, "memory", points=1000)
    assert data.times[0] == data.times[-1] - 3600
    assert data.values[-1] == 799.0
    part = reader.series(ID, "memory", T0 + 100, T0 + 200)
    assert part.values == [float(value) for value in range(10, 21)]


def test_raw_samples_go_after_their_time_and_their_extremes_stay(store: Store, reader: Reader) -> None:
    fill(store, 1000, step=60)
    end = T0 + 999 * 60
    settle(store, end)
    (restored,) = store.restore(0)
    kept = restored.samples["memory"][0]
    assert end - 6 * 3600 - 300 <= kept[0] <= end - 6 * 3600
    data = reader.series(ID, "memory", T0, end, points=2000)
    assert data.times[0] == T0
    assert data.values[0] == 0.0
    assert data.values[-1] == 999.0
    assert None not in data.values
    assert data.values == sorted(data.values, key=lambda value: value or 0.0)


def test_a_month_is_shown_from_hours_and_its_newest_part_from_samples(store: Store, reader: Reader) -> None:
    days = 31
    for day in range(days):
        fill(store, 144, step=600, start=T0 + day * 86400)
        settle(store, T0 + (day + 1) * 86400, rounds=3)
    end = T0 + days * 86400 - 600
    settle(store, end + 3600 * 24, rounds=5)
    data = reader.series(ID, "memory", T0, end, points=10_000)
    assert data.times[-1] == end
    assert data.times[0] <= T0 + 2 * 86400
    assert data.times == sorted(data.times)
    assert None not in data.values
    assert 700 <= len(data.times) <= 3 * 31 * 24


def test_many_threads_share_a_few_connections(store: Store, reader: Reader) -> None:
    fill(store, 100)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: reader.series(ID, "memory").values[-1], range(200)))
    assert found == [99.0] * 200
    assert len(reader._idle) <= Reader.MAX_IDLE


def test_what_still_waits_to_be_rolled_up_is_told(store: Store) -> None:
    for number in range(5):
        fill(store, 400, metric=f"requests:{number}")
    assert [store.maintain(T0 + 400, budget=2) for _ in range(3)] == [3, 1, 0]


def test_a_late_sample_corrects_the_bucket_that_was_made(store: Store, reader: Reader) -> None:
    fill(store, 100, step=60)
    settle(store, T0 + 6000)
    with store.transaction():
        store.add_samples(ID, "memory", [T0 + 90], [1e6])
    fill(store, 500, step=60, start=T0 + 6000)
    settle(store, T0 + 36_000)
    assert next(store.restore(0)).samples["memory"][0][0] > T0 + 90
    assert 1e6 in reader.series(ID, "memory", T0, T0 + 36_000).values


def test_a_sample_older_than_what_is_kept_is_dropped_and_counted(store: Store) -> None:
    fill(store, 1000, step=60)
    settle(store, T0 + 60_000)
    with store.transaction():
        store.add_samples(ID, "memory", [T0], [5.0])
    assert store.dropped_samples == 1


def test_series_beyond_the_bound_are_dropped_and_counted(path: Path) -> None:
    store = Store.open(path, StoreSettings(max_series=2))
    for metric in ("memory", "limit", "heap"):
        fill(store, 5, metric=metric)
    assert store.sizes().series == 2
    assert store.dropped_samples == 5
    store.close()


def test_after_a_month_of_silence_nothing_of_a_process_is_left(store: Store) -> None:
    with store.transaction():
        store.save_assessment(assessment())
        store.add_events(ID, [Event("e", T0, 9, {}, None)])
        store.record_alert_change(alert(state=AlertState.RESOLVED), T0)
    fill(store, 10_000)
    settle(store, T0 + 32 * 86400)
    sizes = store.sizes()
    assert (sizes.processes, sizes.series) == (0, 0)
    assert store.load_alerts() == []
    assert store.load_events() == {}


def test_processes_beyond_the_bound_go_oldest_first_with_their_samples(path: Path) -> None:
    store = Store.open(path, StoreSettings(max_processes=3))
    for number in range(1, 7):
        with store.transaction():
            store.save_process(process(number), T0, T0 + number)
            store.add_samples(process(number).id, "memory", [T0 + number], [1.0])
    settle(store, T0 + 10)
    assert [restored.process for restored in store.restore(0)] == [process(4), process(5), process(6)]
    assert store.sizes().series == 3
    store.close()


def test_events_are_kept_once_and_the_newest_stay(path: Path) -> None:
    store = Store.open(path, StoreSettings(max_events_per_process=3))
    events = [Event("e", T0 + number, 9, {"n": number}, "text") for number in range(5)]
    for _ in range(2):
        with store.transaction():
            store.add_events(ID, events)
    assert store.load_events() == {ID: events[2:]}
    assert store.load_events(limit=1) == {ID: events[4:]}
    store.close()


def test_a_change_that_comes_again_is_queued_once(store: Store) -> None:
    outbox = Outbox(store.path)
    changes = []
    for _ in range(2):
        with store.transaction():
            changes.append(store.record_alert_change(alert(), T0 + 60, outputs=["console", "otlp"]))
    assert changes[0].id == changes[1].id
    assert [outbox.pending(name) for name in ("console", "otlp", "other")] == [1, 1, 0]
    outbox.close()


def test_a_change_without_outputs_is_history_only(store: Store, reader: Reader) -> None:
    outbox = Outbox(store.path)
    with store.transaction():
        change = store.record_alert_change(alert(), T0 + 60)
    assert outbox.pending("console") == 0
    assert reader.alert_changes() == [change]
    outbox.close()


def test_a_kill_in_the_midst_loses_no_transaction_that_was_kept(path: Path) -> None:
    """A child writes numbered samples, one a transaction, and tells each; it is killed while it writes."""
    program = """
import sys
from pathlib import Path
from otel_memory.analyzer.model import ProcessInfo
from otel_memory.analyzer.store import Store
store = Store.open(Path(sys.argv[1]))
for number in range(1_000_000):
    with store.transaction():
        store.save_process(ProcessInfo("a", "shop"), 0.0, float(number))
        store.add_samples("a", "memory", [float(number)], [float(number)])
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(next(child.stdout)) for _ in range(50)]
        os.kill(child.pid, signal.SIGKILL)
        told += [int(line) for line in child.stdout if line.endswith("\n")]
    store = Store.open(path)
    (restored,) = store.restore(0)
    assert restored.samples["memory"][1][: len(told)] == [float(number) for number in told]
    store.close()
