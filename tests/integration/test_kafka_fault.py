"""A broker that is killed with -9 and away for a while: nothing that was kept is lost, and what was not is counted.

That applications do not feel it is measured by ``./dev bench kafka_exporter``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from otel_memory import names
from tests.harness import Kafka, Program, wait_until
from tests.harness.topics import Stored, TopicReader, create_topics, log_records, numbers
from tests.integration.test_kafka_exporter import of_service

BIN = Path(sys.executable).parent
SETTINGS = "OTEL_PYTHON_MEMORY_KAFKA_"
TOPICS = ("otlp_metrics", "otlp_logs")
OUTAGE_SECONDS = 12.0
MOST_ON_THEIR_WAY = 600
"""Items; less than what an outage drops."""

# Emits numbered log records and events until the file `stop` is there; the last line says how many.
EMITTER = """
import itertools, pathlib, time
from opentelemetry._logs import get_logger
from otel_memory import StructuredLogger
logger, ours, stop = get_logger("numbers"), StructuredLogger("numbers"), pathlib.Path("stop")
for number in itertools.count():
    logger.emit(timestamp=time.time_ns(), body=f"number {number}")
    if number % 100 == 0:
        ours.log_memory_event("tick", "info", number=number)
    time.sleep(0.005)
    if number % 50 == 0 and stop.exists():
        break
print("emitted", number + 1, flush=True)
"""

# Hands over numbered metrics by itself, and tells of each that was kept: for a process that is killed.
KEEPER = """
import itertools, os, sys, time
from opentelemetry.sdk.resources import Resource
from otel_memory.exporters.kafka import KafkaMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from tests.integration.test_collector_configs import gauge
exporter, resource = KafkaMetricExporter(os.environ), Resource({"service.name": "kept"})
first = int(sys.argv[1])
for number in itertools.count(first):
    if exporter.export(gauge("kept", number, resource)) is MetricExportResult.SUCCESS:
        print("kept", number, flush=True)
    time.sleep(0.01)
