"""Reads the JSON form of OTLP with a walk of its own over ``json.loads``. Hands out what was sent; judges nothing.

Why not ``google.protobuf.json_format``: it takes trace ids for base64, refuses unknown fields, and is about ten
times slower. The rules are those of the OTLP specification, "JSON Protobuf Encoding": names in lowerCamelCase,
unknown fields ignored, 64-bit integers as strings or numbers, enums as integers (their names are taken too), bytes
in base64, NaN and the infinities as strings. ``null`` stands for an absent field, as in protobuf's JSON mapping.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from otel_memory.analyzer.decode_common import (
    CUMULATIVE,
    EVENT_PREFIX,
    LEGACY_EVENT_NAME,
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_RESOURCE_ATTRIBUTES,
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
from otel_memory.analyzer.model import AttributeSet, AttributeValue

_Object = dict[str, Any]
_EMPTY: Final[_Object] = {}
_UINT64: Final = (0, 2**64 - 1)
_INT64: Final = (-(2**63), 2**63 - 1)
_UINT32: Final = (0, 2**32 - 1)


def read_metrics(body: bytes, notes: Notes) -> Iterator[RawResource]:
    """What each resource of an ``ExportMetricsServiceRequest`` sent. Raises ValueError."""
    for each in _list(_load(body), "resourceMetrics"):
        yield RawResource(partial(_resource, each, notes), metrics=_metrics(each, notes))


def read_logs(body: bytes, notes: Notes) -> Iterator[RawResource]:
    """What each resource of an ``ExportLogsServiceRequest`` sent. Raises ValueError."""
    for each in _list(_load(body), "resourceLogs"):
        yield RawResource(partial(_resource, each, notes), records=_records(each, notes))


def count_spans(body: bytes) -> int:
    """Spans in an ``ExportTraceServiceRequest``. Raises ValueError."""
    resources = _list(_load(body), "resourceSpans")
    return sum(len(_list(scope, "spans")) for resource in resources for scope in _list(resource, "scopeSpans"))


def _load(body: bytes) -> _Object:
    try:
        loaded = json.loads(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise ValueError("not a JSON object")
    return loaded


def _list(parent: _Object, key: str) -> list[_Object]:
    """The list of objects at ``key``; an absent one is empty."""
    found = parent.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(element, dict) for element in found):
        raise ValueError(f"{key} is not a list of objects")
    return found


def _object(parent: _Object, key: str) -> _Object:
    found = parent.get(key)
    if found is None:
        return _EMPTY
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not an object")
    return found


def _string(parent: _Object, key: str) -> str:
    found = parent.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError(f"{key} is not a string")
    return found if found.isascii() else _unicode(found)


def _unicode(found: str) -> str:
    """``found`` without lone surrogates, which JSON can escape and nothing behind us can encode."""
    return found.encode("utf-8", "replace").decode("utf-8")


def _integer(parent: _Object, key: str, bounds: tuple[int, int]) -> int:
    found = parent.get(key)
    if found is None:
        return 0
    if isinstance(found, str) or (isinstance(found, float) and found.is_integer()):
        try:
            found = int(found)
        except ValueError:
            raise ValueError(f"{key} is not an integer") from None
    if type(found) is not int or not bounds[0] <= found <= bounds[1]:
        raise ValueError(f"{key} is not an integer of its range")
    return found


def _double(parent: _Object, key: str) -> float:
    found = parent.get(key)
    if found is None:
        return 0.0
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise ValueError(f"{key} is not a number")
    try:
        return float(found)
    except (ValueError, OverflowError):
        raise ValueError(f"{key} is not a number") from None


def _boolean(parent: _Object, key: str) -> bool:
    found = parent.get(key)
    if found is not None and not isinstance(found, bool):
        raise ValueError(f"{key} is not a boolean")
    return bool(found)


def _temporality(parent: _Object) -> int:
    found = parent.get("aggregationTemporality")
    if isinstance(found, str) and not found.isdecimal():
        return int(AggregationTemporality.Value(found))
    return _integer(parent, "aggregationTemporality", _UINT32)


def _severity(parent: _Object) -> int:
    found = parent.get("severityNumber")
    if isinstance(found, str) and not found.isdecimal():
        return int(SeverityNumber.Value(found))
    return _integer(parent, "severityNumber", _UINT32)


def _metrics(resource: _Object, notes: Notes) -> Iterator[RawMetric]:
    for scope in _list(resource, "scopeMetrics"):
        for metric in _list(scope, "metrics"):
            yield _metric(metric, notes)


def _metric(metric: _Object, notes: Notes) -> RawMetric:
    name = _string(metric, "name")
    if metric.get("gauge") is not None:
        points = _list(_object(metric, "gauge"), "dataPoints")
        return RawMetric(name, None, False, len(points), _numbers(points, notes))
    if metric.get("sum") is not None:
        data = _object(metric, "sum")
        points = _list(data, "dataPoints")
        return RawMetric(name, _temporality(data), _boolean(data, "isMonotonic"), len(points), _numbers(points, notes))
    for key in ("histogram", "exponentialHistogram"):
        if metric.get(key) is not None:
            data = _object(metric, key)
            points = _list(data, "dataPoints")
            return RawMetric(name, _temporality(data), True, len(points), _counted(points, notes))
    if metric.get("summary") is not None:
        points = _list(_object(metric, "summary"), "dataPoints")
        return RawMetric(name, CUMULATIVE, True, len(points), _counted(points, notes))
    return RawMetric(name, None, False, 0, iter(()))


def _numbers(points: list[_Object], notes: Notes) -> Iterator[RawPoint]:
    for point in points:
        value: float | None = None
        if point.get("asDouble") is not None:
            value = _double(point, "asDouble")
        elif point.get("asInt") is not None:
            value = _integer(point, "asInt", _INT64)
        yield *_when(point), value, None, _attributes(point, notes)


def _counted(points: list[_Object], notes: Notes) -> Iterator[RawPoint]:
    for point in points:
        count = _integer(point, "count", _UINT64)
        total = None if point.get("sum") is None else _double(point, "sum")
        yield *_when(point), count, total, _attributes(point, notes)


def _when(point: _Object) -> tuple[int, int, int]:
    return (
        _integer(point, "timeUnixNano", _UINT64),
        _integer(point, "startTimeUnixNano", _UINT64),
        _integer(point, "flags", _UINT32),
    )


def _records(resource: _Object, notes: Notes) -> Iterator[RawRecord | None]:
    for scope in _list(resource, "scopeLogs"):
        for record in _list(scope, "logRecords"):
            name = _string(record, "eventName") or _legacy_name(record)
            if not name.startswith(EVENT_PREFIX):
                yield None
                continue
            attributes = dict(_pairs(record, MAX_ATTRIBUTES, notes))
            attributes.pop(LEGACY_EVENT_NAME, None)
            yield RawRecord(
                cut(name, notes),
                _integer(record, "timeUnixNano", _UINT64) or _integer(record, "observedTimeUnixNano", _UINT64),
                _severity(record),
                attributes,
                body_text(_plain(_object(record, "body"), MAX_DEPTH, notes), notes),
            )


def _legacy_name(record: _Object) -> str:
    for attribute in _list(record, "attributes"):
        if attribute.get("key") == LEGACY_EVENT_NAME:
            return _string(_object(attribute, "value"), "stringValue")
    return ""


def _resource(parent: _Object, notes: Notes) -> Mapping[str, AttributeValue]:
    return dict(_pairs(_object(parent, "resource"), MAX_RESOURCE_ATTRIBUTES, notes))


def _attributes(point: _Object, notes: Notes) -> AttributeSet:
    return attribute_set(_pairs(point, MAX_ATTRIBUTES, notes))


def _pairs(parent: _Object, limit: int, notes: Notes) -> list[tuple[str, AttributeValue]]:
    attributes = _list(parent, "attributes")
    notes.cut += max(0, len(attributes) - limit)
    pairs: list[tuple[str, AttributeValue]] = []
    for attribute in attributes[:limit]:
        value = bounded(_plain(_object(attribute, "value"), MAX_DEPTH, notes), notes)
        if value is not None:
            pairs.append((cut(_string(attribute, "key"), notes), value))
    return pairs


def _plain(value: _Object, depth: int, notes: Notes) -> Plain:
    for key, content in value.items():
        if content is None:
            continue
        match key:
            case "stringValue":
                return _string(value, key)
            case "boolValue":
                return _boolean(value, key)
            case "intValue":
                return _integer(value, key, _INT64)
            case "doubleValue":
                return _double(value, key)
            case "bytesValue":
                return _bytes(_string(value, key))
            case "arrayValue" if depth:
                elements = _list(_object(value, key), "values")
                notes.cut += len(elements) > MAX_ATTRIBUTES
                return [_plain(element, depth - 1, notes) for element in elements[:MAX_ATTRIBUTES]]
            case "kvlistValue" if depth:
                pairs = _list(_object(value, key), "values")
                notes.cut += len(pairs) > MAX_ATTRIBUTES
                return {
                    _string(pair, "key"): _plain(_object(pair, "value"), depth - 1, notes)
                    for pair in pairs[:MAX_ATTRIBUTES]
                }
            case "arrayValue" | "kvlistValue":
                notes.cut += 1
                return None
    return None


def _bytes(encoded: str) -> bytes:
    # Both alphabets, padding optional, as protobuf's JSON mapping has it.
    encoded = encoded.translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError("bytesValue is not base64") from None


_URL_SAFE: Final = str.maketrans("-_", "+/")
