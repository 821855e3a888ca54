"""The exporters ``otlp_kafka`` and the events' sink ``kafka`` on real programs, against a real Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource

from otel_memory import names
from otel_memory.exporters.kafka import KafkaLogExporter, KafkaMetricExporter
from otel_memory.exporters.kafka_sender import TOO_LARGE, losses
from tests.harness import Kafka, wait_until
from tests.harness.topics import Stored, TopicReader, create_topics, log_records, numbers
from tests.integration.test_collector_configs import gauge

BIN = Path(sys.executable).parent
SETTINGS = "OTEL_PYTHON_MEMORY_KAFKA_"
TOPICS = ("otlp_metrics", "otlp_logs")

pytestmark = pytest.mark.needs("kafka")


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with Kafka() as broker:
        create_topics(broker.bootstrap, *TOPICS, partitions=4)
        yield broker


@pytest.fixture
def reader(kafka: Kafka) -> Iterator[TopicReader]:
    with TopicReader(kafka.bootstrap) as reading:
        yield reading


def run(kafka: Kafka, folder: Path, program: str, *, service: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``program`` under the launcher; it must end well."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=folder,
        env={
            **clean,
            "OTEL_SERVICE_NAME": service,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_PYTHON_MEMORY_INTERVAL": "100",
            SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap,
            SETTINGS + "FLUSH_TIMEOUT": "30000",
            **env,
        },
    )
    assert done.returncode == 0, done.stderr
    return done


def of_service(stored: list[Stored], service: str) -> list[Stored]:
    """Records of that service; each has one resource, or this fails."""
    found = []
    for each in stored:
        resources = each.logs().resource_logs if each.topic == "otlp_logs" else each.metrics().resource_metrics
        (held,) = resources
        attributes = {pair.key: pair.value.string_value for pair in held.resource.attributes}
        if attributes.get("service.name") == service:
            found.append(each)
    return found


def events(reader: TopicReader, service: str) -> list[LogRecord]:
    return log_records(of_service(reader.read("otlp_logs"), service))


# --- programs ------------------------------------------------------------------------------------------------------


def test_a_short_program_leaves_nothing_behind(kafka: Kafka, reader: TopicReader, tmp_path: Path) -> None:
    """The last export of the SDK, at the interpreter's end, arrives too, and the program prints nothing of ours."""
    done = run(
        kafka,
        tmp_path,
        """
        import logging
        from opentelemetry import metrics
        metrics.get_meter("shop").create_counter("shop.calls").add(7)
        logging.getLogger("shop").warning("a log of the shop")
        """,
        service="short",
        OTEL_METRICS_EXPORTER="otlp_kafka",
        OTEL_LOGS_EXPORTER="otlp_kafka",
    )
    assert "otel-memory" not in done.stderr
    stored = of_service(reader.read("otlp_metrics"), "short")
    assert numbers(stored, "shop.calls") == [7]
    assert numbers(stored, names.PROCESS_MEMORY_USAGE)
    assert all(len(each.key or b"") == 16 and not each.headers for each in stored)
    assert [each.body.string_value for each in events(reader, "short")] == ["a log of the shop"]