"""


def emitter(kafka: Kafka, folder: Path, service: str, **settings: str) -> Program:
    folder.mkdir()
    return Program(
        [str(BIN / "opentelemetry-instrument"), sys.executable, "-c", EMITTER],
        env={
            "OTEL_SERVICE_NAME": service,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "otlp_kafka",
            "OTEL_LOGS_EXPORTER": "otlp_kafka",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_PYTHON_MEMORY_EVENTS": "kafka",
            SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap,
            SETTINGS + "FLUSH_TIMEOUT": "60000",
            **{SETTINGS + name: value for name, value in settings.items()},
        },
        cwd=folder,
        name=service,
    )


def keeper(kafka: Kafka, spool: Path, first: int) -> Program:
    env = {SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap, SETTINGS + "SPOOL_PATH": str(spool)}
    root = Path(__file__).resolve().parents[2]
    return Program([sys.executable, "-c", KEEPER, str(first)], env=env, cwd=root, name="kept")


def told(program: Program, word: str) -> list[int]:
    """The numbers on whole lines that begin with ``word``."""
    lines = program.output().split("\n")[:-1]
    return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ")]


def bodies(stored: list[Stored], service: str) -> set[int]:
    found = log_records(of_service(stored, service))
    return {int(each.body.string_value.split()[1]) for each in found if each.body.string_value.startswith("number ")}


def ticks(stored: list[Stored], service: str) -> set[int]:
    return {
        pair.value.int_value
        for each in log_records(of_service(stored, service))
        if each.event_name == names.EVENT_APPLICATION
        for pair in each.attributes
        if pair.key == "number"
    }


def dropped(stored: list[Stored], service: str) -> dict[str, int]:
    """The counter of the exporters, as it arrived last, by signal."""
    last: dict[tuple[str, ...], int] = {}
    for each in of_service(stored, service):
        for scope in each.metrics().resource_metrics[0].scope_metrics:
            for metric in scope.metrics:
                for point in metric.sum.data_points if metric.name == names.EXPORTER_DROPPED else ():
                    key = {pair.key: pair.value.string_value for pair in point.attributes}
                    last[key[names.EXPORTER_SIGNAL], key[names.EXPORTER_REASON]] = point.as_int
    found: dict[str, int] = {}
    for (signal, _), value in last.items():
        found[signal] = found.get(signal, 0) + value
    return found


def end(program: Program, folder: Path) -> int:
    """Let an emitter end by itself. How many it emitted."""
    (folder / "stop").touch()
    assert program.wait(100), program.tail()
    assert program.stop() == 0, program.tail()
    (count,) = told(program, "emitted")
    return count


@pytest.mark.needs("kafka")
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_outage_loses_nothing_that_was_kept_and_counts_what_was_not(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with Kafka() as kafka, TopicReader(kafka.bootstrap) as reader:
        create_topics(kafka.bootstrap, *TOPICS)
        on_disk = emitter(kafka, tmp_path / "on-disk", "on-disk", SPOOL_PATH=str(tmp_path / "spool of one"))
        too_small = emitter(kafka, tmp_path / "too-small", "too-small", MAX_BUFFER_BYTES="60kB")
        first = keeper(kafka, spool, 0)
        with on_disk, too_small, first:
            wait_until(lambda: bodies(reader.read("otlp_logs"), "on-disk"), timeout_seconds=60, what="its first")
            wait_until(lambda: bodies(reader.read("otlp_logs"), "too-small"), timeout_seconds=60, what="its first")
            wait_until(lambda: told(first, "kept"), timeout_seconds=60, what="the first one kept")
            kafka.kill()
            went_at = time.monotonic()
            kept = len(told(first, "kept"))
            wait_until(lambda: len(told(first, "kept")) > kept + 100, timeout_seconds=60, what="many kept on disk")
            first.kill()
            survivors = told(first, "kept")
            second = keeper(kafka, spool, survivors[-1] + 2)  # the one that was being written is nobody's to ask for
            with second:
                wait_until(lambda: len(told(second, "kept")) > 50, timeout_seconds=60, what="its successor keeps too")
                time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - went_at)))
                assert on_disk.running, on_disk.tail()
                assert too_small.running, too_small.tail()
                kafka.start()

                def arrived() -> set[int]:
                    return set(numbers(of_service(reader.read("otlp_metrics"), "kept"), "kept"))

                later = told(second, "kept")
                wait_until(lambda: {*survivors, *later} <= arrived(), timeout_seconds=90, every=0.5, what="all kept")
            emitted = {
                "on-disk": end(on_disk, tmp_path / "on-disk"),
                "too-small": end(too_small, tmp_path / "too-small"),
            }
            logs, metrics = reader.read("otlp_logs"), reader.read("otlp_metrics")
            for program in (on_disk, too_small):
                assert program.output().count("otel-memory: Kafka at") <= 3, "one line a minute, and one at the end"

        # On disk: everything, and nothing is left behind.
        assert bodies(logs, "on-disk") == set(range(emitted["on-disk"]))
        assert ticks(logs, "on-disk") == set(range(0, emitted["on-disk"], 100))
        assert dropped(metrics, "on-disk") == {}
        assert not [path for path in (tmp_path / "spool of one").rglob("*") if path.is_file()]

        # In memory with too little of it: the log records that did not arrive are those that were counted.
        missing = emitted["too-small"] - len(bodies(logs, "too-small"))
        counted = dropped(metrics, "too-small")
        assert missing > 0
        # What was on its way when the broker died may have arrived unheard, and then been pushed out: both.
        assert missing <= counted["logs"] <= missing + MOST_ON_THEIR_WAY
        assert counted["metrics"] > 0
        lost_events = set(range(0, emitted["too-small"], 100)) - ticks(logs, "too-small")
        assert len(lost_events) <= counted.get("events", 0) <= len(lost_events) + MOST_ON_THEIR_WAY
