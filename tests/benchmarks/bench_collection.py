"""One collection of the SDK with the probe's instruments, against the SDK alone with as many gauges that cost nothing.

The peer is contrib's system-metrics instrumentation, set to memory and garbage collection alone and as it comes.
``python -m tests.benchmarks.bench_collection`` prints the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory.probe.config import Settings
from otel_memory.probe.lifecycle import Probe
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "collection"
DISTRIBUTIONS = ("opentelemetry-sdk", "opentelemetry-instrumentation-system-metrics", "psutil")
UNIT = "µs"
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


def _metrics(reader: InMemoryMetricReader) -> tuple[int, int]:
    """Metrics and points of one collection."""
    data = reader.get_metrics_data()
    if data is None:
        return 0, 0
    found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    return len(found), sum(len(list(m.data.data_points)) for m in found)


def _with_probe(runs: int) -> tuple[Row, tuple[int, int]]:
    with _provider() as (provider, reader):
        probe = Probe(Settings(), meter_provider=provider)
        probe.start()
        try:
            counts = _metrics(reader)
            return Row("with the probe", median_seconds(reader.collect, runs=runs) * 1e6, UNIT), counts
        finally:
            probe.stop()


def _bare(runs: int, metrics: int, points: int) -> Row:
    """As many gauges, and points spread over them, whose callbacks return a constant."""
    with _provider() as (provider, reader):
        meter = provider.get_meter("bench")
        for index in range(metrics):
            share = points // metrics + (index < points % metrics)
            constant = tuple(Observation(1.0, {"n": n}) for n in range(share))

            def callback(_: CallbackOptions, constant: tuple[Observation, ...] = constant) -> tuple[Observation, ...]:
                return constant

            meter.create_observable_gauge(f"bench.{index}", [callback])
        name = f"the SDK alone, {metrics} metrics with {points} points (floor)"
        return Row(name, median_seconds(reader.collect, runs=runs) * 1e6, UNIT)


def _contrib(runs: int, name: str, config: dict[str, Any] | None) -> Row:
    with _provider() as (provider, reader):
        instrumentor = SystemMetricsInstrumentor() if config is None else SystemMetricsInstrumentor(config=config)
        instrumentor.instrument(meter_provider=provider)
        try:
            return Row(name, median_seconds(reader.collect, runs=runs) * 1e6, UNIT)
        finally:
            instrumentor.uninstrument()


def run(runs: int = 7) -> list[Row]:
    """The rows; some seconds."""
    probe, (metrics, points) = _with_probe(runs)
    floor = _bare(runs, metrics, points)
    narrow = _contrib(runs, "contrib system-metrics, memory and gc alone (peer)", MEMORY_AND_GC)
    wide = _contrib(runs, "contrib system-metrics as it comes (peer)", None)
    return [floor, narrow.over(floor), wide.over(floor), probe.over(floor), probe.over(narrow)]


def main(runs: int = 7) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
