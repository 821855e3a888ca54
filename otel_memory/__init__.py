"""Finds memory leaks in Python services through OpenTelemetry: that it leaks, when it hits its limit, what grows.

This face only names things: what a name stands for is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from otel_memory.version import __version__

if TYPE_CHECKING:
    from otel_memory.probe.cleanup import CleanupResult as CleanupResult
    from otel_memory.probe.cleanup import cleanup as cleanup
    from otel_memory.probe.cleanup import cleanup_async as cleanup_async
    from otel_memory.probe.config import SettingsError as SettingsError
    from otel_memory.probe.diagnostics import DiagnosticRun as DiagnosticRun
    from otel_memory.probe.diagnostics import diagnostic_gc_run as diagnostic_gc_run
    from otel_memory.probe.diagnostics import diagnostic_gc_run_async as diagnostic_gc_run_async
    from otel_memory.probe.errors import EvictionError as EvictionError
    from otel_memory.probe.errors import MemoryWatchError as MemoryWatchError
    from otel_memory.probe.errors import MonitoringError as MonitoringError
    from otel_memory.probe.errors import ThresholdError as ThresholdError
    from otel_memory.probe.eviction import EvictionResult as EvictionResult
    from otel_memory.probe.eviction import EvictorResult as EvictorResult
    from otel_memory.probe.eviction import evict as evict
    from otel_memory.probe.eviction import evict_async as evict_async
    from otel_memory.probe.eviction import register_evictor as register_evictor
    from otel_memory.probe.eviction import registered_evictors as registered_evictors
    from otel_memory.probe.eviction import unregister_evictor as unregister_evictor
    from otel_memory.probe.evidence import Evidence as Evidence
    from otel_memory.probe.evidence_looks import capture_evidence as capture_evidence
    from otel_memory.probe.guard import check_memory as check_memory
    from otel_memory.probe.health import HealthReport as HealthReport
    from otel_memory.probe.health import MemoryHealthChecker as MemoryHealthChecker
    from otel_memory.probe.health import health_check as health_check
    from otel_memory.probe.health import health_check_sync as health_check_sync
    from otel_memory.probe.http.app import memory_app as memory_app
    from otel_memory.probe.http.wsgi import memory_wsgi_app as memory_wsgi_app
    from otel_memory.probe.instrumentor import MemoryInstrumentor as MemoryInstrumentor
    from otel_memory.probe.live_objects import count_instances as count_instances
    from otel_memory.probe.live_objects import custom_values as custom_values
    from otel_memory.probe.live_objects import live_counts as live_counts
    from otel_memory.probe.live_objects import register_gauge as register_gauge
    from otel_memory.probe.live_objects import track_class as track_class
    from otel_memory.probe.logs import LOG_DEFAULTS as LOG_DEFAULTS
    from otel_memory.probe.logs import MemoryLogFilter as MemoryLogFilter
    from otel_memory.probe.logs import add_memory as add_memory
    from otel_memory.probe.logs import enrich_logs as enrich_logs
    from otel_memory.probe.monitoring import CollectedMetrics as CollectedMetrics
    from otel_memory.probe.monitoring import MemoryMetricsCollector as MemoryMetricsCollector
    from otel_memory.probe.monitoring import export_snapshots as export_snapshots
    from otel_memory.probe.monitoring import get_latest_snapshot as get_latest_snapshot
    from otel_memory.probe.monitoring import get_metrics as get_metrics
    from otel_memory.probe.monitoring import get_metrics_sync as get_metrics_sync
    from otel_memory.probe.monitoring import get_snapshots as get_snapshots
    from otel_memory.probe.monitoring import start_monitoring as start_monitoring
    from otel_memory.probe.monitoring import stop_monitoring as stop_monitoring
    from otel_memory.probe.operations import MemoryTracker as MemoryTracker
    from otel_memory.probe.operations import monitor_memory as monitor_memory
    from otel_memory.probe.packages.import_costs import ImportTracker as ImportTracker
    from otel_memory.probe.packages.import_costs import track_imports as track_imports
    from otel_memory.probe.packages.lazy_loader import LazyLoader as LazyLoader
    from otel_memory.probe.packages.lazy_loader import get_lazy_loader as get_lazy_loader
    from otel_memory.probe.packages.memory_monitor import MemoryMonitor as MemoryMonitor
    from otel_memory.probe.packages.package_info import MemoryMetrics as MemoryMetrics
    from otel_memory.probe.packages.package_info import PackageInfo as PackageInfo
    from otel_memory.probe.profiler import MemoryProfiler as MemoryProfiler
    from otel_memory.probe.resource_monitor import MemoryCapture as MemoryCapture
    from otel_memory.probe.resource_monitor import ResourceMonitor as ResourceMonitor
    from otel_memory.probe.resource_monitor import format_bytes as format_bytes
    from otel_memory.probe.run_time_rules import add_rule as add_rule
    from otel_memory.probe.run_time_rules import remove_rule as remove_rule
    from otel_memory.probe.snapshots import MemorySnapshot as MemorySnapshot
    from otel_memory.probe.sources.breakdown import Breakdown as Breakdown
    from otel_memory.probe.sources.breakdown import memory_breakdown as memory_breakdown
    from otel_memory.probe.structured_logger import StructuredLogger as StructuredLogger
    from otel_memory.probe.thresholds import Rule as Rule

__all__ = [
    "MemoryInstrumentor",
    "monitor_memory",
    "MemoryTracker",
    "ResourceMonitor",
    "MemoryCapture",
    "format_bytes",
    "Rule",
    "add_rule",
    "remove_rule",
    "StructuredLogger",
    "SettingsError",
    "CollectedMetrics",
    "HealthReport",
    "LOG_DEFAULTS",
    "MemoryHealthChecker",
    "MemoryLogFilter",
    "MemoryMetricsCollector",
    "MemoryProfiler",
    "MemorySnapshot",
    "add_memory",
    "enrich_logs",
    "export_snapshots",
    "get_latest_snapshot",
    "get_metrics",
    "get_metrics_sync",
    "get_snapshots",
    "health_check",
    "health_check_sync",
    "start_monitoring",
    "stop_monitoring",
    "get_lazy_loader",
    "LazyLoader",
    "MemoryMonitor",
    "MemoryMetrics",
    "PackageInfo",
    "track_imports",
    "ImportTracker",
    "register_evictor",
    "unregister_evictor",
    "registered_evictors",
    "evict",
    "evict_async",
    "EvictionResult",
    "EvictorResult",
    "cleanup",
    "cleanup_async",
    "CleanupResult",
    "diagnostic_gc_run",
    "diagnostic_gc_run_async",
    "DiagnosticRun",
    "memory_breakdown",
    "Breakdown",
    "capture_evidence",
    "Evidence",
    "check_memory",
    "MemoryWatchError",
    "ThresholdError",
    "EvictionError",
    "MonitoringError",
    "register_gauge",
    "track_class",
    "count_instances",
    "custom_values",
    "live_counts",
    "memory_app",
    "memory_wsgi_app",
    "__version__",
]

_HOMES = {
    "capture_evidence": "otel_memory.probe.evidence_looks",
    "Evidence": "otel_memory.probe.evidence",
    "diagnostic_gc_run": "otel_memory.probe.diagnostics",
    "diagnostic_gc_run_async": "otel_memory.probe.diagnostics",
    "DiagnosticRun": "otel_memory.probe.diagnostics",
    "MemoryInstrumentor": "otel_memory.probe.instrumentor",
    "monitor_memory": "otel_memory.probe.operations",
    "MemoryTracker": "otel_memory.probe.operations",
    "ResourceMonitor": "otel_memory.probe.resource_monitor",
    "MemoryCapture": "otel_memory.probe.resource_monitor",
    "format_bytes": "otel_memory.probe.resource_monitor",
    "Rule": "otel_memory.probe.thresholds",
    "add_rule": "otel_memory.probe.run_time_rules",
    "remove_rule": "otel_memory.probe.run_time_rules",
    "StructuredLogger": "otel_memory.probe.structured_logger",
    "SettingsError": "otel_memory.probe.config",
    "register_gauge": "otel_memory.probe.live_objects",
    "track_class": "otel_memory.probe.live_objects",
    "count_instances": "otel_memory.probe.live_objects",
    "custom_values": "otel_memory.probe.live_objects",
    "live_counts": "otel_memory.probe.live_objects",
    "CollectedMetrics": "otel_memory.probe.monitoring",
    "HealthReport": "otel_memory.probe.health",
    "LOG_DEFAULTS": "otel_memory.probe.logs",
    "MemoryHealthChecker": "otel_memory.probe.health",
    "MemoryLogFilter": "otel_memory.probe.logs",
    "MemoryMetricsCollector": "otel_memory.probe.monitoring",
    "MemoryProfiler": "otel_memory.probe.profiler",
    "MemorySnapshot": "otel_memory.probe.snapshots",
    "add_memory": "otel_memory.probe.logs",
    "enrich_logs": "otel_memory.probe.logs",
    "export_snapshots": "otel_memory.probe.monitoring",
    "get_latest_snapshot": "otel_memory.probe.monitoring",
    "get_metrics": "otel_memory.probe.monitoring",
    "get_metrics_sync": "otel_memory.probe.monitoring",
    "get_snapshots": "otel_memory.probe.monitoring",
    "health_check": "otel_memory.probe.health",
    "health_check_sync": "otel_memory.probe.health",
    "start_monitoring": "otel_memory.probe.monitoring",
    "stop_monitoring": "otel_memory.probe.monitoring",
    "get_lazy_loader": "otel_memory.probe.packages.lazy_loader",
    "LazyLoader": "otel_memory.probe.packages.lazy_loader",
    "MemoryMonitor": "otel_memory.probe.packages.memory_monitor",
    "MemoryMetrics": "otel_memory.probe.packages.package_info",
    "PackageInfo": "otel_memory.probe.packages.package_info",
    "track_imports": "otel_memory.probe.packages.import_costs",
    "ImportTracker": "otel_memory.probe.packages.import_costs",
    "register_evictor": "otel_memory.probe.eviction",
    "unregister_evictor": "otel_memory.probe.eviction",
    "registered_evictors": "otel_memory.probe.eviction",
    "evict": "otel_memory.probe.eviction",
    "evict_async": "otel_memory.probe.eviction",
    "EvictionResult": "otel_memory.probe.eviction",
    "EvictorResult": "otel_memory.probe.eviction",
    "cleanup": "otel_memory.probe.cleanup",
    "cleanup_async": "otel_memory.probe.cleanup",
    "CleanupResult": "otel_memory.probe.cleanup",
    "memory_breakdown": "otel_memory.probe.sources.breakdown",
    "Breakdown": "otel_memory.probe.sources.breakdown",
    "check_memory": "otel_memory.probe.guard",
    "MemoryWatchError": "otel_memory.probe.errors",
    "ThresholdError": "otel_memory.probe.errors",
    "EvictionError": "otel_memory.probe.errors",
    "MonitoringError": "otel_memory.probe.errors",
    "memory_app": "otel_memory.probe.http.app",
    "memory_wsgi_app": "otel_memory.probe.http.wsgi",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
