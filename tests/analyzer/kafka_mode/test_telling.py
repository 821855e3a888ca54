"""What stands in a worker's outbox: what its own partitions owe, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_memory.analyzer.kafka.deliveries import changes_of
from otel_memory.analyzer.kafka.owned import Owned, Phase
from otel_memory.analyzer.kafka.records import AssessmentRecord
from otel_memory.analyzer.kafka.telling import Telling
from otel_memory.analyzer.keeper import Keeper
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store import Store
from otel_memory.analyzer.store.outbox import Outbox
from tests.analyzer.kafka_mode.world import Committed, judge, made_log, taken_over
from tests.analyzer.made_up import MIB, MadeUp

OUTPUTS = ("console", "webhook")
LEAK = MadeUp("leak", spacing=10.0, leak_per_call=400_000, limit=2048 * MIB)


@pytest.fixture(scope="module")
def committed() -> Committed:
    return judge(made_log([LEAK], 600.0, silent=lambda _process, _index: False), commits=range(0, 60, 5))


class Worker:
    """One that has taken the partition over."""

    def __init__(self, path: Path, committed: Committed) -> None:
        self.store = Store.open(path / "analyzer.db")
        self.outbox = Outbox(self.store.path)
        self.told: list[AlertChange] = []
        self.telling = Telling(
            Keeper(self.store, OUTPUTS, Stats()), None, lambda changes, _stored: self.told.extend(changes)
        )
        self.owned = Owned(taken_over([], committed), 0, 0, 0, None, None)
        self.owned.phase = Phase.LIVE

    def waiting(self, output: str) -> list[str]:
        """What the outbox has for an output, oldest first."""
        found = []
        while batch := self.outbox.due(output, float("inf")):
            for pending in batch:
                found.append(pending.change.alert.state.value)
                self.outbox.delivered(pending.seq)
        return found

    def close(self) -> None:
        self.outbox.close()
        self.store.close()


@pytest.fixture
def worker(tmp_path: Path, committed: Committed) -> Iterator[Worker]:
    made = Worker(tmp_path, committed)
    yield made
    made.close()


def test_what_is_owed_of_a_partition_that_arrives_waits_for_the_outputs(worker: Worker, committed: Committed) -> None:
    alert = committed.changes[-1].alert
    assert alert.state.value == "firing"
    pending, fired = changes_of(alert)
    worker.telling.noted("console", alert, pending.id)
    for _ in range(2):
        # Twice is no more: what waits already is not queued again.
        worker.telling.arrived(worker.owned, [worker.owned], None)
    assert worker.waiting("console") == ["firing"]
    assert worker.waiting("webhook") == ["pending", "firing"]
    worker.telling.noted("webhook", alert, fired.id)
    worker.telling.note([worker.owned])
    (record,) = worker.owned.partition.outcome().records.values()
    assert AssessmentRecord.from_bytes(record.to_bytes()).state.told == {
        "console": {"memory_leak": pending.id},
        "webhook": {"memory_leak": fired.id},
    }


def test_a_partition_that_goes_takes_what_is_owed_with_it(worker: Worker) -> None:
    worker.telling.arrived(worker.owned, [worker.owned], None)
    worker.telling.left(0, worker.owned.partition.alerts)
    worker.telling.settle([0])
    assert worker.outbox.pending("webhook") == 2, "it came back"
    worker.telling.left(0, worker.owned.partition.alerts)
    worker.telling.settle([1])
    assert worker.outbox.pending("webhook") == 0


def test_a_delivery_is_noted_once_its_partition_is_live(worker: Worker, committed: Committed) -> None:
    alert = committed.changes[-1].alert
    worker.owned.phase = Phase.REPLAYING
    worker.telling.noted("webhook", alert, changes_of(alert)[-1].id)
    worker.telling.note([worker.owned])
    worker.owned.phase = Phase.LIVE
    worker.telling.arrived(worker.owned, [worker.owned], None)
    assert worker.waiting("webhook") == []
    assert worker.waiting("console") == ["pending", "firing"]


def test_outputs_are_told_of_what_is_committed(worker: Worker, committed: Committed) -> None:
    worker.telling.tell(committed.changes)
    worker.telling.tell(())
    assert worker.told == committed.changes
    assert worker.waiting("console") == ["pending", "firing"]
