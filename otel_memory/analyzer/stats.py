"""``Stats``: the analyzer's own numbers.

Owns every counter and gauge that the analyzer keeps about itself; ``/metrics`` and the summary only show them.
Thread-safe, never blocks for long, never raises in the path of data for anything but a programming error.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Measure:
    """One number (or one for each combination of ``labels``), named as Prometheus does, without prefix."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "summary"]
    labels: tuple[str, ...] = ()


REQUESTS: Final = Measure("requests", "Requests at a receiver, by how they ended.", "counter", ("receiver", "outcome"))
POINTS: Final = Measure(
    "points",
    "Data points and log records, by what became of them: accepted, skipped, rejected.",
    "counter",
    ("outcome",),
)
DROPPED: Final = Measure("dropped", "Items dropped because a bound was reached, by part.", "counter", ("part",))
QUEUE_DEPTH: Final = Measure("queue_depth", "Requests waiting for the worker.", "gauge")
SCORING: Final = Measure("scoring_seconds", "Time taken to score one batch of processes.", "summary")
STORE_ERRORS: Final = Measure(
    "store_errors", "Transactions that the store could not keep, by kind.", "counter", ("kind",)
)
STORE_BYTES: Final = Measure("store_bytes", "Size of the store's files.", "gauge")
WORKER_ERRORS: Final = Measure("worker_errors", "Requests that the worker failed on.", "counter")
KAFKA_RECORDS: Final = Measure(
    "kafka_records",
    "Records read from Kafka, by what became of them: taken, replayed (judged before), poison (can't be decoded), "
    "lost (gone from the log before they were read).",
    "counter",
    ("topic", "outcome"),
)
KAFKA_TRANSACTIONS: Final = Measure("kafka_transactions", "Transactions, by how they ended.", "counter", ("outcome",))
KAFKA_REBALANCES: Final = Measure("kafka_rebalances", "Times that partitions were assigned to this worker.", "counter")
KAFKA_REPLAYS: Final = Measure("kafka_replays", "Partitions that were rebuilt from the log.", "counter")
KAFKA_FAILURES: Final = Measure("kafka_failures", "Times that a connection to Kafka was begun anew.", "counter")
KAFKA_FORWARDED: Final = Measure(
    "kafka_forwarded_reads", "Reads handed on to the worker that has the process, by outcome.", "counter", ("outcome",)
)

MEASURES: Final = (
    *(REQUESTS, POINTS, DROPPED, QUEUE_DEPTH, SCORING, STORE_ERRORS, STORE_BYTES, WORKER_ERRORS),
    *(KAFKA_RECORDS, KAFKA_TRANSACTIONS, KAFKA_REBALANCES, KAFKA_REPLAYS, KAFKA_FAILURES, KAFKA_FORWARDED),
)


@dataclass(frozen=True, slots=True)
class OutputHealth:
    """How one output fares. Times are seconds since the epoch; ``busy_since`` is when the delivery now under way
    began, ``failing_since`` when the first of the tries failed that have all failed since; ``abandoned`` were given up
    after too many tries, too long or a refusal, ``pending`` still wait, ``held`` wait for a silence to end."""

    name: str
    delivered: int = 0
    failed: int = 0
    abandoned: int = 0
    pending: int = 0
    held: int = 0
    last_delivered: float | None = None
    last_error: str | None = None
    busy_since: float | None = None
    failing_since: float | None = None


class Stats:
    """The numbers by measure and label values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Measure, dict[tuple[str, ...], float]] = defaultdict(dict)
        self._counts: dict[Measure, dict[tuple[str, ...], int]] = defaultdict(dict)
        self._outputs: dict[str, OutputHealth] = {}

    def add(self, measure: Measure, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        self._expect(measure, "counter")
        key = _key(measure, labels)
        with self._lock:
            values = self._values[measure]
            values[key] = values.get(key, 0) + amount

    def set(self, measure: Measure, value: float, **labels: str) -> None:
        """Sets a gauge."""
        self._expect(measure, "gauge")
        key = _key(measure, labels)
        with self._lock:
            self._values[measure][key] = value

    def observe(self, measure: Measure, value: float, **labels: str) -> None:
        """Adds one observation to a summary."""
        self._expect(measure, "summary")
        key = _key(measure, labels)
        with self._lock:
            values, counts = self._values[measure], self._counts[measure]
            values[key] = values.get(key, 0) + value
            counts[key] = counts.get(key, 0) + 1

    def output(self, health: OutputHealth) -> None:
        """Publishes how an output fares."""
        with self._lock:
            self._outputs[health.name] = health

    def outputs(self) -> list[OutputHealth]:
        """Every output's health, by name."""
        with self._lock:
            return [self._outputs[name] for name in sorted(self._outputs)]

    def values(self, measure: Measure) -> Mapping[tuple[str, ...], float]:
        """Label values (in the order of ``measure.labels``) -> counter, gauge, or sum of a summary."""
        with self._lock:
            return dict(self._values.get(measure, {}))

    def counts(self, measure: Measure) -> Mapping[tuple[str, ...], int]:
        """Label values -> number of observations of a summary."""
        with self._lock:
            return dict(self._counts.get(measure, {}))

    def total(self, measure: Measure, **labels: str) -> float:
        """The sum over all label values that agree with ``labels``; 0 where nothing was counted."""
        wanted = [(measure.labels.index(name), value) for name, value in labels.items()]
        return sum(
            amount
            for key, amount in self.values(measure).items()
            if all(key[position] == value for position, value in wanted)
        )

    @staticmethod
    def _expect(measure: Measure, kind: str) -> None:
        if measure.kind != kind:
            raise ValueError(f"{measure.name} is a {measure.kind}")


def _key(measure: Measure, labels: Mapping[str, str]) -> tuple[str, ...]:
    if len(labels) != len(measure.labels):
        raise ValueError(f"{measure.name} has the labels {measure.labels}")
    try:
        return tuple(labels[name] for name in measure.labels)
    except KeyError as error:
        raise ValueError(f"{measure.name} has the labels {measure.labels}") from error
