"""The analyzer's own numbers in the Prometheus text form.

Owns the names' prefix and nothing else: what is counted is in ``stats``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from otel_memory.analyzer.stats import MEASURES, Measure, Stats
from otel_memory.analyzer.view import View

PREFIX: Final = "otel_memory_analyzer_"


class StatsCollector(Collector):
    """Shows ``stats``, the sizes of ``view``, and what ``gauges`` return (name -> (help, value))."""

    def __init__(self, stats: Stats, view: View, gauges: Callable[[], dict[str, tuple[str, float]]]) -> None:
        self._stats = stats
        self._view = view
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """One family for each measure, in a fixed order; counters without a label begin at 0."""
        for measure in MEASURES:
            yield self._family(measure)
        yield from self._outputs()
        summary = self._view.summary()
        processes = GaugeMetricFamily(f"{PREFIX}processes", "Processes by verdict.", labels=["verdict"])
        for verdict, count in summary.processes.items():
            processes.add_metric([verdict.value], count)
        yield processes
        alerts = GaugeMetricFamily(f"{PREFIX}alerts", "Alerts by state.", labels=["state"])
        for state, count in summary.alerts.items():
            alerts.add_metric([state.value], count)
        yield alerts
        for name, (text, value) in self._gauges().items():
            yield GaugeMetricFamily(f"{PREFIX}{name}", text, value=value)

    def _family(self, measure: Measure) -> Metric:
        name, labels = PREFIX + measure.name, list(measure.labels)
        values = dict(self._stats.values(measure)) or ({} if labels else {(): 0.0})
        if measure.kind == "summary":
            summary = SummaryMetricFamily(name, measure.help, labels=labels)
            counts = self._stats.counts(measure)
            for key, total in values.items():
                summary.add_metric(list(key), count_value=counts.get(key, 0), sum_value=total)
            return summary
        family = (CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily)(
            name, measure.help, labels=labels
        )
        for key, value in values.items():
            family.add_metric(list(key), value)
        return family

    def _outputs(self) -> Iterator[Metric]:
        deliveries = CounterMetricFamily(
            f"{PREFIX}deliveries",
            "Deliveries at an output, by outcome: changes of alerts, judgements of processes.",
            labels=["output", "outcome"],
        )
        pending = GaugeMetricFamily(f"{PREFIX}deliveries_pending", "Alert changes that wait.", labels=["output"])
        held = GaugeMetricFamily(f"{PREFIX}deliveries_held", "Alert changes kept back by silences.", labels=["output"])
        failing = GaugeMetricFamily(f"{PREFIX}output_failing", "1 while all tries fail.", labels=["output"])
        for health in self._stats.outputs():
            failing.add_metric([health.name], health.failing_since is not None)
            held.add_metric([health.name], health.held)
            deliveries.add_metric([health.name, "delivered"], health.delivered)
            deliveries.add_metric([health.name, "failed"], health.failed)
            deliveries.add_metric([health.name, "abandoned"], health.abandoned)
            pending.add_metric([health.name], health.pending)
        yield deliveries
        yield pending
        yield held
        yield failing


def build_registry(stats: Stats, view: View, gauges: Callable[[], dict[str, tuple[str, float]]]) -> CollectorRegistry:
    """A registry of its own: the library's global one would add the process's and other programs' metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatsCollector(stats, view, gauges))
    return registry
