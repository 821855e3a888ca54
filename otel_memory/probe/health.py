"""The health check: use of the limit, growth, evictors, and whether the probe itself works.

Owns the four checks and their sentences: every status comes with a reason that names the figures it rests on, and
with what to do where something is to be done. Judges by ``status.py``; reads, never acts. Works without a probe: then
it says what it can't know. A check takes some 0.2 ms and doesn't wait for anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_memory.probe import status as judged
from otel_memory.probe import vitals
from otel_memory.probe.profiler import SnapshotFeature, running_feature, running_profiler
from otel_memory.probe.sources.limits import Pressure
from otel_memory.probe.status import Status
from otel_memory.probe.units import human_bytes, human_seconds
from otel_memory.probe.vitals import Vitals

__all__ = ["HealthCheck", "HealthReport", "MemoryHealthChecker", "health_check", "health_check_sync"]

BEATS_MISSED: Final = 3
LEAST_PATIENCE_SECONDS: Final = 2.0
"""A busy machine holds a beat up for that long without anything being wrong."""
USELESS_RUNS: Final = 3

_START: Final = (
    "Start the application with `opentelemetry-instrument`, or call `MemoryInstrumentor().instrument()` at its start."
)
_FIND: Final = "Find what grows: the suspects that the analyzer names, or the events `otel_memory.evidence`."


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check: how it is, why, and what to do."""

    name: str
    status: Status
    reasons: tuple[str, ...]
    recommendations: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    """The figures behind the reasons: bytes, bytes per second, shares; None is "not known"."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "status": self.status,
            "reasons": list(self.reasons),
            "recommendations": list(self.recommendations),
            **self.values,
        }


@dataclass(frozen=True, slots=True)
class HealthReport:
    """All checks. The status is the worst of those that could be made."""

    timestamp: float
    """Seconds since the epoch."""
    checks: tuple[HealthCheck, ...]

    @property
    def status(self) -> Status:
        return judged.worst(*(check.status for check in self.checks))

    @property
    def failed_checks(self) -> int:
        """How many are a warning or critical."""
        return len(self._named("warning", "critical"))

    def _named(self, *statuses: Status) -> list[str]:
        return [check.name for check in self.checks if check.status in statuses]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "status": self.status,
            "timestamp": self.timestamp,
            "checks": {check.name: check.to_dict() for check in self.checks},
            "failed_checks": self.failed_checks,
            "critical_issues": self._named("critical"),
            "unknown_checks": self._named("unknown"),
            "reasons": [reason for check in self.checks if check.status != "healthy" for reason in check.reasons],
            "recommendations": list(dict.fromkeys(each for check in self.checks for each in check.recommendations)),
        }


class MemoryHealthChecker:
    """Checks this process.

    ``growth_warning`` and ``growth_critical``: bytes per second above which growth is one (5 and 10 MB/s).

    Raises:
        ValueError: the two aren't above 0, the second above the first.
    """

    def __init__(
        self, *, growth_warning: float = judged.GROWTH_WARNING, growth_critical: float = judged.GROWTH_CRITICAL
    ) -> None:
        if not 0 < growth_warning < growth_critical:
            raise ValueError(
                f"growth_warning is {growth_warning!r} and growth_critical {growth_critical!r}; "
                "expected bytes per second above 0, the second above the first"
            )
        self._growth_warning = growth_warning
        self._growth_critical = growth_critical

    async def health_check(self) -> dict[str, Any]:
        """``health_check_sync`` for coroutines; it waits for nothing, so it runs where it is called."""
        return self.health_check_sync()

    def health_check_sync(self) -> dict[str, Any]:
        """``{"status", "timestamp", "checks", "failed_checks", "critical_issues", "unknown_checks", "reasons",
        "recommendations"}``; a check that could not be made is ``unknown`` and doesn't make the process ill."""
        return self.report().to_dict()

    def report(self) -> HealthReport:
        """All checks, made now."""
        reading = self._read()
        return HealthReport(
            reading.timestamp,
            (
                self.check_memory_usage(reading),
                self.check_memory_growth(reading),
                self.check_eviction_system(),
                self.check_tracker_status(),
            ),
        )

    @staticmethod
    def _read() -> Vitals:
        feature = running_feature()
        return (vitals.own_sources() if feature is None else feature.sources).read()

    def check_memory_usage(self, reading: Vitals | None = None) -> HealthCheck:
        """Memory in use against the limit that will really end the process, by the pressure levels."""
        reading = self._read() if reading is None else reading
        status = judged.of_pressure(reading.pressure)
        values = {
            "rss_bytes": reading.rss_bytes,
            "limit_bytes": reading.limit_bytes,
            "limit_kind": reading.limit_kind,
            "utilization": reading.utilization,
            "pressure": None if reading.pressure is None else reading.pressure.name.lower(),
        }
        used, limit, share = reading.used_bytes, reading.limit_bytes, reading.utilization
        if used is None or limit is None or share is None or reading.pressure is None:
            missing = "the memory in use" if used is None else "a limit"
            return HealthCheck("memory_usage", "unknown", (f"{missing.capitalize()} could not be read.",), (), values)
        what = "Virtual memory" if reading.limit_kind == "rlimit" else "Resident memory"
        reason = (
            f"{what} is {human_bytes(used)}, {share:.1%} of the limit of {human_bytes(limit)} ({reading.limit_kind}): "
            f"pressure is {reading.pressure.name.lower()}."
        )
        return HealthCheck("memory_usage", status, (reason,), _about_use(reading.pressure, limit - used), values)

    def check_memory_growth(self, reading: Vitals | None = None) -> HealthCheck:
        """Growth of the resident memory by robust regression over the last minutes, at least one."""
        name = "memory_growth"
        feature, profiler = running_feature(), running_profiler()
        trend = feature.trend if feature is not None else None if profiler is None else profiler.trend
        bounds = {"warning_bytes_per_second": self._growth_warning, "critical_bytes_per_second": self._growth_critical}
        if trend is None:
            reason = "Growth isn't known: one reading shows none, and nothing takes readings in this process."
            return HealthCheck(name, "unknown", (reason,), (_START,), {"growth_bytes_per_second": None, **bounds})
        growth = trend.growth()
        if growth is None:
            reason = f"Growth isn't known yet: it takes readings over {human_seconds(trend.seconds())}."
            return HealthCheck(name, "unknown", (reason,), (), {"growth_bytes_per_second": None, **bounds})
        status = judged.of_growth(growth.per_second, self._growth_warning, self._growth_critical)
        reading = self._read() if reading is None else reading
        left = (
            None
            if reading.limit_bytes is None or reading.used_bytes is None or growth.per_second <= 0
            else max(0.0, (reading.limit_bytes - reading.used_bytes) / growth.per_second)
        )
        change = "grows" if growth.per_second >= 0 else "shrinks"
        reason = (
            f"Resident memory {change} by {human_bytes(abs(growth.per_second))}/s, measured over "
            f"{human_seconds(growth.span_seconds)}; more than {human_bytes(self._growth_warning)}/s is a warning, more "
            f"than {human_bytes(self._growth_critical)}/s critical."
        )
        advice: tuple[str, ...] = ()
        if status != "healthy":
            advice = (_FIND,)
            if left is not None:
                reason += f" If it went on like this, the limit would be reached in {human_seconds(left)}."
        values = {
            "growth_bytes_per_second": growth.per_second,
            "span_seconds": growth.span_seconds,
            "time_to_limit_seconds": left,
            **bounds,
        }
        return HealthCheck(name, status, (reason,), advice, values)

    def check_eviction_system(self) -> HealthCheck:
        """Whether evictors are registered, and what they have freed, as measured."""
        found = vitals.evictions()
        average = found.freed_bytes / found.count if found.count else None
        values = {
            "registered_evictors": found.registered,
            "eviction_count": found.count,
            "freed_bytes": found.freed_bytes,
            "average_freed_bytes": average,
            "failed_evictions": found.troubled,
        }
        name = "eviction_system"
        if not found.registered and not found.count:
            reason = "No evictors are registered, so there is nothing that could give memory back on request."
            return HealthCheck(name, "healthy", (reason,), (), values)
        has_run = (
            f"; {found.count} calls have freed {human_bytes(found.freed_bytes)} as measured" if found.count else ""
        )
        reasons = [f"Evictors registered: {found.registered}{has_run or '; none has been called yet'}."]
        status: Status = "healthy"
        advice: list[str] = []
        if found.troubled:
            status = "caution"
            reasons.append(f"Of these calls {found.troubled} raised or took too long.")
            advice.append("Look at the events `otel_memory.eviction`: they name each evictor and what it raised.")
        if found.count >= USELESS_RUNS and not found.freed_bytes:
            status = "caution"
            reasons.append(f"None of {found.count} calls freed anything measurable.")
            advice.append("Register what really holds memory (`register_evictor`), and take back what doesn't.")
        return HealthCheck(name, status, tuple(reasons), tuple(advice), values)

    def check_tracker_status(self) -> HealthCheck:
        """Whether readings are taken, and whether parts of the probe have failed or dropped something lately."""
        feature, profiler = running_feature(), running_profiler()
        if feature is not None:
            return _check_sampler(feature)
        values = {"probe_running": False, "profiling_active": profiler is not None}
        if profiler is None:
            reason = "No probe runs in this process: this is one reading, and nothing watches between two of them."
            return HealthCheck("tracker_status", "unknown", (reason,), (_START,), values)
        reason = f"No probe runs in this process; a profiler takes a snapshot every {profiler.interval_seconds:g} s."
        if not profiler.failed:
            return HealthCheck("tracker_status", "healthy", (reason,), (), values)
        reasons = (reason, f"{profiler.failed} of its beats have failed.")
        return HealthCheck("tracker_status", "caution", reasons, (_START,), values)


