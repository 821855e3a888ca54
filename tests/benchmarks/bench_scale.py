"""What one record, one series and one rebalance cost, from which ``docs/scale.md`` plans for a million processes.

The record is a real one: the probe's, from a program under the launcher, as it stands in a real Kafka. The analyzer's
side is a partition of the log as a worker has it, without the consumer, with its windows full. Processor time of one
core, that of the broker with a virtual machine made for quick starts: take it for an upper bound.
``python -m tests.benchmarks.bench_scale`` prints the rows.
"""

from __future__ import annotations

import gc
import random
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psutil
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_memory import names
from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.kafka.fleet import _SHOWN
from otel_memory.analyzer.kafka.partition import Partition
from otel_memory.analyzer.kafka.records import Owner
from otel_memory.analyzer.keeper import Keeper
from otel_memory.analyzer.stats import Stats
from otel_memory.exporters.kafka import KafkaMetricExporter
from otel_memory.exporters.kafka_records import points
from tests.benchmarks.bench_kafka_exporter import SETTINGS, _data
from tests.benchmarks.rows import Row, machine_line, print_rows
from tests.harness import Kafka, Program, wait_until
from tests.harness.topics import TopicReader, create_topics
from tests.integration import kafka_world

TITLE = "scale"
DISTRIBUTIONS = ("kafka-python", "numpy", "protobuf")
PROCESSES = 100
LEAKING = 50
SPACING = 60.0
"""Seconds between two exports: the SDK's default."""
WINDOW = 6 * 3600.0
"""The analyzer's default."""
SETTLED_ROUNDS = 120
LIVE_ROUNDS = 34
"""Twice as many samples as lie between two scores of a process that is calm, with this window."""
FLEET = 40
FLEET_ROUNDS = 240
REQUESTS = 1500
TOGETHER = 50
"""As from a Collector of a host or of a cluster."""


