"""``GroupWorker``: a member of the consumer group, from records to committed judgements.

Owns the one thread of the consumer: what arrives with a rebalance, the replay, when a partition is live, when is
committed. Everything that it knows can be rebuilt from what is committed; so whatever fails beyond an aborted
transaction, it begins anew from there.

Exactly once. Offsets, alerts and assessments of a partition are one transaction, fenced twice: by the generation of the
group, and by the transactional id. A partition that arrives is replayed up to the committed offset with its output held
back; the state that outlives the windows comes from the records that were committed with this offset. One that stays
goes on where it is, unless somebody else has committed meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kafka.errors import FencedInstanceIdError, KafkaTimeoutError  # type: ignore[import-untyped]

from otel_memory.analyzer.alerting import AlertingSettings
from otel_memory.analyzer.decode import MalformedPayload, decode
from otel_memory.analyzer.kafka.arrival import Committed, Listener, arrivals
from otel_memory.analyzer.kafka.client import Connection, KafkaError, OffsetAndMetadata, Stall, TopicPartition, Topics
from otel_memory.analyzer.kafka.leader import LEADING, Leader
from otel_memory.analyzer.kafka.overlay import Overlay
from otel_memory.analyzer.kafka.owned import Owned, Phase, Poison, gauges_of
from otel_memory.analyzer.kafka.partition import Partition, score_together, step_of
from otel_memory.analyzer.kafka.records import Mark, Owner
from otel_memory.analyzer.kafka.telling import Telling
from otel_memory.analyzer.kafka.writer import Aborted, Writer
from otel_memory.analyzer.keeper import Keeper, Turn
from otel_memory.analyzer.model import Decoded, Event
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.receivers.base import Signal
from otel_memory.analyzer.stats import (
    KAFKA_FAILURES,
    KAFKA_REBALANCES,
    KAFKA_RECORDS,
    KAFKA_REPLAYS,
    POINTS,
    WORKER_ERRORS,
    Stats,
)
from otel_memory.analyzer.view import View

_logger = logging.getLogger(__name__)

POLL_MS: Final = 100
LEAST_RECORDS: Final = 10
MOST_RECORDS: Final = 2000
TURN_SECONDS: Final = 0.25
"""So many records are taken at a time as take about so long: what is judged is committed before more is judged."""
COMMIT_SECONDS: Final = 0.25
"""Judgements wait so long for others to share a transaction with; a change of an alert waits for nobody."""
IDLE_COMMIT_SECONDS: Final = 5.0
"""Offsets, at least: it is by a commit that one learns that another one has come in its name."""
WAITING_SECONDS: Final = 0.01
HOUSEKEEPING_SECONDS: Final = 10.0
AGAIN_SECONDS: Final = 2.0
COMMITTED_MS: Final = 5000
CLOSE_MS: Final = 2000
SLACK_SECONDS: Final = 600.0
"""So much later than its points' times a record may come into the log and still be replayed for them."""
MAX_ABORTED: Final = 20
"""Transactions in a row."""
MAX_POISON_TOLD: Final = 20
"""Between two looks at the house; all are counted."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """``window_seconds`` is how far back a process is judged, and so how far back the log is replayed."""

    group: str
    owner: Owner
    window_seconds: float = 6 * 3600.0
    idle_seconds: float = 3600.0
    session_seconds: float = 20.0
    max_processes: int = 20_000
    alerting: AlertingSettings | None = None


@dataclass(slots=True)
class _Logs:
    """A partition of the logs topic."""

    position: int
    committed: int


class GroupWorker:
    """Start it after what it writes to, stop it before."""

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        settings: GroupSettings,
        *,
        view: View,
        keeper: Keeper,
        stats: Stats,
        leader: Leader | None = None,
        on_change: Callable[[Sequence[AlertChange], bool], None] = lambda _changes, _stored: None,
    ) -> None:
        """``leader`` decides on groups of instances while the partition for that is here; ``on_change`` as ``Telling``
        has it."""
        self._connection = connection
        self._topics = topics
        self._settings = settings
        self._view = view
        self._keeper = keeper
        self._stats = stats
        self._leader = leader
        self.telling: Final = Telling(keeper, leader, on_change)
        self._owned: dict[int, Owned] = {}
        self._logs: dict[int, _Logs] = {}
        self._lag = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-memory-kafka-group", daemon=True)
        self._consumer: Any = None
        self._writer: Writer | None = None
        self._listener: Listener | None = None
        self._generation = -1
        self._committed_at = 0.0
        self._told_at = 0.0
        self._looked_at = 0.0
        self._aborted = 0
        self._stall = Stall()
        self._most = LEAST_RECORDS
        self._behind = False
        """Whether more records wait than it takes at a time."""
        self._poison_told = 0
        self.problem: str | None = "has not joined the group yet"
        """Why it does not judge; None while it does. A member without a partition does its work, too."""

    # --- from outside ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Commit what was read and end. False if the thread did not end in ``timeout`` seconds. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For the page of metrics: name -> (help, value). From any thread."""
        return gauges_of(list(self._owned.values()), self._lag)

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._open()
                while not self._stopping.is_set():
                    self._turn()
                self._commit()
            except FencedInstanceIdError:
                self._give_way()
            except Exception as error:
                known = isinstance(error, KafkaError)
                if known and self._is_replaced():
                    # To begin anew would fence that one in turn, and so on.
                    self._give_way()
                    continue
                self._stats.add(KAFKA_FAILURES)
                if not known:
                    self._stats.add(WORKER_ERRORS)
                self.problem = f"begins anew after {type(error).__name__}"
                _logger.warning("Kafka: begins anew after %s: %s", type(error).__name__, error, exc_info=not known)
            finally:
                self._close()
            self._stopping.wait(AGAIN_SECONDS)

    def _give_way(self) -> None:
        self.problem = f"another one is in the group as {self._settings.owner.instance}: see --kafka-instance"
        _logger.error("Kafka: %s; this one judges no more", self.problem)
        self._stopping.set()

    def _is_replaced(self) -> bool:
        """Whether another one is in the group in this one's name: then it may not commit what is committed already."""
        offsets = {
            TopicPartition(self._topics.logs, number): OffsetAndMetadata(one.committed)
            for number, one in self._logs.items()
        }
        if self._consumer is None or not offsets:
            return False
        try:
            self._consumer.commit(offsets, timeout_ms=COMMITTED_MS)
        except FencedInstanceIdError:
            return True
        except Exception as error:
            _logger.debug("asking the group: %s", error)
        return False

    def _open(self) -> None:
        settings, topics = self._settings, self._topics
        self._writer = Writer(self._connection, topics, settings.group, settings.owner.instance, self._stats)
        consumer = self._connection.member(settings.group, settings.owner.instance, settings.session_seconds)
        self._consumer = consumer
        self._listener = Listener()
        self._aborted = 0
        self._stall.begin()
        for topic in (topics.metrics, topics.logs):
            # A leader that knows no partition yet would give nobody any, and then do it all again.
            consumer.partitions_for_topic(topic)
        consumer.subscribe([topics.metrics, topics.logs], listener=self._listener)

    def _close(self) -> None:
        for number in list(self._owned):
            self._drop(number)
        self._logs.clear()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                consumer.close(autocommit=False, timeout_ms=CLOSE_MS)
            except Exception as error:
                _logger.debug("closing the consumer: %s", error)

    def _turn(self) -> None:
        """One round: what came in, what is due."""
        assert self._listener is not None
        fetched = self._consumer.poll(timeout_ms=POLL_MS, max_records=self._most)
        if self._listener.changed:
            # What was fetched is read again from where each of them stands.
            self._rebalance(self._listener)
            return
        began = time.monotonic()
        count = sum(map(len, fetched.values()))
        self._behind = count >= self._most
        for place, records in fetched.items():
            if place.topic == self._topics.metrics:
                self._take(place, records)
            else:
                self._take_logs(place, records)
        self._end_replays()
        now = time.monotonic()
        self.telling.note(self._owned.values())
        leading = self._owned.get(LEADING)
        if self._leader is not None and leading is not None and leading.phase is Phase.LIVE:
            self._leader.lead(leading, now)
        if self._commit_due(now):
            self._committed_at = now
            self._commit()
        if fetched:
            self._stall.over()
            self._pace(count, time.monotonic() - began)
        if now - self._looked_at >= HOUSEKEEPING_SECONDS:
            self._looked_at = now
            self._keep_house()

    def _pace(self, count: int, seconds: float) -> None:
        """Learn from the last turn how many records the next one may take."""
        fitting = count * TURN_SECONDS / max(seconds, 1e-6)
        if fitting < self._most or count >= self._most:
            # Slower at once, quicker by and by.
            self._most = int(min(max(fitting, LEAST_RECORDS), 2 * self._most, MOST_RECORDS))

    # --- partitions that come and go -------------------------------------------------------------------------

    def _rebalance(self, listener: Listener) -> None:
        assigned = listener.assigned
        metrics = {place.partition: place for place in assigned if place.topic == self._topics.metrics}
        logs = {place.partition: place for place in assigned if place.topic == self._topics.logs}
        for number in [number for number in self._owned if number not in metrics]:
            self._drop(number)
        self._logs = {number: one for number, one in self._logs.items() if number in logs}
        try:
            self._assign(metrics)
            self._assign_logs(logs)
        except KafkaTimeoutError as error:
            # The one before has a transaction that is not decided yet: it is at its end before long.
            _logger.info("Kafka: waits for what is committed: %s", error)
            return
        listener.changed = False
        self.telling.settle(metrics)
        self._generation = self._consumer.group_metadata().generation_id
        self._stats.add(KAFKA_REBALANCES)
        self.problem = None

    def _assign(self, metrics: Mapping[int, TopicPartition]) -> None:
        consumer = self._consumer
        arriving: dict[TopicPartition, Committed] = {}
        for number, place in sorted(metrics.items()):
            found = consumer.committed(place, metadata=True, timeout_ms=COMMITTED_MS)
            offset = None if found is None or found.offset is None or found.offset < 0 else found.offset
            mark = None if offset is None else Mark.from_text(found.metadata)
            owned = self._owned.get(number)
            if owned is not None and owned.goes_on(offset, mark):
                consumer.seek(place, owned.position)
                continue
            if owned is not None:
                self._drop(number)
            arriving[place] = offset, mark
        if arriving:
            self._arrive(arriving)

    def _arrive(self, arriving: Mapping[TopicPartition, Committed]) -> None:
        settings = self._settings
        # What is heard of last long ago, but not given up, is judged by a window that began so much earlier.
        reach = settings.window_seconds + settings.idle_seconds + step_of(settings.window_seconds) + SLACK_SECONDS
        planned = arrivals(self._consumer, arriving, reach, self._stats)
        marked = [one.place.partition for one in planned if one.mark is not None]
        overlay = Overlay(self._connection, self._topics.assessments, marked).start() if marked else None
        for one in planned:
            number = one.place.partition
            self._owned[number] = Owned(
                self._partition(number),
                one.origin,
                one.start,
                one.target,
                one.mark,
                None if one.mark is None else overlay,
            )
            if one.start < one.target:
                self._stats.add(KAFKA_REPLAYS)
            records = one.target - one.start
            _logger.info("Kafka: %s/%d has arrived: %d records to replay", one.place.topic, number, records)
            self._consumer.seek(one.place, one.start)

    def _partition(self, number: int) -> Partition:
        settings = self._settings
        return Partition(
            number,
            settings.owner,
            self._stats,
            self._keeper,
            window_seconds=settings.window_seconds,
            alerting=settings.alerting,
            idle_seconds=settings.idle_seconds,
            max_processes=settings.max_processes,
        )

    def _assign_logs(self, logs: Mapping[int, TopicPartition]) -> None:
        consumer = self._consumer
        fresh = [place for number, place in sorted(logs.items()) if number not in self._logs]
        since = int((time.time() - self._settings.window_seconds) * 1000)
        found = consumer.offsets_for_times(dict.fromkeys(fresh, since), timeout_ms=COMMITTED_MS) if fresh else {}
        ends = consumer.end_offsets(fresh, timeout_ms=COMMITTED_MS) if fresh else {}
        for place in fresh:
            committed = consumer.committed(place, timeout_ms=COMMITTED_MS) or 0
            # They are shown, and nothing else: all of the window is read once more.
            first = found.get(place)
            start = ends[place] if first is None else first.offset
            self._logs[place.partition] = _Logs(start, committed)
        for number, place in logs.items():
            consumer.seek(place, self._logs[number].position)

    def _drop(self, number: int) -> None:
        owned = self._owned.pop(number)
        if owned.overlay is not None and not any(other.overlay is owned.overlay for other in self._owned.values()):
            owned.overlay.abandon()
        self._keeper.forget(list(owned.partition.processes))
        self.telling.left(number, owned.partition.alerts)
        if number == LEADING and self._leader is not None:
            self.telling.left(number, self._leader.let_go())

    # --- records ---------------------------------------------------------------------------------------------

    def _take(self, place: TopicPartition, records: Sequence[Any]) -> None:
        owned = self._owned.get(place.partition)
        if owned is None:
            return
        replayed = taken = 0
        for record in records:
            offset = record.offset
            if offset < owned.position:
                continue
            if owned.phase is not Phase.LIVE and offset >= owned.target:
                # Read again once it is live, which it is before long.
                self._stopping.wait(WAITING_SECONDS)
                break
            decoded = self._decoded(record, "metrics", owned)
            if decoded is not None:
                if owned.phase is Phase.LIVE:
                    owned.partition.take(decoded, record.timestamp / 1000)
                    taken += 1
                else:
                    owned.partition.replay(decoded, record.timestamp / 1000)
                    replayed += 1
            owned.position = offset + 1
        filled = owned.filled(replayed) if replayed else None
        if filled is not None:
            self._keeper.keep(filled, time.time())
        self._count(place.topic, taken=taken, replayed=replayed)

    def _decoded(self, record: Any, signal: Signal, owned: Owned | None) -> Decoded | None:
        """None where it is poison: counted, told, kept for the dead letters, and passed."""
        try:
            if record.value is None:
                raise MalformedPayload("the record is empty")
            return decode(record.value, signal, "protobuf")
        except MalformedPayload as error:
            reason = str(error)
        except Exception as error:
            reason = f"{type(error).__name__} while decoding"
        if owned is not None and owned.phase is not Phase.LIVE:
            # Was told when it was judged.
            return None
        self._stats.add(KAFKA_RECORDS, topic=record.topic, outcome="poison")
        self._poison_told += 1
        if self._poison_told <= MAX_POISON_TOLD:
            _logger.warning(
                "Kafka: %s/%d offset %d can't be decoded and is passed: %s",
                record.topic,
                record.partition,
                record.offset,
                reason,
            )
        if owned is not None and self._topics.dead_letters is not None:
            owned.poison.append(Poison(record.topic, record.partition, record.offset, record.key, record.value, reason))
        return None

    def _take_logs(self, place: TopicPartition, records: Sequence[Any]) -> None:
        logs = self._logs.get(place.partition)
        owned = self._owned.get(place.partition)
        if logs is None:
            return
        events: dict[str, list[Event]] = {}
        taken = 0
        for record in records:
            if record.offset < logs.position:
                continue
            logs.position = record.offset + 1
            decoded = self._decoded(record, "logs", owned)
            if decoded is None or owned is None:
                continue
            taken += 1
            if record.offset >= logs.committed:
                self._stats.add(POINTS, decoded.accepted, outcome="accepted")
            for process_id, happened in owned.partition.happened(decoded, record.timestamp / 1000).items():
                events.setdefault(process_id, []).extend(happened)
        self._count(place.topic, taken=taken)
        if events:
            self._keeper.keep(Turn(events=events), time.time())
            self._view.publish(events=events)

    def _count(self, topic: str, **outcomes: int) -> None:
        for outcome, count in outcomes.items():
            if count:
                self._stats.add(KAFKA_RECORDS, count, topic=topic, outcome=outcome)

    def _end_replays(self) -> None:
        consumer = self._consumer
        for number, owned in self._owned.items():
            if owned.phase is Phase.LIVE:
                continue
            place = TopicPartition(self._topics.metrics, number)
            # Not each offset has a record: what ends transactions has one, too.
            if owned.phase is Phase.REPLAYING and (
                owned.position >= owned.target or (consumer.position(place) or 0) >= owned.target
            ):
                owned.phase = Phase.WAITING
                owned.position = owned.target
            if owned.phase is Phase.WAITING and (owned.overlay is None or owned.overlay.done):
                groups = () if owned.overlay is None else owned.overlay.groups
                self._keeper.keep(owned.go_live(), time.time())
                self.telling.arrived(owned, self._owned.values(), groups if number == LEADING else None)
                consumer.seek(place, owned.position)

    # --- what comes out --------------------------------------------------------------------------------------

    def _commit_due(self, now: float) -> bool:
        since = now - self._committed_at
        live = [one for one in self._owned.values() if one.phase is Phase.LIVE]
        if since >= IDLE_COMMIT_SECONDS:
            return True
        if any(one.partition.alerted or one.shared for one in live):
            return True
        return since >= COMMIT_SECONDS and any(one.partition.changed or one.outcome for one in live)

    def _commit(self) -> None:
        assert self._writer is not None
        metadata = self._consumer.group_metadata()
        if metadata.generation_id != self._generation or self._generation < 0:
            # Out of the group, or in another generation of it: the next poll says with what.
            return
        # Of the last transaction, not of the last try.
        idle = time.monotonic() - self._told_at >= IDLE_COMMIT_SECONDS
        transaction = uuid.uuid4().hex
        pairs = []
        live = [owned for owned in self._owned.values() if owned.phase is Phase.LIVE]
        score_together(owned.partition for owned in live)
        for owned in live:
            self._keeper.keep(replace(owned.draw(calm=not self._behind), changes=[]), time.time())
            batch = owned.batch(transaction, idle)
            if batch is not None:
                pairs.append((owned, batch))
        logs = {number: one.position for number, one in self._logs.items() if one.position > one.committed}
        if not pairs and not logs:
            return
        try:
            self._writer.commit([batch for _, batch in pairs], logs, metadata)
        except Aborted as error:
            self._aborted += 1
            if self._aborted >= MAX_ABORTED:
                raise KafkaError(f"no transaction succeeds: {error}") from error
            _logger.info("Kafka: a transaction was undone and is done again: %s", error)
            return
        self._aborted = 0
        self._told_at = time.monotonic()
        for owned, batch in pairs:
            owned.done(batch)
            self.telling.tell(batch.outcome.turn.changes)
        for number, offset in logs.items():
            self._logs[number].committed = offset

    def _keep_house(self) -> None:
        self._stall.check(self._consumer)
        self._poison_told = 0
        for owned in self._owned.values():
            owned.partition.housekeeping()
        if self._keeper.maintain(time.time()):
            self._looked_at = float("-inf")
        lag = 0
        for place in self._consumer.assignment():
            end = self._consumer.highwater(place)
            known = self._owned.get(place.partition) if place.topic == self._topics.metrics else None
            position = known.position if known is not None else None
            if end is not None and position is not None:
                lag += max(0, end - position)
        self._lag = lag