def _about_use(pressure: Pressure, left_bytes: int) -> tuple[str, ...]:
    if pressure is Pressure.LOW:
        return ()
    if pressure is Pressure.MEDIUM:
        return ("Watch the growth; nothing has to be done as long as there is none.",)
    relief = "Free memory with `cleanup()`, or `evict()` where evictors are registered"
    if pressure is Pressure.HIGH:
        return (f"{relief}; if the use is what the work needs, raise the limit.",)
    return (
        f"{relief}, now: {human_bytes(max(0, left_bytes))} are left until the process is ended.",
        "Raise the limit, or give this process less to do at a time.",
    )


def _check_sampler(feature: SnapshotFeature) -> HealthCheck:
    interval = feature.interval_seconds
    patience = max(BEATS_MISSED * interval, LEAST_PATIENCE_SECONDS)
    beat_at = feature.beat_at
    age = time.monotonic() - (feature.began if beat_at is None else beat_at)
    over, failures, drops = feature.recent_troubles()
    values: dict[str, Any] = {
        "probe_running": True,
        "profiling_active": feature.profiler is not None,
        "interval_seconds": interval,
        "last_beat_seconds_ago": None if beat_at is None else age,
        "recent_seconds": over,
        "recent_failures": failures,
        "recent_drops": drops,
    }
    status: Status = "healthy"
    advice: list[str] = []
    if age > patience:
        status = "warning"
        last = f"The sampler's last beat was {age:.1f} s ago" if beat_at is not None else "The sampler has not begun"
        reasons = [f"{last}, though it beats every {interval:g} s: the figures are old."]
        advice.append(
            "See what keeps the interpreter busy: a native call that holds the GIL, or a machine without processor "
            "time. After a fork by hand, call `MemoryInstrumentor().instrument()` in the child."
        )
    else:
        reasons = [f"The sampler beats every {interval:g} s" + (f", last {age:.1f} s ago." if beat_at else ".")]
    for troubles, what in ((failures, "failed"), (drops, "dropped something")):
        if troubles:
            status = judged.worst(status, "caution")
            parts = ", ".join(f"{part} ({count})" for part, count in sorted(troubles.items()))
            reasons.append(f"In the last {human_seconds(over)} these parts of the probe have {what}: {parts}.")
    if failures:
        advice.append("The log of `otel_memory.probe` says what went wrong, each part once in ten minutes.")
    return HealthCheck("tracker_status", status, tuple(reasons), tuple(advice), values)


_checker: Final = MemoryHealthChecker()


def health_check_sync() -> dict[str, Any]:
    """``MemoryHealthChecker().health_check_sync()``."""
    return _checker.health_check_sync()


async def health_check() -> dict[str, Any]:
    """``MemoryHealthChecker().health_check()``."""
    return _checker.health_check_sync()
