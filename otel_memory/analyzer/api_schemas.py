"""The REST forms: what CONTRACT calls a process, an alert, a series; with units, for the OpenAPI document.

Owns field names and descriptions. Bytes are integers, rates By/s, times RFC 3339 UTC, absent is null. Computes nothing
that isn't in the nouns.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from otel_memory import names
from otel_memory.analyzer.model import Alert, AlertState, Assessment, Event, Suspect, Trend, Verdict
from otel_memory.analyzer.roles import Role
from otel_memory.analyzer.suggestion_shapes import SHAPES
from otel_memory.analyzer.suggestions import Suggestion, suggest

UNITS: Final[dict[Role, str]] = {
    Role.MEMORY: "By",
    Role.FLOOR: "By",
    Role.LIMIT: "By",
    Role.HEAP: "By",
    Role.BLOCKS: "{block}",
    Role.GC_GEN2: "{collection}",
    Role.REQUESTS: "{request}",
    Role.OPERATION_CALLS: "{call}",
    Role.OPERATION_GROWTH: "By",
}
"""Unit (UCUM) of each series that is kept."""

_LAST: Final = 253_402_300_799.0

Time = Annotated[datetime, Field(description="RFC 3339, UTC.")]


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time in UTC; held between 1970 and 9999, which is all that the form can say."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST), UTC)


class Model(BaseModel):
    """Base of the REST forms."""

    model_config = ConfigDict(frozen=True)


class Problem(Model):
    """Why a request was not answered."""

    detail: str = Field(description="A sentence for people.")


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Problem, "description": "A token is needed."},
    422: {"model": Problem, "description": "A parameter is not valid; detail says which and why."},
}
"""Answers that every path of the interface may give."""


class TimeToLimitModel(Model):
    """Seconds until memory in use reaches the limit."""

    estimate: float = Field(description="Best estimate, s.")
    low: float = Field(description="Lower end of the 80 % interval, s.")
    high: float | None = Field(description="Upper end of the 80 % interval, s; null where it may never be reached.")


class SuspectModel(Model):
    """Who grows."""

    kind: Literal["operation", "route", "package", "type", "site"]
    name: str
    growth_bytes_per_second: float = Field(description="By/s.")
    share: float = Field(description="Share (0-1) of the process's growth that it explains.")
    confidence: float = Field(description="0-1.")
    evidence: str = Field(description="A sentence with the figures.")

    @classmethod
    def of(cls, suspect: Suspect) -> SuspectModel:
        """The REST form."""
        return cls(
            kind=suspect.kind,
            name=suspect.name,
            growth_bytes_per_second=suspect.growth_bytes_per_second,
            share=suspect.share,
            confidence=suspect.confidence,
            evidence=suspect.evidence,
        )


class ProcessModel(Model):
    """One process and its latest judgement."""

    id: str = Field(description="16 hex digits, from the identifying resource attributes.")
    service_name: str
    service_version: str | None
    service_instance_id: str | None
    host_name: str | None
    pid: int | None
    runtime: str | None
    first_seen: Time
    last_seen: Time
    memory_bytes: int | None = Field(description="Memory in use, By.")
    limit_bytes: int | None = Field(description="The limit that ends the process, By.")
    limit_kind: str | None = Field(description="What sets the limit.")
    utilization: float | None = Field(description="Memory in use as a share of the limit.")
    verdict: Verdict = Field(description="unknown while there is too little to judge.")
    leak_score: float | None = Field(description="0-1.")
    trend: Trend
    growth_bytes_per_second: float | None = Field(description="By/s.")
    time_to_limit_seconds: TimeToLimitModel | None
    leaking_since: datetime | None = Field(description="When the growth began. RFC 3339, UTC.")
    reasons: list[str] = Field(description="Sentences.")
    suspects: list[SuspectModel] = Field(description="Best first.")

    @classmethod
    def of(cls, assessment: Assessment) -> ProcessModel:
        """The REST form."""
        return cls(**_process_fields(assessment))


class EventModel(Model):
    """An event that the process sent."""

    name: str
    time: Time
    severity_number: int = Field(description="OpenTelemetry severity number, 1-24; 0 where none was given.")
    body: str | None
    attributes: dict[str, JsonValue]

    @classmethod
    def of(cls, event: Event) -> EventModel:
        """The REST form."""
        return cls(
            name=event.name,
            time=moment(event.time),
            severity_number=event.severity_number,
            body=event.body,
            attributes={k: list(v) if isinstance(v, tuple) else v for k, v in event.attributes.items()},
        )

    def finding(self) -> dict[str, JsonValue]:
        """What an event says was found: its sentence, its time, and its attributes by the last words of their names."""
        prefix = f"{names.EVENT_EVIDENCE}."
        found = {
            k.removeprefix(prefix).replace(".", "_"): v for k, v in self.attributes.items() if k.startswith(prefix)
        }
        return {"time": self.model_dump(mode="json")["time"], "summary": self.body, **found}


class SuggestionModel(Model):
    """What could be done, tied to what was measured."""

    shape: str = Field(description="The known shape of growth that it is; a heading of docs/suggestions.md.")
    severity: Literal["high", "medium", "low"]
    service_name: str
    processes: list[str] = Field(description="Ids of the processes that it holds for, the gravest first.")
    subject: str = Field(description="What grows, or what it is about.")
    message: str = Field(description="What was measured, a sentence.")
    recommendation: str = Field(description="What to do.")
    expected_effect: str = Field(description="What is to be expected of it.")
    growth_bytes_per_second: float | None = Field(
        description="The growth that it is about, of all its processes together, By/s; null where that is not known."
    )
    confidence: float = Field(description="0-1.")
    check: str = Field(description="How a person makes sure that it is this.")
    example: str = Field(description="Mended code; empty where there is none to show.")
    link: str = Field(description="Where the guide tells more.")

    @classmethod
    def of(cls, suggestion: Suggestion) -> SuggestionModel:
        """The REST form."""
        return cls(
            shape=suggestion.shape,
            severity=suggestion.severity,
            service_name=suggestion.service_name,
            processes=list(suggestion.processes),
            subject=suggestion.subject,
            message=suggestion.message,
            recommendation=suggestion.recommendation,
            expected_effect=suggestion.effect,
            growth_bytes_per_second=suggestion.growth_bytes_per_second,
            confidence=suggestion.confidence,
            check=SHAPES[suggestion.shape].check,
            example=SHAPES[suggestion.shape].example,
            link=suggestion.link,
        )


class ProcessDetail(ProcessModel):
    """One process with what is known beyond its judgement."""

    breakdown: dict[str, int] | None = Field(description="What RSS consists of, By; null where it is not known.")
    evidence: list[dict[str, JsonValue]] = Field(
        description="What the process found of its own growth, newest first: sites, types, who holds them."
    )
    suggestions: list[SuggestionModel] = Field(description="What could be done, best first.")
    events: list[EventModel] = Field(description="The newest events of the process, newest first.")

    @classmethod
    def build(cls, assessment: Assessment, events: list[Event]) -> ProcessDetail:
        """The REST form."""
        return cls(
            **_process_fields(assessment),
            breakdown=None if assessment.breakdown is None else dict(assessment.breakdown),
            evidence=[EventModel.of(event).finding() for event in events if event.name == names.EVENT_EVIDENCE],
            suggestions=[SuggestionModel.of(one) for one in suggest(assessment, events)],
            events=[EventModel.of(event) for event in events],
        )


class ProcessPage(Model):
    """Some of the processes."""

    items: list[ProcessModel]
    next: str | None = Field(description="Cursor of the following page; null at the end.")


class LeakList(Model):
    """Processes by leak score."""

    threshold: float
    items: list[ProcessModel] = Field(description="Worst first.")


class AlertModel(Model):
    """One alert."""

    id: str = Field(description="The same for the same cause.")
    name: str
    severity: Literal["warning", "critical"]
    state: AlertState
    process: str = Field(description="Id of the process.")
    starts_at: Time
    ends_at: datetime | None = Field(description="RFC 3339, UTC; null while it is not resolved.")
    fired_at: datetime | None = Field(
        None, description="When it began to fire. RFC 3339, UTC; null while it is pending, or where it never did."
    )
    summary: str
    description: str
    suspects: list[SuspectModel] = Field(description="Best first.")
    labels: dict[str, str]
    annotations: dict[str, str]
    silenced_by: list[str] = Field(
        default_factory=list,
        description="Ids of the silences in force for it, and of the group's alert that tells of it: "
        "the outputs are not told.",
    )

    @classmethod
    def of(cls, alert: Alert, silenced_by: Sequence[str] = ()) -> AlertModel:
        """The REST form."""
        return cls(
            id=alert.id,
            name=alert.name,
            severity=alert.severity,
            state=alert.state,
            process=alert.process,
            starts_at=moment(alert.starts_at),
            ends_at=None if alert.ends_at is None else moment(alert.ends_at),
            fired_at=None if alert.fired_at is None else moment(alert.fired_at),
            summary=alert.summary,
            description=alert.description,
            suspects=[SuspectModel.of(suspect) for suspect in alert.suspects],
            labels=dict(alert.labels),
            annotations=dict(alert.annotations),
            silenced_by=list(silenced_by),
        )


class AlertList(Model):
    """Alerts: firing, then pending, then resolved; within a state the youngest first."""

    items: list[AlertModel]


class SeriesModel(Model):
    """A series for a chart, thinned so that the lowest and highest value of each stretch are kept."""

    metric: str
    unit: str = Field(description="UCUM.")
    times: list[datetime] = Field(description="RFC 3339, UTC, ascending.")
    values: list[float | None] = Field(description="In the unit; null marks a gap.")


class OutputModel(Model):
    """How an output of alerts fares."""

    name: str
    delivered: int
    failed: int = Field(description="Tries that failed.")
    abandoned: int = Field(description="Changes given up.")
    pending: int = Field(description="Changes that wait.")
    held: int = Field(description="Changes that wait for a silence to end.")
    last_delivered: datetime | None = Field(description="RFC 3339, UTC.")
    last_error: str | None
    busy_since: datetime | None = Field(description="When the delivery now under way began. RFC 3339, UTC.")
    failing_since: datetime | None = Field(
        description="When the first of the tries failed that have all failed since. RFC 3339, UTC."
    )


class HealthModel(Model):
    """The analyzer's own health."""

    status: Literal["ok", "degraded"]
    problems: dict[str, str] = Field(description="What is wrong, by part; empty where nothing is.")
    started_at: Time
    requests: int = Field(description="Requests at the receivers.")
    points_accepted: int
    points_skipped: int = Field(description="Accepted, but the analyzer has no use for them.")
    points_rejected: int
    dropped: int = Field(description="Items dropped because a bound was reached.")
    queue_depth: int
    store_errors: int
    subscribers: int = Field(description="Open event streams.")
    outputs: list[OutputModel]


