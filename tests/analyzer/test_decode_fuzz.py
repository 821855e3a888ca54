"""Whatever arrives, decoding gives points and events or says that the payload is malformed."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_memory.analyzer.decode import Encoding, MalformedPayload, Signal, decode, response
from otel_memory.analyzer.decode_common import MAX_ATTRIBUTES, MAX_STRING
from otel_memory.analyzer.model import Decoded
from otel_memory.analyzer.roles import WANTED

DATA = Path(__file__).parent.parent / "data" / "otlp"
SIGNALS: tuple[Signal, ...] = ("metrics", "logs", "traces")
RECORDED: list[tuple[bytes, Signal, Encoding]] = [
    *(((DATA / f"python_sdk_{signal}.pb").read_bytes(), signal, "protobuf") for signal in SIGNALS),
    *(((DATA / f"curl_{signal}.json").read_bytes(), signal, "json") for signal in SIGNALS),
]
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(body: bytes, signal: Signal, encoding: Encoding) -> Decoded | None:
    """Decodes, and holds the result against what its consumers rely on."""
    try:
        decoded = decode(body, signal, encoding)
    except MalformedPayload as malformed:
        str(malformed).encode("utf-8")  # it goes into an answer
        return None
    assert decoded.accepted >= 0
    assert decoded.rejected >= 0
    assert bool(decoded.rejected) <= bool(decoded.error)
    for payload in decoded.payloads:
        assert payload.points or payload.events
        for point in payload.points:
            assert point.metric in WANTED
            assert math.isfinite(point.value)
            assert point.total is None or math.isfinite(point.total)
            assert 946_684_800 <= point.time <= 4_102_444_800
            assert point.start is None or point.start <= point.time
            assert len(point.attributes) <= MAX_ATTRIBUTES
            assert [key for key, _ in point.attributes] == sorted({key for key, _ in point.attributes})
            hash(point.attributes)
        for event in payload.events:
            assert event.name.startswith("otel_memory.")
            assert event.body is None or len(event.body) <= MAX_STRING
        json.dumps([payload.resource, [e.attributes for e in payload.events]]).encode("utf-8")
    response(signal, decoded, encoding)
    return decoded


@quick
@given(st.binary(max_size=400), st.sampled_from(SIGNALS), st.sampled_from(["protobuf", "json"]))
def test_any_bytes(body: bytes, signal: Signal, encoding: Encoding) -> None:
    check(body, signal, encoding)


@quick
@given(st.sampled_from(RECORDED), st.data())
def test_a_recorded_request_with_bytes_changed_cut_and_doubled(
    recorded: tuple[bytes, Signal, Encoding], data: st.DataObject
) -> None:
    body, signal, encoding = bytearray(recorded[0]), recorded[1], recorded[2]
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        match data.draw(st.integers(0, 3)):
            case 0 if at < len(body):
                body[at] = data.draw(st.integers(0, 255))
            case 1:
                del body[at : at + data.draw(st.integers(1, 40))]
            case 2:
                body[at:at] = body[at : at + data.draw(st.integers(1, 40))]
            case _:
                body[at:at] = data.draw(st.binary(max_size=12))
    check(bytes(body), signal, encoding)


@quick
@given(st.sampled_from([r for r in RECORDED if r[1] != "traces"]), st.sampled_from(SIGNALS))
def test_a_request_sent_to_the_address_of_another_signal(
    recorded: tuple[bytes, Signal, Encoding], signal: Signal
) -> None:
    check(recorded[0], signal, recorded[2])


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["NaN", "Infinity", "1", "\ud800", "-1", "1.5", "process.memory.usage", 1_790_000_000 * 10**9]),
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Each container of a JSON document with each of its keys or indexes."""
    if isinstance(node, dict):
        return [(node, key) for key in node] + [place for child in node.values() for place in places(child)]
    if isinstance(node, list):
        return [(node, index) for index in range(len(node))] + [p for child in node for p in places(child)]
    return []


@quick
@given(st.sampled_from([r for r in RECORDED if r[2] == "json"]), st.data())
def test_json_with_anything_in_any_place(recorded: tuple[bytes, Signal, Encoding], data: st.DataObject) -> None:
    document = json.loads(recorded[0])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(document)))
        container[key] = data.draw(anything)
        if not places(document):
            break
    check(json.dumps(document).encode(), recorded[1], "json")


values = st.one_of(
    st.builds(lambda v: {"string_value": v}, st.text(max_size=12)),
    st.builds(lambda v: {"int_value": v}, st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: {"double_value": v}, st.floats()),
    st.builds(lambda v: {"bool_value": v}, st.booleans()),
    st.builds(lambda v: {"bytes_value": v}, st.binary(max_size=6)),
    st.just({}),
)
points = st.fixed_dictionaries(
    {"time_unix_nano": st.one_of(st.integers(0, 2**64 - 1), st.integers(1_700_000_000 * 10**9, 1_800_000_000 * 10**9))},
    optional={
        "start_time_unix_nano": st.integers(0, 2**64 - 1),
        "as_double": st.floats(),
        "flags": st.integers(0, 3),
    },
)


@quick
@given(
    st.lists(st.tuples(points, st.none() | st.integers(-(2**63), 2**63 - 1), st.lists(values, max_size=3)), max_size=5)
)
def test_both_encodings_of_a_request_decode_to_the_same(
    drawn: list[tuple[dict[str, Any], int | None, list[dict[str, Any]]]],
) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="process.memory.usage")
    for fields, integer, attributes in drawn:
        point = metric.gauge.data_points.add(**fields)
        if integer is not None:
            point.as_int = integer
        for index, value in enumerate(attributes):
            attribute = point.attributes.add(key=f"k{-index}")
            for field, content in value.items():
                setattr(attribute.value, field, content)
    as_json = json.dumps(MessageToDict(request, use_integers_for_enums=True)).encode()
    first = check(request.SerializeToString(), "metrics", "protobuf")
    again = check(request.SerializeToString(), "metrics", "protobuf")  # now from the cache of attributes
    other = check(as_json, "metrics", "json")
    # By repr, because 1, 1.0 and True are equal.
    assert repr(first) == repr(again) == repr(other)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"[" * 1_000_000, "json"),
        (b'{"a":' * 200_000, "json"),
        (b'{"resourceMetrics":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "json"),
        (b'{"resourceMetrics":[' + b"{}," * 300_000 + b"{}]}", "json"),
        (b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[' + b"{}," * 300_000 + b"{}]}]}]}", "json"),
        (b"\x0a\x00" * 500_000, "protobuf"),
        (b"\x0b" * 500_000, "protobuf"),
    ],
    ids=["arrays", "objects", "arrays inside", "many resources", "many metrics", "empty resources", "groups"],
)
def test_a_hostile_megabyte_costs_bounded_memory_and_leaves_nothing(body: bytes, encoding: Encoding) -> None:
    tracemalloc.start()
    try:
        check(body, "metrics", encoding)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 120 * 2**20
    assert kept < 2**20


def test_groups_nested_deep_in_protobuf_are_malformed() -> None:
    body = b""
    for _ in range(200):  # AnyValue.array_value.values[0] of itself, deeper than protobuf allows
        inner = b"\x0a" + _varint(len(body)) + body
        body = b"\x2a" + _varint(len(inner)) + inner
    attribute = b"\x12" + _varint(len(body)) + body
    resource = b"\x0a" + _varint(len(attribute)) + attribute
    each = b"\x0a" + _varint(len(resource)) + resource
    with pytest.raises(MalformedPayload):
        decode(b"\x0a" + _varint(len(each)) + each, "metrics", "protobuf")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
