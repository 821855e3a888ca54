"""``ScoreExporter``: what the analyzer judges, as OTLP metrics, for Grafana and whatever else reads metrics.

Owns the form (metrics of ``names.ANALYZER_METRICS``) and the beat. Each process's points stand under a resource that
names the process as its own metrics do, so that both can be joined; their time is that of the newest sample judged.
Nothing is queued: what could not be sent is superseded by the next judgement. Never judges.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_memory import names
from otel_memory.analyzer.model import Assessment, ProcessInfo, Verdict
from otel_memory.analyzer.outputs.otlp import Protocol
from otel_memory.analyzer.stats import OutputHealth, Stats
from otel_memory.version import __version__

_logger = logging.getLogger(__name__)

NAME: Final = "scores"
BATCH: Final = 500
"""Processes in one request."""
SUSPECTS: Final = 3
"""Of each process."""
_SCOPE: Final = InstrumentationScope(names.ANALYZER_SCOPE, __version__)


class ScoreExporter:
    """Sends every ``interval_seconds`` what was judged since. ``start`` once, ``stop`` once."""

    def __init__(
        self,
        exporter: MetricExporter,
        assessments: Callable[[], Iterable[Assessment]],
        stats: Stats,
        *,
        interval_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``assessments`` gives the latest judgement of every process, from any thread."""
        self._exporter = exporter
        self._assessments = assessments
        self._stats = stats
        self._interval = interval_seconds
        self._clock = clock
        self._sent: dict[str, float] = {}
        self._stopping = threading.Event()
        self._failing = False
        self._health = OutputHealth(NAME)
        self._thread = threading.Thread(target=self._run, name="otel-memory-scores", daemon=True)
        self._stats.output(self._health)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """Ends the thread; a request under way is cut short. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(timeout_seconds / 2)
        self._exporter.shutdown()
        self._thread.join(timeout_seconds / 2)

    def send(self) -> None:
        """Sends what was judged since it was sent last; what fails is left to the next time."""
        fresh: list[Assessment] = []
        known: dict[str, float] = {}
        for assessment in self._assessments():
            process_id = assessment.process.id
            known[process_id] = self._sent.get(process_id, float("-inf"))
            if assessment.last_seen > known[process_id]:
                fresh.append(assessment)
        # Not of those that are forgotten.
        self._sent = known
        for begin in range(0, len(fresh), BATCH):
            if self._stopping.is_set() or not self._export(fresh[begin : begin + BATCH]):
                return

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self.send()
            except Exception as error:
                _logger.exception("sending scores failed in a way that it should not")
                self._publish(failed=self._health.failed + 1, last_error=f"{type(error).__name__}: {error}")

    def _export(self, assessments: Sequence[Assessment]) -> bool:
        self._publish(busy_since=self._clock())
        with suppress_instrumentation():
            result = self._exporter.export(MetricsData([to_resource_metrics(one) for one in assessments]))
        if result is not MetricExportResult.SUCCESS:
            text = "the OTLP endpoint did not take the metrics (the exporter's own log says why)"
            if not self._failing and not self._stopping.is_set():
                _logger.warning("scores: %s; they are sent again every %g s", text, self._interval)
            self._failing = True
            since = self._health.failing_since or self._clock()
            self._publish(failed=self._health.failed + 1, last_error=text, busy_since=None, failing_since=since)
            return False
        self._failing = False
        self._sent.update((one.process.id, one.last_seen) for one in assessments)
        delivered = self._health.delivered + len(assessments)
        self._publish(delivered=delivered, last_delivered=self._clock(), busy_since=None, failing_since=None)
        return True

    def _publish(self, **changes: object) -> None:
        self._health = replace(self._health, **changes)  # type: ignore[arg-type]
        self._stats.output(self._health)


def build(
    endpoint: str,
    protocol: Protocol,
    assessments: Callable[[], Iterable[Assessment]],
    stats: Stats,
    *,
    interval_seconds: float,
    timeout_seconds: float = 10.0,
) -> ScoreExporter:
    """An exporter to ``endpoint``: ``http://host:4317`` (gRPC; https means TLS) or a base URL ``http://host:4318``.

    Certificates, compression and headers come from the standard ``OTEL_EXPORTER_OTLP_*`` variables.
    """
    exporter: MetricExporter
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        insecure = not endpoint.startswith("https://")
        exporter = GrpcExporter(endpoint=endpoint, insecure=insecure, timeout=timeout_seconds)
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

        url = endpoint.rstrip("/")
        url = url if url.endswith("/v1/metrics") else f"{url}/v1/metrics"
        exporter = HttpExporter(endpoint=url, timeout=timeout_seconds)
    return ScoreExporter(exporter, assessments, stats, interval_seconds=interval_seconds)


def to_resource_metrics(assessment: Assessment) -> ResourceMetrics:
    """One judgement as metrics; what is not known has no point."""
    reaches = assessment.time_to_limit
    values: list[tuple[str, float | None, Mapping[str, str]]] = [
        (names.LEAK_SCORE, assessment.leak_score, {}),
        (names.LEAK_GROWTH, assessment.growth_bytes_per_second, {}),
        (names.LEAK_TIME_TO_LIMIT, None if reaches is None else reaches.estimate, {}),
        (names.LEAK_TIME_TO_LIMIT_LOW, None if reaches is None else reaches.low, {}),
        *(
            (names.LEAK_STATUS, float(assessment.verdict is verdict), {names.LEAK_VERDICT: verdict.value})
            for verdict in Verdict
        ),
        *(
            (
                names.LEAK_SUSPECT_GROWTH,
                suspect.growth_bytes_per_second,
                {names.LEAK_SUSPECT_KIND: suspect.kind, names.LEAK_SUSPECT_NAME: suspect.name},
            )
            for suspect in assessment.suspects[:SUSPECTS]
        ),
    ]
    at = round(assessment.last_seen * 1e9)
    points: dict[str, list[NumberDataPoint]] = {}
    for name, value, attributes in values:
        if value is not None:
            points.setdefault(name, []).append(NumberDataPoint(attributes, 0, at, float(value)))
    metrics = [
        Metric(name, names.ANALYZER_METRICS[name].description, names.ANALYZER_METRICS[name].unit, Gauge(made))
        for name, made in points.items()
    ]
    return ResourceMetrics(_resource(assessment.process), [ScopeMetrics(_SCOPE, metrics, "")], "")


def _resource(process: ProcessInfo) -> Resource:
    found = {
        names.SERVICE_NAME: process.service_name,
        names.SERVICE_VERSION: process.service_version,
        names.SERVICE_INSTANCE_ID: process.service_instance_id,
        names.HOST_NAME: process.host_name,
        names.PROCESS_PID: process.pid,
        names.LEAK_PROCESS_ID: process.id,
    }
    # Built directly: Resource.create would take this process's OTEL_RESOURCE_ATTRIBUTES for the other's.
    return Resource({name: value for name, value in found.items() if value is not None})
