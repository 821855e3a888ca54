"""The analyzer in a consumer group: points per second and core, replay, takeover, and how long an alert takes.

The floor is a consumer that polls and decodes the same records in the same run. Needs the real broker (``./dev parts
kafka``). ``python -m tests.benchmarks.bench_kafka`` prints the rows.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.kafka.client import Connection, Topics
from otel_memory.analyzer.kafka.group import GroupSettings, GroupWorker
from otel_memory.analyzer.kafka.records import AssessmentRecord, MemoryAlert, Owner
from otel_memory.analyzer.keeper import Keeper
from otel_memory.analyzer.stats import KAFKA_RECORDS, Stats
from otel_memory.analyzer.view import View
from tests.analyzer.made_up import MIB, T0, MadeUp
from tests.benchmarks.rows import Row, machine_line, print_rows
from tests.harness import Kafka, wait_until
from tests.integration import kafka_world as world
from tests.parts.kafka import KafkaRecipe

TITLE = "kafka"
DISTRIBUTIONS = ("kafka-python", "protobuf", "numpy")
UNIT = "points/s/core"
PARTITIONS = 4
PROCESSES = 300
LEAKING = 100
"""One process of so many leaks."""
SAMPLES = 300
FULL = 256
"""So many samples fill a process's window; what is judged after them is what goes on for ever."""
SPACING = 60.0
"""Seconds between two exports: the SDK's default."""
OPERATIONS = 5
RUNS = 3
OWN_POINTS = 260
"""Of the application's own metrics, which the analyzer has no use for."""
TAKEOVERS = 3
WAIT_SECONDS = 600.0


class Busy(MadeUp):
    """A process whose records carry some 300 points: the probe's, and the application's own."""

    def body(self, index: int) -> bytes:
        """The request of the probe, and behind it, in the same resource, the application's own scope."""
        (resource,) = self.request(index).resource_metrics
        # Bytes of protobuf that follow each other are the fields of both.
        whole = resource.SerializeToString() + _own_scope()
        return ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics.FromString(whole)]).SerializeToString()


@cache
def _own_scope() -> bytes:
    made = ResourceMetrics()
    own = made.scope_metrics.add().metrics.add(name="shop.stock", unit="1")
    for number in range(OWN_POINTS):
        point = own.gauge.data_points.add(time_unix_nano=round(T0 * 1e9), as_int=1000 * number)
        point.attributes.add(key="shop.article").value.string_value = f"article-{number}"
    return made.SerializeToString()


def write(kafka: Kafka, kind: type[MadeUp]) -> tuple[int, int]:
    """Fill the topic; points and bytes of a record."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", linger_ms=20, compression_type="zstd")
    begin = world.now_less((SAMPLES + 5) * SPACING)
    processes = [
        kind(
            f"p{number}",
            begin=begin + SPACING * number / PROCESSES,
            spacing=SPACING,
            leak_per_call=0 if number % LEAKING else 100_000,
            limit=64 * 1024 * MIB,
            operations=OPERATIONS,
        )
        for number in range(PROCESSES)
    ]
    value = processes[0].body(0)
    for index in range(SAMPLES):
        for number, process in enumerate(processes):
            producer.send(world.METRICS, process.body(index), partition=number % PARTITIONS)
    producer.flush()
    producer.close()
    return decode(value, "metrics", "protobuf").accepted, len(value)


def floor_seconds(kafka: Kafka) -> float:
    """Processor time of polling and decoding all of it."""
    began = time.process_time()
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False, metrics_enabled=False)
    places = [TopicPartition(world.METRICS, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    left = PROCESSES * SAMPLES
    while left:
        for records in consumer.poll(timeout_ms=500, max_records=2000).values():
            for record in records:
                decode(record.value, "metrics", "protobuf")
            left -= len(records)
    spent = time.process_time() - began
    consumer.close(timeout_ms=1000)
    return spent


def worked(kafka: Kafka, group: str, outcome: str) -> tuple[float, float, float]:
    """Processor time (s) in which a worker has ``taken`` or ``replayed`` what lies behind the first ``FULL`` samples of
    each process; that for all; and how long all took by the clock."""
    stats = Stats()
    connection = Connection((kafka.bootstrap,))
    settings = GroupSettings(group, Owner("bench", "http://127.0.0.1:1"), session_seconds=6.0)
    worker = GroupWorker(connection, Topics(), settings, view=View(), keeper=Keeper(None, (), stats), stats=stats)

    def wait(samples: int) -> float:
        wait_until(
            lambda: stats.total(KAFKA_RECORDS, outcome=outcome) >= PROCESSES * samples,
            timeout_seconds=WAIT_SECONDS,
            what=f"{samples} samples {outcome}",
            every=0.1,
        )
        return time.process_time()

    began, clock = time.process_time(), time.monotonic()
    worker.start()
    full, ended = wait(FULL), wait(SAMPLES)
    clock = time.monotonic() - clock
    worker.stop(30.0)
    return ended - full, ended - began, clock


def throughput(kafka: Kafka, kind: type[MadeUp], runs: int = RUNS) -> list[Row]:
    """The group's worker against the floor, and the replay of the same records."""
    world.make_topics(kafka, PARTITIONS)
    points, size = write(kafka, kind)
    floors, fulls, alls, replays, clocks = [], [], [], [], []
    for run in range(runs):
        floors.append(floor_seconds(kafka))
        full, whole, _ = worked(kafka, f"bench-{run}", "taken")
        fulls.append(full)
        alls.append(whole)
        _, replay, clock = worked(kafka, f"bench-{run}", "replayed")
        replays.append(replay)
        clocks.append(clock)
    head = f"{points} points a record"

    def rate(name: str, seconds: list[float], samples: int = SAMPLES) -> Row:
        return Row(f"{head}: {name}", points * PROCESSES * samples / statistics.median(seconds), UNIT)

    floor = rate("poll and decode alone (floor)", floors)
    return [
        Row(f"{head}: its size", size, "By"),
        floor,
        rate("judged and committed, windows full", fulls, SAMPLES - FULL).over(floor),
        rate("judged and committed, from the first sample on", alls).over(floor),
        rate("replayed", replays).over(floor),
        Row(f"{head}: replay of all, from the start of the worker", statistics.median(clocks), "s"),
    ]


