"""From scores to a verdict, and from verdicts to alerts.

Owns persistence and hysteresis: one score decides nothing. Pure: a state, an assessment and the event time in, a new
state and the changes out; so replayed input gives the same changes, and input that was seen before gives none. The
words of an alert are in ``alert_texts``, what is kept over a restart is ``AlertingState.to_dict``.

The verdict. *unknown* while the score is None; *watch* when the score stayed at ``watch_score`` or above; *leaking*
when it stayed at ``leak_score`` and the process is no longer young; *healthy* again only when it stayed under
``healthy_score`` (or under ``watch_score`` and memory grows no more), or, three times as long, under ``watch_score``: a
doubt that never grows must end some day. "Stayed" is a number of evaluations and a
time, and the time is the longer of seconds and spacings of samples, so that a sender with a sample a minute needs as
many of them as one with a sample a second. Scores between two marks neither count nor undo.

An alert. It begins *pending*, is *firing* after ``for_seconds``, and ends *resolved* when its condition is over or the
process is gone. An episode that begins within ``cooldown_seconds`` after the last one ended waits for the rest of
them, so that flapping can't send more than one alert in that time. Its id is made of its name and the process alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal, NamedTuple

from otel_memory.analyzer import alert_texts
from otel_memory.analyzer.identity import digest
from otel_memory.analyzer.model import Alert, AlertState, Assessment, Trend, Verdict

MEMORY_LEAK: Final = "memory_leak"
MEMORY_LIMIT_NEAR: Final = "memory_limit_near"
_FORM: Final = 1
"""Of the dict that a state is kept in."""
_SPACING_WEIGHT: Final = 0.25

Severity = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True)
class AlertingSettings:
    """When a verdict changes and when an alert begins and ends. Scores are 0-1, times in seconds."""

    watch_score: float = 0.5
    leak_score: float = 0.8
    healthy_score: float = 0.35
    watch_evaluations: int = 3
    leak_evaluations: int = 5
    leak_seconds: float = 8.0
    leak_share: float = 1 / 6
    """Share of the time that the process was seen (at most ``leak_samples`` samples of it) that a leak must hold."""
    leak_samples: int = 256
    leak_urgency: float = 0.1
    """Share of the time to the limit that holding on may take at most."""
    young_seconds: float = 75.0
    """What is seen for the first time is not called leaking for so long: it warms up, and its caches fill; ..."""
    young_urgency: float = 1 / 20
    """... but not for longer than this share of the time to the limit, ..."""
    young_least_seconds: float = 53.0
    """... nor for less than so long."""
    healthy_evaluations: int = 10
    healthy_seconds: float = 30.0
    unknown_seconds: float = 60.0
    """How long a score may be missing (after a restart of the process) before what was known is forgotten."""
    for_seconds: float = 10.0
    """How long an alert is pending before it fires."""
    cooldown_seconds: float = 300.0
    near_utilization: float = 0.9
    near_seconds: float = 900.0
    near_least_utilization: float = 0.5
    """The limit is near if a leak reaches it sooner than this, and at least so much of it is in use: a forecast from
    further away is too young to wake anybody beside the leak's own alert."""
    clear_utilization: float = 0.85
    clear_seconds: float = 1200.0
    near_evaluations: int = 2
    critical_seconds: float = 3600.0
    """A leak that reaches the limit sooner than this is critical."""

    def __post_init__(self) -> None:
        if not 0 < self.healthy_score < self.watch_score < self.leak_score <= 1:
            raise ValueError("scores must rise: 0 < healthy_score < watch_score < leak_score <= 1")
        if not 0 < self.clear_utilization <= self.near_utilization <= 1:
            raise ValueError("0 < clear_utilization <= near_utilization <= 1 must hold")
        if self.clear_seconds < self.near_seconds:
            raise ValueError("clear_seconds must not be less than near_seconds")
        for one in fields(self):
            value = getattr(self, one.name)
            if value < 0 or (one.name.endswith("_evaluations") and value < 1):
                raise ValueError(f"{one.name} is too small: {value}")


@dataclass(frozen=True, slots=True)
class Held:
    """How often and since when something has been seen without its contrary in between."""

    count: int = 0
    since: float = 0.0

    def seen(self, now: float) -> Held:
        return Held(self.count + 1, self.since if self.count else now)

    def lasts(self, now: float, evaluations: int, seconds: float) -> bool:
        return self.count >= evaluations and now - self.since >= seconds


