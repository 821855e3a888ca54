"""From the analyzer's settings to kafka-python's clients.

Owns every argument that the clients are made with. Nothing here keeps a connection; the clients bootstrap when they are
made, so they are made on the threads that use them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import (  # type: ignore[import-untyped]
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    TopicPartition,
)
from kafka.coordinator.assignors.range import RangePartitionAssignor  # type: ignore[import-untyped]
from kafka.errors import KafkaError  # type: ignore[import-untyped]
from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

try:
    from otel_memory import kafka_sockets

    _DIRECTLY: dict[str, Any] = {"proxy_url": kafka_sockets.URL}
    """So that a socket that did not connect is closed at once, and not when the collector comes by."""
except ImportError:
    # A kafka-python that has no such place any more.
    _DIRECTLY = {}

__all__ = ["Connection", "KafkaError", "OffsetAndMetadata", "Stall", "TopicPartition", "Topics"]

BOOTSTRAP_MS: Final = 10_000
REQUEST_MS: Final = 15_000
MAX_POLL_INTERVAL_MS: Final = 45_000
"""Also how long a rebalance waits for a member: with the default of 5 minutes one that is killed while it joins holds
the whole group for as long."""
STALL_SECONDS: Final = 30.0
POSITION_MS: Final = 1000
FETCH_BYTES: Final = 16 * 2**20
"""Fetched ahead at most: records wait in the log and not in memory."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics."""

    metrics: str = "otlp_metrics"
    logs: str = "otlp_logs"
    alerts: str = "memory-alerts"
    assessments: str = "memory-assessments"
    dead_letters: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the cluster. ``security`` are arguments that all clients share."""

    bootstrap: tuple[str, ...]
    client_id: str = "otel-memory"
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def login(self) -> bool:
        """Whether it logs in with a user and a password."""
        return "sasl_mechanism" in self.security

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": list(self.bootstrap),
            "client_id": self.client_id,
            "request_timeout_ms": REQUEST_MS,
            "bootstrap_timeout_ms": BOOTSTRAP_MS,
            "reconnect_backoff_max_ms": 2000,
            **_DIRECTLY,
            **self.security,
        }

    def member(self, group: str, instance: str, session_seconds: float) -> Any:
        """A static member of the group.

        Committed offsets are read as ``read_committed``, so that those of a transaction that is still open are waited
        for: else a worker that takes a partition over could do again what the one before it is just committing. The
        range assignor gives partition n of all topics to the same member, if they have equally many.
        """
        return KafkaConsumer(
            **self._common(),
            group_id=group,
            group_instance_id=instance,
            session_timeout_ms=int(session_seconds * 1000),
            heartbeat_interval_ms=min(3000, int(session_seconds * 1000 / 3)),
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            partition_assignment_strategy=(RangePartitionAssignor,),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_bytes=FETCH_BYTES,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def reader(self, committed: bool = True) -> Any:
        """A consumer without a group; ``committed``: of what transactions have committed."""
        return KafkaConsumer(
            **self._common(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if committed else "read_uncommitted",
            fetch_max_bytes=FETCH_BYTES,
            fetch_max_wait_ms=200,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def writer(self, transactional_id: str, transaction_seconds: float) -> Any:
        """A transactional producer. What a killed one left open is aborted after ``transaction_seconds``."""
        return KafkaProducer(
            **self._common(),
            transactional_id=transactional_id,
            transaction_timeout_ms=int(transaction_seconds * 1000),
            acks="all",
            compression_type="lz4",
            linger_ms=0,
            max_block_ms=REQUEST_MS,
            delivery_timeout_ms=2 * REQUEST_MS,
            max_request_size=2**20,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def plain_writer(self) -> Any:
        """A producer without transactions, for what somebody asks for."""
        return KafkaProducer(
            **{**self._common(), "request_timeout_ms": BOOTSTRAP_MS // 2},
            acks="all",
            max_block_ms=BOOTSTRAP_MS,
            delivery_timeout_ms=BOOTSTRAP_MS,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def admin(self) -> Any:
        """For topics."""
        return KafkaAdminClient(**self._common())


class Stall:
    """Tells when a consumer gets nothing although records wait: kafka-python 3.0.12 may fall silent for good when a
    broker comes back. For the consumer's own thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._patience = STALL_SECONDS

    def begin(self) -> None:
        """The consumer is a new one."""
        self._since = self._clock()

    def over(self) -> None:
        """Something came."""
        self._since = self._clock()
        self._patience = STALL_SECONDS

    def check(self, consumer: Any) -> None:
        """Look at what the latest answers said of the ends of its partitions.

        Raises:
            KafkaError: records have waited for ``STALL_SECONDS``, and none came. Twice as long each time that another
                consumer gets nothing either: they may belong to a transaction that its writer leaves open.
        """
        if self._clock() - self._since < self._patience:
            return
        for place in consumer.assignment():
            end, position = consumer.highwater(place), consumer.position(place, timeout_ms=POSITION_MS)
            if end is not None and position is not None and position < end:
                silent, self._patience = self._patience, 2 * self._patience
                raise KafkaError(f"records of {place.topic}/{place.partition} wait, and none came for {silent:.0f} s")
        self.begin()
