"""Reads OTLP protobuf by the generated messages (upb). Hands out what was sent; judges nothing.

Each access to a field of a upb message makes a Python object, so a point's fields are read once and in a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_memory.analyzer.decode_cache import MAX_RESOURCE_CACHE_BYTES, Cache, Known, split
from otel_memory.analyzer.decode_common import (
    CUMULATIVE,
    EVENT_PREFIX,
    LEGACY_EVENT_NAME,
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_RESOURCE_ATTRIBUTES,
    MAX_STRING,
    Notes,
    Plain,
    RawMetric,
    RawPoint,
    RawRecord,
    RawResource,
    attribute_set,
    body_text,
    bounded,
    cut,
)
from otel_memory.analyzer.identity import KnownResource
from otel_memory.analyzer.model import AttributeSet, AttributeValue

_CACHE: Final[Cache[Known]] = Cache()
_RESOURCES: Final[Cache[KnownResource]] = Cache(MAX_RESOURCE_CACHE_BYTES)


def read_metrics(body: bytes, notes: Notes) -> Iterator[RawResource]:
    """What each resource of an ``ExportMetricsServiceRequest`` sent. Raises ValueError."""
    try:
        request = ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError(f"not an ExportMetricsServiceRequest: {error}") from None
    for each in request.resource_metrics:
        yield RawResource(partial(_resource, each.resource, notes), metrics=_metrics(each, notes))


def read_logs(body: bytes, notes: Notes) -> Iterator[RawResource]:
    """What each resource of an ``ExportLogsServiceRequest`` sent. Raises ValueError."""
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError(f"not an ExportLogsServiceRequest: {error}") from None
    for each in request.resource_logs:
        yield RawResource(partial(_resource, each.resource, notes), records=_records(each, notes))


def count_spans(body: bytes) -> int:
    """Spans in an ``ExportTraceServiceRequest``. Raises ValueError."""
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError(f"not an ExportTraceServiceRequest: {error}") from None
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def _metrics(resource: ResourceMetrics, notes: Notes) -> Iterator[RawMetric]:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            yield _metric(metric, notes)


def _metric(metric: Metric, notes: Notes) -> RawMetric:
    name = metric.name
    match metric.WhichOneof("data"):
        case "gauge":
            numbers = metric.gauge.data_points
            return RawMetric(name, None, False, len(numbers), _numbers(numbers, notes))
        case "sum":
            total = metric.sum
            numbers = total.data_points
            return RawMetric(
                name, total.aggregation_temporality, total.is_monotonic, len(numbers), _numbers(numbers, notes)
            )
        case "histogram":
            points = metric.histogram.data_points
            return RawMetric(
                name, metric.histogram.aggregation_temporality, True, len(points), _histograms(points, notes)
            )
        case "exponential_histogram":
            powers = metric.exponential_histogram.data_points
            return RawMetric(
                name,
                metric.exponential_histogram.aggregation_temporality,
                True,
                len(powers),
                _histograms(powers, notes),
            )
        case "summary":
            summaries = metric.summary.data_points
            return RawMetric(name, CUMULATIVE, True, len(summaries), _summaries(summaries, notes))
        case _:
            return RawMetric(name, None, False, 0, iter(()))


def _numbers(points: Sequence[NumberDataPoint], notes: Notes) -> Iterator[RawPoint]:
    for point in points:
        parts = split(point.SerializeToString())
        if parts is not None:
            start, time, number, rest = parts
            known = _CACHE.get(rest)
            if known is None:
                cut_before = notes.cut
                known = point.flags, _attributes(point.attributes, notes)
                if notes.cut == cut_before:
                    _CACHE.put(rest, known)
            yield time, start, known[0], number, None, known[1]
            continue
        # The field that isn't set reads 0, so only a 0 needs the question whether there is a value at all.
        value: float | None = point.as_double or point.as_int
        if not value and point.WhichOneof("value") is None:
            value = None
        attributes = _attributes(point.attributes, notes)
        yield point.time_unix_nano, point.start_time_unix_nano, point.flags, value, None, attributes


def _histograms(
    points: Sequence[HistogramDataPoint] | Sequence[ExponentialHistogramDataPoint], notes: Notes
) -> Iterator[RawPoint]:
    for point in points:
        total = point.sum if point.HasField("sum") else None
        attributes = _attributes(point.attributes, notes)
        yield point.time_unix_nano, point.start_time_unix_nano, point.flags, point.count, total, attributes


def _summaries(points: Sequence[SummaryDataPoint], notes: Notes) -> Iterator[RawPoint]:
    for point in points:
        attributes = _attributes(point.attributes, notes)
        yield point.time_unix_nano, point.start_time_unix_nano, point.flags, point.count, point.sum, attributes


def _records(resource: ResourceLogs, notes: Notes) -> Iterator[RawRecord | None]:
    for scope in resource.scope_logs:
        for record in scope.log_records:
            name = record.event_name or _legacy_name(record)
            if not name.startswith(EVENT_PREFIX):
                yield None
                continue
            attributes = dict(_pairs(record.attributes[:MAX_ATTRIBUTES], notes))
            attributes.pop(LEGACY_EVENT_NAME, None)
            notes.cut += max(0, len(record.attributes) - MAX_ATTRIBUTES)
            yield RawRecord(
                cut(name, notes),
                record.time_unix_nano or record.observed_time_unix_nano,
                record.severity_number,
                attributes,
                body_text(_plain(record.body, MAX_DEPTH, notes), notes),
            )


def _legacy_name(record: LogRecord) -> str:
    for attribute in record.attributes:
        if attribute.key == LEGACY_EVENT_NAME:
            return attribute.value.string_value
    return ""


def _resource(resource: Resource, notes: Notes) -> Mapping[str, AttributeValue]:
    key = resource.SerializeToString()
    known = _RESOURCES.get(key)
    if known is None:
        cut_before = notes.cut
        notes.cut += max(0, len(resource.attributes) - MAX_RESOURCE_ATTRIBUTES)
        known = KnownResource(dict(_pairs(resource.attributes[:MAX_RESOURCE_ATTRIBUTES], notes)))
        if notes.cut == cut_before:
            _RESOURCES.put(key, known)
    return known


def _attributes(attributes: Sequence[KeyValue], notes: Notes) -> AttributeSet:
    if len(attributes) > MAX_ATTRIBUTES:
        notes.cut += len(attributes) - MAX_ATTRIBUTES
        attributes = attributes[:MAX_ATTRIBUTES]
    return attribute_set(_pairs(attributes, notes))


def _pairs(attributes: Sequence[KeyValue], notes: Notes) -> list[tuple[str, AttributeValue]]:
    pairs: list[tuple[str, AttributeValue]] = []
    for attribute in attributes:
        key = attribute.key
        value = attribute.value
        # Nearly all values are short strings that are not empty, or integers that are not 0; a field that isn't set
        # reads as empty or 0, so these need no question what is set.
        string = value.string_value
        if string and len(string) <= MAX_STRING and len(key) <= MAX_STRING:
            pairs.append((key, string))
        elif not string and (integer := value.int_value) and len(key) <= MAX_STRING:
            pairs.append((key, integer))
        elif (kept := bounded(_plain(value, MAX_DEPTH, notes), notes)) is not None:
            pairs.append((cut(key, notes), kept))
    return pairs


def _plain(value: AnyValue, depth: int, notes: Notes) -> Plain:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bytes_value":
            return value.bytes_value
        case "array_value" if depth:
            elements = value.array_value.values
            notes.cut += len(elements) > MAX_ATTRIBUTES
            return [_plain(element, depth - 1, notes) for element in elements[:MAX_ATTRIBUTES]]
        case "kvlist_value" if depth:
            pairs = value.kvlist_value.values
            notes.cut += len(pairs) > MAX_ATTRIBUTES
            return {pair.key: _plain(pair.value, depth - 1, notes) for pair in pairs[:MAX_ATTRIBUTES]}
        case "array_value" | "kvlist_value":
            notes.cut += 1
            return None
        case _:
            return None
