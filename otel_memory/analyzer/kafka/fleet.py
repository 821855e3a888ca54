"""``Fleet``: the latest judgement of every process of every worker, from the compacted topic.

Owns which record of a process counts, and who its owner is. Reads without a group: every analyzer reads all of it.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from otel_memory.analyzer.kafka.client import Connection, KafkaError, TopicPartition
from otel_memory.analyzer.kafka.records import FORM, Owner
from otel_memory.analyzer.kafka.shared_groups import PREFIX as GROUP
from otel_memory.analyzer.kafka.shared_groups import SharedGroups
from otel_memory.analyzer.kafka.shared_silences import PREFIX as SILENCE
from otel_memory.analyzer.kafka.shared_silences import SharedSilences
from otel_memory.analyzer.model import Alert, Assessment
from otel_memory.analyzer.stats import KAFKA_FAILURES, WORKER_ERRORS, Stats
from otel_memory.analyzer.view import View

_logger = logging.getLogger(__name__)

POLL_MS: Final = 200
MAX_RECORDS: Final = 2000
AGAIN_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 30.0
"""So often it looks whether the topic got more partitions."""
CLOSE_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Shown:
    """What readers need of an ``AssessmentRecord``."""

    form: int
    owner: Owner
    assessment: Assessment
    alerts: tuple[Alert, ...]


_SHOWN: Final = TypeAdapter(_Shown)


@dataclass(frozen=True, slots=True)
class _Entry:
    place: int
    owner: Owner
    last_seen: float


class Fleet:
    """Reads on a thread of its own and publishes to ``view``."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        view: View,
        stats: Stats,
        silences: SharedSilences,
        groups: SharedGroups,
    ) -> None:
        self._connection = connection
        self._silences = silences
        self._groups = groups
        self._topic = topic
        self._view = view
        self._stats = stats
        self._entries: dict[str, _Entry] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-memory-kafka-fleet", daemon=True)
        self.problem: str | None = "has not read the assessments yet"
        """Why the view may not be whole; None where it is."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> bool:
        """False if the thread did not end in ``timeout`` seconds. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def owner(self, process_id: str) -> Owner | None:
        """The worker that judges a process. From any thread."""
        entry = self._entries.get(process_id)
        return None if entry is None else entry.owner

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except Exception as error:
                known = isinstance(error, KafkaError)
                self._stats.add(KAFKA_FAILURES)
                if not known:
                    self._stats.add(WORKER_ERRORS)
                self.problem = f"begins anew after {type(error).__name__}"
                _logger.warning("Kafka: reads %s anew after: %s", self._topic, error, exc_info=not known)
            self._stopping.wait(AGAIN_SECONDS)

    def _read(self) -> None:
        reader = self._connection.reader()
        try:
            count = len(reader.partitions_for_topic(self._topic) or ())
            if not count:
                raise KafkaError(f"the topic {self._topic} is gone")
            places = [TopicPartition(self._topic, number) for number in range(count)]
            reader.assign(places)
            reader.seek_to_beginning(*places)
            ends = reader.end_offsets(places)
            found: set[str] | None = set()
            self._groups.begin()
            looked_at = time.monotonic()
            while not self._stopping.is_set():
                fetched = reader.poll(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
                if fetched:
                    self._show(fetched, found)
                    for place, records in fetched.items():
                        self._groups.read_up_to(place.partition, records[-1].offset + 1)
                self._groups.tick()
                if found is not None and all((reader.position(place) or 0) >= ends[place] for place in places):
                    # What this reading has not found any more was let go of while nobody read.
                    self._forget([process_id for process_id in self._entries if process_id not in found])
                    found, self.problem = None, None
                if time.monotonic() - looked_at >= LOOK_SECONDS:
                    looked_at = time.monotonic()
                    if len(reader.partitions_for_topic(self._topic) or ()) != count:
                        return
        finally:
            reader.close(timeout_ms=CLOSE_MS)

    def _show(self, fetched: dict[TopicPartition, list[Any]], found: set[str] | None) -> None:
        assessments: dict[str, Assessment] = {}
        alerts: dict[str, Alert] = {}
        forget: set[str] = set()
        for place, records in fetched.items():
            # Of one process the last is all that counts.
            for record in {record.key: record for record in records}.values():
                key = record.key or b""
                if key.startswith(SILENCE):
                    self._silences.take(key, record.value)
                    continue
                if key.startswith(GROUP):
                    alert = self._groups.take(key, record.value)
                    if alert is not None:
                        alerts[alert.id] = alert
                    continue
                process_id = key.decode("utf-8", "replace")
                known = self._entries.get(process_id)
                if record.value is None:
                    # One that has moved to another partition leaves a tombstone in this one.
                    if known is not None and known.place == place.partition:
                        del self._entries[process_id]
                        forget.add(process_id)
                        self._groups.gone(process_id)
                        assessments.pop(process_id, None)
                    continue
                shown = self._parse(record.value)
                if shown is None:
                    continue
                if found is not None:
                    found.add(process_id)
                last_seen = shown.assessment.last_seen
                if known is not None and known.place != place.partition and known.last_seen > last_seen:
                    continue
                self._entries[process_id] = _Entry(place.partition, shown.owner, last_seen)
                forget.discard(process_id)
                assessments[process_id] = shown.assessment
                self._groups.judged(process_id, place.partition, record.offset, shown.alerts)
                alerts.update((alert.id, alert) for alert in shown.alerts)
        alive = [alert for alert in alerts.values() if alert.process not in forget]
        self._view.publish(list(assessments.values()), alive, forget=forget)

    def _parse(self, value: bytes) -> _Shown | None:
        try:
            shown = _SHOWN.validate_json(value)
        except ValueError:
            return None
        return shown if shown.form == FORM else None

    def _forget(self, process_ids: list[str]) -> None:
        for process_id in process_ids:
            del self._entries[process_id]
            self._groups.gone(process_id)
        if process_ids:
            self._view.publish(forget=process_ids)