def test_events_go_to_kafka_while_the_logs_of_the_application_go_where_they_go(
    kafka: Kafka, reader: TopicReader, tmp_path: Path
) -> None:
    run(
        kafka,
        tmp_path,
        """
        import logging, time
        from otel_memory import StructuredLogger
        held = [bytearray(120_000_000)]
        time.sleep(0.6)
        for number in range(5_000):  # more than a queue of the SDK holds
            logging.getLogger("shop").warning("line %d", number)
        held.clear()
        time.sleep(0.6)
        StructuredLogger("shop").log_memory_event("cart_dropped", "warning", items=3)
        time.sleep(1)
        """,
        service="told",
        OTEL_PYTHON_MEMORY_EVENTS="kafka",
        OTEL_LOGS_EXPORTER="otlp_file",
        OTEL_PYTHON_MEMORY_THRESHOLDS="none;big=rss>100MiB",
    )
    found = events(reader, "told")
    assert [each.event_name for each in found] == [
        names.EVENT_THRESHOLD_CROSSED,
        names.EVENT_THRESHOLD_RECOVERED,
        names.EVENT_APPLICATION,
    ]
    ids = [{pair.key: pair.value for pair in each.attributes}[names.EVENT_ID].string_value for each in found[:2]]
    assert ids[0] == ids[1]
    lines = (tmp_path / "otel-memory-logs.jsonl").read_text().splitlines()
    records = [
        record
        for line in lines
        for resource in json.loads(line)["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    assert sum(record["body"]["stringValue"].startswith("line ") for record in records) > 1000
    assert not [record for record in records if record.get("eventName")], "no event among the application's logs"


def test_events_and_metrics_of_a_process_have_the_same_key_and_partition(
    kafka: Kafka, reader: TopicReader, tmp_path: Path
) -> None:
    run(
        kafka,
        tmp_path,
        """
        from otel_memory import StructuredLogger
        StructuredLogger("shop").log_memory_event("done", "info")
        """,
        service="same-key",
        OTEL_PYTHON_MEMORY_EVENTS="kafka",
        OTEL_METRICS_EXPORTER="otlp_kafka",
    )
    of_metrics = of_service(reader.read("otlp_metrics"), "same-key")
    of_events = of_service(reader.read("otlp_logs"), "same-key")
    assert of_metrics
    assert of_events
    assert len({(each.key, each.partition) for each in (*of_metrics, *of_events)}) == 1


def test_forked_workers_send_by_themselves(kafka: Kafka, reader: TopicReader, tmp_path: Path) -> None:
    """Forked while the producer is connected and records wait: every process's numbers arrive once."""
    run(
        kafka,
        tmp_path,
        """
        import os, sys
        from opentelemetry import metrics
        counter = metrics.get_meter("shop").create_counter("shop.forks")
        counter.add(100)
        metrics.get_meter_provider().force_flush()
        children = []
        for number in range(1, 4):
            if number == 3:
                counter.add(1)
            pid = os.fork()
            if not pid:
                counter.add(number)
                metrics.get_meter_provider().force_flush()
                metrics.get_meter_provider().shutdown()
                os._exit(0)
            children.append(pid)
        for pid in children:
            _, status = os.waitpid(pid, 0)
            if status:
                sys.exit(status)
        """,
        service="forks",
        OTEL_METRICS_EXPORTER="otlp_kafka",
    )
    stored = of_service(reader.read("otlp_metrics"), "forks")
    by_process: dict[str, list[int]] = {}
    for each in stored:
        (resource,) = each.metrics().resource_metrics
        attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        by_process.setdefault(attributes["service.instance.id"], []).extend(numbers([each], "shop.forks"))
    last = sorted(values[-1] for values in by_process.values())
    # A child goes on from its parent's sum; the parent exports once more at its end.
    assert last == sorted([101, 100 + 1, 100 + 2, 101 + 3])


# --- the exporters -------------------------------------------------------------------------------------------------


def test_a_record_that_the_topic_refuses_is_counted_and_those_after_it_arrive(
    kafka: Kafka, reader: TopicReader
) -> None:
    create_topics(kafka.bootstrap, "small", max_message_bytes="20000")
    losses.reset()
    exporter = KafkaMetricExporter(
        {
            SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap,
            SETTINGS + "METRICS_TOPIC": "small",
            SETTINGS + "COMPRESSION": "none",
        }
    )
    large = Resource({"service.name": "large", "noise": os.urandom(15_000).hex()})
    small = Resource({"service.name": "small"})
    for number, resource in enumerate([small, large, small]):
        assert exporter.export(gauge("g", number, resource)) is MetricExportResult.SUCCESS
    assert exporter.force_flush(60_000)
    exporter.shutdown()
    assert numbers(reader.read("small"), "g") == [0, 2]
    assert losses.counts == {("metrics", TOO_LARGE): 1}


def test_what_is_too_large_for_one_record_goes_in_several(kafka: Kafka, reader: TopicReader) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = KafkaMetricExporter(
        {SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap, SETTINGS + "MAX_RECORD_BYTES": "5000"}
    )
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
        resource=Resource({"service.name": "wide"}),
        shutdown_on_exit=False,
    )
    wide = provider.get_meter("wide").create_gauge("wide")
    for number in range(1000):
        wide.set(number, {"number": number})
    provider.shutdown()
    stored = of_service(reader.read("otlp_metrics"), "wide")
    assert len(stored) > 5
    assert max(len(each.value) for each in stored) <= 5000
    assert sorted(numbers(stored, "wide")) == list(range(1000))
    assert len({(each.key, each.partition) for each in stored}) == 1


def test_exporters_with_equal_options_share_a_connection_which_the_last_one_closes(kafka: Kafka) -> None:
    options = {SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap, SETTINGS + "FLUSH_TIMEOUT": "1234"}
    metrics, logs = KafkaMetricExporter(options), KafkaLogExporter(options)
    sender = metrics.writer.sender
    assert sender is not None
    assert sender is logs.writer.sender
    metrics.shutdown()
    assert metrics.export(gauge("g", 1, Resource({}))) is MetricExportResult.FAILURE
    assert sender._thread is not None
    assert sender._thread.is_alive()
    logs.shutdown()
    logs.shutdown()
    thread = sender._thread
    wait_until(lambda: not thread.is_alive(), what="the end of its thread")
