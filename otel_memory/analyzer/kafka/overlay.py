"""What was committed of some partitions' processes: read from the compacted topic while their log is replayed.

Owns when that is complete. A committed offset and the records of its transaction become visible at different moments,
so it reads up to the end that the topic had after the offset was known, whoever's transaction is still to be decided
on the way: those last seconds at most.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import Any, Final

from otel_memory.analyzer.kafka.client import Connection, KafkaError, TopicPartition
from otel_memory.analyzer.kafka.records import AssessmentRecord
from otel_memory.analyzer.kafka.shared_groups import LOOKED, GroupRecord
from otel_memory.analyzer.kafka.shared_groups import PREFIX as GROUP
from otel_memory.analyzer.kafka.shared_silences import PREFIX as SILENCE

_logger = logging.getLogger(__name__)

POLL_MS: Final = 200
CLOSE_MS: Final = 1000


class Overlay:
    """Reads on a thread of its own from ``start`` on; look at ``done``, then take ``of``."""

    def __init__(self, connection: Connection, topic: str, numbers: Collection[int]) -> None:
        self._connection = connection
        self._topic = topic
        self._numbers = frozenset(numbers)
        self._found: dict[int, list[AssessmentRecord]] = {number: [] for number in numbers}
        self.groups: list[GroupRecord] = []
        """Of instances, of those partitions of the topic that were read; complete once it is done."""
        self._abandoned = threading.Event()
        self._finished = threading.Event()
        self._error: Exception | None = None

    def start(self) -> Overlay:
        """Begin to read."""
        threading.Thread(target=self._run, name="otel-memory-kafka-overlay", daemon=True).start()
        return self

    def abandon(self) -> None:
        """It is not needed any more."""
        self._abandoned.set()

    def wait(self, timeout: float) -> bool:
        """Whether it is done within ``timeout`` seconds."""
        return self._finished.wait(timeout)

    @property
    def done(self) -> bool:
        """Whether all is read.

        Raises:
            KafkaError: it could not be read.
        """
        if not self._finished.is_set():
            return False
        if self._error is not None:
            raise self._error
        return True

    def of(self, number: int) -> list[AssessmentRecord]:
        """The latest records of the partition ``number`` of the metrics topic."""
        return self._found[number]

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:
            self._error = error if isinstance(error, KafkaError) else KafkaError(f"{type(error).__name__}: {error}")
        finally:
            self._finished.set()

    def _read(self) -> None:
        # Its ends lie behind what is not decided yet; those of the other reader before it.
        ahead = self._connection.reader(committed=False)
        try:
            count = len(ahead.partitions_for_topic(self._topic) or ())
            if not count:
                raise KafkaError(f"the topic {self._topic} is gone")
            places = sorted({place_of(number, count) for number in self._numbers})
            ends = ahead.end_offsets([TopicPartition(self._topic, place) for place in places])
        finally:
            ahead.close(timeout_ms=CLOSE_MS)
        reader = self._connection.reader()
        try:
            latest = self._latest(reader, ends)
        finally:
            reader.close(timeout_ms=CLOSE_MS)
        for (_, key), value in latest.items():
            try:
                if key.startswith(GROUP):
                    self.groups.append(GroupRecord.from_bytes(value))
                    continue
                record = AssessmentRecord.from_bytes(value)
            except ValueError as error:
                _logger.warning("a record of %s can't be taken over: %s", self._topic, error)
                continue
            if record.partition in self._numbers:
                self._found[record.partition].append(record)

    def _latest(self, reader: Any, ends: dict[TopicPartition, int]) -> dict[tuple[int, bytes], bytes]:
        latest: dict[tuple[int, bytes], bytes] = {}
        reader.assign(list(ends))
        reader.seek_to_beginning(*ends)
        while not self._abandoned.is_set():
            if all((reader.position(place) or 0) >= end for place, end in ends.items()):
                break
            for place, records in reader.poll(timeout_ms=POLL_MS, max_records=5000).items():
                for record in records:
                    if record.key is None or record.key.startswith(SILENCE) or record.key == LOOKED:
                        continue
                    if record.value is None:
                        latest.pop((place.partition, record.key), None)
                    else:
                        latest[place.partition, record.key] = record.value
        return latest


def place_of(number: int, count: int) -> int:
    """The partition of the assessments topic, of ``count``, that holds those of partition ``number``."""
    return number % count
