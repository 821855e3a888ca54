"""What arrives with a rebalance, and where in the log a partition begins that arrives at a worker.

Owns how far back is replayed, and what holds where the committed offset is no longer in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka import ConsumerRebalanceListener  # type: ignore[import-untyped]

from otel_memory.analyzer.kafka.client import TopicPartition
from otel_memory.analyzer.kafka.records import Mark
from otel_memory.analyzer.stats import KAFKA_RECORDS, Stats

_logger = logging.getLogger(__name__)

ASK_MS: Final = 5000

Committed = tuple[int | None, Mark | None]
"""The offset that is committed, and what stands beside it."""


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs within ``poll`` on the client's thread, where nothing may block: it only notes what came.

    Nothing is paused here or elsewhere: kafka-python 3.0 keeps what it has fetched of a paused partition aside, and may
    never come back to it. What is fetched too early is read again after a ``seek``.
    """

    def __init__(self) -> None:
        self.assigned: frozenset[TopicPartition] = frozenset()
        self.changed = False

    def on_partitions_revoked(self, revoked: Any) -> None:
        return

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.assigned = frozenset(assigned)
        self.changed = True

    def on_partitions_lost(self, lost: Any) -> None:
        self.assigned = frozenset()
        self.changed = True


@dataclass(frozen=True, slots=True)
class Arrival:
    """``start``: of the replay; ``target``: where it ends and output begins; ``origin``: where the group began."""

    place: TopicPartition
    origin: int
    start: int
    target: int
    mark: Mark | None


def arrivals(
    consumer: Any, committed: Mapping[TopicPartition, Committed], reach_seconds: float, stats: Stats
) -> list[Arrival]:
    """How each of the partitions is taken up. Asks the brokers; ``reach_seconds`` before the committed moment the
    replay begins."""
    places = list(committed)
    begins = consumer.beginning_offsets(places, timeout_ms=ASK_MS)
    ends = consumer.end_offsets(places, timeout_ms=ASK_MS)
    since = {
        place: max(0, int((mark.at - reach_seconds) * 1000))
        for place, (_, mark) in committed.items()
        if mark is not None and mark.at is not None
    }
    found = consumer.offsets_for_times(since, timeout_ms=ASK_MS) if since else {}
    planned = []
    for place, (offset, mark) in committed.items():
        begin, end = begins[place], ends[place]
        if offset is not None and not begin <= offset <= end:
            stats.add(KAFKA_RECORDS, max(0, begin - offset), topic=place.topic, outcome="lost")
            _logger.error(
                "Kafka: %s/%d was read up to %d, and now holds %d to %d: it is read on from there",
                *(place.topic, place.partition, offset, begin, end),
            )
            # Behind its end it is another log, of which nothing is known.
            offset, mark = begin, (mark if offset < begin else None)
        target = begin if offset is None else offset
        start, origin = target, target
        if mark is not None:
            first = found.get(place)
            origin = mark.origin
            start = min(target, max(begin, origin, target if first is None else first.offset))
        planned.append(Arrival(place, origin, start, target, mark))
    return planned
