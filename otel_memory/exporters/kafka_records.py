"""An export request as records of Kafka, in the form of the Collector's exporter (``otlp_proto``). Pure.

One resource a record, no headers. The key is the Collector's own hash of the resource's attributes
(``partition_metrics_by_resource_attributes``, ``partition_logs_by_resource_attributes``), without those that
``collector-config/`` strips, so that a process keeps its partition whichever way its telemetry takes. A value that
would be too large is split: by metric, by data point, by log record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import xxhash
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

R = TypeVar("R", ResourceMetrics, ResourceLogs)

VOLATILE: Final = frozenset({"process.command_args", "process.command_line"})
"""Attributes that are no part of the key, because they may differ between two starts of the same thing."""

FRAME: Final = 12
"""Bytes at most that a message costs where it stands in another: a tag, and a length below 2**63."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The value of one record and how many data points or log records it holds."""

    key: bytes
    value: bytes
    items: int


def metric_pieces(request: ExportMetricsServiceRequest, limit: int) -> tuple[list[Piece], int]:
    """Values of at most ``limit`` bytes, and how many data points fit into none."""
    return _pieces(
        request.resource_metrics,
        lambda resource: ExportMetricsServiceRequest(resource_metrics=[resource]),
        _points_of,
        _split_metrics,
        limit,
    )


def log_pieces(request: ExportLogsServiceRequest, limit: int) -> tuple[list[Piece], int]:
    """Values of at most ``limit`` bytes, and how many log records fit into none."""
    return _pieces(
        request.resource_logs,
        lambda resource: ExportLogsServiceRequest(resource_logs=[resource]),
        _logs_of,
        _split_logs,
        limit,
    )


def _pieces(
    resources: Iterable[R],
    request_of: Callable[[R], Any],
    count: Callable[[R], int],
    split: Callable[[R, int], tuple[Iterable[R], int]],
    limit: int,
) -> tuple[list[Piece], int]:
    pieces: list[Piece] = []
    lost = 0
    for resource in resources:
        key = resource_key(resource.resource)
        whole = request_of(resource)
        if whole.ByteSize() <= limit:
            pieces.append(Piece(key, whole.SerializeToString(), count(resource)))
            continue
        parts, dropped = split(resource, limit)
        lost += dropped
        pieces += [Piece(key, request_of(part).SerializeToString(), count(part)) for part in parts]
    return pieces, lost


def points(metric: Metric) -> Any:
    """The data points of ``metric``, whatever its kind; empty where it has none."""
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def _points_of(resource: ResourceMetrics) -> int:
    return sum(len(points(metric)) for scope in resource.scope_metrics for metric in scope.metrics)


def _logs_of(resource: ResourceLogs) -> int:
    return sum(len(scope.log_records) for scope in resource.scope_logs)


def _split_metrics(resource: ResourceMetrics, limit: int) -> tuple[list[ResourceMetrics], int]:
    parts: list[ResourceMetrics] = []
    lost = 0
    empty = ResourceMetrics(resource=resource.resource, schema_url=resource.schema_url)
    room = 0
    for scope in resource.scope_metrics:
        opened = None
        head = type(scope)(scope=scope.scope, schema_url=scope.schema_url)
        start = limit - 2 * FRAME - empty.ByteSize() - head.ByteSize()
        for metric, dropped in _small_metrics(scope.metrics, start):
            lost += dropped
            if metric is None:
                continue
            size = metric.ByteSize() + FRAME
            if not parts or size + (0 if opened else head.ByteSize() + FRAME) > room:
                part = ResourceMetrics()
                part.CopyFrom(empty)
                parts.append(part)
                room, opened = limit - FRAME - empty.ByteSize(), None
            if opened is None:
                opened = parts[-1].scope_metrics.add()
                opened.CopyFrom(head)
                room -= head.ByteSize() + FRAME
            opened.metrics.append(metric)
            room -= size
    return parts, lost


def _small_metrics(metrics: Sequence[Metric], room: int) -> Iterator[tuple[Metric | None, int]]:
    """Each metric, or parts of it, of at most ``room`` bytes with their frame; and how many points were left out."""
    for metric in metrics:
        if metric.ByteSize() + FRAME <= room:
            yield metric, 0
            continue
        empty = Metric()
        empty.CopyFrom(metric)
        del points(empty)[:]
        start = room - 2 * FRAME - empty.ByteSize()
        part, left = None, 0
        for point in points(metric):
            size = point.ByteSize() + FRAME
            if size > start:
                yield None, 1
                continue
            if part is None or size > left:
                if part is not None:
                    yield part, 0
                part, left = Metric(), start
                part.CopyFrom(empty)
            points(part).append(point)
            left -= size
        if part is not None:
            yield part, 0


def _split_logs(resource: ResourceLogs, limit: int) -> tuple[list[ResourceLogs], int]:
    parts: list[ResourceLogs] = []
    lost = 0
    empty = ResourceLogs(resource=resource.resource, schema_url=resource.schema_url)
    room = 0
    for scope in resource.scope_logs:
        opened = None
        head = type(scope)(scope=scope.scope, schema_url=scope.schema_url)
        start = limit - 2 * FRAME - empty.ByteSize() - head.ByteSize()
        for record in scope.log_records:
            size = record.ByteSize() + FRAME
            if size > start:
                lost += 1
                continue
            if not parts or size + (0 if opened else head.ByteSize() + FRAME) > room:
                part = ResourceLogs()
                part.CopyFrom(empty)
                parts.append(part)
                room, opened = limit - FRAME - empty.ByteSize(), None
            if opened is None:
                opened = parts[-1].scope_logs.add()
                opened.CopyFrom(head)
                room -= head.ByteSize() + FRAME
            opened.log_records.append(record)
            room -= size
    return parts, lost


# --- the key ------------------------------------------------------------------------------------------------------


def resource_key(resource: Resource) -> bytes:
    """16 bytes: ``pdatautil.MapHash`` of the Collector, over the attributes but the volatile ones."""
    attributes = [pair for pair in resource.attributes if pair.key not in VOLATILE]
    if not attributes:
        return bytes(16)
    text = _hashed_map(attributes)
    return struct.pack("<QQ", xxhash.xxh64_intdigest(text), xxhash.xxh64_intdigest(text + b"\xf3"))


def _hashed_map(pairs: Sequence[KeyValue]) -> bytes:
    first: dict[bytes, AnyValue] = {}
    for pair in pairs:
        first.setdefault(pair.key.encode(), pair.value)
    return b"".join(b"\xf4" + key + _hashed(first[key]) for key in sorted(first))


def _hashed(value: AnyValue) -> bytes:
    match value.WhichOneof("value"):
        case "string_value":
            return b"\xf7" + value.string_value.encode()
        case "bool_value":
            return b"\xf8" if value.bool_value else b"\xf9"
        case "int_value":
            return b"\xfa" + struct.pack("<q", value.int_value)
        case "double_value":
            return b"\xfb" + struct.pack("<d", value.double_value)
        case "kvlist_value":
            return b"\xfc" + _hashed_map(value.kvlist_value.values) + b"\xfd"
        case "array_value":
            return b"\xfe" + b"".join(_hashed(each) for each in value.array_value.values) + b"\xff"
        case "bytes_value":
            return b"\xf6" + value.bytes_value
        case _:
            return b"\xf5"
