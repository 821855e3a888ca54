"""What a request body decodes to, in both encodings."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from otel_memory import names
from otel_memory.analyzer.decode import MAX_POINTS, Encoding, MalformedPayload, Signal, decode, response
from otel_memory.analyzer.decode_common import MAX_ATTRIBUTES, MAX_RESOURCE_ATTRIBUTES, MAX_STRING
from otel_memory.analyzer.model import Decoded, Payload, Point

DATA = Path(__file__).parent.parent / "data" / "otlp"
NOW_NS = 1_790_000_000_250_000_000
NOW = 1_790_000_000.25
START_NS = 1_789_999_000_000_000_000
RSS = "process.memory.usage"
ENCODINGS: tuple[Encoding, ...] = ("protobuf", "json")


def encode(message: Message, encoding: Encoding) -> bytes:
    """The JSON form as OTLP has it: enums as numbers. (No test here looks at trace ids, which this would mangle.)"""
    if encoding == "protobuf":
        return message.SerializeToString()
    return json.dumps(MessageToDict(message, use_integers_for_enums=True)).encode()


def attribute(key: str, value: AnyValue | str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value) if isinstance(value, str) else value)


def metrics_request(*metrics: Metric, resource: dict[str, str] | None = None) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    each = request.resource_metrics.add()
    each.resource.attributes.extend(attribute(k, v) for k, v in (resource or {"service.name": "shop"}).items())
    each.scope_metrics.add().metrics.extend(metrics)
    return request


def gauge(
    name: str = RSS, value: float = 1.5, *, time_ns: int = NOW_NS, attributes: dict[str, str] | None = None
) -> Metric:
    metric = Metric(name=name)
    point = metric.gauge.data_points.add(time_unix_nano=time_ns, as_double=value)
    point.attributes.extend(attribute(k, v) for k, v in (attributes or {}).items())
    return metric


def one_point(decoded: Decoded) -> Point:
    [payload] = decoded.payloads
    [point] = payload.points
    return point


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    value: Encoding = request.param
    return value


# --- metrics -----------------------------------------------------------------------------------------------


def test_a_gauge_is_a_level_with_time_value_and_resource(encoding: Encoding) -> None:
    resource = {"service.name": "shop", "host.name": "h"}
    request = metrics_request(gauge(attributes={"b": "2", "a": "1"}), resource=resource)
    decoded = decode(encode(request, encoding), "metrics", encoding)
    point = Point(RSS, (("a", "1"), ("b", "2")), NOW, None, 1.5, "gauge")
    assert decoded == Decoded([Payload(resource, [point], ())], 1, 0, "")
    assert isinstance(one_point(decoded), Point)


@pytest.mark.parametrize(
    ("temporality", "monotonic", "kind"),
    [(2, True, "sum"), (2, False, "gauge"), (1, True, "delta"), (1, False, "delta")],
)
def test_the_kind_of_a_sum_follows_from_temporality_and_monotony(
    encoding: Encoding, temporality: int, monotonic: bool, kind: str
) -> None:
    metric = Metric(name=RSS)
    metric.sum.aggregation_temporality = temporality  # type: ignore[assignment]
    metric.sum.is_monotonic = monotonic
    metric.sum.data_points.add(time_unix_nano=NOW_NS, start_time_unix_nano=START_NS, as_int=7)
    point = one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding))
    assert point == Point(RSS, (), NOW, START_NS / 1e9, 7.0, kind)  # type: ignore[arg-type]
    assert isinstance(point.value, float)


def test_a_sum_without_temporality_is_rejected_with_the_reason(encoding: Encoding) -> None:
    metric = Metric(name=RSS)
    metric.sum.data_points.add(time_unix_nano=NOW_NS, as_int=7)
    decoded = decode(encode(metrics_request(metric, gauge()), encoding), "metrics", encoding)
    assert (decoded.accepted, decoded.rejected) == (1, 1)
    assert "temporality" in decoded.error


@pytest.mark.parametrize("value", [0, 1, -5, 2**40, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("start_ns", [0, START_NS])
def test_integers_of_any_sign_are_read_with_and_without_start(encoding: Encoding, value: int, start_ns: int) -> None:
    metric = Metric(name=RSS)
    metric.gauge.data_points.add(time_unix_nano=NOW_NS, start_time_unix_nano=start_ns, as_int=value)
    point = one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding))
    assert (point.value, point.start) == (float(value), START_NS / 1e9 if start_ns else None)


@pytest.mark.parametrize("value", [0.0, -1.25, 1e300])
def test_doubles_of_any_sign_are_read(encoding: Encoding, value: float) -> None:
    assert one_point(decode(encode(metrics_request(gauge(value=value)), encoding), "metrics", encoding)).value == value


def test_a_histogram_gives_its_count_and_sum(encoding: Encoding) -> None:
    metric = Metric(name="http.server.request.duration")
    metric.histogram.aggregation_temporality = 2  # type: ignore[assignment]
    point = metric.histogram.data_points.add(time_unix_nano=NOW_NS, start_time_unix_nano=START_NS, count=9, sum=2.5)
    point.bucket_counts.extend([4, 5])
    point.explicit_bounds.append(1.0)
    point.attributes.append(attribute("http.route", "/cart"))
    assert one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding)) == Point(
        "http.server.request.duration", (("http.route", "/cart"),), NOW, START_NS / 1e9, 9.0, "sum", 2.5
    )


def test_a_histogram_without_a_sum_has_no_total(encoding: Encoding) -> None:
    metric = Metric(name="http.server.request.duration")
    metric.histogram.aggregation_temporality = 1  # type: ignore[assignment]
    metric.histogram.data_points.add(time_unix_nano=NOW_NS, count=9)
    point = one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding))
    assert (point.kind, point.value, point.total) == ("delta", 9.0, None)


def test_a_total_that_is_not_finite_is_absent_and_the_count_stays(encoding: Encoding) -> None:
    metric = Metric(name="http.server.request.duration")
    metric.histogram.aggregation_temporality = 2  # type: ignore[assignment]
    metric.histogram.data_points.add(time_unix_nano=NOW_NS, count=9, sum=math.nan)
    point = one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding))
    assert (point.value, point.total) == (9.0, None)


def test_an_exponential_histogram_gives_its_count_and_sum(encoding: Encoding) -> None:
    metric = Metric(name="rpc.server.duration")
    metric.exponential_histogram.aggregation_temporality = 2  # type: ignore[assignment]
    point = metric.exponential_histogram.data_points.add(time_unix_nano=NOW_NS, count=3, sum=1.0, scale=4)
    point.positive.bucket_counts.extend([1, 2])
    decoded = one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding))
    assert (decoded.kind, decoded.value, decoded.total) == ("sum", 3.0, 1.0)


def test_a_summary_gives_its_count_and_sum(encoding: Encoding) -> None:
    metric = Metric(name="rpc.server.duration")
    point = metric.summary.data_points.add(time_unix_nano=NOW_NS, count=3, sum=1.0)
    point.quantile_values.add(quantile=0.5, value=0.3)
    decoded = one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding))
    assert (decoded.kind, decoded.value, decoded.total) == ("sum", 3.0, 1.0)


def test_a_metric_without_a_role_is_accepted_and_skipped(encoding: Encoding) -> None:
    decoded = decode(encode(metrics_request(gauge("system.cpu.utilization"), gauge()), encoding), "metrics", encoding)
    assert (decoded.accepted, decoded.rejected, decoded.error) == (2, 0, "")
    assert one_point(decoded).metric == RSS


def test_a_resource_with_nothing_of_use_gives_no_payload(encoding: Encoding) -> None:
    decoded = decode(encode(metrics_request(gauge("system.cpu.utilization")), encoding), "metrics", encoding)
    assert decoded == Decoded([], 1, 0, "")


def test_a_point_with_no_recorded_value_is_a_gap_and_not_an_error(encoding: Encoding) -> None:
    metric = Metric(name=RSS)
    metric.gauge.data_points.add(time_unix_nano=NOW_NS, flags=1)
    metric.gauge.data_points.add(time_unix_nano=NOW_NS, flags=1, as_double=0.0)
    assert decode(encode(metrics_request(metric), encoding), "metrics", encoding) == Decoded([], 2, 0, "")


@pytest.mark.parametrize("time_ns", [0, 1, NOW_NS // 10**9, NOW_NS // 1000, 2**64 - 1])
def test_a_point_without_a_usable_time_is_rejected_and_the_others_are_taken(encoding: Encoding, time_ns: int) -> None:
    decoded = decode(encode(metrics_request(gauge(time_ns=time_ns), gauge()), encoding), "metrics", encoding)
    assert (decoded.accepted, decoded.rejected) == (1, 1)
    assert decoded.error == "1 data points rejected: 1 without a usable time"
    assert one_point(decoded).time == NOW


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_rejected_and_the_others_are_taken(encoding: Encoding, value: float) -> None:
    decoded = decode(encode(metrics_request(gauge(value=value), gauge()), encoding), "metrics", encoding)
    assert (decoded.accepted, decoded.rejected) == (1, 1)
    assert decoded.error == "1 data points rejected: 1 not finite"


def test_a_point_without_a_value_is_rejected_not_taken_for_zero(encoding: Encoding) -> None:
    metric = Metric(name=RSS)
    metric.gauge.data_points.add(time_unix_nano=NOW_NS)
    decoded = decode(encode(metrics_request(metric), encoding), "metrics", encoding)
    assert (list(decoded.payloads), decoded.accepted, decoded.rejected) == ([], 0, 1)
    assert "without a value" in decoded.error


@pytest.mark.parametrize("start_ns", [5, NOW_NS + 1, 2**64 - 1])
def test_a_start_that_can_not_be_is_absent(encoding: Encoding, start_ns: int) -> None:
    metric = Metric(name=RSS)
    metric.gauge.data_points.add(time_unix_nano=NOW_NS, start_time_unix_nano=start_ns, as_int=1)
    assert one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding)).start is None


def test_points_beyond_the_bound_of_a_request_are_rejected_unread(encoding: Encoding) -> None:
    metric = Metric(name=RSS)
    for _ in range(MAX_POINTS):
        metric.gauge.data_points.add(flags=1)
    decoded = decode(encode(metrics_request(gauge(), metric, gauge()), encoding), "metrics", encoding)
    assert (decoded.accepted, decoded.rejected) == (2, MAX_POINTS)
    assert f"beyond {MAX_POINTS} in one request" in decoded.error
    assert len(decoded.payloads[0].points) == 2


def test_each_resource_is_a_payload_of_its_own(encoding: Encoding) -> None:
    request = metrics_request(gauge(), resource={"service.name": "a"})
    request.MergeFrom(metrics_request(gauge(), resource={"service.name": "b"}))
    decoded = decode(encode(request, encoding), "metrics", encoding)
    assert [payload.resource["service.name"] for payload in decoded.payloads] == ["a", "b"]


# --- attributes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (AnyValue(string_value="x"), "x"),
        (AnyValue(string_value=""), ""),
        (AnyValue(bool_value=False), False),
        (AnyValue(int_value=2**53 + 1), 2**53 + 1),
        (AnyValue(int_value=-3), -3),
        (AnyValue(double_value=0.5), 0.5),
        (AnyValue(double_value=math.nan), "nan"),
        (AnyValue(bytes_value=b"\x00\xff"), "00ff"),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="a"), AnyValue(int_value=1)])), ("a", "1")),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(double_value=0.5), AnyValue(int_value=-1)])), (0.5, -1)),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(double_value=math.inf)])), ("Infinity",)),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(bool_value=True)])), ("true",)),
        (
            AnyValue(kvlist_value=KeyValueList(values=[attribute("k", AnyValue(bool_value=True))])),
            '{"k": true}',
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, AnyValue) else repr(value),
)
def test_an_attribute_of_any_type_is_kept(encoding: Encoding, value: AnyValue, kept: object) -> None:
    metric = gauge()
    metric.gauge.data_points[0].attributes.append(attribute("k", value))
    request = metrics_request(metric)
    request.resource_metrics[0].resource.attributes.append(attribute("k", value))
    decoded = decode(encode(request, encoding), "metrics", encoding)
    [(key, got)] = one_point(decoded).attributes
    assert (key, got, type(got)) == ("k", kept, type(kept))
    assert decoded.payloads[0].resource["k"] == kept


def test_an_empty_attribute_is_absent(encoding: Encoding) -> None:
    metric = gauge()
    metric.gauge.data_points[0].attributes.append(KeyValue(key="k"))
    assert one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding)).attributes == ()


def test_of_a_key_that_is_there_twice_the_last_counts_even_with_another_type(encoding: Encoding) -> None:
    metric = gauge()
    metric.gauge.data_points[0].attributes.extend([attribute("k", "x"), attribute("k", AnyValue(int_value=1))])
    assert one_point(decode(encode(metrics_request(metric), encoding), "metrics", encoding)).attributes == (("k", 1),)


def test_long_strings_are_cut_and_it_is_told(encoding: Encoding) -> None:
    request = metrics_request(gauge(attributes={"k" * 5000: "v" * 5000}), resource={"service.name": "s" * 5000})
    for _ in range(2):  # a second time, when the attributes are known
        decoded = decode(encode(request, encoding), "metrics", encoding)
        assert one_point(decoded).attributes == (("k" * MAX_STRING, "v" * MAX_STRING),)
        assert decoded.payloads[0].resource == {"service.name": "s" * MAX_STRING}
        assert (decoded.accepted, decoded.rejected) == (1, 0)
        assert "3 attributes dropped or cut" in decoded.error


def test_attributes_beyond_the_bound_are_dropped_and_it_is_told(encoding: Encoding) -> None:
    request = metrics_request(
        gauge(attributes={f"k{i:03}": "v" for i in range(MAX_ATTRIBUTES + 6)}),
        resource={f"r{i:03}": "v" for i in range(MAX_RESOURCE_ATTRIBUTES + 1)},
    )
    for _ in range(2):
        decoded = decode(encode(request, encoding), "metrics", encoding)
        assert len(one_point(decoded).attributes) == MAX_ATTRIBUTES
        assert len(decoded.payloads[0].resource) == MAX_RESOURCE_ATTRIBUTES
        assert "7 attributes dropped or cut" in decoded.error


def test_a_deeply_nested_value_is_cut_and_it_is_told(encoding: Encoding) -> None:
    value = AnyValue(string_value="deep")
    for _ in range(20):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    metric = gauge()
    metric.gauge.data_points[0].attributes.append(attribute("k", value))
    decoded = decode(encode(metrics_request(metric), encoding), "metrics", encoding)
    assert one_point(decoded).attributes == (("k", ("[[[null]]]",)),)
    assert "1 attributes dropped or cut" in decoded.error


def test_a_long_array_is_cut_and_it_is_told(encoding: Encoding) -> None:
    values = [AnyValue(string_value=str(i)) for i in range(1000)]
    metric = gauge()
    metric.gauge.data_points[0].attributes.append(attribute("k", AnyValue(array_value=ArrayValue(values=values))))
    decoded = decode(encode(metrics_request(metric), encoding), "metrics", encoding)
    assert one_point(decoded).attributes == (("k", tuple(str(i) for i in range(MAX_ATTRIBUTES))),)
    assert "1 attributes dropped or cut" in decoded.error


# --- logs and traces ---------------------------------------------------------------------------------------


def logs_request(*records: LogRecord) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    each = request.resource_logs.add()
    each.resource.attributes.append(attribute("service.name", "shop"))
    each.scope_logs.add().log_records.extend(records)
    return request


def event(**fields: Any) -> LogRecord:
    values: dict[str, Any] = {"time_unix_nano": NOW_NS, "event_name": "otel_memory.threshold.crossed"}
    return LogRecord(**(values | fields))


def test_a_log_record_with_an_event_name_of_ours_is_an_event(encoding: Encoding) -> None:
    record = event(
        severity_number=13,
        body=AnyValue(string_value="over"),
        attributes=[attribute("otel_memory.threshold.value", AnyValue(double_value=5.0))],
    )
    decoded = decode(encode(logs_request(record), encoding), "logs", encoding)
    assert (decoded.accepted, decoded.rejected, decoded.error) == (1, 0, "")
    [payload] = decoded.payloads
    assert payload.resource == {"service.name": "shop"}
    assert list(payload.points) == []
    [got] = payload.events
    assert got == ("otel_memory.threshold.crossed", NOW, 13, {"otel_memory.threshold.value": 5.0}, "over")


def test_the_attribute_that_named_an_event_before_is_understood(encoding: Encoding) -> None:
    record = LogRecord(
        time_unix_nano=NOW_NS, attributes=[attribute("a", "b"), attribute("event.name", "otel_memory.alert.changed")]
    )
    [payload] = decode(encode(logs_request(record), encoding), "logs", encoding).payloads
    assert [(e.name, e.attributes, e.body) for e in payload.events] == [("otel_memory.alert.changed", {"a": "b"}, None)]


def test_other_log_records_are_accepted_and_skipped(encoding: Encoding) -> None:
    records = [
        LogRecord(time_unix_nano=NOW_NS, body=AnyValue(string_value="hello"), attributes=[attribute("a", "b")]),
        event(event_name="browser.click"),
        event(event_name="otel_memoryless"),
    ]
    assert decode(encode(logs_request(*records), encoding), "logs", encoding) == Decoded([], 3, 0, "")


def test_an_event_without_a_time_has_the_one_it_was_observed_at(encoding: Encoding) -> None:
    record = event(time_unix_nano=0, observed_time_unix_nano=NOW_NS)
    [payload] = decode(encode(logs_request(record), encoding), "logs", encoding).payloads
    assert payload.events[0].time == NOW


def test_an_event_without_any_time_is_rejected(encoding: Encoding) -> None:
    decoded = decode(encode(logs_request(event(time_unix_nano=0), event()), encoding), "logs", encoding)
    assert (decoded.accepted, decoded.rejected) == (1, 1)
    assert decoded.error == "1 events rejected: 1 without a usable time"


def test_a_body_with_parts_becomes_text(encoding: Encoding) -> None:
    body = AnyValue(kvlist_value=KeyValueList(values=[attribute("k", "v")]))
    [payload] = decode(encode(logs_request(event(body=body)), encoding), "logs", encoding).payloads
    assert payload.events[0].body == '{"k": "v"}'


def test_spans_are_counted_and_skipped(encoding: Encoding) -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(name="a", trace_id=b"\x01" * 16)
    spans.add(name="b")
    assert decode(encode(request, encoding), "traces", encoding) == Decoded((), 2, 0, "")


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_an_empty_request_is_well_formed(encoding: Encoding, signal: Signal) -> None:
    decoded = decode(b"" if encoding == "protobuf" else b"{}", signal, encoding)
    assert (list(decoded.payloads), decoded.accepted, decoded.rejected) == ([], 0, 0)


# --- what can not be read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"not protobuf", b"\x0a\x7f\x01"])
def test_what_is_not_protobuf_is_malformed(signal: Signal, body: bytes) -> None:
    with pytest.raises(MalformedPayload, match="not an Export"):
        decode(body, signal, "protobuf")


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'"x"', b"1" * 10_000, b"[" * 100_000])
def test_what_is_not_a_json_object_is_malformed(signal: Signal, body: bytes) -> None:
    with pytest.raises(MalformedPayload, match="JSON"):
        decode(body, signal, "json")


def json_metrics(metric: object) -> bytes:
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()


def json_point(**fields: object) -> bytes:
    return json_metrics({"name": RSS, "gauge": {"dataPoints": [{"timeUnixNano": NOW_NS, "asDouble": 1} | fields]}})


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b'{"resourceMetrics": 1}', "resourceMetrics is not a list"),
        (b'{"resourceMetrics": [1]}', "resourceMetrics is not a list"),
        (json_metrics(5), "metrics is not a list"),
        (json_metrics({"name": 5}), "name is not a string"),
        (json_metrics({"name": RSS, "gauge": []}), "gauge is not an object"),
        (json_metrics({"name": RSS, "sum": {"isMonotonic": "x"}}), "isMonotonic is not a boolean"),
        (json_metrics({"name": RSS, "sum": {"aggregationTemporality": "SIDEWAYS"}}), "SIDEWAYS"),
        (json_point(timeUnixNano="soon"), "timeUnixNano is not an integer"),
        (json_point(timeUnixNano=-1), "timeUnixNano is not an integer of its range"),
        (json_point(timeUnixNano=True), "timeUnixNano is not an integer of its range"),
        (json_point(timeUnixNano=2**64), "timeUnixNano is not an integer of its range"),
        (json_point(timeUnixNano=1.5), "timeUnixNano is not an integer of its range"),
        (json_point(asDouble="big"), "asDouble is not a number"),
        (json_point(asDouble=[]), "asDouble is not a number"),
        (json_point(asDouble=True), "asDouble is not a number"),
        (json_point(asDouble=10**400), "asDouble is not a number"),
        (json_point(asDouble=None, asInt=2**63), "asInt is not an integer of its range"),
        (json_point(attributes={}), "attributes is not a list"),
        (json_point(attributes=[{"key": "k", "value": "v"}]), "value is not an object"),
        (json_point(attributes=[{"key": "k", "value": {"bytesValue": "a"}}]), "bytesValue is not base64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_json_of_the_wrong_shape_is_malformed_and_the_field_is_named(body: bytes, what: str) -> None:
    with pytest.raises(MalformedPayload, match=what):
        decode(body, "metrics", "json")


def test_the_reason_can_be_sent_whatever_it_quotes() -> None:
    body = json_metrics({"name": RSS, "sum": {"aggregationTemporality": "\ud800"}})
    with pytest.raises(MalformedPayload) as caught:
        decode(body, "metrics", "json")
    assert str(caught.value).encode("utf-8")


def test_the_reason_is_short_however_long_the_payload() -> None:
    body = json_metrics({"name": RSS, "sum": {"aggregationTemporality": "X" * 10_000}})
    with pytest.raises(MalformedPayload) as caught:
        decode(body, "metrics", "json")
    assert len(str(caught.value)) <= 300


# --- the JSON form, where json_format is not what OTLP asks for ---------------------------------------------


@pytest.mark.parametrize("integer", [str(NOW_NS), NOW_NS, float(NOW_NS)])
def test_json_integers_may_be_strings_or_numbers(integer: object) -> None:
    assert one_point(decode(json_point(timeUnixNano=integer), "metrics", "json")).time == pytest.approx(NOW, abs=1e-6)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_json_spells_what_is_not_finite_as_a_string(value: str) -> None:
    assert decode(json_point(asDouble=value), "metrics", "json").rejected == 1


def test_json_numbers_may_be_strings() -> None:
    assert one_point(decode(json_point(asDouble="2.5"), "metrics", "json")).value == 2.5


def test_json_fields_that_are_unknown_or_null_are_ignored() -> None:
    body = json_point(attributes=None, exemplars=None, startTimeUnixNano=None, future={"a": [1]}, flags=None)
    assert one_point(decode(body, "metrics", "json")).value == 1.0


@pytest.mark.parametrize("temporality", [2, "2", "AGGREGATION_TEMPORALITY_CUMULATIVE"])
def test_json_enums_are_numbers_and_their_names_are_understood(temporality: object) -> None:
    points = [{"timeUnixNano": NOW_NS, "asInt": "3"}]
    metric = {"name": RSS, "sum": {"dataPoints": points, "isMonotonic": True, "aggregationTemporality": temporality}}
    assert one_point(decode(json_metrics(metric), "metrics", "json")).kind == "sum"


def test_json_severity_may_be_a_name() -> None:
    record = {"timeUnixNano": NOW_NS, "eventName": "otel_memory.x", "severityNumber": "SEVERITY_NUMBER_WARN"}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    assert decode(body, "logs", "json").payloads[0].events[0].severity_number == 13


def test_json_trace_ids_are_hex_and_harmless() -> None:
    record = {"timeUnixNano": NOW_NS, "eventName": "otel_memory.x", "traceId": "5B8EFFF798038103D269B633813FC60C"}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    assert decode(body, "logs", "json").accepted == 1


@pytest.mark.parametrize("encoded", [base64.b64encode(b"\xfb\xff").decode(), "-_8", "-_8=", "+/8"])
def test_json_bytes_are_base64_of_either_alphabet(encoded: str) -> None:
    body = json_point(attributes=[{"key": "k", "value": {"bytesValue": encoded}}])
    assert one_point(decode(body, "metrics", "json")).attributes == (("k", "fbff"),)


def test_a_lone_surrogate_in_json_becomes_text_that_can_be_stored() -> None:
    body = (
        b'{"resourceMetrics":[{"resource":{"attributes":[{"key":"k","value":{"stringValue":"a\\ud800b"}}]},'
        + (json_point()[len(b'{"resourceMetrics": [{') :])
    )
    value = decode(body, "metrics", "json").payloads[0].resource["k"]
    assert value == "a?b"


# --- recorded requests -------------------------------------------------------------------------------------


def test_metrics_written_by_hand_for_curl() -> None:
    decoded = decode((DATA / "curl_metrics.json").read_bytes(), "metrics", "json")
    [payload] = decoded.payloads
    assert payload.resource == {"service.name": "by-hand", "process.pid": 4711}
    assert payload.points == [
        Point(RSS, (), NOW, None, 52_428_800.0, "gauge"),
        Point("http.server.request.duration", (("http.route", "/cart"),), NOW, START_NS / 1e9, 9.0, "sum", 2.5),
    ]
    assert (decoded.accepted, decoded.rejected, decoded.error) == (3, 0, "")


def test_logs_and_spans_written_by_hand_for_curl() -> None:
    [payload] = decode((DATA / "curl_logs.json").read_bytes(), "logs", "json").payloads
    assert [event.name for event in payload.events] == ["otel_memory.threshold.crossed"]
    assert decode((DATA / "curl_traces.json").read_bytes(), "traces", "json").accepted == 1


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_what_the_python_sdk_sent_reads_the_same_in_both_encodings(signal: Signal) -> None:
    recorded = (DATA / f"python_sdk_{signal}.pb").read_bytes()
    message: type[Message] = {
        "metrics": ExportMetricsServiceRequest,
        "logs": ExportLogsServiceRequest,
        "traces": ExportTraceServiceRequest,
    }[signal]
    request = message()
    request.ParseFromString(recorded)
    decoded = decode(recorded, signal, "protobuf")
    assert decoded == decode(encode(request, "json"), signal, "json")
    assert decoded.accepted > 0
    assert decoded.rejected == 0


def test_what_the_python_sdk_sent_as_metrics() -> None:
    decoded = decode((DATA / "python_sdk_metrics.pb").read_bytes(), "metrics", "protobuf")
    [payload] = decoded.payloads
    assert payload.resource["service.name"] == "shop"
    assert payload.resource["telemetry.sdk.language"] == "python"
    by_series = {(p.metric, p.attributes): (p.kind, p.value, p.total) for p in payload.points}
    assert by_series == {
        (RSS, ()): ("gauge", 52_428_800.0, None),
        (names.MEMORY_LIMIT, ((names.LIMIT_KIND, "cgroup_v2"),)): (
            "gauge",
            536_870_912.0,
            None,
        ),
        ("cpython.gc.collections", (("cpython.gc.generation", 2),)): ("sum", 3.0, None),
        (
            "http.server.request.duration",
            (("http.request.method", "GET"), ("http.response.status_code", 200), ("http.route", "/cart")),
        ): ("sum", 2.0, 0.75),
    }
    assert all(p.start is not None for p in payload.points if p.kind == "sum")


# --- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_full_success_leaves_the_partial_success_unset(signal: Signal, encoding: Encoding) -> None:
    assert response(signal, Decoded((), 3, 0, ""), encoding) == (b"" if encoding == "protobuf" else b"{}")


def test_partial_success_says_how_many_and_why() -> None:
    decoded = Decoded((), 3, 2, "2 without a time")
    metrics = ExportMetricsServiceResponse.FromString(response("metrics", decoded, "protobuf")).partial_success
    logs = ExportLogsServiceResponse.FromString(response("logs", decoded, "protobuf")).partial_success
    traces = ExportTraceServiceResponse.FromString(response("traces", decoded, "protobuf")).partial_success
    assert (metrics.rejected_data_points, metrics.error_message) == (2, "2 without a time")
    assert (logs.rejected_log_records, logs.error_message) == (2, "2 without a time")
    assert (traces.rejected_spans, traces.error_message) == (2, "2 without a time")


@pytest.mark.parametrize(
    ("signal", "field"),
    [("metrics", "rejectedDataPoints"), ("logs", "rejectedLogRecords"), ("traces", "rejectedSpans")],
)
def test_partial_success_in_json_has_the_count_as_a_string(signal: Signal, field: str) -> None:
    answer = json.loads(response(signal, Decoded((), 3, 2, "why"), "json"))
    assert answer == {"partialSuccess": {field: "2", "errorMessage": "why"}}


def test_a_warning_is_a_partial_success_with_nothing_rejected() -> None:
    answer = ExportMetricsServiceResponse.FromString(response("metrics", Decoded((), 3, 0, "cut"), "protobuf"))
    assert answer.HasField("partial_success")
    assert (answer.partial_success.rejected_data_points, answer.partial_success.error_message) == (0, "cut")
