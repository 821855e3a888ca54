"""``Writer``: offsets, alerts and assessments in one transaction, or none of them.

Owns the transactional producer. The transactional id belongs to the group's instance, so that one that was killed is
fenced, and what it left open is undone, as soon as it is there again; before that its transaction ends by its time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka.errors import FencedInstanceIdError  # type: ignore[import-untyped]

from otel_memory.analyzer.kafka.client import Connection, KafkaError, OffsetAndMetadata, TopicPartition, Topics
from otel_memory.analyzer.kafka.overlay import place_of
from otel_memory.analyzer.kafka.owned import Batch, Poison
from otel_memory.analyzer.kafka.records import CONTENT_TYPE, MemoryAlert
from otel_memory.analyzer.stats import DROPPED, KAFKA_TRANSACTIONS, Stats

_logger = logging.getLogger(__name__)

MOST_BYTES: Final = 900_000
"""Of a value: what a broker refuses by its size would end the producer."""
TRANSACTION_SECONDS: Final = 10.0
COMMIT_SECONDS: Final = 15.0
"""Less than what a consumer may take between two polls."""
CLOSE_SECONDS: Final = 2.0
_ALERT_HEADERS: Final = [("content-type", CONTENT_TYPE.encode())]


class Aborted(Exception):
    """The transaction is undone, and the writer can be used on: what it held can be committed by another."""


class Writer:
    """For one thread. Makes its connection at once.

    Raises:
        KafkaError: the cluster can't be reached.
    """

    def __init__(self, connection: Connection, topics: Topics, group: str, instance: str, stats: Stats) -> None:
        self._topics = topics
        self._group = group
        self._stats = stats
        self._producer = connection.writer(f"{group}.{instance}", TRANSACTION_SECONDS)
        try:
            self._producer.init_transactions()
            self._count = len(self._producer.partitions_for(topics.assessments))
        except BaseException:
            self.close()
            raise

    def commit(self, batches: Sequence[Batch], logs: Mapping[int, int], group_metadata: Any) -> None:
        """Write and commit; when it returns, all of it is there for good.

        ``logs``: partition of the logs topic -> next offset to be read.

        Raises:
            Aborted: none of it is, and it may be tried again: a rebalance is under way.
            FencedInstanceIdError: another one is in the group in this one's name.
            KafkaError: it is not known: begin anew from what is committed.
        """
        failed: list[BaseException] = []
        # The client may wait for ever where a coordinator has gone away in the middle.
        thread = threading.Thread(
            target=self._commit,
            args=(batches, logs, group_metadata, failed),
            name="otel-memory-kafka-commit",
            daemon=True,
        )
        thread.start()
        thread.join(COMMIT_SECONDS)
        if thread.is_alive():
            raise KafkaError(f"a transaction did not end within {COMMIT_SECONDS:g} s")
        if failed:
            raise failed[0]

    def _commit(
        self, batches: Sequence[Batch], logs: Mapping[int, int], group_metadata: Any, failed: list[BaseException]
    ) -> None:
        try:
            self._transact(batches, logs, group_metadata)
        except BaseException as error:
            failed.append(error)

    def _transact(self, batches: Sequence[Batch], logs: Mapping[int, int], group_metadata: Any) -> None:
        producer = self._producer
        producer.begin_transaction()
        try:
            for batch in batches:
                self._send(batch)
            offsets = {
                TopicPartition(self._topics.metrics, batch.number): OffsetAndMetadata(
                    batch.offset, batch.mark.to_text()
                )
                for batch in batches
            }
            for number, offset in logs.items():
                offsets[TopicPartition(self._topics.logs, number)] = OffsetAndMetadata(offset)
            producer.send_offsets_to_transaction(offsets, group_metadata)
            producer.commit_transaction()
        except KafkaError as error:
            self._stats.add(KAFKA_TRANSACTIONS, outcome="aborted")
            # Where the producer is through, this raises in turn.
            producer.abort_transaction()
            if isinstance(error, FencedInstanceIdError):
                raise
            raise Aborted(f"{type(error).__name__}: {error}") from error
        self._stats.add(KAFKA_TRANSACTIONS, outcome="committed")

    def _send(self, batch: Batch) -> None:
        topics, send = self._topics, self._producer.send
        for change in batch.outcome.turn.changes:
            value = MemoryAlert.of(change, self._group).to_bytes()
            send(topics.alerts, value, change.alert.id.encode(), _ALERT_HEADERS)
        place = place_of(batch.number, self._count)
        for process_id, record in batch.outcome.records.items():
            value = record.to_bytes()
            if len(value) > MOST_BYTES:
                self._stats.add(DROPPED, part="assessments that are too large")
                _logger.error("the assessment of process %s takes %d bytes: it is not kept", process_id, len(value))
                continue
            send(topics.assessments, value, process_id.encode(), partition=place)
        for process_id in batch.outcome.forget:
            send(topics.assessments, None, process_id.encode(), partition=place)
        for key, shared in batch.shared.items():
            send(topics.assessments, shared, key, partition=place)
        if topics.dead_letters is not None:
            for poison in batch.poison:
                self._bury(topics.dead_letters, poison)

    def _bury(self, topic: str, poison: Poison) -> None:
        if poison.value is not None and len(poison.value) > MOST_BYTES:
            self._stats.add(DROPPED, part="dead letters that are too large")
            return
        headers = [
            ("error", poison.error.encode()),
            ("topic", poison.topic.encode()),
            ("partition", str(poison.partition).encode()),
            ("offset", str(poison.offset).encode()),
        ]
        self._producer.send(topic, poison.value or b"", poison.key, headers)

    def close(self) -> None:
        """Let go of the connection; what is not committed is undone."""
        try:
            self._producer.close(timeout=CLOSE_SECONDS)
        except Exception as error:
            # What was not delivered was not committed.
            _logger.debug("closing the producer: %s", error)
