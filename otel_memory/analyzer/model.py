"""The nouns of the analyzer: what flows between its rooms. Frozen, without behaviour beyond small derivations.

Times are event time in seconds since the epoch (float), sizes bytes, rates bytes per second. ``None`` is
"absent", never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NamedTuple

AttributeValue = str | bool | int | float | tuple[str, ...] | tuple[int | float, ...]
AttributeSet = tuple[tuple[str, AttributeValue], ...]
"""Attributes of a point: sorted by key, hashable."""

PointKind = Literal["gauge", "sum", "delta"]
"""``gauge``: a level (also a non-monotonic cumulative sum). ``sum``: a monotonic cumulative count, which may
reset. ``delta``: an increment since ``start``."""


class Point(NamedTuple):
    """One number of one series. Of a histogram ``value`` is the count and ``total`` the sum of what was recorded."""

    metric: str
    attributes: AttributeSet
    time: float
    start: float | None
    value: float
    kind: PointKind
    total: float | None = None


class Event(NamedTuple):
    """One log record that carries an event name."""

    name: str
    time: float
    severity_number: int
    attributes: Mapping[str, AttributeValue]
    body: str | None


class Payload(NamedTuple):
    """What one resource sent in one request."""

    resource: Mapping[str, AttributeValue]
    points: Sequence[Point]
    events: Sequence[Event]


class Decoded(NamedTuple):
    """One decoded request. ``accepted`` counts points and records taken or skipped on purpose (a metric that
    the analyzer has no use for is accepted); ``rejected`` counts those that were malformed, ``error`` says why."""

    payloads: Sequence[Payload]
    accepted: int
    rejected: int
    error: str


class Verdict(StrEnum):
    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    WATCH = "watch"
    LEAKING = "leaking"


DOUBTED: Final = frozenset({Verdict.WATCH, Verdict.LEAKING})


class Trend(StrEnum):
    INCREASING = "increasing"
    DECREASING = "decreasing"
    STABLE = "stable"


class AlertState(StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class TimeToLimit:
    """Seconds to the limit: the estimate and an 80 % interval. ``high`` is None where it may never be reached."""

    estimate: float
    low: float
    high: float | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """Who grows. ``share`` (0-1) of the process's growth that it explains; ``confidence`` 0-1; ``evidence`` is a
    sentence with the figures."""

    kind: Literal["operation", "route", "package", "type", "site"]
    name: str
    growth_bytes_per_second: float
    share: float
    confidence: float
    evidence: str


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """Who a process is. ``id`` is 16 hex digits made from the identifying resource attributes alone."""

    id: str
    service_name: str
    service_version: str | None = None
    service_instance_id: str | None = None
    host_name: str | None = None
    pid: int | None = None
    runtime: str | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """The judgement of one process at one moment of event time. The REST form of it is CONTRACT's "process"."""

    process: ProcessInfo
    first_seen: float
    last_seen: float
    memory_bytes: int | None
    limit_bytes: int | None
    limit_kind: str | None
    verdict: Verdict
    leak_score: float | None
    trend: Trend
    growth_bytes_per_second: float | None
    time_to_limit: TimeToLimit | None
    reasons: tuple[str, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    leaking_since: float | None = None
    breakdown: Mapping[str, int] | None = None
    """What the resident memory consists of: part -> bytes; None where the process does not tell."""

    @property
    def utilization(self) -> float | None:
        """Memory in use as a share of the limit."""
        if self.memory_bytes is None or not self.limit_bytes:
            return None
        return self.memory_bytes / self.limit_bytes


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``id`` is the same for the same cause (name and process); ``process`` is the process's id."""

    id: str
    name: str
    severity: Literal["warning", "critical"]
    state: AlertState
    process: str
    starts_at: float
    ends_at: float | None
    summary: str
    description: str
    suspects: tuple[Suspect, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    fired_at: float | None = None
    """When it began to fire; None while it is pending, and of one that ended without."""