_NOT_HELD: Final = Held()


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert from its beginning to its end; ``ended_at`` is None while it goes on."""

    starts_at: float
    state: AlertState
    severity: Severity
    ended_at: float | None = None
    fired_at: float | None = None

    @property
    def active(self) -> bool:
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class AlertingState:
    """What is remembered of one process between evaluations."""

    verdict: Verdict = Verdict.UNKNOWN
    evaluated_at: float | None = None
    """Event time of the youngest sample that was judged: the same one never counts twice."""
    spacing: float | None = None
    """Usual time between evaluations (s)."""
    scored_at: float | None = None
    watching: Held = _NOT_HELD
    leaking: Held = _NOT_HELD
    healthy: Held = _NOT_HELD
    calm: Held = _NOT_HELD
    near: Held = _NOT_HELD
    clear: Held = _NOT_HELD
    leak_alert: Episode | None = None
    near_alert: Episode | None = None

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON can hold it."""
        return {"form": _FORM, **asdict(self)}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> AlertingState:
        """The state that ``to_dict`` gave.

        Raises:
            ValueError: it is of a form that is not known here, or has a value that can't be.
            KeyError: it lacks something.
            TypeError: it has a field too many.
        """
        if kept["form"] != _FORM:
            raise ValueError(f"a state of alerts of form {kept['form']!r} is not known, only {_FORM}")
        values = {name: value for name, value in kept.items() if name != "form"}
        values["verdict"] = Verdict(values["verdict"])
        for name in ("watching", "leaking", "healthy", "calm", "near", "clear"):
            values[name] = Held(**values[name])
        for name in ("leak_alert", "near_alert"):
            episode = values[name]
            if episode is not None:
                # Earlier versions did not keep when it fired.
                fired = episode["starts_at"] if episode["state"] == AlertState.FIRING else None
                values[name] = Episode(**{"fired_at": fired, **episode, "state": AlertState(episode["state"])})
        return cls(**values)


