"""OTLP request bodies -> points and events, and the answers to them.

Owns the rules: which points are kept, skipped, rejected. Never raises anything but ``MalformedPayload``, never
reads a clock, never looks at a series.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from math import isfinite
from typing import Final, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_memory.analyzer import decode_json, decode_protobuf
from otel_memory.analyzer.decode_common import CUMULATIVE, DELTA, Notes, RawMetric, RawResource
from otel_memory.analyzer.model import Decoded, Event, Payload, Point, PointKind
from otel_memory.analyzer.roles import WANTED

Signal = Literal["metrics", "logs", "traces"]
Encoding = Literal["protobuf", "json"]

MIN_TIME_NS: Final = 946_684_800 * 10**9
MAX_TIME_NS: Final = 4_102_444_800 * 10**9
"""2000-01-01 and 2100-01-01: a point outside has no time, or a time in another unit."""

MAX_POINTS: Final = 50_000
"""Points read of one request. An empty point is two bytes, so the size of a request alone would not bound the time
that it costs."""

_READERS: Final = {"protobuf": decode_protobuf, "json": decode_json}
_NO_RECORDED_VALUE: Final = 1
_NS: Final = 10**9  # an integer: int / int is rounded once, int / float twice


class MalformedPayload(Exception):
    """The body is not what its signal and encoding say. The sender must not send it again as it is."""


def decode(body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
    """Points and events of one request body.

    A metric without a role, a log record that is no event of ours and every span are accepted and skipped. A point
    or event without a usable time or value is rejected and counted; the rest of its request is taken. Raises
    ``MalformedPayload`` where the body as a whole can't be read.
    """
    notes = Notes()
    try:
        reader = _READERS[encoding]
        if signal == "traces":
            return Decoded((), reader.count_spans(body), 0, "")
        if signal == "metrics":
            return _decode_metrics(reader.read_metrics(body, notes), notes)
        return _decode_logs(reader.read_logs(body, notes), notes)
    except ValueError as error:
        raise MalformedPayload(str(error)[:300]) from None


def response(signal: Signal, decoded: Decoded, encoding: Encoding) -> bytes:
    """The body that answers a request: empty on full success, else a partial success (or a warning) by OTLP."""
    if not decoded.rejected and not decoded.error:
        return b"{}" if encoding == "json" else b""
    if encoding == "json":
        partial = {_REJECTED_JSON[signal]: str(decoded.rejected), "errorMessage": decoded.error}
        return json.dumps({"partialSuccess": partial}).encode()
    if signal == "metrics":
        metrics = ExportMetricsServiceResponse()
        metrics.partial_success.rejected_data_points = decoded.rejected
        metrics.partial_success.error_message = decoded.error
        return metrics.SerializeToString()
    if signal == "logs":
        logs = ExportLogsServiceResponse()
        logs.partial_success.rejected_log_records = decoded.rejected
        logs.partial_success.error_message = decoded.error
        return logs.SerializeToString()
    traces = ExportTraceServiceResponse()
    traces.partial_success.rejected_spans = decoded.rejected
    traces.partial_success.error_message = decoded.error
    return traces.SerializeToString()


_REJECTED_JSON: Final[dict[Signal, str]] = {
    "metrics": "rejectedDataPoints",
    "logs": "rejectedLogRecords",
    "traces": "rejectedSpans",
}


def _decode_metrics(resources: Iterable[RawResource], notes: Notes) -> Decoded:
    payloads: list[Payload] = []
    rejected: Counter[str] = Counter()
    accepted = 0
    room = MAX_POINTS
    for resource in resources:
        points: list[Point] = []
        for metric in resource.metrics:
            accepted += metric.size
            if metric.name not in WANTED:
                continue
            if metric.size > room:
                rejected[f"beyond {MAX_POINTS} in one request"] += metric.size
                continue
            room -= metric.size
            _take(metric, points, rejected)
        if points:
            payloads.append(Payload(resource.attributes(), points, ()))
    return _decoded(payloads, accepted, rejected, notes, "data points")


def _take(metric: RawMetric, points: list[Point], rejected: Counter[str]) -> None:
    name = metric.name
    kind = _kind(metric)
    if kind is None:
        rejected["without an aggregation temporality"] += metric.size
        return
    new = tuple.__new__  # Point(...) goes through a Python function, which takes twice as long
    append = points.append
    for time_ns, start_ns, flags, value, total, attributes in metric.points:
        if flags & _NO_RECORDED_VALUE:
            continue
        if not MIN_TIME_NS <= time_ns <= MAX_TIME_NS:
            rejected["without a usable time"] += 1
        elif value is None:
            rejected["without a value"] += 1
        elif not isfinite(value):
            rejected["not finite"] += 1
        else:
            start = start_ns / _NS if MIN_TIME_NS <= start_ns <= time_ns else None
            if total is not None and not isfinite(total):
                total = None
            append(new(Point, (name, attributes, time_ns / _NS, start, float(value), kind, total)))


def _kind(metric: RawMetric) -> PointKind | None:
    if metric.temporality is None:
        return "gauge"
    if metric.temporality == DELTA:
        return "delta"
    if metric.temporality == CUMULATIVE:
        return "sum" if metric.monotonic else "gauge"
    return None


def _decode_logs(resources: Iterable[RawResource], notes: Notes) -> Decoded:
    payloads: list[Payload] = []
    rejected: Counter[str] = Counter()
    accepted = 0
    for resource in resources:
        events: list[Event] = []
        for record in resource.records:
            accepted += 1
            if record is None:
                continue
            if MIN_TIME_NS <= record.time_ns <= MAX_TIME_NS:
                time = record.time_ns / _NS
                events.append(Event(record.name, time, record.severity_number, record.attributes, record.body))
            else:
                rejected["without a usable time"] += 1
        if events:
            payloads.append(Payload(resource.attributes(), (), events))
    return _decoded(payloads, accepted, rejected, notes, "events")


def _decoded(payloads: list[Payload], seen: int, rejected: Counter[str], notes: Notes, noun: str) -> Decoded:
    """``seen`` counts all of the request; what was rejected is taken off it."""
    refused = rejected.total()
    error = ""
    if refused:
        error = f"{refused} {noun} rejected: " + ", ".join(f"{count} {why}" for why, count in rejected.items())
    if notes.cut:
        error += f"{'; ' if error else ''}{notes.cut} attributes dropped or cut to the analyzer's bounds"
    return Decoded(payloads, seen - refused, refused, error)
