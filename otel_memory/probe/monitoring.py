"""Metrics of this process as one dictionary, and monitoring by hand: snapshots without or beside the probe.

Owns the shape that ``get_metrics`` gives. Everything in it comes from elsewhere: readings from ``vitals.py``, snapshots
from ``profiler.py``, the status from ``status.py``. One MB is 1024 * 1024 bytes; None is "not known".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from otel_memory.probe import vitals
from otel_memory.probe.errors import MB
from otel_memory.probe.health import health_check_sync
from otel_memory.probe.profiler import (
    INTERVAL_SECONDS,
    MAX_SNAPSHOTS,
    MemoryProfiler,
    running_feature,
    running_profiler,
    snapshot_of,
)
from otel_memory.probe.snapshots import MemorySnapshot
from otel_memory.probe.status import Status

__all__ = ["CollectedMetrics", "MemoryMetricsCollector", "MonitorCalls", "get_latest_snapshot", "get_metrics"]
__all__ += ["get_metrics_sync", "get_snapshots", "start_monitoring", "stop_monitoring"]

_SEVERITIES: Final = ("info", "warning", "critical")


@dataclass(frozen=True, slots=True)
class CollectedMetrics:
    """The memory of this process now, and what has happened to it so far."""

    timestamp: float
    """Seconds since the epoch."""
    memory_rss_mb: float | None
    memory_usage_percent: float | None
    """Of the limit."""
    eviction_count: int
    memory_freed_total_mb: float
    """By evictors, as measured."""
    growth_rate_mb_per_sec: float | None
    status: Status
    threshold_crossings: dict[str, int]
    """Crossings of threshold rules by severity; none are counted where no probe runs."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


class MemoryMetricsCollector:
    """Collects ``CollectedMetrics``. ``reset_crossings`` makes its own count of crossings begin at zero."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    async def collect_metrics(self) -> CollectedMetrics:
        """``collect_metrics_sync`` for coroutines; it waits for nothing, so it runs where it is called."""
        return self.collect_metrics_sync()

    def collect_metrics_sync(self) -> CollectedMetrics:
        """Read now: some 0.1 ms."""
        feature, profiler = running_feature(), running_profiler()
        if feature is not None:
            snapshot = snapshot_of(feature.sources.read(), feature.trend.growth())
        else:
            growth = None if profiler is None else profiler.trend.growth()
            snapshot = snapshot_of(vitals.own_sources().read(), growth)
        evictions = vitals.evictions()
        return CollectedMetrics(
            timestamp=snapshot.timestamp,
            memory_rss_mb=snapshot.rss_mb,
            memory_usage_percent=snapshot.usage_percent,
            eviction_count=evictions.count,
            memory_freed_total_mb=evictions.freed_bytes / MB,
            growth_rate_mb_per_sec=snapshot.growth_rate_mb_per_sec,
            status=snapshot.status,
            threshold_crossings={name: max(0, count - self._seen.get(name, 0)) for name, count in _crossings().items()},
        )

    def reset_crossings(self) -> None:
        """Count crossings from zero."""
        self._seen = _crossings()


class MonitorCalls:
    """Start, stop and ask: a profiler of one's own beside what the probe keeps.

    ``profiling_interval_seconds`` and ``max_snapshots`` are those of its snapshots. While it isn't started, it answers
    with the probe's.
    """

    def __init__(
        self, profiling_interval_seconds: float = INTERVAL_SECONDS, max_snapshots: int = MAX_SNAPSHOTS
    ) -> None:
        self._interval_seconds = profiling_interval_seconds
        self._max_snapshots = max_snapshots
        self._made: MemoryProfiler | None = None
        self._collector = MemoryMetricsCollector()

    @property
    def _profiler(self) -> MemoryProfiler:
        # Made when it is needed: room for a day of snapshots is 146 kB.
        if self._made is None:
            self._made = MemoryProfiler(self._interval_seconds, self._max_snapshots)
        return self._made

    def start_sync(self) -> None:
        """Begin to take snapshots. Does nothing if it has begun."""
        self._profiler.start_profiling_sync()

    def stop_sync(self) -> None:
        """Take no more; those that were taken stay. Does nothing if it was not started."""
        if self._made is not None:
            self._made.stop_profiling()

    def _answering(self) -> MemoryProfiler:
        own = self._profiler
        return own if own.profiling_active else running_profiler() or own

    async def get_metrics(self) -> dict[str, Any]:
        """``get_metrics_sync`` for coroutines; it waits for nothing, so it runs where it is called."""
        return self.get_metrics_sync()

    def get_metrics_sync(self) -> dict[str, Any]:
        """``{"metrics": CollectedMetrics, "profiler": statistics of the snapshots, "monitor_running": bool}``."""
        profiler = self._answering()
        return {
            "metrics": self._collector.collect_metrics_sync().to_dict(),
            "profiler": profiler.get_statistics(),
            "monitor_running": profiler.profiling_active,
        }

    async def health_check(self) -> dict[str, Any]:
        """``health_check_sync`` for coroutines."""
        return health_check_sync()

    def health_check_sync(self) -> dict[str, Any]:
        """See ``otel_memory.health_check_sync``."""
        return health_check_sync()

    def get_snapshots(self, max_snapshots: int | None = None) -> list[MemorySnapshot]:
        """The newest ``max_snapshots`` (all where None), oldest first."""
        return self._answering().get_snapshots(max_snapshots)

    def get_latest_snapshot(self) -> MemorySnapshot | None:
        """The newest one, None where there is none."""
        return self._answering().get_latest_snapshot()


_monitor: MonitorCalls | None = None


def _calls() -> MonitorCalls:
    global _monitor
    if _monitor is None:
        _monitor = MonitorCalls()
    return _monitor


def start_monitoring() -> None:
    """Take a snapshot every 30 s, for a day. Does nothing where the running probe does, or it has begun already."""
    if running_profiler() is None:
        _calls().start_sync()


def stop_monitoring() -> None:
    """Undo ``start_monitoring``; the probe's own snapshots go on."""
    _calls().stop_sync()


async def get_metrics() -> dict[str, Any]:
    """``get_metrics_sync`` for coroutines; it waits for nothing, so it runs where it is called."""
    return _calls().get_metrics_sync()


def get_metrics_sync() -> dict[str, Any]:
    """``{"metrics": …, "profiler": …, "monitor_running": bool}``: the memory now, statistics of the snapshots, and
    whether snapshots are taken."""
    return _calls().get_metrics_sync()


def get_snapshots(max_snapshots: int | None = None) -> list[MemorySnapshot]:
    """The newest ``max_snapshots`` snapshots (all where None), oldest first: the probe's, or ``start_monitoring``'s."""
    return _calls().get_snapshots(max_snapshots)


def get_latest_snapshot() -> MemorySnapshot | None:
    """The newest of them, None where there is none."""
    return _calls().get_latest_snapshot()


def export_snapshots(path: str) -> int:
    """Write them to ``path``, a line of JSON each; returns how many.

    Raises:
        OSError: it could not be written; what was there is as it was.
    """
    return _calls()._answering().export_snapshots(path)


def _crossings() -> dict[str, int]:
    feature = running_feature()
    return dict.fromkeys(_SEVERITIES, 0) if feature is None else dict(feature.crossings)
