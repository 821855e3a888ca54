"""The feature ``packages``: import costs from the start, live bytes by package where tracemalloc is on, their metrics.

Owns their cadence. Everything that takes longer than a beat goes to the background.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe.feature import Feature
from otel_memory.probe.packages.import_costs import ImportTracker, PackageCost
from otel_memory.probe.packages.import_hook import HOOK
from otel_memory.probe.packages.lazy_loader import LazyLoader, get_lazy_loader
from otel_memory.probe.sources import observe_metrics
from otel_memory.probe.sources.cadence import Budget

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.feature import Surroundings
    from otel_memory.probe.sources import Gate, Undo

TOP: Final = 20
"""Packages that metrics are emitted of: those with the largest values."""
LIVE_SHARE: Final = 0.01
"""Of the time, at most what measuring live bytes takes."""


class PackagesFeature(Feature):
    """Measures imports from ``register`` to ``close``, and all packages every ``packages_interval``."""

    part: ClassVar[str] = "packages"

    def __init__(self, around: Surroundings, loader: LazyLoader | None = None) -> None:
        settings = around.settings
        self._around = around
        self._loader = get_lazy_loader() if loader is None else loader
        self._tracker = ImportTracker()
        self._interval = settings.packages_interval_seconds
        self._max_blocks = settings.packages_live_blocks
        self._budget = Budget(self._interval, share=LIVE_SHARE)
        self._next = 0.0
        self._tracing_since: float | None = None
        # Made on the sampler's thread, so that the SDK's callbacks take no lock.
        self._costs: tuple[PackageCost, ...] = ()

    def register(self, meter: Meter, gate: Gate) -> Undo:
        around, settings = self._around, self._around.settings
        around.ledger.watch(self.part, failures=lambda: HOOK.failed, drops=lambda: self._tracker.dropped)
        medium, high, critical = settings.pressure_levels
        low = min(self._loader.monitor.thresholds["low"], medium / 2)
        self._loader.monitor.set_limits(
            around.parts.limits, {"low": low, "medium": medium, "high": high, "critical": critical}
        )
        self._loader.monitor.follow(self._tracker)
        self._tracker.start()
        return observe_metrics(
            meter,
            gate,
            self.part,
            {
                names.PACKAGE_IMPORT_TIME: lambda: self._observe(lambda cost: cost.own.time_seconds),
                names.PACKAGE_IMPORT_USAGE: lambda: self._observe(lambda cost: cost.own.rss_bytes),
                names.PACKAGE_IMPORT_INCLUSIVE: lambda: self._observe(lambda cost: cost.inclusive.rss_bytes),
                names.PACKAGE_LIVE_USAGE: self._observe_live,
            },
        )

    def tick(self, now: float) -> None:
        if self._tracker.changed:
            self._costs = tuple(self._tracker.packages())
        # A short burst of tracing is somebody's search for a leak: it isn't made longer by a snapshot.
        if not tracemalloc.is_tracing():
            self._tracing_since = None
        elif self._tracing_since is None:
            self._tracing_since = now
            self._next = max(self._next, now + self._interval)
        if now >= self._next and self._budget.due():
            self._next = now + self._interval
            self._around.background.submit(self.part, self._update)

    def after_fork(self) -> None:
        self._next = 0.0
        self._tracing_since = None
        self._budget.reset()

    def close(self) -> None:
        self._tracker.stop()
        self._loader.monitor.unfollow(self._tracker)
        self._loader.monitor.set_limits(None)

    def status(self) -> Mapping[str, Any]:
        total, live = self._tracker.total(), self._loader.monitor.last_live
        return {
            "packages": len(self._costs),
            "import_seconds": total.time_seconds,
            "import_bytes": total.rss_bytes,
            "live": live.reason or f"{len(live.packages or ())} packages",
        }

    def _update(self) -> None:
        self._budget.run(lambda: self._loader.update_all_memory_metrics(self._max_blocks))

    def _observe(self, value: Any) -> Iterable[Observation]:
        known = [(cost.name, found) for cost in self._costs if (found := value(cost)) is not None]
        return _top(known)

    def _observe_live(self) -> Iterable[Observation]:
        live = self._loader.monitor.last_live
        if not live.packages or not tracemalloc.is_tracing():
            return ()
        return _top([(name, each.live_bytes) for name, each in live.packages.items()])


def _top(values: list[tuple[str, float]]) -> list[Observation]:
    largest = sorted(values, key=lambda each: each[1], reverse=True)[:TOP]
    return [Observation(value, {names.PACKAGE_NAME: name}) for name, value in largest]
