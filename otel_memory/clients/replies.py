"""The analyzer's answers as typed values: the one place where JSON from outside is looked at.

Owns what a field must be. Text is made printable here, once, so that nobody downstream can forget to. Never asks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from otel_memory.clients.api_client import ClientError, Json
from otel_memory.humanize import printable


@dataclass(frozen=True, slots=True)
class Reach:
    """Seconds to the limit: estimate and interval; ``high`` is None where it may never be reached."""

    estimate: float
    low: float
    high: float | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """Who grows. ``growth`` is By/s, ``share`` and ``confidence`` 0-1."""

    kind: str
    name: str
    growth: float | None
    share: float | None
    confidence: float | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the process told."""

    name: str
    time: datetime
    body: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What the process found of its own growth: the sentence, and where it was allocated, who holds it, what it is."""

    summary: str | None
    sites: tuple[str, ...]
    holders: tuple[str, ...]
    types: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What could be done: what was measured, what to do, what is to be expected of it."""

    severity: str
    message: str
    recommendation: str
    effect: str
    link: str


@dataclass(frozen=True, slots=True)
class Process:
    """One process as the analyzer judges it. Sizes are bytes, rates By/s; None is "not known"."""

    id: str
    service: str
    version: str | None
    instance: str | None
    host: str | None
    pid: int | None
    runtime: str | None
    last_seen: datetime | None
    memory: float | None
    limit: float | None
    limit_kind: str | None
    verdict: str
    score: float | None
    growth: float | None
    reach: Reach | None
    leaking_since: datetime | None
    reasons: tuple[str, ...]
    suspects: tuple[Suspect, ...]
    events: tuple[Event, ...]
    breakdown: tuple[tuple[str, float], ...] = ()
    """Parts of the resident memory, the largest first."""
    findings: tuple[Finding, ...] = ()
    """Newest first."""
    suggestions: tuple[Suggestion, ...] = ()
    """Best first."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; ``at`` is when it came into its state."""

    id: str
    name: str
    severity: str
    state: str
    service: str
    host: str | None
    at: datetime
    summary: str
    silenced: bool


@dataclass(frozen=True, slots=True)
class Series:
    """A series for a chart; times ascend, a value of None is a gap."""

    times: tuple[datetime, ...]
    values: tuple[float | None, ...]


def read_process(document: Json) -> Process:
    """The process that an answer describes.

    Raises:
        ClientError: it is none.
    """
    fields = _Fields(document)
    pid = fields.number("pid")
    return Process(
        id=fields.need_text("id"),
        service=fields.need_text("service_name"),
        version=fields.text("service_version"),
        instance=fields.text("service_instance_id"),
        host=fields.text("host_name"),
        pid=None if pid is None else int(pid),
        runtime=fields.text("runtime"),
        last_seen=fields.moment("last_seen"),
        memory=fields.number("memory_bytes"),
        limit=fields.number("limit_bytes"),
        limit_kind=fields.text("limit_kind"),
        verdict=fields.need_text("verdict"),
        score=fields.number("leak_score"),
        growth=fields.number("growth_bytes_per_second"),
        reach=_reach(fields),
        leaking_since=fields.moment("leaking_since"),
        reasons=tuple(printable(_as_text(reason, "reasons")) for reason in fields.array("reasons")),
        suspects=tuple(_suspect(_Fields(suspect)) for suspect in fields.array("suspects")),
        events=tuple(_event(_Fields(event)) for event in fields.array("events")),
        breakdown=_breakdown(document),
        findings=tuple(_finding(_Fields(finding)) for finding in fields.array("evidence")),
        suggestions=tuple(_suggestion(_Fields(one)) for one in fields.array("suggestions")),
    )