class Step(NamedTuple):
    """What one evaluation gave: the state to go on with, the verdict, and the alerts that changed."""

    state: AlertingState
    verdict: Verdict
    changes: tuple[Alert, ...]

    def apply(self, assessment: Assessment) -> Assessment:
        """The assessment with the verdict in it, and without what only a suspicion gives sense to."""
        if self.verdict in {Verdict.LEAKING, Verdict.WATCH}:
            return replace(assessment, verdict=self.verdict)
        return replace(assessment, verdict=self.verdict, time_to_limit=None, suspects=(), leaking_since=None)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One alert: its condition now, and what ends it."""

    name: str
    wanted: bool
    over: bool
    severity: Severity
    changes: list[Alert] = field(default_factory=list)


_DEFAULTS: Final = AlertingSettings()


def alert_id(name: str, process_id: str) -> str:
    """16 hex digits: the same for the same cause, whenever and wherever it is judged."""
    return digest(name, process_id)


def step(
    state: AlertingState | None,
    assessment: Assessment,
    now: float,
    settings: AlertingSettings = _DEFAULTS,
    *,
    gone: bool = False,
) -> Step:
    """One evaluation at event time ``now`` (s).

    An assessment whose ``last_seen`` was judged before counts for nothing but the passing of time. ``gone`` says that
    the process will send no more: what was alerted of it ends.
    """
    before = state or AlertingState()
    if gone:
        return _end_all(before, assessment, now, settings)
    fresh = before.evaluated_at is None or assessment.last_seen > before.evaluated_at
    after = _evaluated(before, assessment, now, settings) if fresh else before
    changes: list[Alert] = []
    leak = _advance(
        before.leak_alert,
        _Rule(
            MEMORY_LEAK,
            wanted=after.verdict is Verdict.LEAKING,
            over=after.verdict in {Verdict.HEALTHY, Verdict.UNKNOWN},
            severity=_leak_severity(assessment, settings),
            changes=changes,
        ),
        assessment,
        now,
        settings,
    )
    near = _advance(
        before.near_alert,
        _Rule(
            MEMORY_LIMIT_NEAR,
            wanted=after.near.lasts(now, settings.near_evaluations, 0.0),
            over=after.clear.lasts(now, settings.healthy_evaluations, _seconds(after, settings.healthy_seconds, 0)),
            severity="critical",
            changes=changes,
        ),
        assessment,
        now,
        settings,
    )
    return Step(replace(after, leak_alert=leak, near_alert=near), after.verdict, tuple(changes))


def active(state: AlertingState | None, assessment: Assessment) -> tuple[Alert, ...]:
    """The alerts that are pending or firing, with the figures of this assessment. Not changes: nothing is new."""
    if state is None:
        return ()
    named = ((MEMORY_LEAK, state.leak_alert), (MEMORY_LIMIT_NEAR, state.near_alert))
    return tuple(_alert(name, episode, assessment) for name, episode in named if episode is not None and episode.active)


def _evaluated(state: AlertingState, assessment: Assessment, now: float, settings: AlertingSettings) -> AlertingState:
    """The state after one new sample, alerts aside."""
    spacing = state.spacing
    if state.evaluated_at is not None:
        gap = assessment.last_seen - state.evaluated_at
        # A gap in the data is no new spacing.
        spacing = gap if spacing is None else spacing + _SPACING_WEIGHT * (min(gap, 4 * spacing) - spacing)
    state = replace(state, evaluated_at=assessment.last_seen, spacing=spacing)
    return _near(_judged(state, assessment, now, settings), assessment, now, settings)


def _judged(state: AlertingState, assessment: Assessment, now: float, settings: AlertingSettings) -> AlertingState:
    score = assessment.leak_score
    if score is None:
        known = state.scored_at is not None and now - state.scored_at < _seconds(state, settings.unknown_seconds, 5)
        if known:
            return state
        return AlertingState(
            evaluated_at=state.evaluated_at,
            spacing=state.spacing,
            near=state.near,
            clear=state.clear,
            leak_alert=state.leak_alert,
            near_alert=state.near_alert,
        )
    high, doubtful, low = score >= settings.leak_score, score >= settings.watch_score, score < settings.healthy_score
    # What has stopped to grow needn't be free of all doubt as well.
    low = low or not (doubtful or assessment.trend is Trend.INCREASING)
    state = replace(
        state,
        scored_at=now,
        watching=state.watching.seen(now) if doubtful else _NOT_HELD if low else state.watching,
        leaking=state.leaking.seen(now) if high else state.leaking if doubtful else _NOT_HELD,
        healthy=state.healthy.seen(now) if low else _NOT_HELD if doubtful else state.healthy,
        calm=_NOT_HELD if doubtful else state.calm.seen(now),
    )
    verdict = _verdict(state, assessment, now, settings)
    if verdict is Verdict.HEALTHY and state.verdict is not Verdict.HEALTHY:
        # What was counted belongs to the doubt that has just ended.
        state = replace(state, watching=_NOT_HELD, leaking=_NOT_HELD)
    return replace(state, verdict=verdict)


def _verdict(state: AlertingState, assessment: Assessment, now: float, settings: AlertingSettings) -> Verdict:
    leak_seconds = max(
        _seconds(state, settings.leak_seconds, settings.leak_evaluations - 1),
        _persistence(state, assessment, settings),
    )
    begins = (assessment.leak_score or 0.0) >= settings.leak_score and not _young(assessment, settings)
    held = state.leaking.lasts(now, settings.leak_evaluations, leak_seconds)
    if held and (begins or state.verdict is Verdict.LEAKING):
        return Verdict.LEAKING
    if state.verdict in {Verdict.LEAKING, Verdict.WATCH}:
        count = settings.healthy_evaluations
        seconds = _seconds(state, settings.healthy_seconds, count - 1)
        over = state.healthy.lasts(now, count, seconds) or state.calm.lasts(now, 3 * count, 3 * seconds)
        return Verdict.HEALTHY if over else state.verdict
    if state.watching.lasts(now, settings.watch_evaluations, 0.0):
        return Verdict.WATCH
    # The first scores of a process may be high ones: until they have lasted, nothing is known.
    undecided = state.verdict is Verdict.UNKNOWN and state.calm.count == 0
    return Verdict.UNKNOWN if undecided else Verdict.HEALTHY


def _persistence(state: AlertingState, assessment: Assessment, settings: AlertingSettings) -> float:
    """Seconds that a leak must hold in proportion to what was seen: the longer the past, the more chances it gave to
    look like one for a moment. Holding for a sixth cut false alarms more than fivefold on labelled traces."""
    seen = assessment.last_seen - assessment.first_seen
    if state.spacing is not None:
        seen = min(seen, settings.leak_samples * state.spacing)
    hold = settings.leak_share * seen
    reaches = assessment.time_to_limit
    return hold if reaches is None else min(hold, settings.leak_urgency * reaches.estimate)


def _young(assessment: Assessment, settings: AlertingSettings) -> bool:
    """Whether it is too early to call what grows a leak, and there is time to wait."""
    seen, reaches = assessment.last_seen - assessment.first_seen, assessment.time_to_limit
    urgent = float("inf") if reaches is None else settings.young_urgency * reaches.estimate
    return seen < min(settings.young_seconds, max(settings.young_least_seconds, urgent))


def _near(state: AlertingState, assessment: Assessment, now: float, settings: AlertingSettings) -> AlertingState:
    """Whether the limit is near, in use or in time; in time only if the leak is sure."""
    used = assessment.utilization or 0.0
    reaches = assessment.time_to_limit
    seconds = reaches.estimate if reaches is not None and state.verdict is Verdict.LEAKING else float("inf")
    soon = seconds < settings.near_seconds and used >= settings.near_least_utilization
    if used >= settings.near_utilization or soon:
        return replace(state, near=state.near.seen(now), clear=_NOT_HELD)
    if used < settings.clear_utilization and seconds >= settings.clear_seconds:
        return replace(state, near=_NOT_HELD, clear=state.clear.seen(now))
    return state


def _seconds(state: AlertingState, seconds: float, spacings: int) -> float:
    """The longer of a time and a number of spacings; a little less than whole ones, as samples jitter."""
    return max(seconds, 0.9 * spacings * (state.spacing or 0.0))


def _advance(
    episode: Episode | None, rule: _Rule, assessment: Assessment, now: float, settings: AlertingSettings
) -> Episode | None:
    """The episode of one alert after this evaluation; what changed is added to ``rule.changes``."""
    ended_at = None if episode is None else episode.ended_at
    if episode is None or ended_at is not None:
        if not rule.wanted or (ended_at is not None and now < ended_at + settings.cooldown_seconds):
            return episode
        episode = Episode(now, AlertState.PENDING, rule.severity)
        rule.changes.append(_alert(rule.name, episode, assessment))
    elif rule.over:
        episode = replace(episode, state=AlertState.RESOLVED, ended_at=now)
        rule.changes.append(_alert(rule.name, episode, assessment))
        return episode
    if episode.state is AlertState.PENDING and rule.wanted and now - episode.starts_at >= settings.for_seconds:
        episode = replace(episode, state=AlertState.FIRING, severity=rule.severity, fired_at=now)
        rule.changes.append(_alert(rule.name, episode, assessment))
    return episode


def _end_all(state: AlertingState, assessment: Assessment, now: float, settings: AlertingSettings) -> Step:
    changes: list[Alert] = []
    ended: dict[str, Episode | None] = {}
    for name, key in ((MEMORY_LEAK, "leak_alert"), (MEMORY_LIMIT_NEAR, "near_alert")):
        episode: Episode | None = getattr(state, key)
        if episode is not None and episode.active:
            episode = replace(episode, state=AlertState.RESOLVED, ended_at=now)
            changes.append(_alert(name, episode, assessment, gone=True))
        ended[key] = episode
    after = AlertingState(evaluated_at=state.evaluated_at, spacing=state.spacing)
    after = replace(after, leak_alert=ended["leak_alert"], near_alert=ended["near_alert"])
    return Step(after, after.verdict, tuple(changes))


def _leak_severity(assessment: Assessment, settings: AlertingSettings) -> Severity:
    reaches = assessment.time_to_limit
    return "critical" if reaches is not None and reaches.estimate < settings.critical_seconds else "warning"


def _alert(name: str, episode: Episode, assessment: Assessment, *, gone: bool = False) -> Alert:
    write = alert_texts.leak if name == MEMORY_LEAK else alert_texts.limit_near
    summary, description = write(assessment, episode.state, gone=gone)
    return Alert(
        id=alert_id(name, assessment.process.id),
        name=name,
        severity=episode.severity,
        state=episode.state,
        process=assessment.process.id,
        starts_at=episode.starts_at,
        ends_at=episode.ended_at,
        summary=summary,
        description=description,
        suspects=assessment.suspects,
        labels=alert_texts.labels_of(name, episode.severity, assessment),
        annotations=alert_texts.annotations_of(summary, description, assessment),
        fired_at=episode.fired_at,
    )
