"""``MemoryMonitor``: readings and judgements of memory on demand, for the process and for one module.

Owns what the calls of a monitor mean and the thresholds that they use; keeps no history of its own, so an answer does
not depend on who asked last.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from otel_memory.probe import reader
from otel_memory.probe.monitoring import MonitorCalls
from otel_memory.probe.packages import history as histories
from otel_memory.probe.packages.footprint import Footprint, estimate
from otel_memory.probe.packages.history import LEAST_GROWTH_BYTES, Trend
from otel_memory.probe.packages.import_costs import ImportTracker
from otel_memory.probe.packages.live_bytes import MAX_BLOCKS, LiveBytes, LiveReading
from otel_memory.probe.packages.package_names import package_of
from otel_memory.probe.profiler import INTERVAL_SECONDS, MAX_SNAPSHOTS
from otel_memory.probe.sources.limits import LimitsSource

DEFAULT_THRESHOLDS: Final = {"low": 0.5, "medium": 0.7, "high": 0.85, "critical": 0.95}
LEAK_THRESHOLD: Final = 0.5
"""Leak score from which a series counts as a leak."""

History = Sequence[tuple[float, float]]


class MemoryMonitor(MonitorCalls):
    """Memory of this process and of its packages; sizes in bytes, times in s.

    It also takes snapshots between ``start_sync`` and ``stop_sync`` and checks the health (``MonitorCalls``).

    Args:
        thresholds: shares of the limit, from which the pressure level is ``medium``, ``high``, ``critical``; from
            ``low`` on the use of memory is worth a suggestion. Those not given keep their defaults.
        leak_growth_bytes: rise below which nothing is called a leak (nor is one of less than 4 % of the level).
        leak_threshold: score from which ``detect_memory_leak`` says so.
        profiling_interval_seconds: between two snapshots.
        max_snapshots: that are kept.
        limits: what the pressure is measured against; by default the container's, the resource limit or the host's.

    Raises:
        ValueError: thresholds that are unknown, out of order, or not within 0 and 1.
    """

    def __init__(
        self,
        thresholds: Mapping[str, float] | None = None,
        *,
        leak_growth_bytes: float = LEAST_GROWTH_BYTES,
        leak_threshold: float = LEAK_THRESHOLD,
        profiling_interval_seconds: float = INTERVAL_SECONDS,
        max_snapshots: int = MAX_SNAPSHOTS,
        limits: LimitsSource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(profiling_interval_seconds, max_snapshots)
        self._memory_thresholds = _checked({**DEFAULT_THRESHOLDS, **(thresholds or {})})
        self.leak_growth_bytes = leak_growth_bytes
        self.leak_threshold = leak_threshold
        self._limits = limits
        self._clock = clock
        self._live = LiveBytes()
        self._imports: tuple[ImportTracker, ...] = ()
        self.last_live = LiveReading(reason="not measured yet")
        """The newest reading of ``read_live``."""

    # --- the process --------------------------------------------------------------------------------------

    def get_current_memory_usage(self) -> float | None:
        """Resident bytes of the process now; None if they could not be read."""
        return reader.read_rss()

    def get_memory_utilization(self) -> float | None:
        """Memory in use as a share of the limit that will really end the process."""
        return self._limits_source().utilization()

    def get_memory_pressure_level(self) -> str:
        """``low``, ``medium``, ``high`` or ``critical``, by the use of the limit that will really end the process.

        ``unknown`` where use or limit could not be read.
        """
        share = self.get_memory_utilization()
        return "unknown" if share is None else self.pressure_of(share)

    def pressure_of(self, share: float) -> str:
        """The level of a use of ``share`` of the limit."""
        bounds = self._memory_thresholds
        return next((level for level in ("critical", "high", "medium") if share >= bounds[level]), "low")

    def limit_bytes(self) -> int | None:
        """The limit that will really end the process."""
        return self._limits_source().latest().limit_bytes

    @property
    def thresholds(self) -> dict[str, float]:
        """Shares of the limit by level."""
        return dict(self._memory_thresholds)

    def set_limits(self, limits: LimitsSource | None, thresholds: Mapping[str, float] | None = None) -> None:
        """Measure against ``limits`` from now on (the running probe's, which knows the configured budget)."""
        self._limits = limits
        self._memory_thresholds = _checked({**DEFAULT_THRESHOLDS, **(thresholds or {})})

    # --- a package ----------------------------------------------------------------------------------------

    def get_memory_footprint(self, module_name: str) -> float | None:
        """Bytes that the module or package takes; None if it is neither loaded nor measured.

        The size alone; ``measure_footprint`` says how it is known.
        """
        found = self.measure_footprint(module_name)
        return None if found is None else found.size_bytes

    def measure_footprint(self, module_name: str) -> Footprint | None:
        """Measured where somebody measured it: what importing it took (with all that it imported first), else its
        live bytes by the newest reading; else an estimate over its objects, labelled so (at most 0.2 s)."""
        name = package_of(module_name)
        for tracker in self._imports:
            cost = tracker.package(name) if name == module_name else tracker.module(module_name)
            if cost is not None and cost.inclusive.rss_bytes is not None and cost.inclusive.rss_bytes >= 0:
                return Footprint(cost.inclusive.rss_bytes, "import")
        live = self.last_live
        if name == module_name and live.packages and name in live.packages and tracemalloc.is_tracing():
            return Footprint(live.packages[name].live_bytes, "live")
        return estimate(name) if name == module_name else None

    def read_live(self, max_blocks: int = MAX_BLOCKS) -> LiveReading:
        """Live bytes by package where tracemalloc is on; see ``LiveBytes.read`` for what it costs."""
        self.last_live = self._live.read(max_blocks)
        return self.last_live

    def follow(self, tracker: ImportTracker) -> None:
        """Take import costs from ``tracker`` too."""
        self._imports = (*self._imports, tracker)

    def unfollow(self, tracker: ImportTracker) -> None:
        """Undo ``follow``."""
        self._imports = tuple(other for other in self._imports if other is not tracker)

    @property
    def imports(self) -> tuple[ImportTracker, ...]:
        """Where import costs are taken from."""
        return self._imports

    # --- a history ----------------------------------------------------------------------------------------

    def detect_memory_leak(self, memory_history: History) -> tuple[bool, float]:
        """Whether a history of (s, bytes) looks like a leak, and its score from 0 to 1."""
        score = histories.leak_score(memory_history, self.leak_growth_bytes)
        return score >= self.leak_threshold, score

    def analyze_memory_trend(self, memory_history: History) -> Trend:
        """``increasing``, ``decreasing`` or ``stable``, which too short a history is."""
        return histories.trend(memory_history, self.leak_growth_bytes)

    def calculate_memory_statistics(self, memory_history: History) -> dict[str, float | None]:
        """Count, average, least, most, variance and growth rate (By/s); None where it can't be said."""
        found = histories.statistics(memory_history)
        return {
            "count": found.measurements,
            "average_memory_usage": found.average,
            "minimum_memory_usage": found.minimum,
            "maximum_memory_usage": found.maximum,
            "memory_variance": found.variance,
            "memory_growth_rate": found.growth_rate,
        }

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    def _limits_source(self) -> LimitsSource:
        if self._limits is None:
            self._limits = LimitsSource(reader.SOURCE.latest)
        return self._limits


def _checked(thresholds: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(thresholds) - set(DEFAULT_THRESHOLDS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a level: expected {', '.join(DEFAULT_THRESHOLDS)}")
    shares = [thresholds[level] for level in DEFAULT_THRESHOLDS]
    if not all(0 < share <= 1 for share in shares) or sorted(set(shares)) != shares:
        raise ValueError(f"expected rising shares of the limit above 0 and at most 1, not {dict(thresholds)}")
    return dict(thresholds)
