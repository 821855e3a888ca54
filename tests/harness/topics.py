"""Topics of a real Kafka: make them, and read all that stands in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from kafka.admin import NewTopic  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_memory.kafka_sockets import URL as DIRECTLY


def create_topics(bootstrap: str, *names: str, partitions: int = 1, **settings: str) -> None:
    """Make ``names``. ``settings`` are those of a topic, with ``_`` for their dots."""
    configs = {name.replace("_", "."): value for name, value in settings.items()}
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs) for name in names])
    finally:
        admin.close()


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it stands in the log."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    def metrics(self) -> ExportMetricsServiceRequest:
        """Decoded as ``otlp_proto``."""
        return ExportMetricsServiceRequest.FromString(self.value)

    def logs(self) -> ExportLogsServiceRequest:
        """Decoded as ``otlp_proto``."""
        return ExportLogsServiceRequest.FromString(self.value)


class TopicReader:
    """Reads topics from their start, again and again, by one client; use it in ``with``."""

    def __init__(self, bootstrap: str, **client: Any) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
            metrics_enabled=False,
            proxy_url=DIRECTLY,  # no socket is left over from a broker that a test has ended
            **client,
        )
        self._ends: dict[str, list[Stored]] = {}
        self._positions: dict[TopicPartition, int] = {}

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close(timeout_ms=1000)

    def read(self, topic: str) -> list[Stored]:
        """All that stands in ``topic`` now, by partition in the order of the log; nothing while there is no topic."""
        kept = self._ends.setdefault(topic, [])
        numbers = self._consumer.partitions_for_topic(topic)
        if not numbers:
            return []
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        self._consumer.assign(partitions)
        for partition in partitions:
            self._consumer.seek(partition, self._positions.get(partition, 0))
        ends = self._consumer.end_offsets(partitions)
        while any(self._consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, records in self._consumer.poll(timeout_ms=200).items():
                kept += [
                    Stored(topic, partition.partition, each.offset, each.key, each.value, tuple(each.headers))
                    for each in records
                ]
        for partition in partitions:
            self._positions[partition] = self._consumer.position(partition)
        return sorted(kept, key=lambda each: (each.partition, each.offset))


def log_records(stored: list[Stored]) -> list[LogRecord]:
    """Every log record of them, in order."""
    return [
        record
        for each in stored
        for resource in each.logs().resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def numbers(stored: list[Stored], metric: str) -> list[int]:
    """Value of each data point of a sum or gauge of whole numbers, in order."""
    return [
        point.as_int
        for each in stored
        for resource in each.metrics().resource_metrics
        for scope in resource.scope_metrics
        for found in scope.metrics
        if found.name == metric
        for point in (found.gauge if found.HasField("gauge") else found.sum).data_points
    ]
