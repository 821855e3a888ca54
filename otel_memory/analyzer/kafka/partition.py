"""One partition of the log judged: a function of its records, and of nothing else.

Owns what ``Pipeline`` leaves to the moment: batches, clocks and bounds by time. Records are taken in the order of the
log, by their own time stamps; of one process each is judged by itself, whoever comes with it in a batch; a process
that falls silent ends at a time of the log, not when somebody looks. What is judged is never older than the window, so
a worker that replays one window from the log has what an undisturbed one has; what outlives the window (verdicts,
alerts, latest scores) it takes over from the records of the assessments.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from otel_memory.analyzer.alerting import AlertingSettings, AlertingState, active
from otel_memory.analyzer.assessing import finite, renewed
from otel_memory.analyzer.findings import OF_FINDINGS
from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.judgement import Judge
from otel_memory.analyzer.kafka.deliveries import OWED_SECONDS, Deliveries, Owed
from otel_memory.analyzer.kafka.records import FORM, AssessmentRecord, Owner, ProcessState
from otel_memory.analyzer.keeper import Keeper, Turn
from otel_memory.analyzer.model import DOUBTED, Alert, AlertState, Assessment, Decoded, Event
from otel_memory.analyzer.pipeline import FUTURE_SECONDS, Pipeline, _Known, score_known
from otel_memory.analyzer.series import ProcessSeries, SeriesTable
from otel_memory.analyzer.stats import DROPPED, POINTS, Stats

_logger = logging.getLogger(__name__)

FORGET_SECONDS: Final = 24 * 3600.0
"""A process that was silent so long gets its tombstone."""
STEP_SECONDS: Final = 180.0
"""What is older than the window goes in steps of the coarsest bucket, so that no bucket is cut, ..."""
_STEPS: Final = 24
"""... and of about so many to a window: to look through all series of a process costs a third of what a record does."""
_NEVER: Final = float("-inf")


def step_of(window_seconds: float) -> float:
    """In which steps (s) what is older than such a window is let go: it is judged for so much longer at most."""
    return STEP_SECONDS * max(1.0, window_seconds // (STEP_SECONDS * _STEPS))


class _Nobody:
    """Readers are served from the assessments of all partitions."""

    def publish(
        self,
        assessments: Collection[Assessment] = (),
        alerts: Collection[Alert] = (),
        *,
        events: Mapping[str, Sequence[Event]] | None = None,
        forget: Collection[str] = (),
    ) -> None:
        return


@dataclass(slots=True)
class Outcome:
    """What is to be committed: what the records since the last one have changed, and whose tombstones are due."""

    turn: Turn = field(default_factory=Turn)
    records: dict[str, AssessmentRecord] = field(default_factory=dict)
    forget: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.forget or self.turn.changes)


class Partition(Pipeline):
    """The processes of one partition. ``replay`` what lies before the committed offset, ``go_live``, then ``take``."""

    def __init__(
        self,
        number: int,
        owner: Owner,
        stats: Stats,
        keeper: Keeper,
        *,
        window_seconds: float,
        alerting: AlertingSettings | None = None,
        idle_seconds: float = 3600.0,
        forget_seconds: float = FORGET_SECONDS,
        max_processes: int = 20_000,
    ) -> None:
        """``keeper`` is the worker's one: its own partitions' history goes to one store."""
        super().__init__(
            SeriesTable(max_processes),
            _Nobody(),
            stats,
            alerting=alerting,
            idle_seconds=idle_seconds,
            max_known=2 * max_processes,
        )
        self.number: Final = number
        self._owner = owner
        self._keeper = keeper
        self._window_seconds = window_seconds
        self._step = step_of(window_seconds)
        self._forget_seconds = max(forget_seconds, idle_seconds)
        self._turn = Turn()
        self._round: dict[str, ProcessSeries] = {}
        """Processes with a new sample that are still to be judged, ..."""
        self._calm: dict[str, ProcessSeries] = {}
        """... and those with one that says nothing new, beside how much memory it is."""
        self._cut: dict[str, float] = {}
        self._alerts: dict[str, dict[str, Alert]] = {}
        self._deliveries = Deliveries()
        self._restate: set[str] = set()
        """Processes whose records are to be written for another reason than a judgement."""
        self._tombstones: list[str] = []
        self.now: float = _NEVER
        """How far the log's time has come (s)."""
        self._next_end = _NEVER

    # --- what goes in ----------------------------------------------------------------------------------------

    def replay(self, decoded: Decoded, at: float) -> None:
        """Fill the windows from a record that was judged before; ``at`` is its time (s)."""
        self.advance(at)
        self._fill(decoded, self.now)

    def take(self, decoded: Decoded, at: float) -> None:
        """Take a record; it is judged at the latest by ``outcome``. ``at`` is its time (s)."""
        self.advance(at)
        if not self._round.keys().isdisjoint(_processes_of(decoded)):
            self._judge()
        self._stats.add(POINTS, decoded.accepted, outcome="accepted")
        if decoded.rejected:
            self._stats.add(POINTS, decoded.rejected, outcome="rejected")
        for process_id, series in self._fill(decoded, self.now):
            if self._says_something(self._known[process_id], series):
                self._round[process_id] = series
            else:
                self._calm[process_id] = series
        if len(self._known) > self._max_known:
            self._judge()
            self._tombstones += self._make_room(self.now, self._turn)

    def advance(self, now: float) -> None:
        """Let time pass to ``now`` (s): ends processes that have been silent, at the moment at which that was due."""
        # The time stamps of several writers need not be in order.
        self.now = max(self.now, now)
        if self.now < self._next_end:
            return
        self._judge()
        with self._contained("ending silent processes"):
            self._end_silent(self.now, self._turn)

    def _fill(self, decoded: Decoded, at: float) -> Iterable[tuple[str, ProcessSeries]]:
        """Those that have a new sample. Nothing older than the window is judged."""
        sampled: dict[str, ProcessSeries] = {}
        for payload in decoded.payloads:
            with self._contained("a payload"):
                self._take(payload, at, self._turn, sampled)
        for process_id, series in sampled.items():
            memory = series.memory
            if memory is None:
                continue
            self._known[process_id].in_use.learn(series)
            cut = memory.last_time // self._step * self._step - self._window_seconds
            if cut != self._cut.get(process_id):
                self._cut[process_id] = cut
                series.forget_before(cut)
        return sampled.items()

    def _says_something(self, known: _Known, series: ProcessSeries) -> bool:
        """Whether a new sample may change what is said of a process, but for how much memory it uses. Depends on the
        log alone, as the judgement does."""
        if known.assessment is None or known.alerting is None:
            return True
        if known.judge.suspicious or known.judge.is_due(series) or active(known.alerting, known.assessment):
            return True
        memory, limit = series.memory, series.limit_bytes
        near = self._alerting.clear_utilization
        return bool(memory is not None and limit and (memory.last_value or 0.0) >= near * limit)

    # --- the judgement ---------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Judge those that have a new sample; together, as that is ten times cheaper than one by one."""
        sampled, self._round = self._round, {}
        if not sampled:
            return
        for process_id in sampled:
            self._calm.pop(process_id, None)
        self._score(sampled)
        for process_id, series in sampled.items():
            # One by one: how many of a batch are attributed must not depend on the batch.
            self._find_suspects({process_id: series})
            with self._contained(f"process {process_id}"):
                self._conclude(process_id, series, self._turn)

    def _end_silent(self, now: float, turn: Turn) -> None:
        # One that is heard of for the first time from now on is not due earlier.
        following = now + self._idle_seconds
        for process_id, known in list(self._known.items()):
            due = known.heard_at + (self._forget_seconds if known.gone else self._idle_seconds)
            if due > now:
                following = min(following, due)
            elif known.gone:
                self._drop(process_id)
                self._tombstones.append(process_id)
            else:
                known.gone = True
                self._renew(process_id)
                self._end(process_id, known, due, turn, "it has sent nothing for long and is taken for gone")
                self._table.remove(process_id)
                self._cut.pop(process_id, None)
                following = min(following, known.heard_at + self._forget_seconds)
        self._next_end = following

    def _drop(self, process_id: str) -> None:
        for kept in (self._known, self._cut, self._alerts, self._calm):
            kept.pop(process_id, None)
        self._deliveries.forget(process_id)
        self._table.remove(process_id)
        self._turn.concluded.pop(process_id, None)

    # --- what comes out --------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit beside offsets."""
        return bool(
            self._round or self._calm or self._turn.concluded or self._turn.changes or self._tombstones or self._restate
        )

    @property
    def alerted(self) -> bool:
        """Whether the state of an alert has changed, which is told at once."""
        return bool(self._turn.changes)

    def judge(self) -> None:
        """Judge what has been taken."""
        self._judge()

    def outcome(self, *, calm: bool = True) -> Outcome:
        """Judge what was taken, and hand out all that is to be committed. What comes next is another outcome's.

        Without ``calm`` those of which only the memory in use is new are left for later: under load that is most of
        what there is to write.
        """
        self._judge()
        for process_id in list(self._calm) if calm else ():
            self._renew(process_id)
        turn, self._turn = self._turn, Turn()
        forget, self._tombstones = self._tombstones, []
        for change in turn.changes:
            self._alerts.setdefault(change.alert.process, {})[change.alert.name] = change.alert
        restate, self._restate = self._restate, set()
        stated = [*turn.concluded, *(one for one in restate if one not in turn.concluded)]
        records = {one: self._record(one) for one in stated if one in self._known and self._known[one].assessment}
        # One that came back after it was forgotten has a record again.
        return Outcome(turn, records, [process_id for process_id in forget if process_id not in records])

    def _renew(self, process_id: str) -> None:
        """Bring the assessment of a process up to its latest sample, if that has not been judged."""
        series = self._calm.pop(process_id, None)
        known = self._known[process_id]
        if series is None or known.assessment is None or known.alerting is None:
            return
        known.assessment = renewed(known.assessment, series)
        self._turn.concluded[process_id] = (known.assessment, known.alerting)

    def touched(self) -> Turn:
        """The series that a replay has filled, for the history. What comes next is another turn's."""
        turn, self._turn = self._turn, Turn()
        return turn

    def _record(self, process_id: str) -> AssessmentRecord:
        known = self._known[process_id]
        assessment = known.assessment
        assert assessment is not None
        alerts = dict(self._alerts.get(process_id, {}))
        alerts.update((alert.name, alert) for alert in active(known.alerting, assessment))
        series = self._table.get(process_id)
        state = ProcessState(
            alerting=None if known.alerting is None else known.alerting.to_dict(),
            buckets=tuple(None if bucket == _NEVER else bucket for bucket in known.judge.buckets),
            results=tuple(
                None if result is None else replace(result, time_to_limit=finite(result.time_to_limit))
                for result in known.judge.results
            ),
            life=known.judge.life,
            lives=() if series is None else series.lives,
            suspects=known.suspects,
            suspicious_since=known.judge.suspicious_since,
            refreshed_at=None if known.refreshed_at == _NEVER else known.refreshed_at,
            heard_at=known.heard_at,
            gone=known.gone,
            told=self._deliveries.of(process_id),
        )
        return AssessmentRecord(FORM, self.number, self._owner, assessment, tuple(alerts.values()), state)

    # --- taking over -----------------------------------------------------------------------------------------

    def go_live(self, records: Iterable[AssessmentRecord], at: float | None = None) -> None:
        """End the replay: take over what was committed with the offset up to which the log has been replayed.

        ``at`` is how far the log's time had come there (s).
        """
        if at is not None:
            self.now = max(self.now, at)
        for record in records:
            process_id = record.assessment.process.id
            try:
                self._take_over(process_id, record)
            except (ValueError, KeyError, TypeError):
                _logger.warning("what was kept of process %s can't be read: it is judged anew", process_id)
        # Those of which nothing was kept were never judged: they have nothing to lose. Whose tombstone came due in the
        # replay got it then.
        self._next_end = _NEVER
        self._turn = Turn()
        self._tombstones = []

    def _take_over(self, process_id: str, record: AssessmentRecord) -> None:
        state = record.state
        alerting = None if state.alerting is None else AlertingState.from_dict(state.alerting)
        known = self._known.setdefault(process_id, _Known())
        known.alerting = alerting
        known.assessment = record.assessment
        known.suspects = state.suspects
        if not known.found:
            known.found = tuple(one for one in record.assessment.suspects if one.kind in OF_FINDINGS)
            known.found_at = record.assessment.last_seen if known.found else _NEVER
        known.refreshed_at = _NEVER if state.refreshed_at is None else state.refreshed_at
        known.judge = Judge.resumed(
            state.results, [_NEVER if bucket is None else bucket for bucket in state.buckets], state.life
        )
        known.judge.doubted = alerting is not None and alerting.verdict in DOUBTED
        known.judge.suspicious_since = state.suspicious_since
        for level, result in enumerate(known.judge.results):
            if result is not None:
                # What was committed has been weighed.
                known.in_use.put(known.judge, level, result)
        if state.gone and known.heard_at <= state.heard_at:
            known.gone = True
            self._table.remove(process_id)
        else:
            known.gone = False
        known.heard_at = max(known.heard_at, state.heard_at)
        series = self._table.get(process_id)
        if series is not None and state.lives:
            series.resume_lives(state.lives)
        if record.alerts:
            self._alerts[process_id] = {alert.name: alert for alert in record.alerts}
            self._deliveries.resume(process_id, state.told, record.alerts)
            if any(alert.state is not AlertState.RESOLVED for alert in record.alerts):
                # All are to know who tells of them now.
                self._restate.add(process_id)

    # --- what the outputs have got ---------------------------------------------------------------------------

    def told(self, alert: Alert, output: str, change: str) -> bool:
        """``output`` has got the change with the id ``change``; False if the process is none of this partition."""
        if alert.process not in self._known:
            return False
        self._deliveries.note(alert.process, alert.name, output, change)
        self._restate.add(alert.process)
        return True

    def owed(self, outputs: Collection[str]) -> Iterator[Owed]:
        """What outputs have not got yet of the alerts."""
        for process_id, alerts in self._alerts.items():
            known = self._known.get(process_id)
            for alert in alerts.values():
                assessment = None if known is None else known.assessment
                yield from self._deliveries.owed(alert, assessment, outputs, self.now - OWED_SECONDS)

    @property
    def alerts(self) -> set[str]:
        """Ids of the alerts of its processes."""
        return {alert.id for alerts in self._alerts.values() for alert in alerts.values()}

    def happened(self, decoded: Decoded, at: float) -> dict[str, list[Event]]:
        """The events of a record of logs, by process; ``at`` is its time (s).

        What a process found of its growth makes suspects, from its next judgement on. No score, verdict or change of an
        alert depends on it: how the two topics' records come to lie between each other is not the log's to say.
        """
        found: dict[str, list[Event]] = {}
        for payload in decoded.payloads:
            info = identify(payload.resource)
            if info is None:
                self._stats.add(DROPPED, len(payload.events), part="unidentified")
            elif payload.events:
                found.setdefault(info.id, []).extend(payload.events)
                known = self._known.get(info.id)
                if known is not None:
                    known.learn([event for event in payload.events if event.time <= at + FUTURE_SECONDS])
        return found

    def housekeeping(self) -> None:
        """About every ten seconds: counts what was dropped."""
        self._faults_told = 0
        self._count_dropped()

    @property
    def processes(self) -> Collection[str]:
        """Ids of those that are known."""
        return self._known.keys()


def score_together(partitions: Iterable[Partition]) -> None:
    """Score what all of them have taken and not judged yet: one large batch is many times cheaper than small ones."""
    everyone = [(one._known[key], series) for one in partitions for key, series in one._round.items()]
    try:
        score_known(everyone)
    except Exception:
        # One of them can't be scored: each partition finds that out, and which one it is, when it judges.
        _logger.debug("scoring all partitions together", exc_info=True)


def _processes_of(decoded: Decoded) -> set[str]:
    found = (identify(payload.resource) for payload in decoded.payloads)
    return {info.id for info in found if info is not None}
