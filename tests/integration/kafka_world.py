"""A broker, a fleet that writes to it, a group of analyzers, and what stands in the topics in the end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_memory import names
from otel_memory.analyzer.fleet_alerts import MEMORY_LEAK_GROUP
from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.kafka.records import AssessmentRecord, MemoryAlert
from tests.analyzer.made_up import MIB, MadeUp
from tests.harness import Analyzer, Kafka, fetch, wait_until
from tests.harness.topics import Stored, TopicReader, create_topics
from tests.kafka_schemas import check_alert, check_assessment

METRICS, LOGS, ALERTS, ASSESSMENTS = "otlp_metrics", "otlp_logs", "memory-alerts", "memory-assessments"
PLAIN = frozenset({names.PROCESS_MEMORY_USAGE, names.MEMORY_LIMIT, names.PROCESS_UPTIME})
SESSION_SECONDS = 6
"""The least that a broker allows by default."""


def make_topics(kafka: Kafka, partitions: int) -> None:
    """As ``otel-memory topics create`` makes them, but small."""
    create_topics(kafka.bootstrap, METRICS, LOGS, partitions=partitions, message_timestamp_type="LogAppendTime")
    create_topics(kafka.bootstrap, ALERTS, partitions=2)
    create_topics(kafka.bootstrap, ASSESSMENTS, partitions=partitions, cleanup_policy="compact")


def analyzer(kafka: Kafka, instance: str, *more: str, data_dir: Path | None = None) -> Analyzer:
    """A member of the group."""
    return Analyzer(
        *("--kafka-bootstrap", kafka.bootstrap, "--kafka-instance", instance),
        *("--kafka-session-seconds", str(SESSION_SECONDS), "--kafka-window-seconds", "3600", "--no-console"),
        *more,
        data_dir=data_dir,
    )


@dataclass
class Fleet:
    """``processes`` writes one sample each at a time, all of them in the order of their index."""

    kafka: Kafka
    processes: Sequence[MadeUp]
    partitions: int
    sent: int = 0
    _producer: Any = field(default=None, init=False)

    def __enter__(self) -> Fleet:
        self._producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap, acks="all", linger_ms=5)
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=5)

    def send(self, index: int) -> None:
        """Sample ``index`` of every process; each keeps to one partition."""
        for number, process in enumerate(self.processes):
            self._producer.send(METRICS, process.body(index), partition=number % self.partitions)
            self.sent += 1
        self._producer.flush(timeout=30)

    def send_value(self, value: bytes | None, partition: int = 0, key: bytes | None = None) -> None:
        """Whatever it is."""
        self._producer.send(METRICS, value, key=key, partition=partition)
        self._producer.flush(timeout=30)


class Plain(MadeUp):
    """One that sends its memory, its limit and its uptime, so that judging it is cheap."""

    def add_to(self, made: ExportMetricsServiceRequest, index: int) -> None:
        whole = ExportMetricsServiceRequest()
        super().add_to(whole, index)
        (each,) = whole.resource_metrics
        (scope,) = each.scope_metrics
        kept = [one for one in scope.metrics if one.name in PLAIN]
        del scope.metrics[:]
        scope.metrics.extend(kept)
        made.resource_metrics.append(each)


def fleet_of(count: int, begin: float, *, leaking: int = 2) -> list[MadeUp]:
    """Processes with a sample a second of event time; one of ``leaking`` leaks."""
    return [
        Plain(
            f"instance-{number}",
            begin=begin,
            leak_per_call=300_000 if number % leaking == 0 else 0,
            limit=8192 * MIB,
            restart_at=90 if number % 8 == 4 else None,
        )
        for number in range(count)
    ]


@dataclass
class Told:
    """What a group has told, as a reader of committed records sees it."""

    alerts: list[MemoryAlert]
    latest: dict[str, AssessmentRecord]

    @property
    def ids(self) -> list[str]:
        """Of the changes of processes' alerts, in order. When instances are compared is no matter of the log."""
        return sorted(alert.id for alert in self.alerts if alert.data.alert.name != MEMORY_LEAK_GROUP)


def told(reader: TopicReader, alerts: str = ALERTS, assessments: str = ASSESSMENTS) -> Told:
    """All that stands in the topics now."""
    found = [MemoryAlert.model_validate_json(each.value) for each in reader.read(alerts)]
    latest: dict[str, AssessmentRecord] = {}
    for each in reader.read(assessments):
        assert each.key is not None
        if b":" in each.key:
            continue  # a silence or a group of instances
        if each.value:
            latest[each.key.decode()] = AssessmentRecord.from_bytes(each.value)
        else:
            latest.pop(each.key.decode(), None)
    return Told(found, latest)


