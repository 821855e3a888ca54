"""One collection of the SDK with the probe's instruments, against the same SDK with the same points that cost nothing.

The floor has, for each metric of the probe that has points, an instrument of the same kind with the same attributes,
whose callback returns constants. What the probe registers and has nothing to say about yet counts against the probe.
The peer is contrib's system-metrics instrumentation, set to memory and garbage collection alone and as it comes.
``python -m tests.benchmarks.bench_collection`` prints the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Metric, Sum

from otel_memory.probe.config import Settings
from otel_memory.probe.lifecycle import Probe
from tests.benchmarks.rows import Row, in_turns, machine_line, microseconds, print_rows

TITLE = "collection"
DISTRIBUTIONS = ("opentelemetry-sdk", "opentelemetry-instrumentation-system-metrics", "psutil")
WARM_UP_SECONDS = 1.5
"""Until the sampler's second beat: by then every source has read."""
MEMORY_AND_GC: dict[str, Any] = {
    "process.memory.usage": None,
    "process.memory.virtual": None,
    "process.thread.count": None,
    "cpython.gc.collections": None,
    "cpython.gc.collected_objects": None,
    "cpython.gc.uncollectable_objects": None,
}


@contextmanager
def _provider() -> Iterator[tuple[MeterProvider, InMemoryMetricReader]]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    try:
        yield provider, reader
    finally:
        provider.shutdown()


def _metrics(reader: InMemoryMetricReader) -> list[Metric]:
    reader.collect()
    data = reader.get_metrics_data()
    return [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]


@contextmanager
def _with_probe() -> Iterator[tuple[Callable[[], object], list[Metric]]]:
    with _provider() as (provider, reader):
        probe = Probe(Settings(), meter_provider=provider)
        probe.start()
        try:
            time.sleep(WARM_UP_SECONDS)
            yield reader.collect, _metrics(reader)
        finally:
            probe.stop()


def _mirror(meter: Meter, metric: Metric) -> None:
    """An instrument that gives the points of ``metric`` again and again."""
    if isinstance(metric.data, Histogram):
        histogram = meter.create_histogram(metric.name, metric.unit)
        for point in metric.data.data_points:
            histogram.record(0.001, dict(point.attributes or {}))
        return
    constant = tuple(Observation(point.value, dict(point.attributes or {})) for point in metric.data.data_points)  # type: ignore[union-attr]

    def callback(_: CallbackOptions) -> tuple[Observation, ...]:
        return constant

    create: Any = meter.create_observable_gauge
    if isinstance(metric.data, Sum):
        create = (
            meter.create_observable_counter if metric.data.is_monotonic else meter.create_observable_up_down_counter
        )
    create(metric.name, [callback], metric.unit)


@contextmanager
def _floor(metrics: list[Metric]) -> Iterator[Callable[[], object]]:
    with _provider() as (provider, reader):
        meter = provider.get_meter("bench")
        for metric in metrics:
            _mirror(meter, metric)
        yield reader.collect


@contextmanager
def _contrib(config: dict[str, Any] | None) -> Iterator[Callable[[], object]]:
    with _provider() as (provider, reader):
        instrumentor = SystemMetricsInstrumentor() if config is None else SystemMetricsInstrumentor(config=config)
        instrumentor.instrument(meter_provider=provider)
        try:
            yield reader.collect
        finally:
            instrumentor.uninstrument()


def run(runs: int = 15) -> list[Row]:
    """The rows; some ten seconds."""
    with ExitStack() as stack:
        collect, metrics = stack.enter_context(_with_probe())
        points = sum(len(metric.data.data_points) for metric in metrics)
        floor = f"the SDK alone, {len(metrics)} metrics with {points} points (floor)"
        works = {floor: stack.enter_context(_floor(metrics)), "with the probe": collect}
        own = in_turns({name: microseconds(work) for name, work in works.items()}, "µs", runs)
    # Afterwards, because the probe leaves to contrib what contrib emits.
    rows = [own[floor].row(), own["with the probe"].over(own[floor])]
    rows.append(own["with the probe"].minus(own[floor], "  of which the probe's callbacks").row())
    for name, config in (
        ("contrib system-metrics, memory and gc alone (peer)", MEMORY_AND_GC),
        ("contrib system-metrics as it comes (peer)", None),
    ):
        with _floor(metrics) as bare, _contrib(config) as contrib:
            found = in_turns({floor: microseconds(bare), name: microseconds(contrib)}, "µs", max(3, runs // 3))
            rows.append(found[name].over(found[floor]))
    return rows


def main(runs: int = 15) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