class VerdictCounts(Model):
    """Processes by verdict."""

    unknown: int
    healthy: int
    watch: int
    leaking: int


class AlertCounts(Model):
    """Alerts by state."""

    pending: int
    firing: int
    resolved: int


class SummaryModel(Model):
    """The fleet at a glance."""

    version: str
    processes: int
    verdicts: VerdictCounts
    alerts: AlertCounts
    memory_bytes: int = Field(description="Memory in use of all processes, By.")
    growth_bytes_per_second: float | None = Field(description="Growth of the leaking processes together, By/s.")
    time_to_limit_seconds: float | None = Field(description="The soonest estimate of any process, s.")
    health: HealthModel


class Alive(Model):
    """The analyzer runs."""

    status: Literal["ok"] = "ok"


class Readiness(Model):
    """Whether the analyzer can do its work."""

    status: Literal["ready", "not ready"]
    problems: dict[str, str] = Field(description="What is missing, by part.")


def _process_fields(a: Assessment) -> dict[str, Any]:
    limit = a.time_to_limit
    return {
        "id": a.process.id,
        "service_name": a.process.service_name,
        "service_version": a.process.service_version,
        "service_instance_id": a.process.service_instance_id,
        "host_name": a.process.host_name,
        "pid": a.process.pid,
        "runtime": a.process.runtime,
        "first_seen": moment(a.first_seen),
        "last_seen": moment(a.last_seen),
        "memory_bytes": a.memory_bytes,
        "limit_bytes": a.limit_bytes,
        "limit_kind": a.limit_kind,
        "utilization": a.utilization,
        "verdict": a.verdict,
        "leak_score": a.leak_score,
        "trend": a.trend,
        "growth_bytes_per_second": a.growth_bytes_per_second,
        "time_to_limit_seconds": limit and TimeToLimitModel(estimate=limit.estimate, low=limit.low, high=limit.high),
        "leaking_since": None if a.leaking_since is None else moment(a.leaking_since),
        "reasons": list(a.reasons),
        "suspects": [SuspectModel.of(suspect) for suspect in a.suspects],
    }
