"""A log of made-up processes, and workers that judge a partition of it one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.kafka.partition import STEP_SECONDS, Outcome, Partition
from otel_memory.analyzer.kafka.records import AssessmentRecord, Owner
from otel_memory.analyzer.keeper import Keeper
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.stats import Stats
from tests.analyzer.made_up import MadeUp

WINDOW = 720.0
IDLE = 200.0
FORGET = 500.0


@dataclass(frozen=True)
class Logged:
    """One record: its time (s), and its value."""

    at: float
    value: bytes


def made_log(processes: Sequence[MadeUp], seconds: float, *, silent: Callable[[MadeUp, int], bool]) -> list[Logged]:
    """What the processes send in ``seconds``, each sample half a second after its time, in the order of the log."""
    log = [
        Logged(process.time(index) + 0.5, process.body(index))
        for process in processes
        for index in range(int(seconds / process.spacing))
        if not silent(process, index)
    ]
    return sorted(log, key=lambda one: one.at)


@dataclass
class Committed:
    """What the broker would have: the latest assessments, all changes of alerts, and up to where."""

    offset: int = 0
    at: float | None = None
    records: dict[str, bytes] = field(default_factory=dict)
    changes: list[AlertChange] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    written: int = 0
    """Records of assessments."""

    def take(self, outcome: Outcome, offset: int, at: float) -> None:
        self.offset, self.at = offset, at
        self.records |= {key: record.to_bytes() for key, record in outcome.records.items()}
        self.changes += outcome.turn.changes
        self.written += len(outcome.records)
        for process_id in outcome.forget:
            self.records.pop(process_id, None)
            self.forgotten.append(process_id)


def new_partition(instance: str = "a") -> Partition:
    """One that knows nothing yet."""
    stats = Stats()
    return Partition(
        0,
        Owner(instance, "http://127.0.0.1:1"),
        stats,
        Keeper(None, (), stats),
        window_seconds=WINDOW,
        idle_seconds=IDLE,
        forget_seconds=FORGET,
    )


def taken_over(log: Sequence[Logged], committed: Committed) -> Partition:
    """A worker that takes over what is committed, as the group's worker does."""
    partition = new_partition("b")
    if committed.at is not None:
        since = committed.at - WINDOW - IDLE - STEP_SECONDS
        for one in log[: committed.offset]:
            if one.at >= since:
                partition.replay(decode(one.value, "metrics", "protobuf"), one.at)
    partition.go_live([AssessmentRecord.from_bytes(value) for value in committed.records.values()], committed.at)
    return partition


def judge(
    log: Sequence[Logged], *, commits: Sequence[int], kills: Sequence[int] = (), behind: bool = False
) -> Committed:
    """Judge the whole log, commit before the offsets ``commits``, and lose all that is in memory at ``kills``. One that
    is ``behind`` has no time for what is calm before the end."""
    committed = Committed()
    partition = taken_over(log, committed)
    due, dead = set(commits), set(kills)
    offset = 0
    while offset < len(log):
        if offset in due:
            due.discard(offset)
            committed.take(partition.outcome(calm=not behind), offset, partition.now)
        if offset in dead:
            dead.discard(offset)
            partition = taken_over(log, committed)
            offset = committed.offset
            continue
        partition.take(decode(log[offset].value, "metrics", "protobuf"), log[offset].at)
        offset += 1
    committed.take(partition.outcome(), offset, partition.now)
    return committed