def real_record() -> tuple[bytes, list[Row]]:
    """A record of the probe, and what it and its like cost the broker."""
    launcher = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    with Kafka() as kafka, TopicReader(kafka.bootstrap) as reader:
        create_topics(kafka.bootstrap, "otlp_metrics", "otlp_logs")
        env = {
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_METRICS_EXPORTER": "otlp_kafka",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap,
        }
        program = Program([launcher, sys.executable, "-c", "import time; time.sleep(300)"], env=env)
        with program:
            wait_until(lambda: len(reader.read("otlp_metrics")) >= 15, timeout_seconds=60, what="15 records")
        records = reader.read("otlp_metrics")
        value = records[-1].value
        on_disk = sum(path.stat().st_size for path in (kafka.folder / "data" / "otlp_metrics-0").glob("*.log"))
        broker = psutil.Process(kafka.pid)
        exporter = KafkaMetricExporter({SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap})
        data = _data()
        exporter.export(data)
        exporter.force_flush(30_000)
        began = sum(broker.cpu_times()[:2])
        for _ in range(REQUESTS):
            exporter.export(data)
            exporter.force_flush(30_000)
        each = (sum(broker.cpu_times()[:2]) - began) / REQUESTS
        began = sum(broker.cpu_times()[:2])
        for _ in range(REQUESTS // TOGETHER):
            for _ in range(TOGETHER):
                exporter.export(data)
            exporter.force_flush(30_000)
        of_many = (sum(broker.cpu_times()[:2]) - began) / (REQUESTS // TOGETHER * TOGETHER)
        exporter.shutdown()
    request = ExportMetricsServiceRequest.FromString(value)
    count = sum(
        len(points(metric))
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
    return value, [
        Row("data points in a record of the probe", count, "points"),
        Row("its value", len(value), "B"),
        Row("on the broker's disk, each by itself, zstd", on_disk / len(records), "B"),
        Row("broker: one record in a request of its own", each * 1e6, "µs"),
        Row(f"broker: one record of {TOGETHER} that come together", of_many * 1e6, "µs"),
    ]


def bodies(value: bytes, count: int, rounds: range) -> Iterator[tuple[float, bytes]]:
    """Time and value of the records of ``count`` processes: one in ``LEAKING`` leaks, the others are quiet."""
    chance = random.Random(7)
    template = ExportMetricsServiceRequest.FromString(value)
    (resource,) = template.resource_metrics
    (instance,) = (pair for pair in resource.resource.attributes if pair.key == "service.instance.id")
    times = [
        point
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in points(metric)
        if point.time_unix_nano
    ]
    memory = [
        point
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == names.PROCESS_MEMORY_USAGE
        for point in points(metric)
    ]
    start = 1_800_000_000.0
    for index in rounds:
        at = start + index * SPACING
        for point in times:
            point.time_unix_nano = int(at * 1e9)
        for number in range(count):
            instance.value.string_value = f"instance-{number}"
            grown = index * 200_000 if number % LEAKING == 0 else 0
            for point in memory:
                point.as_int = 200_000_000 + grown + chance.randrange(2_000_000)
            yield at, template.SerializeToString()


def worker() -> Partition:
    """A partition's state in a worker."""
    stats = Stats()
    return Partition(0, Owner("a", "http://127.0.0.1:1"), stats, Keeper(None, (), stats), window_seconds=WINDOW)


def analyzer(value: bytes) -> list[Row]:
    """What records cost a worker whose windows are full, and how long it takes to fill them."""
    rounds = int(WINDOW / SPACING)
    process = psutil.Process()
    partition = worker()
    made = list(bodies(value, PROCESSES, range(rounds)))
    gc.collect()
    before = process.memory_info().rss
    began = time.process_time()
    for at, body in made:
        partition.replay(decode(body, "metrics", "protobuf"), at)
    replay = (time.process_time() - began) / len(made)
    partition.go_live(())
    gc.collect()
    memory = (process.memory_info().rss - before) / PROCESSES
    # What has just begun to look like a leak is looked at closely, which goes by.
    _judge(partition, list(bodies(value, PROCESSES, range(rounds, rounds + SETTLED_ROUNDS))), calm=True)
    rounds += SETTLED_ROUNDS
    live = list(bodies(value, PROCESSES, range(rounds, rounds + LIVE_ROUNDS)))
    began = time.process_time()
    for _, body in live:
        decode(body, "metrics", "protobuf")
    decoding = (time.process_time() - began) / len(live)
    each, encoded = _judge(partition, live, calm=True)
    rounds += LIVE_ROUNDS
    behind, _ = _judge(partition, list(bodies(value, PROCESSES, range(rounds, rounds + LIVE_ROUNDS))), calm=False)
    began = time.process_time()
    for one in encoded:
        _SHOWN.validate_json(one)
    showing = (time.process_time() - began) / len(encoded)
    tracemalloc.start()
    shown = [_SHOWN.validate_json(one) for one in encoded]
    shown_memory = tracemalloc.get_traced_memory()[0] / len(shown)
    tracemalloc.stop()
    floor = Row("worker: decode one record", decoding * 1e6, "µs")
    return [
        floor,
        Row("worker: decode, judge, encode its assessment", each * 1e6, "µs").over(floor),
        Row("the same where more records wait", behind * 1e6, "µs").over(floor),
        Row("worker: replay one record", replay * 1e6, "µs").over(floor),
        Row("worker: memory of one process, window full", memory / 1000, "kB"),
        Row("worker: its assessment", sum(map(len, encoded)) / len(encoded), "B"),
        Row("worker: replay one process's whole window", replay * len(made) / PROCESSES * 1e3, "ms"),
        Row("every analyzer: read one assessment, its own or another's", showing * 1e6, "µs"),
        Row("every analyzer: memory of one process shown", shown_memory / 1000, "kB"),
    ]


def _judge(partition: Partition, live: list[tuple[float, bytes]], *, calm: bool) -> tuple[float, list[bytes]]:
    """Processor time of a record, and the assessments encoded."""
    encoded: list[bytes] = []
    began = time.process_time()
    for number, (at, body) in enumerate(live, 1):
        partition.take(decode(body, "metrics", "protobuf"), at)
        if number % PROCESSES == 0:
            encoded += [record.to_bytes() for record in partition.outcome(calm=calm).records.values()]
    return (time.process_time() - began) / len(live), encoded


def rebalance() -> list[Row]:
    """One of two analyzers is killed with -9: until the other has judged the next sample of every process."""
    with Kafka() as kafka:
        kafka_world.make_topics(kafka, 4)
        fleet = kafka_world.fleet_of(FLEET, kafka_world.now_less(FLEET_ROUNDS + 400))
        with (
            kafka_world.analyzer(kafka, "stays") as stays,
            kafka_world.analyzer(kafka, "goes") as goes,
            kafka_world.Fleet(kafka, fleet, 4) as writing,
            kafka_world.committed_reader(kafka) as reader,
        ):
            for each in (stays, goes):
                wait_until(lambda each=each: kafka_world.has_partitions(each, 2), timeout_seconds=120)  # type: ignore[misc]
            for index in range(FLEET_ROUNDS):
                writing.send(index)

            def judged(index: int) -> bool:
                return kafka_world.caught_up(reader, fleet, index)

            wait_until(lambda: judged(FLEET_ROUNDS - 1), timeout_seconds=120)
            began = time.monotonic()
            goes.kill()
            writing.send(FLEET_ROUNDS)
            wait_until(lambda: judged(FLEET_ROUNDS), timeout_seconds=120)
            took = time.monotonic() - began
            replayed = kafka_world.metrics_of(stays)['kafka_records_total{outcome="replayed",topic="otlp_metrics"}']
    return [
        Row("rebalance: kill -9 until another has judged", took, "s"),
        Row("  of which the session timeout", kafka_world.SESSION_SECONDS, "s"),
        Row("  records replayed for it", replayed, "records"),
    ]


def main() -> None:
    """Print the rows."""
    value, rows = real_record()
    print_rows(TITLE, [*rows, *analyzer(value), *rebalance()], machine_line(DISTRIBUTIONS, runs=1))


if __name__ == "__main__":
    main()