class Heard:
    """Reads a topic as it is written and remembers when each record came."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self.records: list[tuple[float, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        consumer = KafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap, isolation_level="read_committed", enable_auto_commit=False
        )
        places = [TopicPartition(self._topic, each) for each in consumer.partitions_for_topic(self._topic)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        while not self._stop.is_set():
            for records in consumer.poll(timeout_ms=50).values():
                now = time.time()
                self.records += [(now, record) for record in records]
        consumer.close(timeout_ms=1000)


def latency(kafka: Kafka) -> list[Row]:
    """From a record's send to the alert that it makes, as a reader of committed records sees it."""
    world.make_topics(kafka, PARTITIONS)
    begin = world.now_less(1000)
    processes = [
        replace(one, begin=begin + number * 7) for number, one in enumerate(world.fleet_of(40, begin, leaking=1))
    ]
    sent: dict[tuple[str, int], float] = {}
    with (
        world.analyzer(kafka, "only") as one,
        world.Fleet(kafka, processes, PARTITIONS) as fleet,
        Heard(kafka, world.ALERTS) as heard,
    ):
        wait_until(lambda: world.has_partitions(one, PARTITIONS), timeout_seconds=60, what="its part")
        instances = {}
        for index in range(100):
            for process in processes:
                sent[process.instance, round(process.time(index) * 1000)] = time.time()
            fleet.send(index)
            time.sleep(0.5)
        wait_until(lambda: len(heard.records) >= 2 * len(processes) - 10, timeout_seconds=60, what="the alerts")
        instances = {item["id"]: item["service_instance_id"] for item in one.get("/api/v1/processes")["items"]}
        spans = []
        for came, record in heard.records:
            alert = MemoryAlert.model_validate_json(record.value)
            made = sent.get((instances[alert.subject], round(alert.time.timestamp() * 1000)))
            if made is not None:
                spans.append(came - made)
    spans.sort()
    return [
        Row(f"alert latency, median of {len(spans)}", statistics.median(spans), "s"),
        Row("alert latency, 99 of 100", spans[int(0.99 * (len(spans) - 1))], "s"),
    ]


def takeover(kafka: Kafka) -> list[Row]:
    """From a kill -9 to the first judgement of the one that takes over."""
    world.make_topics(kafka, 1)
    process = MadeUp("only", begin=world.now_less(900), leak_per_call=300_000, limit=8192 * MIB)
    index = 0
    spans = []
    with (
        world.analyzer(kafka, "a") as first,
        world.analyzer(kafka, "b") as second,
        world.Fleet(kafka, [process], 1) as fleet,
        Heard(kafka, world.ASSESSMENTS) as heard,
    ):
        for _ in range(TAKEOVERS):
            owner = wait_until(
                lambda: next((one for one in (first, second) if world.has_partitions(one)), None),
                timeout_seconds=90,
                what="an owner",
            )
            other, name = (second, "b") if owner is first else (first, "a")
            for _ in range(10):
                fleet.send(index)
                index += 1
                time.sleep(0.2)
            owner.kill()
            killed = time.time()

            def first_of(name: str, since: float) -> Callable[[], float | None]:
                def found() -> float | None:
                    nonlocal index
                    fleet.send(index)
                    index += 1
                    for came, record in list(heard.records):
                        if came <= since or not record.value:
                            continue
                        if AssessmentRecord.from_bytes(record.value).owner.instance == name:
                            return came
                    return None

                return found

            came = wait_until(first_of(name, killed), timeout_seconds=120, what="the new owner's output", every=0.1)
            assert came is not None
            spans.append(came - killed)
            assert other.running
            owner.start()
    return [
        Row(
            f"kill -9 to first output of the new owner, {world.SESSION_SECONDS} s session",
            statistics.median(spans),
            "s",
        ),
        Row(f"the longest of {len(spans)}", max(spans), "s"),
    ]


def run() -> list[Row]:
    """The rows; about ten minutes."""
    rows = []
    for kind, runs in ((Busy, RUNS), (MadeUp, 1)):
        with Kafka() as kafka:
            rows += throughput(kafka, kind, runs)
    for part in (latency, takeover):
        with Kafka() as kafka:
            rows += part(kafka)
    return rows


if __name__ == "__main__":
    if KafkaRecipe().locate() is None:
        raise SystemExit("the broker is not here; mend: ./dev parts kafka")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    print_rows(TITLE, run(), machine_line(DISTRIBUTIONS, runs=RUNS))
