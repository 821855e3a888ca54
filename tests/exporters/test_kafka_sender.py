"""The thread that sends, with made-up producers: nothing waits for it, nothing is lost unseen, and it ends."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from otel_memory.exporters import kafka as exporters
from otel_memory.exporters import kafka_sender
from otel_memory.exporters.backlog import Record
from otel_memory.exporters.kafka import KafkaLogExporter, KafkaMetricExporter
from otel_memory.exporters.kafka_options import PREFIX, KafkaOptions
from otel_memory.exporters.kafka_producer import TooLarge, Unsent
from otel_memory.exporters.kafka_sender import SHUTDOWN, TOO_LARGE, UNUSABLE, Producer, Sender, losses
from tests.harness import free_port, wait_until


@pytest.fixture(autouse=True)
def _no_losses() -> None:
    losses.reset()


class FakeBroker:
    """Makes producers; ``verdict`` says for each record what is wrong with it."""

    def __init__(self, verdict: Callable[[Record], Exception | None] = lambda _: None) -> None:
        self.verdict = verdict
        self.taken: list[int] = []
        self.made = self.closed = 0
        self.refusing: Exception | None = None
        self.threads: set[int] = set()

    def __call__(self, options: KafkaOptions) -> Producer:
        self.made += 1
        self.threads.add(threading.get_ident())
        if self.refusing is not None:
            raise self.refusing
        return FakeProducer(self)


class FakeProducer:
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    def deliver(self, records: Sequence[Record]) -> list[Exception | None]:
        self._broker.threads.add(threading.get_ident())
        errors: list[Exception | None] = []
        for each in records:
            error = self._broker.verdict(each)
            errors.append(error)
            if error is None:
                self._broker.taken.append(int(each.value))
            elif not isinstance(error, TooLarge):
                errors += [Unsent()] * (len(records) - len(errors))
                break
        return errors

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self._broker.closed += 1

    def abandon(self) -> None: ...


def record(number: int, lane: int = 2) -> Record:
    return Record(lane, "t", b"k", str(number).encode(), 1)


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def sender(broker: FakeBroker) -> Iterator[Sender]:
    made = Sender(KafkaOptions(), broker)
    yield made
    made.close(0)


def test_everything_arrives_in_order_and_by_another_thread(broker: FakeBroker, sender: Sender) -> None:
    for number in range(100):
        assert sender.put([record(number)])
    assert sender.flush(30)
    assert broker.taken == list(range(100))
    assert broker.made == 1
    assert threading.get_ident() not in broker.threads


def test_brokers_that_come_back_get_everything(
    broker: FakeBroker, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sender, "FIRST_BACKOFF_SECONDS", 0.001)
    broker.verdict = lambda _: ConnectionError("nobody there")
    sender.put([record(0)])
    wait_until(lambda: broker.made > 2, what="producers made anew")
    for number in range(1, 10):
        sender.put([record(number)])
    assert broker.closed in (broker.made - 1, broker.made)
    broker.verdict = lambda _: None
    assert sender.flush(30)
    assert broker.taken == list(range(10))
    assert losses.counts == {}
    assert sender.last_error is None


def test_a_producer_that_can_not_be_made_is_tried_again(
    broker: FakeBroker, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sender, "FIRST_BACKOFF_SECONDS", 0.001)
    other = FakeBroker()
    other.refusing = ValueError("an argument that this version does not know")
    made = Sender(KafkaOptions(), other)
    made.put([record(1)])
    wait_until(lambda: other.made > 3, what="several tries")
    other.refusing = None
    assert made.flush(30)
    made.close(1)
    assert other.taken == [1]


def test_a_record_that_is_too_large_is_counted_and_the_others_go_on(broker: FakeBroker, sender: Sender) -> None:
    broker.verdict = lambda each: TooLarge() if each.value == b"3" else None
    sender.put([record(number) for number in range(6)])
    assert sender.flush(30)
    assert broker.taken == [0, 1, 2, 4, 5]
    assert losses.counts == {("metrics", TOO_LARGE): 1}


def test_put_and_flush_wait_for_no_broker(broker: FakeBroker, sender: Sender) -> None:
    """A producer that hangs for ever: the caller never notices, and the end comes in time."""
    hanging = threading.Event()

    def hang(_: Record) -> None:
        hanging.wait(60)

    broker.verdict = hang
    for number in range(1000):
        sender.put([record(number)])
    started = time.monotonic()
    assert not sender.flush(0.05)
    assert time.monotonic() - started < 20
    hanging.set()
    assert sender.flush(30)


def test_what_waits_at_the_end_is_counted(broker: FakeBroker) -> None:
    broker.verdict = lambda _: ConnectionError("nobody there")
    sender = Sender(KafkaOptions(), broker)
    sender.put([record(number, number % 3) for number in range(6)])
    sender.close(0.05)
    assert losses.counts == {(signal, SHUTDOWN): 2 for signal in ("events", "logs", "metrics")}
    assert not sender.put([record(6)])
    assert losses.counts["metrics", SHUTDOWN] == 3
    assert sender.backlog.waiting == (0, 0)


def test_with_a_spool_the_end_drops_nothing(broker: FakeBroker, tmp_path: Path) -> None:
    broker.verdict = lambda _: ConnectionError("nobody there")
    options = KafkaOptions(spool_path=str(tmp_path / "spool"))
    sender = Sender(options, broker)
    sender.put([record(number, 2 - number % 3) for number in range(6)])
    sender.close(0.05)
    assert losses.counts == {}
    later = FakeBroker()
    successor = Sender(options, later)
    wait_until(lambda: len(later.taken) == 6, timeout_seconds=30, what="what the one before had left")
    assert later.taken == [2, 5, 1, 4, 0, 3], "events first"
    successor.close(1)
    assert not list((tmp_path / "spool").iterdir())


def test_the_log_says_what_is_wrong_once_a_minute(
    broker: FakeBroker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sender, "FIRST_BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(kafka_sender, "MOST_BACKOFF_SECONDS", 0.002)
    broker.verdict = lambda _: ConnectionError("nobody there")
    now = [0.0]
    with caplog.at_level(logging.INFO, "otel_memory"):
        sender = Sender(KafkaOptions(max_buffer_bytes=1000), broker, lambda: now[0])
        for number in range(10):
            sender.put([record(number)])
        wait_until(lambda: broker.made > 5, timeout_seconds=30, what="many failures")
        assert len(caplog.records) == 1
        now[0] = 61.0
        wait_until(lambda: len(caplog.records) == 2, timeout_seconds=30, what="the next minute's line")
        made = broker.made
        wait_until(lambda: broker.made > made + 3, timeout_seconds=30, what="more failures")
        assert len(caplog.records) == 2
        now[0] = 1000.0
        sender.close(0)
    assert "nobody there" in caplog.records[0].getMessage()
    assert "data points and log records were dropped" in caplog.records[1].getMessage()


# --- the exporters on top ----------------------------------------------------------------------------------------


def some_metrics() -> MetricsData:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource({}), shutdown_on_exit=False)
    provider.get_meter("m").create_gauge("g").set(1)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data


def test_settings_that_are_not_valid_send_nothing_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    exporter = KafkaMetricExporter({PREFIX + "SECURITY_PROTOCOL": "SASL_SSL"})
    assert exporter.export(some_metrics()) is MetricExportResult.FAILURE
    assert losses.counts == {("metrics", UNUSABLE): 1}
    assert exporter.force_flush()
    exporter.shutdown()
    assert "Nothing is sent to Kafka" in caplog.text


def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(exporters._NEEDED, "no_such_module", "no-such-module")  # type: ignore[index]
    exporter = KafkaLogExporter({})
    exporter.shutdown()
    assert "otlp_kafka needs no-such-module, which is not installed: pip install 'otel-memory[kafka]'" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(exporters, "LEAST_KAFKA", "99")
    assert "needs kafka-python 99 or later" in str(exporters.missing())


def test_a_library_that_can_not_be_imported_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(f"{name} is broken here")

    monkeypatch.setattr(exporters.importlib, "import_module", broken)
    exporter = KafkaMetricExporter({})
    assert exporter.export(some_metrics()) is MetricExportResult.FAILURE
    assert "kafka is broken here" in caplog.text
    exporter.shutdown()


def test_a_dead_broker_costs_no_descriptors_and_no_memory_even_without_a_collector(tmp_path: Path) -> None:
    """kafka-python leaves a socket for each attempt to the garbage collector, which may be switched off."""
    exporter = KafkaMetricExporter(
        {
            PREFIX + "BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
            PREFIX + "MAX_BUFFER_BYTES": "10kB",
            PREFIX + "FLUSH_TIMEOUT": "0",
        }
    )
    descriptors = Path("/proc/self/fd")
    data = some_metrics()
    gc.disable()
    try:
        sender = exporter.writer.sender
        assert sender is not None
        exporter.export(data)
        wait_until(lambda: sender.last_error, timeout_seconds=30, what="the first failure")
        before = len(list(descriptors.iterdir()))
        failures: list[Exception | None] = []

        def failed() -> bool:
            if not any(sender.last_error is each for each in failures):
                failures.append(sender.last_error)
            exporter.export(data)
            return len(failures) >= 4

        wait_until(failed, timeout_seconds=60, what="more failures")
        assert len(list(descriptors.iterdir())) <= before + 3
        assert sender.backlog.waiting[1] <= 10_000
        assert losses.counts["metrics", "buffer_full"] > 0
    finally:
        gc.enable()
        exporter.shutdown()
    thread = sender._thread
    assert thread is not None
    wait_until(lambda: not thread.is_alive(), timeout_seconds=30, what="its end")
