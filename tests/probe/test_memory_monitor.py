"""``MemoryMonitor`` is also what takes snapshots and checks the health by hand."""

from __future__ import annotations

from otel_memory import MemoryMonitor
from tests.harness import wait_until


def test_a_monitor_takes_snapshots_and_checks_the_health_too() -> None:
    """The calls that seed users know as start_sync, get_metrics_sync and the like."""
    monitor = MemoryMonitor(profiling_interval_seconds=0.1, max_snapshots=5)
    assert monitor.get_snapshots() == []
    monitor.start_sync()
    try:
        wait_until(lambda: len(monitor.get_snapshots()) == 5, what="snapshots are taken")
        latest = monitor.get_latest_snapshot()
        assert latest is not None
        assert latest.rss_mb is not None
        answer = monitor.get_metrics_sync()
        assert answer["monitor_running"] is True
        assert answer["metrics"]["memory_rss_mb"] > 0
        assert monitor.health_check_sync()["status"] in {"healthy", "caution", "warning", "critical"}
    finally:
        monitor.stop_sync()
    assert monitor.get_metrics_sync()["monitor_running"] is False
