"""The one ``process``: payloads in; series, scores, suspects, alerts, history and news out.

Owns the order of the steps and what is kept per process between them. Runs on the worker's thread alone. The judges
that it calls are pure and take event time; what it tells the world goes through ``Publisher`` (readers), ``keeper``
(the store) and ``on_change`` (the outputs). A fault in one payload or one process costs that one its turn, is counted,
and touches no other.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from otel_memory import names
from otel_memory.analyzer.alerting import MEMORY_LEAK, AlertingSettings, AlertingState, active, step
from otel_memory.analyzer.assessing import Findings, assess, silenced
from otel_memory.analyzer.attribution import attribute_series
from otel_memory.analyzer.findings import OF_FINDINGS, merged, read_finding, suspects_of
from otel_memory.analyzer.fleet_alerts import FleetAlerting, Groups
from otel_memory.analyzer.in_use import InUse, weigh_all
from otel_memory.analyzer.judgement import SUSPICIOUS, Judge, score_all
from otel_memory.analyzer.keeper import Keeper, Turn
from otel_memory.analyzer.model import DOUBTED, Alert, Assessment, Decoded, Event, Payload, Suspect
from otel_memory.analyzer.outputs.base import AlertChange, change_id
from otel_memory.analyzer.scoring import ScoreResult
from otel_memory.analyzer.series import ProcessSeries, SeriesTable
from otel_memory.analyzer.stats import DROPPED, POINTS, SCORING, WORKER_ERRORS, Stats
from otel_memory.analyzer.store import Store
from otel_memory.analyzer.windows import Window

_logger = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 2.0
REFRESH_LEAST_SHARE: Final = 1 / 64
"""Suspects are sought at most so often (event time), and when so much of what they are sought in is new, ..."""
REFRESH_SHARE: Final = 0.1
REFRESH_LONGEST_SECONDS: Final = 30.0
REFRESH_LONGEST_SHARE: Final = 1 / 16
"""... and then after a tenth of the time that the process has been suspicious; at least so often, or when a sixteenth
of the samples that they are sought in is new."""
MAX_ATTRIBUTIONS: Final = 8
"""In one batch, those first that have waited longest: attribution is by far the dearest step."""
FOUND_SECONDS: Final = 3600.0
"""What a process found of its growth is held against it for so long (event time)."""
RETELL_SECONDS: Final = 10.0
"""Alerts that go on are told with new suspects, and else with new figures so often (event time)."""
COMPARE_SECONDS: Final = 5.0
"""The instances of each service are compared so often (wall time), and when one begins or ends to leak."""
MAINTENANCE_SECONDS: Final = 10.0
FORGET_SECONDS: Final = 7 * 86400.0
"""A process that was silent so long is no longer shown."""
CLOCK_SECONDS: Final = 300.0
"""How far ahead of the present what is known may lie before a process that sends earlier times begins anew."""
RETURN_SECONDS: Final = 120.0
"""After a start processes have so long to be heard of again before they can be taken for gone."""
RESTORE_SECONDS: Final = 6 * 3600.0
LEAST_RESTORE_SECONDS: Final = 600.0
MAX_RESTORED_SAMPLES: Final = 4_000_000
"""About: a fleet that sends more gets a shorter past back, so that a start stays a matter of seconds."""
SERIES_OF_A_PROCESS: Final = 20
FUTURE_SECONDS: Final = 86400.0
"""How far ahead of the present an event may lie."""
MAX_FAULTS_TOLD: Final = 5
"""Between two ticks; all are counted."""


class Publisher(Protocol):
    """Where readers see what the worker knows."""

    def publish(
        self,
        assessments: Collection[Assessment] = (),
        alerts: Collection[Alert] = (),
        *,
        events: Mapping[str, Sequence[Event]] | None = None,
        forget: Collection[str] = (),
    ) -> None:
        """Show these from now on; ``events`` and ``forget`` go by process id."""


@dataclass(slots=True)
class _Known:
    """What is kept of one process between payloads, beside its windows. Times are event time but for ``heard_at``."""

    judge: Judge = field(default_factory=Judge)
    in_use: InUse = field(default_factory=InUse)
    alerting: AlertingState | None = None
    suspects: tuple[Suspect, ...] = ()
    unrelated: str = ""
    """Why no call is suspected, as a sentence."""
    found: tuple[Suspect, ...] = ()
    """What the process found of its own growth, ..."""
    found_at: float = float("-inf")
    """... and when."""
    looked: tuple[float, float] | None = None
    """From when to when it looked for that; it took memory itself meanwhile."""
    refreshed_at: float = float("-inf")
    """When suspects were last sought, ..."""
    told_at: float = float("-inf")
    """... and its alerts last told."""
    assessment: Assessment | None = None
    heard_at: float = float("-inf")
    """Wall time at which it was last heard of: its own clock may be wrong."""
    gone: bool = False

    def everyone(self, now: float) -> tuple[Suspect, ...]:
        """All suspects at ``now``."""
        return merged(self.suspects, self.found if now - self.found_at <= FOUND_SECONDS else ())

    def learn(self, events: Sequence[Event]) -> None:
        """Take what the process itself found of its growth."""
        for event in events:
            if event.name == names.EVENT_EVIDENCE and event.time >= self.found_at:
                finding = read_finding(event.attributes)
                self.found, self.found_at = suspects_of(finding), event.time
                self.looked = finding.looked(event.time)

    def refresh_due(self, memory: Window) -> bool:
        """Whether it is time to seek suspects."""
        now = memory.last_time
        since = self.judge.suspicious_since
        suspicious = 0.0 if since is None else now - since
        span = memory.span()
        pause = max(REFRESH_SECONDS, REFRESH_LEAST_SHARE * span, REFRESH_SHARE * suspicious)
        return now - self.refreshed_at >= min(pause, max(REFRESH_LONGEST_SECONDS, REFRESH_LONGEST_SHARE * span))


class Pipeline:
    """The analyzer's judgement of everything that comes in."""

    def __init__(
        self,
        table: SeriesTable,
        publisher: Publisher,
        stats: Stats,
        *,
        store: Store | None = None,
        outputs: Sequence[str] = (),
        on_change: Callable[[Sequence[AlertChange], bool], None] = lambda _changes, _stored: None,
        alerting: AlertingSettings | None = None,
        idle_seconds: float = 3600.0,
        max_known: int = 40_000,
        groups: Groups | None = None,
    ) -> None:
        """``on_change`` is told of changes of alerts, and whether the store has them in its outbox. ``groups`` is told
        which processes are told of together.

        ``max_known`` bounds the processes that are remembered, silent ones among them.
        """
        self._table = table
        self._publisher = publisher
        self._stats = stats
        self._store = store
        self._keeper = Keeper(store, outputs, stats)
        self._on_change = on_change
        self._alerting = alerting or AlertingSettings()
        self._idle_seconds = idle_seconds
        self._max_known = max_known
        self._known: dict[str, _Known] = {}
        self._fleet = FleetAlerting(self._alerting, groups)
        self._compared_at = float("-inf")
        self._maintained_at = float("-inf")
        self._dropped_before: dict[str, int] = {}
        self._faults_told = 0

    # --- the walk of a batch ---------------------------------------------------------------------------------

    def process(self, decoded: Sequence[Decoded], received_at: float) -> None:
        """Take one batch of decoded requests; ``received_at`` is wall time in seconds since the epoch."""
        turn = Turn()
        sampled: dict[str, ProcessSeries] = {}
        for one in decoded:
            self._stats.add(POINTS, one.accepted, outcome="accepted")
            if one.rejected:
                self._stats.add(POINTS, one.rejected, outcome="rejected")
            for payload in one.payloads:
                with self._contained("a payload"):
                    self._take(payload, received_at, turn, sampled)
        began = time.perf_counter()
        self._score(sampled)
        self._find_suspects(sampled)
        going_on: list[Alert] = []
        for process_id, series in sampled.items():
            with self._contained(f"process {process_id}"):
                going_on += self._conclude(process_id, series, turn)
        if sampled:
            self._stats.observe(SCORING, time.perf_counter() - began)
        forget = self._make_room(received_at, turn)
        with self._contained("comparing instances"):
            going_on += self._compare(received_at, turn)
        self._tell(turn, received_at, going_on, forget)

    def _take(self, payload: Payload, received_at: float, turn: Turn, sampled: dict[str, ProcessSeries]) -> None:
        series = self._table.of(payload.resource)
        if series is None:
            self._stats.add(DROPPED, len(payload.points) + len(payload.events), part="unidentified")
            return
        process_id = series.info.id
        # As of points: one from far ahead would hold its place in the bounded list for ever.
        events = [event for event in payload.events if event.time <= received_at + FUTURE_SECONDS]
        if len(events) < len(payload.events):
            self._stats.add(DROPPED, len(payload.events) - len(events), part="future events")
        known = self._known.get(process_id)
        if events:
            turn.events.setdefault(process_id, []).extend(events)
            if known is not None:
                known.learn(events)
        if known is None:
            if not payload.points:
                return
            known = self._known[process_id] = _Known()
        known.heard_at = received_at
        known.gone = False
        if not payload.points:
            return
        if _clock_was_put_back(series, payload, received_at):
            series = self._begin_anew(process_id, known, series, received_at, turn)
        turn.touched[process_id] = series
        if series.add(payload, received_at):
            sampled[process_id] = series

    def _score(self, sampled: Mapping[str, ProcessSeries]) -> None:
        everyone = [(self._known[process_id], series) for process_id, series in sampled.items()]
        try:
            score_known(everyone)
        except Exception:
            # One of them can't be scored: the others must not suffer for it.
            for one in everyone:
                with self._contained(f"scoring process {one[1].info.id}"):
                    score_known([one])

    def _find_suspects(self, sampled: Mapping[str, ProcessSeries]) -> None:
        due: list[tuple[_Known, ProcessSeries, ScoreResult, float]] = []
        for process_id, series in sampled.items():
            known, memory = self._known[process_id], series.memory
            result = known.judge.combined(series)
            if memory is None:
                continue
            if result is None or not result.sufficient or result.score < SUSPICIOUS:
                known.judge.suspicious_since = None
                if not known.judge.doubted:
                    known.suspects, known.unrelated = (), ""
                continue
            if known.judge.suspicious_since is None:
                known.judge.suspicious_since = memory.last_time
            if known.refresh_due(memory):
                due.append((known, series, result, memory.last_time))
        due.sort(key=lambda one: one[0].refreshed_at)
        for known, series, result, now in due[:MAX_ATTRIBUTIONS]:
            known.refreshed_at = now
            with self._contained(f"finding suspects of process {series.info.id}"):
                known.suspects, known.unrelated = attribute_series(
                    series, result.growth_rate, result.since, known.looked
                )

    def _conclude(self, process_id: str, series: ProcessSeries, turn: Turn) -> list[Alert]:
        """Judge one process; returns the alerts that go on and have new figures."""
        known = self._known[process_id]
        before = known.assessment
        findings = Findings(
            known.judge.combined(series), known.everyone(series.last_seen or 0.0), before.first_seen if before else None
        )
        assessment = assess(series, findings)
        if assessment is None:
            return []
        if known.unrelated and known.judge.suspicious_since is not None:
            assessment = replace(assessment, reasons=(*assessment.reasons, known.unrelated))
        decision = step(known.alerting, assessment, assessment.last_seen, self._alerting)
        known.alerting = decision.state
        known.assessment = decision.apply(assessment)
        known.judge.doubted = decision.verdict in DOUBTED
        turn.concluded[process_id] = (known.assessment, known.alerting)
        turn.changes += [_change(alert, assessment.last_seen, known.assessment) for alert in decision.changes]
        if known.refreshed_at != assessment.last_seen and assessment.last_seen - known.told_at < RETELL_SECONDS:
            return []
        known.told_at = assessment.last_seen
        changed = {alert.id for alert in decision.changes}
        return [alert for alert in active(known.alerting, known.assessment) if alert.id not in changed]

    def _compare(self, now: float, turn: Turn) -> tuple[Alert, ...]:
        """Compare the instances of each service; returns the alerts of groups that go on."""
        begun = any(change.alert.name == MEMORY_LEAK for change in turn.changes)
        if not begun and 0 <= now - self._compared_at < COMPARE_SECONDS:
            return ()
        self._compared_at = now
        changes = self._fleet.step([known.assessment for known in self._known.values() if known.assessment is not None])
        turn.changes += changes
        changed = {change.alert.id for change in changes}
        return tuple(alert for alert in self._fleet.active if alert.id not in changed)

    def _tell(self, turn: Turn, now: float, going_on: Sequence[Alert] = (), forget: Collection[str] = ()) -> None:
        """Keep what changed, then let the outputs and the readers know."""
        stored = self._keeper.keep(turn, now)
        self._keeper.forget(forget)
        if turn.changes:
            self._on_change(turn.changes, stored)
        if turn or going_on or forget:
            assessments = [assessment for assessment, _ in turn.concluded.values()]
            alerts = [*going_on, *(change.alert for change in turn.changes)]
            self._publisher.publish(assessments, alerts, events=turn.events, forget=forget)

    # --- processes that end ----------------------------------------------------------------------------------

    def _end(self, process_id: str, known: _Known, now: float, turn: Turn, reason: str) -> None:
        """End the alerts of a process and let go of what was found out about it."""
        if known.assessment is not None and known.alerting is not None:
            decision = step(known.alerting, known.assessment, now, self._alerting, gone=True)
            known.alerting = decision.state
            known.assessment = silenced(decision.apply(known.assessment), reason)
            turn.concluded[process_id] = (known.assessment, known.alerting)
            turn.changes += [_change(alert, now, known.assessment) for alert in decision.changes]
        known.judge, known.in_use = Judge(), InUse()
        known.suspects = known.found = ()
        known.unrelated = ""
        known.looked = None
        known.refreshed_at = known.told_at = float("-inf")

    def _begin_anew(
        self, process_id: str, known: _Known, series: ProcessSeries, now: float, turn: Turn
    ) -> ProcessSeries:
        self._end(process_id, known, now, turn, "its clock was put back, so that it is judged from the beginning")
        if known.alerting is not None:
            known.alerting = replace(known.alerting, evaluated_at=None, spacing=None)
        self._keeper.forget([process_id])
        return self._table.restore(series.info, {})

    def _end_silent(self, now: float, turn: Turn) -> None:
        lag = 0.0
        for process_id, known in self._known.items():
            if known.gone:
                continue
            if known.heard_at >= now - self._idle_seconds:
                if known.assessment is not None:
                    lag = max(lag, known.heard_at - known.assessment.last_seen)
                continue
            known.gone = True
            self._end(process_id, known, now, turn, "it has sent nothing for long and is taken for gone")
        # The table goes by event time, and a sender's clock may be slow.
        self._table.remove_idle_since(now - self._idle_seconds - lag)

    def _forget_old(self, now: float) -> list[str]:
        """Processes that have been silent for long; they are not remembered any more."""
        old = [key for key, known in self._known.items() if known.gone and known.heard_at < now - FORGET_SECONDS]
        for process_id in old:
            del self._known[process_id]
        return old

    def _make_room(self, now: float, turn: Turn) -> list[str]:
        """Past the bound those are ended and forgotten that were last heard of longest ago."""
        excess = len(self._known) - self._max_known
        if excess <= 0:
            return []
        # Some more, so that sorting isn't due at every batch.
        oldest = sorted(self._known, key=lambda key: self._known[key].heard_at)[: excess + self._max_known // 20]
        for process_id in oldest:
            known = self._known.pop(process_id)
            if not known.gone:
                self._end(process_id, known, now, turn, "it made room for others that were heard of later")
        self._stats.add(DROPPED, len(oldest), part="remembered processes")
        return oldest

    # --- time that passes without data -----------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """About once a second: processes that fell silent, housekeeping of the store. ``now`` is wall time."""
        if 0 <= now - self._maintained_at < MAINTENANCE_SECONDS:
            return
        self._maintained_at = now
        self._faults_told = 0
        turn = Turn()
        self._end_silent(now, turn)
        with self._contained("comparing instances"):
            self._compare(now, turn)
        self._count_dropped()
        self._tell(turn, now, forget=self._forget_old(now))
        if self._keeper.maintain(now):
            # More waits than one step does: go on at the next tick.
            self._maintained_at = float("-inf")

    def _count_dropped(self) -> None:
        """Bring the tables' own counts to the page of metrics."""
        totals = {
            "evicted processes": self._table.evicted,
            # A keeper that several share is counted by the one that has the store.
            "samples past the store's bounds": 0 if self._store is None else self._keeper.dropped_samples,
            "late points": sum(series.dropped.late for series in self._table),
            "future points": sum(series.dropped.future for series in self._table),
            "invalid points": sum(series.dropped.invalid for series in self._table),
            "overflowing points": sum(series.dropped.overflow for series in self._table),
        }
        for part, total in totals.items():
            more = total - self._dropped_before.get(part, 0)
            if more > 0:
                self._stats.add(DROPPED, more, part=part)
            self._dropped_before[part] = total

    @contextmanager
    def _contained(self, what: str) -> Iterator[None]:
        """A fault of ours costs one payload or process its turn, and no other."""
        try:
            yield
        except Exception:
            self._stats.add(WORKER_ERRORS)
            self._faults_told += 1
            if self._faults_told <= MAX_FAULTS_TOLD:
                _logger.exception("%s failed; the others go on", what)

    # --- after a restart -------------------------------------------------------------------------------------

    def restore(self, now: float) -> None:
        """Take up where the store left off: windows, states of alerts, judgements, events. ``now`` is wall time.

        Raises:
            StoreError: the store can't be read.
        """
        store = self._store
        if store is None:
            return
        time_to_return = min(RETURN_SECONDS, self._idle_seconds)
        assessments = store.load_assessments(now - FORGET_SECONDS)
        for assessment in assessments:
            known = self._known[assessment.process.id] = _Known()
            known.assessment = assessment
            known.suspects = tuple(one for one in assessment.suspects if one.kind not in OF_FINDINGS)
            known.found = tuple(one for one in assessment.suspects if one.kind in OF_FINDINGS)
            known.found_at = assessment.last_seen if known.found else float("-inf")
            known.heard_at = max(assessment.last_seen, now - self._idle_seconds + time_to_return)
        for process_id, text in store.load_alert_states(now - FORGET_SECONDS).items():
            try:
                state = AlertingState.from_dict(json.loads(text))
            except (ValueError, KeyError, TypeError):
                _logger.warning("the state of alerts of process %s can't be read and begins anew", process_id)
                continue
            if process_id in self._known:
                self._known[process_id].alerting = state
        for restored in store.restore(self._restore_from(now)):
            self._table.restore(restored.process, restored.samples)
            until = {key: times[-1] for key, (times, _) in restored.samples.items() if times}
            self._keeper.resume(restored.process.id, until)
        alerts = store.load_alerts()
        self._fleet.resume(alerts)
        self._publisher.publish(assessments, alerts, events=store.load_events())

    def _restore_from(self, now: float) -> float:
        """From which event time on samples are read back: the more a fleet sends, the shorter is its past."""
        known = [
            (one.assessment.last_seen, one.alerting.spacing)
            for one in self._known.values()
            if one.assessment is not None and one.alerting is not None
        ]
        # Not from now: the analyzer may have been down for longer than the span.
        newest = min(max((last_seen for last_seen, _ in known), default=now), now)
        spacings = [spacing or 60.0 for last_seen, spacing in known if last_seen >= newest - RESTORE_SECONDS]
        per_second = SERIES_OF_A_PROCESS * sum(1 / max(spacing, 0.1) for spacing in spacings)
        span = MAX_RESTORED_SAMPLES / per_second if per_second else RESTORE_SECONDS
        return max(newest - max(span, LEAST_RESTORE_SECONDS), now - RESTORE_SECONDS)


def score_known(everyone: Sequence[tuple[_Known, ProcessSeries]]) -> None:
    """Score what is due of processes."""
    score_all([(known.judge, series) for known, series in everyone])
    weigh_all([(known.in_use, known.judge, series) for known, series in everyone])


def _change(alert: Alert, at: float, assessment: Assessment) -> AlertChange:
    return AlertChange(change_id(alert, at), at, alert, assessment)


def _clock_was_put_back(series: ProcessSeries, payload: Payload, received_at: float) -> bool:
    """True if what is known lies well ahead of the present, and what comes now does not.

    Without it a process would stay unjudged until its clock has caught up: points that are older than known ones are
    refused.
    """
    memory = series.memory
    if memory is None or memory.last_time <= received_at + CLOCK_SECONDS:
        return False
    # Both that a sender whose clock is ahead repeats a request, and a point without a time, are something else.
    newest = max((point.time for point in payload.points if point.time == point.time), default=0.0)
    return 0 < newest <= received_at + CLOCK_SECONDS / 2
