"""Recorded trees, a clock that is set by hand, and a meter of the real SDK with what it exported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory.probe.sources import Gate

TREES = Path(__file__).parents[2] / "data" / "proc"


class Clock:
    """Seconds; moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Exported:
    """A meter of the SDK; ``points()`` collects now."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self.reader], shutdown_on_exit=False)
        self.meter = self.provider.get_meter("otel_memory")

    def metrics(self) -> list:
        data = self.reader.get_metrics_data()
        return [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def names(self) -> list[str]:
        return sorted(metric.name for metric in self.metrics())

    def points(self) -> dict[str, dict[tuple, float]]:
        """Values by metric, by the values of the attributes in the order of their keys."""
        return {
            metric.name: {
                tuple(point.attributes[key] for key in sorted(point.attributes)): point.value
                for point in metric.data.data_points
            }
            for metric in self.metrics()
            if hasattr(metric.data.data_points[0], "value")
        }


@pytest.fixture
def trees() -> Path:
    return TREES


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def exported() -> Iterator[Exported]:
    made = Exported()
    yield made
    made.provider.shutdown()


@pytest.fixture
def failures() -> list[tuple[str, BaseException]]:
    return []


@pytest.fixture
def gate(failures: list[tuple[str, BaseException]]) -> Gate:
    return Gate(lambda part, error: failures.append((part, error)))
