"""A made-up process that sends what the probe would: as the analyzer's points, and as bytes of OTLP.

Deterministic: sample ``index`` of the same process is always the same, whoever asks and however often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_memory import names
from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.model import Decoded, Event, Payload

MIB = 2**20
T0 = 1_800_000_000.0
ROUTES = ("/", "/products/{number}", "/search", "/cart/{customer}", "/orders")
LEAKING_ROUTE = "/cart/{customer}"
_CUMULATIVE = 2
_DURATION = "http.server.request.duration"


@dataclass(frozen=True)
class MadeUp:
    """One process from ``begin`` (s since the epoch) on, a sample every ``spacing`` seconds.

    It has ``base`` bytes; each call of ``LEAKING_ROUTE`` leaves ``leak_per_call`` bytes behind, and garbage comes and
    goes. After ``restart_at`` samples it begins anew: counters, start and memory; its instance id stays.
    """

    instance: str = "made-up-1"
    service: str = "shop"
    version: str = "1.0.0"
    begin: float = T0
    spacing: float = 1.0
    base: int = 80 * MIB
    leak_per_call: int = 40_000
    limit: int = 512 * MIB
    restart_at: int | None = None
    operations: int = 0

    def time(self, index: int) -> float:
        return self.begin + index * self.spacing

    def _life(self, index: int) -> tuple[float, int]:
        """When the present life began, and how many samples it has had."""
        if self.restart_at is not None and index >= self.restart_at:
            return self.time(self.restart_at) - self.spacing / 2, index - self.restart_at
        return self.begin - 5.0, index

    def _calls(self, route: int, age: int) -> int:
        """Calls of a route so far; each route breathes in a rhythm of its own."""
        rhythm = 17.0 + 6.0 * route
        return int(5.0 * age + rhythm * 0.45 * (1 - math.cos(2 * math.pi * age / rhythm)) + (age * (3 + route)) % 2)

    def memory(self, index: int) -> int:
        """Resident bytes at sample ``index``."""
        _, age = self._life(index)
        garbage = ((index * 2654435761) % 97) * 8192 + (index % 11) * 65_536
        return self.base + garbage + self.leak_per_call * self._calls(ROUTES.index(LEAKING_ROUTE), age)

    def request(self, index: int) -> ExportMetricsServiceRequest:
        """Sample ``index`` as a request with some 25 points."""
        made = ExportMetricsServiceRequest()
        self.add_to(made, index)
        return made

    def add_to(self, made: ExportMetricsServiceRequest, index: int) -> None:
        """Add sample ``index`` to a request that may hold other processes."""
        each = made.resource_metrics.add()
        for key, text in (
            ("service.name", self.service),
            ("service.instance.id", self.instance),
            ("service.version", self.version),
            ("host.name", "box"),
            ("telemetry.sdk.language", "python"),
        ):
            each.resource.attributes.add(key=key).value.string_value = text
        each.resource.attributes.add(key="process.pid").value.int_value = 4242
        metrics = each.scope_metrics.add().metrics
        begun, age = self._life(index)
        now = round(self.time(index) * 1e9)
        start = round(begun * 1e9)

        def gauge(name: str, value: float, **attributes: str) -> None:
            point = metrics.add(name=name).gauge.data_points.add(time_unix_nano=now, as_double=value)
            for key, text in attributes.items():
                point.attributes.add(key=key.replace("__", ".")).value.string_value = text

        def counter(name: str, value: int, monotonic: bool, attributes: dict[str, str | int]) -> None:
            metric = metrics.add(name=name)
            metric.sum.aggregation_temporality = _CUMULATIVE  # type: ignore[assignment]
            metric.sum.is_monotonic = monotonic
            point = metric.sum.data_points.add(time_unix_nano=now, start_time_unix_nano=start, as_int=value)
            for key, given in attributes.items():
                pair = point.attributes.add(key=key).value
                if isinstance(given, int):
                    pair.int_value = given
                else:
                    pair.string_value = given

        memory = self.memory(index)
        gauge(names.PROCESS_MEMORY_USAGE, memory)
        gauge(names.MEMORY_LIMIT, self.limit, **{names.LIMIT_KIND: "cgroup_v2"})
        gauge(names.PROCESS_UPTIME, self.time(index) - begun)
        gauge(names.HEAP_USAGE, memory * 0.5, **{names.HEAP_KIND: "arena"})
        gauge(names.HEAP_USAGE, 2 * MIB, **{names.HEAP_KIND: "mmap"})
        gauge(names.PYTHON_BLOCK_COUNT, memory // 90)
        gauge(names.GC_FLOOR_USAGE, self.memory(index - index % 30))
        counter(names.GC_COLLECTIONS, age // 30, True, {names.CPYTHON_GC_GENERATION: 2})
        for number in range(self.operations):
            operation = {names.OPERATION_NAME: f"shop.orders.step_{number}"}
            calls = 3 * age * (number + 1)
            counter(names.OPERATION_CALLS, calls, True, {**operation, names.OPERATION_STATUS: "success"})
            counter(names.OPERATION_GROWTH, 64 * calls, False, {**operation})
        for number, route in enumerate(ROUTES):
            metric = metrics.add(name=_DURATION, unit="s")
            metric.histogram.aggregation_temporality = _CUMULATIVE  # type: ignore[assignment]
            count = self._calls(number, age)
            point = metric.histogram.data_points.add(
                time_unix_nano=now, start_time_unix_nano=start, count=count, sum=0.01 * count
            )
            point.bucket_counts.extend([count, 0])
            point.explicit_bounds.append(0.1)
            for key, text in ((names.HTTP_ROUTE, route), (names.HTTP_REQUEST_METHOD, "GET")):
                point.attributes.add(key=key).value.string_value = text

    def body(self, index: int) -> bytes:
        """Sample ``index`` as the bytes of a request."""
        return self.request(index).SerializeToString()

    def decoded(self, index: int) -> Decoded:
        """Sample ``index`` as the worker hands it to the pipeline."""
        return decode(self.body(index), "metrics", "protobuf")

    def payload(self, index: int) -> Payload:
        """Sample ``index`` as the analyzer's points."""
        return self.decoded(index).payloads[0]

    def event(self, index: int, name: str = names.EVENT_THRESHOLD_CROSSED) -> Decoded:
        """A request with one event and no point."""
        happened = Event(name, self.time(index), 13, {names.THRESHOLD_NAME: "growth"}, "memory grew")
        return Decoded([Payload(self.payload(index).resource, (), (happened,))], 1, 0, "")