def read_alert(document: Json) -> Alert:
    """The alert that an answer describes.

    Raises:
        ClientError: it is none.
    """
    fields = _Fields(document)
    labels = _Fields(fields.get("labels"))
    state = fields.need_text("state")
    at = {"firing": fields.moment("fired_at"), "resolved": fields.moment("ends_at")}.get(state)
    return Alert(
        id=fields.need_text("id"),
        name=fields.need_text("name"),
        severity=fields.need_text("severity"),
        state=state,
        service=labels.text("service_name") or fields.need_text("process"),
        host=labels.text("host_name"),
        at=at or _as_moment(fields.get("starts_at"), "starts_at"),
        summary=fields.need_text("summary"),
        silenced=bool(fields.array("silenced_by")),
    )


def read_series(document: Json) -> Series:
    """The series that an answer carries.

    Raises:
        ClientError: it carries none.
    """
    fields = _Fields(document)
    times = tuple(_as_moment(time, "times") for time in fields.array("times"))
    values = tuple(None if value is None else _as_number(value, "values") for value in fields.array("values"))
    if len(times) != len(values):
        raise _malformed("values", "not as many as times")
    return Series(times, values)


def _breakdown(document: Json) -> tuple[tuple[str, float], ...]:
    parts = document.get("breakdown")
    if not isinstance(parts, dict):
        return ()
    sizes = [(printable(str(part)), _as_number(size, "breakdown")) for part, size in parts.items()]
    return tuple(sorted(sizes, key=lambda one: -one[1]))


def _finding(fields: _Fields) -> Finding:
    def texts(name: str) -> tuple[str, ...]:
        return tuple(printable(_as_text(one, name)) for one in fields.array(name))

    return Finding(fields.text("summary"), texts("site"), texts("holder"), texts("type"), texts("note"))


def _suggestion(fields: _Fields) -> Suggestion:
    return Suggestion(
        severity=fields.need_text("severity"),
        message=fields.need_text("message"),
        recommendation=fields.need_text("recommendation"),
        effect=fields.text("expected_effect") or "",
        link=fields.text("link") or "",
    )


def _reach(fields: _Fields) -> Reach | None:
    document = fields.get("time_to_limit_seconds")
    if document is None:
        return None
    inner = _Fields(document)
    return Reach(inner.need_number("estimate"), inner.need_number("low"), inner.number("high"))


def _suspect(fields: _Fields) -> Suspect:
    return Suspect(
        kind=fields.need_text("kind"),
        name=fields.need_text("name"),
        growth=fields.number("growth_bytes_per_second"),
        share=fields.number("share"),
        confidence=fields.number("confidence"),
        evidence=fields.text("evidence") or "",
    )


def _event(fields: _Fields) -> Event:
    return Event(fields.need_text("name"), _as_moment(fields.get("time"), "time"), fields.text("body"))


class _Fields:
    """One JSON object; each way to read a field says which one is wrong."""

    def __init__(self, document: Any) -> None:
        if not isinstance(document, dict):
            raise _malformed("an object", "missing")
        self._document = document

    def get(self, name: str) -> Any:
        return self._document.get(name)

    def text(self, name: str) -> str | None:
        value = self.get(name)
        return None if value is None else printable(_as_text(value, name))

    def need_text(self, name: str) -> str:
        return printable(_as_text(self.get(name), name))

    def number(self, name: str) -> float | None:
        value = self.get(name)
        return None if value is None else _as_number(value, name)

    def need_number(self, name: str) -> float:
        return _as_number(self.get(name), name)

    def moment(self, name: str) -> datetime | None:
        value = self.get(name)
        return None if value is None else _as_moment(value, name)

    def array(self, name: str) -> list[Any]:
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _malformed(name, "no list")
        return value


def _as_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _malformed(name, "no text")
    return value


def _as_number(value: Any, name: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _malformed(name, "no number")


def _as_moment(value: Any, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_as_text(value, name))
        # Also a test that it can be told in any zone: years 1 and 9999 can't.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _malformed(name, "no time") from None


def _malformed(name: str, what: str) -> ClientError:
    return ClientError(
        f"the answer is not an analyzer's: {name} is {what}\n"
        "  mend: is the analyzer of the same version as this command?"
    )
