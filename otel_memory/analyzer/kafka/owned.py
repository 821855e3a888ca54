"""One partition in the hands of this worker: where it stands in the log, and what of it is not committed yet.

Owns the phases of a partition from its arrival to its first output, and the sum of outcomes between two commits. Talks
to no broker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from otel_memory.analyzer.kafka.overlay import Overlay
from otel_memory.analyzer.kafka.partition import Outcome, Partition
from otel_memory.analyzer.kafka.records import Mark
from otel_memory.analyzer.keeper import Turn

HISTORY_SAMPLES: Final = 128
"""Of each process: so many are replayed between two writes of the history. A window holds twice as many."""


class Phase(Enum):
    """``REPLAYING`` what was judged before, ``WAITING`` for the rest of what is taken over, then ``LIVE``."""

    REPLAYING = "replaying"
    WAITING = "waiting"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that can't be decoded."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    error: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one partition has to commit; ``offset`` is the next one to be read."""

    number: int
    offset: int
    mark: Mark
    outcome: Outcome
    poison: tuple[Poison, ...] = ()
    shared: Mapping[bytes, bytes | None] = field(default_factory=dict)
    """Further records of the assessments' topic: key -> value, None for a tombstone."""


@dataclass(slots=True)
class Owned:
    """A partition of the metrics topic. ``start`` is where the replay begins, ``target`` the committed offset: what
    lies before was told already."""

    partition: Partition
    origin: int
    start: int
    target: int
    mark: Mark | None
    """Of the offset that is committed, None where none was."""
    overlay: Overlay | None
    phase: Phase = Phase.REPLAYING
    position: int = field(init=False)
    """The next offset to be read."""
    committed: int = field(init=False)
    outcome: Outcome = field(default_factory=Outcome)
    """Drawn, and not committed yet."""
    poison: list[Poison] = field(default_factory=list)
    unkept: int = 0
    """Records that were replayed and whose samples the history has not got."""
    shared: dict[bytes, bytes | None] = field(default_factory=dict)
    """What concerns more than the partition's processes (``Leader``), and is not committed yet."""

    def __post_init__(self) -> None:
        self.position = self.start
        self.committed = self.target

    @property
    def number(self) -> int:
        """Of the partition."""
        return self.partition.number

    @property
    def left(self) -> int:
        """Records that are still to be replayed."""
        return max(0, self.target - self.position) if self.phase is Phase.REPLAYING else 0

    def filled(self, replayed: int) -> Turn | None:
        """Take note of so many records that were replayed; now and then what they have filled, for the history, before
        it leaves the windows."""
        self.unkept += replayed
        if self.unkept < HISTORY_SAMPLES * max(1, len(self.partition.processes)):
            return None
        self.unkept = 0
        return self.partition.touched()

    def goes_on(self, offset: int | None, mark: Mark | None) -> bool:
        """Whether what is committed now is what this worker committed or found: nobody else has gone on from there."""
        return mark == self.mark and (mark is None or offset == self.committed)

    def draw(self, *, calm: bool) -> Turn:
        """Take the outcome of what was read (``calm``: see there); what an aborted transaction held stays with it.
        Returns what is new."""
        new = self.partition.outcome(calm=calm)
        kept = self.outcome
        forget = [one for one in (*kept.forget, *new.forget) if one not in new.records]
        records = {one: record for one, record in {**kept.records, **new.records}.items() if one not in new.forget}
        changes = [*kept.turn.changes, *new.turn.changes]
        self.outcome = Outcome(Turn(changes=changes), records, forget)
        return new.turn

    def batch(self, transaction: str, always: bool = False) -> Batch | None:
        """What is to be committed now; None where nothing has changed since the last commit, unless ``always``."""
        if (
            not always
            and self.mark is not None
            and self.position == self.committed
            and not self.outcome
            and not self.poison
            and not self.shared
        ):
            return None
        at = self.partition.now
        mark = Mark(self.origin, at if math.isfinite(at) else None, transaction)
        return Batch(self.number, self.position, mark, self.outcome, tuple(self.poison), dict(self.shared))

    def done(self, batch: Batch) -> None:
        """``batch`` is committed."""
        self.mark, self.committed = batch.mark, batch.offset
        self.outcome = Outcome()
        self.poison = []
        self.shared = {}

    def go_live(self) -> Turn:
        """End the replay; returns what it has filled, for the history."""
        filled = self.partition.touched()
        records = [] if self.overlay is None else self.overlay.of(self.number)
        self.partition.go_live(records, None if self.mark is None else self.mark.at)
        self.phase = Phase.LIVE
        self.overlay = None
        return filled


def gauges_of(owned: Sequence[Owned], lag: int) -> dict[str, tuple[str, float]]:
    """For the page of metrics: name -> (help, value). ``lag``: records that wait."""
    return {
        "kafka_partitions": ("Partitions that this worker judges.", float(len(owned))),
        "kafka_partitions_replaying": (
            "Partitions that are being rebuilt from the log.",
            float(sum(one.phase is not Phase.LIVE for one in owned)),
        ),
        "kafka_replay_records_left": (
            "Records that are still to be replayed.",
            float(sum(one.left for one in owned)),
        ),
        "kafka_lag_records": ("Records in this worker's partitions that wait to be judged.", float(lag)),
    }
