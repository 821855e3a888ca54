"""The health check: statuses, and reasons that a person can check."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from otel_memory import evict, names, register_evictor, unregister_evictor
from otel_memory.probe import health, vitals
from otel_memory.probe.config import Settings
from otel_memory.probe.health import HealthCheck, HealthReport, MemoryHealthChecker
from otel_memory.probe.lifecycle import Probe
from otel_memory.probe.profiler import MemoryProfiler, SnapshotFeature, Trend, running_feature
from otel_memory.probe.sources.limits import Pressure
from otel_memory.probe.vitals import Evictions, Vitals
from tests.harness import wait_until

MIB = 1024 * 1024
CHECKS = ["memory_usage", "memory_growth", "eviction_system", "tracker_status"]

READING = Vitals(
    timestamp=1.0,
    rss_bytes=700 * MIB,
    used_bytes=700 * MIB,
    limit_bytes=1000 * MIB,
    limit_kind="cgroup_v2",
    utilization=0.7,
    pressure=Pressure.LOW,
)


@pytest.fixture
def probe() -> Iterator[Probe]:
    probe = Probe(Settings.load({}, interval=100))
    probe.start()
    try:
        yield probe
    finally:
        probe.stop()


def feature() -> SnapshotFeature:
    found = running_feature()
    assert found is not None
    return found


def growing(trend: Trend, per_second: float) -> None:
    """Two minutes of it, after whatever the sampler has added."""
    trend.reset()
    for second in range(120):
        trend.add(1e9 + second, int(1e10 + per_second * second))


# --- use of the limit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pressure", "status"),
    [
        (Pressure.LOW, "healthy"),
        (Pressure.MEDIUM, "caution"),
        (Pressure.HIGH, "warning"),
        (Pressure.CRITICAL, "critical"),
    ],
)
def test_use_is_judged_by_the_pressure_levels(pressure: Pressure, status: str) -> None:
    check = MemoryHealthChecker().check_memory_usage(replace(READING, pressure=pressure))
    assert check.status == status
    assert check.reasons == (
        f"Resident memory is 700 MiB, 70.0% of the limit of 0.98 GiB (cgroup_v2): pressure is {pressure.name.lower()}.",
    )
    assert bool(check.recommendations) == (status != "healthy")
    if status == "critical":
        assert "300 MiB are left" in check.recommendations[0]


def test_a_limit_on_virtual_memory_is_called_that() -> None:
    check = MemoryHealthChecker().check_memory_usage(replace(READING, limit_kind="rlimit"))
    assert check.reasons[0].startswith("Virtual memory is 700 MiB")


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Vitals(1.0), "The memory in use could not be read."),
        (Vitals(1.0, rss_bytes=5, used_bytes=5), "A limit could not be read."),
    ],
)
def test_what_could_not_be_read_is_unknown_and_never_zero(reading: Vitals, reason: str) -> None:
    check = MemoryHealthChecker().check_memory_usage(reading)
    assert (check.status, check.reasons) == ("unknown", (reason,))
    assert check.values["utilization"] is None


def test_the_probes_configured_limit_and_levels_count() -> None:
    probe = Probe(Settings.load({"OTEL_PYTHON_MEMORY_LIMIT": "1MiB"}))
    probe.start()
    try:
        check = MemoryHealthChecker().check_memory_usage()
    finally:
        probe.stop()
    assert check.status == "critical"
    assert "of the limit of 1.00 MiB (configured)" in check.reasons[0]
    assert "0 B are left" in check.recommendations[0]


# --- growth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_second", "status"), [(-1e6, "healthy"), (4.9e6, "healthy"), (5.1e6, "warning"), (10.1e6, "critical")]
)
def test_growth_is_judged_by_its_bounds(probe: Probe, per_second: float, status: str) -> None:
    growing(feature().trend, per_second)
    check = MemoryHealthChecker().check_memory_growth(READING)
    assert check.status == status
    assert check.values["growth_bytes_per_second"] == pytest.approx(per_second, rel=0.01)
    assert check.reasons[0].startswith(f"Resident memory {'grows' if per_second > 0 else 'shrinks'} by ")
    assert ("If it went on like this" in check.reasons[0]) == (status != "healthy")
    if per_second > 0:
        assert check.values["time_to_limit_seconds"] == pytest.approx(300 * MIB / per_second, rel=0.01)


def test_a_jump_is_no_growth(probe: Probe) -> None:
    trend = feature().trend
    trend.reset()
    for second in range(120):
        trend.add(1e9 + second, 100 * MIB + (500 * MIB if second > 100 else 0))
    assert MemoryHealthChecker().check_memory_growth(READING).status == "healthy"


def test_bounds_of_ones_own(probe: Probe) -> None:
    growing(feature().trend, 100_000)
    checker = MemoryHealthChecker(growth_warning=10_000, growth_critical=50_000)
    assert checker.check_memory_growth(READING).status == "critical"


@pytest.mark.parametrize(("warning", "critical"), [(0, 1), (2, 1), (1, 1), (float("nan"), 1)])
def test_bounds_that_make_no_sense_are_refused(warning: float, critical: float) -> None:
    with pytest.raises(ValueError, match="growth_warning is"):
        MemoryHealthChecker(growth_warning=warning, growth_critical=critical)


def test_growth_is_not_known_in_the_first_minute(probe: Probe) -> None:
    check = MemoryHealthChecker().check_memory_growth()
    assert check.status == "unknown"
    assert check.reasons == ("Growth isn't known yet: it takes readings over 1 min.",)


# --- evictors ----------------------------------------------------------------------------------------------------


def test_no_evictor_is_no_illness() -> None:
    check = MemoryHealthChecker().check_eviction_system()
    assert check.status == "healthy"
    assert check.reasons[0].startswith("No evictors are registered") or check.values["eviction_count"]


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (Evictions(2), "healthy", "Evictors registered: 2; none has been called yet."),
        (Evictions(2, 3, 0, 6 * MIB), "healthy", "3 calls have freed 6.00 MiB as measured."),
        (Evictions(2, 3, 1, 6 * MIB), "caution", "Of these calls 1 raised or took too long."),
        (Evictions(2, 3, 0, 0), "caution", "None of 3 calls freed anything measurable."),
    ],
)
def test_evictors_are_judged_by_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, found: Evictions, status: str, says: str
) -> None:
    monkeypatch.setattr(vitals, "evictions", lambda: found)
    check = MemoryHealthChecker().check_eviction_system()
    assert check.status == status
    assert says in " ".join(check.reasons)
    assert check.values["average_freed_bytes"] == (found.freed_bytes / found.count if found.count else None)


def test_real_evictors_are_counted() -> None:
    hoard = [bytearray(4096) for _ in range(2000)]
    before = vitals.evictions()
    register_evictor("test_health.hoard", lambda: hoard.clear())
    try:
        assert vitals.evictions().registered == before.registered + 1
        evict()
    finally:
        unregister_evictor("test_health.hoard")
    after = vitals.evictions()
    assert after.count == before.count + 1
    assert after.freed_bytes > before.freed_bytes


# --- the probe itself --------------------------------------------------------------------------------------------


def test_without_a_probe_it_says_what_it_cannot_know() -> None:
    report = health.health_check_sync()
    assert list(report["checks"]) == CHECKS
    assert report["unknown_checks"] == ["memory_growth", "tracker_status"]
    assert report["checks"]["memory_usage"]["rss_bytes"] > MIB
    assert report["status"] == report["checks"]["memory_usage"]["status"], "what isn't known makes nobody ill"
    assert "No probe runs in this process" in " ".join(report["reasons"])
    assert len(report["recommendations"]) == len(set(report["recommendations"]))


def test_a_profiler_by_hand_is_something_that_watches() -> None:
    profiler = MemoryProfiler(0.1, 10)
    profiler.start_profiling_sync()
    try:
        check = MemoryHealthChecker().check_tracker_status()
        growth = MemoryHealthChecker().check_memory_growth()
    finally:
        profiler.stop_profiling()
    assert (check.status, check.values["probe_running"]) == ("healthy", False)
    assert growth.reasons == ("Growth isn't known yet: it takes readings over 1 min.",)


def test_a_running_sampler_is_healthy(probe: Probe) -> None:
    wait_until(lambda: feature().beat_at, timeout_seconds=20)
    check = MemoryHealthChecker().check_tracker_status()
    assert check.status == "healthy"
    assert check.reasons[0].startswith("The sampler beats every 0.1 s, last ")


def test_a_sampler_that_stands_still_is_a_warning(probe: Probe) -> None:
    wait_until(lambda: feature().beat_at, timeout_seconds=20)
    release = threading.Event()
    try:
        hang(feature(), release)
        wait_until(lambda: MemoryHealthChecker().check_tracker_status().status == "warning", timeout_seconds=30)
        check = MemoryHealthChecker().check_tracker_status()
        assert "though it beats every 0.1 s: the figures are old." in check.reasons[0]
        assert check.recommendations
    finally:
        release.set()


def hang(feature: SnapshotFeature, release: threading.Event) -> None:
    """Let its next beat wait."""
    original: Callable[..., Any] = feature.ledger.guard

    def waiting(part: str, action: Callable[[], object]) -> bool:
        release.wait(60)
        return original(part, action)

    feature.ledger.guard = waiting  # type: ignore[method-assign]


def test_failures_of_late_are_a_caution_with_their_parts_named(probe: Probe) -> None:
    wait_until(lambda: feature().beat_at, timeout_seconds=20)
    probe.ledger.failed("limits", OSError("no"))
    check = MemoryHealthChecker().check_tracker_status()
    assert check.status == "caution"
    assert "these parts of the probe have failed: limits (1)." in check.reasons[-1]
    assert check.values["recent_failures"] == {"limits": 1}


def test_failures_of_long_ago_are_forgotten(probe: Probe) -> None:
    wait_until(lambda: feature().beat_at, timeout_seconds=20)
    probe.ledger.failed("limits", OSError("no"))
    feature()._marks.clear()
    feature()._marks.append((time.monotonic(), probe.ledger.failures, probe.ledger.drops))
    assert MemoryHealthChecker().check_tracker_status().status == "healthy"


# --- the report --------------------------------------------------------------------------------------------------


def test_the_report_is_the_worst_of_what_is_known() -> None:
    checks = (
        HealthCheck("a", "unknown", ("?",)),
        HealthCheck("b", "caution", ("b is so.",), ("Do b.",)),
        HealthCheck("c", "critical", ("c is so.",), ("Do b.", "Do c."), {"figure": 1}),
        HealthCheck("d", "healthy", ("d is fine.",)),
    )
    assert HealthReport(2.0, checks).to_dict() == {
        "status": "critical",
        "timestamp": 2.0,
        "checks": {check.name: check.to_dict() for check in checks},
        "failed_checks": 1,
        "critical_issues": ["c"],
        "unknown_checks": ["a"],
        "reasons": ["?", "b is so.", "c is so."],
        "recommendations": ["Do b.", "Do c."],
    }
    assert checks[2].to_dict()["figure"] == 1


def test_it_is_ready_for_json_and_the_same_for_coroutines(probe: Probe) -> None:
    report = asyncio.run(health.health_check())
    assert list(json.loads(json.dumps(report, allow_nan=False))) == list(health.health_check_sync())
    assert list(asyncio.run(MemoryHealthChecker().health_check())["checks"]) == CHECKS


def test_names_of_statuses_agree_with_the_contract() -> None:
    from otel_memory.probe.status import STATUSES

    assert names.ATTRIBUTES[names.SNAPSHOT_STATUS].values == STATUSES
