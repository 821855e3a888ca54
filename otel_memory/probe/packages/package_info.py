"""``PackageInfo`` and ``MemoryMetrics``: what is known of one package, in the documented fields.

Owns their fields and shapes (those that the endpoints hand out as JSON). Sizes are bytes, times seconds since the
epoch, rates By/s; None is "not known", never 0.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from otel_memory.probe.packages import history as histories
from otel_memory.probe.packages.history import MAX_HISTORY, Trend
from otel_memory.probe.packages.import_hook import Cost
from otel_memory.probe.packages.live_bytes import LiveReading
from otel_memory.probe.packages.memory_monitor import MemoryMonitor
from otel_memory.probe.packages.package_names import package_of

Status = Literal["registered", "loaded", "failed", "unloaded"]
Source = Literal["live", "import"]


@dataclass
class MemoryMetrics:
    """Memory of one package.

    ``memory_growth_rate``, ``memory_leak_score`` and ``memory_trend`` keep their defaults until six measurements are
    there: nothing is concluded from fewer.
    """

    current_memory_usage: float | None = None
    """By ``memory_source``: live bytes by tracemalloc, or without it the resident memory that the package's own
    modules took when they were imported."""
    peak_memory_usage: float | None = None
    """The highest that was measured."""
    memory_footprint: float | None = None
    """What having the package takes, with all that it imported first; ``memory_footprint_kind`` says how that is known.
    An estimate is made once."""
    memory_growth_rate: float = 0.0
    memory_leak_score: float = 0.0
    memory_trend: Trend = "stable"
    memory_pressure_level: str = "low"
    """Of this package alone: its share of the limit of the process."""
    memory_history: list[tuple[float, float]] = field(default_factory=list)
    """(time, bytes) of the last 100 measurements of the same kind."""
    average_memory_usage: float | None = None
    memory_variance: float | None = None
    memory_check_count: int = 0
    """How often it was looked at; not every look finds something new to measure."""
    last_memory_check: float | None = None
    memory_source: Source | None = None
    memory_footprint_kind: Literal["live", "import", "estimated"] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; the history by its length."""
        return {
            "current_memory_usage": self.current_memory_usage,
            "peak_memory_usage": self.peak_memory_usage,
            "memory_footprint": self.memory_footprint,
            "memory_leak_score": self.memory_leak_score,
            "memory_trend": self.memory_trend,
            "memory_pressure_level": self.memory_pressure_level,
            "memory_growth_rate": self.memory_growth_rate,
            "average_memory_usage": self.average_memory_usage,
            "memory_variance": self.memory_variance,
            "memory_check_count": self.memory_check_count,
            "last_memory_check": self.last_memory_check,
            "memory_history_length": len(self.memory_history),
            "memory_source": self.memory_source,
            "memory_footprint_kind": self.memory_footprint_kind,
        }


@dataclass
class PackageInfo:
    """One package that is loaded late, or that was found to be loaded."""

    name: str
    status: Status = "registered"
    version: str | None = None
    error: str | None = None
    """Why the last loading failed: type and message. The exception itself would keep its frames alive."""
    load_count: int = 0
    loaded_at: float | None = None
    load_time: float | None = None
    """Seconds that the last loading took."""
    memory_before: int | None = None
    """Resident bytes of the process before the last loading, and after it or after it had failed."""
    memory_after: int | None = None
    import_cost: Cost | None = None
    """What the last loading took, on its own thread and all in all; also of one that failed. None if everything was
    loaded already, or if it was not measured."""
    memory_metrics: MemoryMetrics = field(default_factory=MemoryMetrics)
    monitor: MemoryMonitor = field(default_factory=MemoryMonitor, repr=False, compare=False)
    _session: tuple[Source, int] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def is_loaded(self) -> bool:
        """Whether it is among the interpreter's modules now, whoever loaded it."""
        return self.name in sys.modules

    def update_memory_metrics(self, live: LiveReading | None = None) -> None:
        """Measure and judge anew. ``live``: a reading of live bytes to take (one does for all packages)."""
        monitor, metrics = self.monitor, self.memory_metrics
        live = monitor.read_live() if live is None else live
        now = monitor.now()
        metrics.memory_check_count += 1
        metrics.last_memory_check = now
        if self.status != "failed" or self.is_loaded:
            self.status = "loaded" if self.is_loaded else "unloaded" if self.load_count else "registered"
        if live.packages is not None:
            found = live.packages.get(package_of(self.name))
            self._record(now, 0.0 if found is None else float(found.live_bytes), "live", live.session)
        elif live.session == 0:  # tracing is off; where it is on and too much is traced, the last value stands
            if metrics.memory_source == "live" or not self.is_loaded:
                self.forget_history()
                metrics.current_memory_usage = metrics.memory_source = None
            if self.is_loaded:
                self._record_import(now)
        self._judge()

    def get_memory_summary(self) -> dict[str, Any]:
        """The documented form: ``package_name``, ``memory_metrics``, ``is_loaded``, ``status``."""
        return {
            "package_name": self.name,
            "memory_metrics": self.memory_metrics.to_dict(),
            "is_loaded": self.is_loaded,
            "status": self.status,
        }

    def forget_history(self) -> None:
        """Begin a new series: what was measured before can't be compared with what comes."""
        metrics = self.memory_metrics
        metrics.memory_history.clear()
        metrics.memory_growth_rate = metrics.memory_leak_score = 0.0
        metrics.memory_trend = "stable"
        metrics.peak_memory_usage = metrics.average_memory_usage = metrics.memory_variance = None
        self._session = None

    def _record_import(self, now: float) -> None:
        """Without tracing what the imports took is all that is measured: a new value only after a new import."""
        for tracker in self.monitor.imports:
            cost = tracker.package(package_of(self.name))
            if cost is not None and cost.own.rss_bytes is not None and cost.own.rss_bytes >= 0:
                size = float(cost.own.rss_bytes)
                history = self.memory_metrics.memory_history
                if not history or history[-1][1] != size:
                    self._record(now, size, "import", 0)
                return

    def _record(self, now: float, size: float, source: Source, session: int) -> None:
        if self._session is not None and self._session != (source, session):
            self.forget_history()
        self._session = source, session
        metrics = self.memory_metrics
        metrics.memory_source = source
        metrics.current_memory_usage = size
        metrics.memory_history.append((now, size))
        del metrics.memory_history[:-MAX_HISTORY]
        metrics.peak_memory_usage = max(size, metrics.peak_memory_usage or 0.0)

    def _judge(self) -> None:
        monitor, metrics = self.monitor, self.memory_metrics
        history = metrics.memory_history
        found = histories.statistics(history)
        metrics.average_memory_usage = found.average
        metrics.memory_variance = found.variance
        metrics.memory_growth_rate = found.growth_rate or 0.0
        metrics.memory_trend = monitor.analyze_memory_trend(history)
        metrics.memory_leak_score = monitor.detect_memory_leak(history)[1]
        limit, current = monitor.limit_bytes(), metrics.current_memory_usage
        metrics.memory_pressure_level = "low" if not limit or current is None else monitor.pressure_of(current / limit)
        # An estimate walks over objects, so one is made once only.
        if metrics.memory_footprint_kind != "estimated" or any(t.package(self.name) for t in monitor.imports):
            footprint = monitor.measure_footprint(self.name) if self.is_loaded else None
            metrics.memory_footprint = None if footprint is None else footprint.size_bytes
            metrics.memory_footprint_kind = None if footprint is None else footprint.kind
