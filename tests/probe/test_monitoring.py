"""Metrics as one dictionary, and monitoring by hand."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_memory
from otel_memory.probe import monitoring
from otel_memory.probe.config import Settings
from otel_memory.probe.lifecycle import Probe
from otel_memory.probe.monitoring import MemoryMetricsCollector, MonitorCalls
from otel_memory.probe.profiler import running_feature, running_profiler
from tests.harness import wait_until

METRICS = [
    *("timestamp", "memory_rss_mb", "memory_usage_percent", "eviction_count", "memory_freed_total_mb"),
    *("growth_rate_mb_per_sec", "status", "threshold_crossings"),
]
SUMMARY = ["min", "max", "avg", "current"]


@pytest.fixture(autouse=True)
def _stopped() -> Iterator[None]:
    yield
    monitoring.stop_monitoring()
    assert running_profiler() is None


def threads() -> int:
    return sum(thread.name == "otel-memory-sampler" for thread in threading.enumerate())


def test_the_documented_structure() -> None:
    found = otel_memory.get_metrics_sync()
    assert list(found) == ["metrics", "profiler", "monitor_running"]
    assert list(found["metrics"]) == METRICS
    assert found["metrics"]["memory_rss_mb"] > 1
    assert found["metrics"]["growth_rate_mb_per_sec"] is None, "one reading shows no growth"
    assert found["metrics"]["threshold_crossings"] == {"info": 0, "warning": 0, "critical": 0}
    for key in ("rss_mb", "usage_percent"):
        assert list(found["profiler"][key]) == SUMMARY
    assert found["profiler"]["total_snapshots_taken"] == found["profiler"]["current_snapshot_count"] == 0
    assert found["monitor_running"] is False
    assert found["profiler"]["profiling_active"] is False
    assert list(json.loads(json.dumps(asyncio.run(otel_memory.get_metrics()), allow_nan=False))) == list(found)


def test_monitoring_by_hand_starts_and_stops() -> None:
    otel_memory.start_monitoring()
    otel_memory.start_monitoring()
    assert threads() == 1
    wait_until(otel_memory.get_latest_snapshot, timeout_seconds=20)
    found = otel_memory.get_metrics_sync()
    assert found["monitor_running"] is True
    assert found["profiler"]["rss_mb"]["current"] > 1
    otel_memory.stop_monitoring()
    otel_memory.stop_monitoring()
    assert threads() == 0
    assert otel_memory.get_metrics_sync()["monitor_running"] is False
    assert otel_memory.get_snapshots(), "what was taken stays"


def test_with_a_probe_its_snapshots_answer_and_nothing_is_started(tmp_path: Path) -> None:
    probe = Probe(Settings.load({}, interval=100, snapshot_interval=100))
    probe.start()
    try:
        otel_memory.start_monitoring()
        assert threads() == 1
        own = running_profiler()
        assert own is not None
        wait_until(lambda: len(otel_memory.get_snapshots()) >= 2, timeout_seconds=20)
        assert otel_memory.get_snapshots(1) == [otel_memory.get_latest_snapshot()]
        assert otel_memory.export_snapshots(str(tmp_path / "s.jsonl")) >= 2
        otel_memory.stop_monitoring()
        assert otel_memory.get_metrics_sync()["monitor_running"] is True, "the probe's own go on"
    finally:
        probe.stop()


def test_crossings_are_counted_by_severity_and_each_collector_has_its_own_zero() -> None:
    rules = "rss>1MiB:critical; none"
    probe = Probe(Settings.load({}, interval=100, thresholds=rules))
    probe.start()
    try:
        feature = running_feature()
        assert feature is not None
        wait_until(lambda: feature.crossings["critical"], timeout_seconds=20)
        one, other = MemoryMetricsCollector(), MemoryMetricsCollector()
        one.reset_crossings()
        assert one.collect_metrics_sync().threshold_crossings["critical"] == 0
        assert asyncio.run(other.collect_metrics()).threshold_crossings["critical"] == 1
    finally:
        probe.stop()


def test_a_monitor_of_ones_own() -> None:
    monitor = MonitorCalls(profiling_interval_seconds=0.1, max_snapshots=5)
    monitor.stop_sync()
    monitor.start_sync()
    monitor.start_sync()
    try:
        assert threads() == 1
        wait_until(lambda: len(monitor.get_snapshots()) == 5, timeout_seconds=20)
        assert monitor.get_metrics_sync()["profiler"]["max_snapshots"] == 5
        assert monitor.health_check_sync()["checks"]["tracker_status"]["profiling_active"] is True
        assert asyncio.run(monitor.health_check())["status"]
        assert asyncio.run(monitor.get_metrics())["monitor_running"] is True
    finally:
        monitor.stop_sync()
    assert monitor.get_latest_snapshot() in monitor.get_snapshots()


def test_the_face_has_them_all() -> None:
    for name in ("health_check", "get_metrics"):
        assert inspect.iscoroutinefunction(getattr(otel_memory, name))
        assert not inspect.iscoroutinefunction(getattr(otel_memory, f"{name}_sync"))