def forms_in(reader: TopicReader) -> set[str]:
    """The forms of the records that stand in the assessments' topic; each of them, and each alert, is as published."""
    for each in reader.read(ALERTS):
        check_alert(each.value)
    return {check_assessment(each.key or b"", each.value) for each in reader.read(ASSESSMENTS) if each.value}


def committed_reader(kafka: Kafka) -> TopicReader:
    """Reads what transactions have committed, and nothing else."""
    return TopicReader(kafka.bootstrap, isolation_level="read_committed")


def settled(kafka: Kafka, *topics: str) -> bool:
    """Whether no transaction on the topics is open: what is committed shows in one topic sooner than in another."""
    ends = []
    for level in ("read_committed", "read_uncommitted"):
        reader = KafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level=level, metrics_enabled=False)
        try:
            places = [
                TopicPartition(topic, number) for topic in topics for number in reader.partitions_for_topic(topic) or ()
            ]
            ends.append(reader.end_offsets(places))
        finally:
            reader.close(timeout_ms=1000)
    return ends[0] == ends[1]


def told_in_all(kafka: Kafka, alerts: str = ALERTS, assessments: str = ASSESSMENTS) -> Told:
    """What stands there once nothing is on its way any more."""
    wait_until(lambda: settled(kafka, alerts, assessments), timeout_seconds=60, what="the last transaction", every=0.5)
    with committed_reader(kafka) as reader:
        return told(reader, alerts, assessments)


def caught_up(reader: TopicReader, processes: Sequence[MadeUp], last: int, assessments: str = ASSESSMENTS) -> bool:
    """Whether the last sample of every process is judged."""
    latest = told(reader, assessments=assessments).latest
    for process in processes:
        info = identify(process.payload(0).resource)
        assert info is not None
        if info.id not in latest or latest[info.id].assessment.last_seen < process.time(last):
            return False
    return True


def metrics_of(one: Analyzer) -> dict[str, float]:
    """The analyzer's own numbers: name with labels -> value."""
    found = {}
    for line in fetch(f"{one.url}/metrics").decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.removeprefix("otel_memory_analyzer_")] = float(value)
    return found


def has_partitions(one: Analyzer, least: int = 1) -> bool:
    """Whether it judges: has so many partitions and replays none."""
    numbers = metrics_of(one)
    return numbers["kafka_partitions"] >= least and numbers["kafka_partitions_replaying"] == 0


def assert_same(mine: Told, reference: Told) -> None:
    """Every change of an alert once, and equal judgements."""
    twice = sorted({one for one in mine.ids if mine.ids.count(one) > 1})
    lost, added = set(reference.ids) - set(mine.ids), set(mine.ids) - set(reference.ids)
    found = (twice, sorted(lost), sorted(added))
    assert found == ([], [], []), f"changes of alerts: twice, lost, added: {found}"
    groups: dict[str, list[str]] = {}
    for alert in mine.alerts:
        if alert.data.alert.name == MEMORY_LEAK_GROUP:
            groups.setdefault(alert.data.alert.id, []).append(alert.data.alert.state)
    for states in groups.values():
        assert all(state != after for state, after in pairwise(states)), f"a group's alert was told twice: {states}"
    assert mine.latest.keys() == reference.latest.keys()
    for process_id, record in reference.latest.items():
        its, theirs = mine.latest[process_id].assessment, record.assessment
        assert (its.verdict, its.last_seen) == (theirs.verdict, theirs.last_seen)
        assert its.first_seen == theirs.first_seen
        if theirs.leak_score is None:
            assert its.leak_score is None
        else:
            assert its.leak_score is not None
            assert abs(its.leak_score - theirs.leak_score) < 1e-6


def referee(kafka: Kafka, processes: Sequence[MadeUp], last: int) -> Told:
    """What one analyzer that nobody disturbs tells of the same log."""
    alerts, assessments = "reference-alerts", "reference-assessments"
    create_topics(kafka.bootstrap, alerts)
    create_topics(kafka.bootstrap, assessments, partitions=4, cleanup_policy="compact")
    apart = ("--kafka-group", "reference", "--kafka-alerts-topic", alerts, "--kafka-assessments-topic", assessments)
    with analyzer(kafka, "referee", *apart), committed_reader(kafka) as reader:
        wait_until(
            lambda: caught_up(reader, processes, last, assessments),
            timeout_seconds=180,
            what="the reference",
            every=0.5,
        )
    return told_in_all(kafka, alerts, assessments)


def json_of(stored: Stored) -> Any:
    """A record's value."""
    return json.loads(stored.value)


def now_less(seconds: float) -> float:
    """A whole second so long ago: a made-up fleet's event time may be the past."""
    return float(int(time.time() - seconds))
