"""Splitting and keys of records, pure. That the Collector makes the same ones: ``test_collector_configs.py``."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_memory.exporters.kafka_records import log_pieces, metric_pieces, points, resource_key

KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def request(scopes: list[list[tuple[str, str, list[int]]]]) -> ExportMetricsServiceRequest:
    """``scopes``: for each its metrics as (name, kind, size in bytes of a label of each point)."""
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add(schema_url="s")
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    number = 0
    for index, metrics in enumerate(scopes):
        scope = resource.scope_metrics.add(schema_url="t")
        scope.scope.name = f"scope {index}"
        for name, kind, sizes in metrics:
            metric = scope.metrics.add(name=name, unit="By", description="what it is")
            getattr(metric, kind).SetInParent()
            if kind == "sum":
                metric.sum.is_monotonic = True
            for size in sizes:
                point = points(metric).add(time_unix_nano=number)
                point.attributes.add(key="label").value.string_value = "x" * size
                number += 1
    return made


def contents(made: ExportMetricsServiceRequest) -> list[tuple[str, str, bool, bytes]]:
    """Each data point with all that it stands in."""
    found = []
    for resource in made.resource_metrics:
        assert (resource.schema_url, resource.resource.attributes[0].value.string_value) == ("s", "shop")
        for scope in resource.scope_metrics:
            assert scope.schema_url == "t"
            for metric in scope.metrics:
                assert (metric.unit, metric.description) == ("By", "what it is")
                found += [
                    (scope.scope.name, metric.name, metric.sum.is_monotonic, point.SerializeToString())
                    for point in points(metric)
                ]
    return found


METRIC = st.tuples(st.sampled_from(["a", "b", "a longer name"]), st.sampled_from(KINDS), st.lists(st.integers(0, 1500)))


@given(st.lists(st.lists(METRIC, max_size=4), max_size=3), st.integers(300, 4000))
@settings(max_examples=150, deadline=None)
def test_every_point_is_in_one_record_or_lost_and_no_record_is_too_large(
    scopes: list[list[tuple[str, str, list[int]]]], limit: int
) -> None:
    made = request(scopes)
    pieces, lost = metric_pieces(made, limit)
    assert all(len(piece.value) <= limit for piece in pieces)
    decoded = [ExportMetricsServiceRequest.FromString(piece.value) for piece in pieces]
    assert all(len(each.resource_metrics) == 1 for each in decoded)
    assert [piece.items for piece in pieces] == [len(contents(each)) for each in decoded]
    arrived = [point for each in decoded for point in contents(each)]
    sent = contents(made)
    assert len(arrived) + lost == len(sent)
    remaining = iter(sent)
    assert all(point in remaining for point in arrived), "in order, and nothing that was not there"
    # What is lost would not have fitted by itself either, with a little to spare for the frames' upper bounds.
    for point in set(sent) - set(arrived):
        assert len(point[3]) + 200 > limit


@given(st.lists(st.integers(0, 1500), max_size=40), st.integers(300, 4000))
@settings(max_examples=100, deadline=None)
def test_every_log_record_is_in_one_record_or_lost(sizes: list[int], limit: int) -> None:
    made = ExportLogsServiceRequest()
    resource = made.resource_logs.add()
    for number, size in enumerate(sizes):
        if number % 10 == 0:
            scope = resource.scope_logs.add()
            scope.scope.name = f"scope {number}"
        scope.log_records.add(time_unix_nano=number + 1).body.string_value = "x" * size
    pieces, lost = log_pieces(made, limit)
    assert all(len(piece.value) <= limit for piece in pieces)
    times = [
        (scope.scope.name, record.time_unix_nano)
        for piece in pieces
        for scope in ExportLogsServiceRequest.FromString(piece.value).resource_logs[0].scope_logs
        for record in scope.log_records
    ]
    assert len(times) + lost == len(sizes)
    assert times == sorted(times, key=lambda each: each[1])
    assert all(name == f"scope {(time - 1) // 10 * 10}" for name, time in times)
    assert sum(piece.items for piece in pieces) == len(times)


def test_resources_go_apart() -> None:
    both = ExportMetricsServiceRequest()
    for _ in range(2):
        both.resource_metrics.extend(request([[("a", "gauge", [1])]]).resource_metrics)
    both.resource_metrics[1].resource.attributes.add(key="host.name").value.string_value = "h"
    pieces, _ = metric_pieces(both, 10_000)
    assert len(pieces) == 2
    assert pieces[0].key != pieces[1].key


# --- the key -------------------------------------------------------------------------------------------------------


def pair(key: str, **value: object) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(**value))  # type: ignore[arg-type]


def test_the_key_does_not_depend_on_order_or_on_what_is_volatile() -> None:
    one, two = pair("a", string_value="x"), pair("b", int_value=2)
    key = resource_key(Resource(attributes=[one, two]))
    assert len(key) == 16
    assert resource_key(Resource(attributes=[two, one])) == key
    volatile = pair("process.command_args", array_value=ArrayValue(values=[AnyValue(string_value="--port")]))
    assert resource_key(Resource(attributes=[volatile, one, two])) == key
    assert resource_key(Resource(attributes=[one])) != key
    assert resource_key(Resource()) == resource_key(Resource(attributes=[volatile])) == bytes(16)


def test_values_of_different_types_have_different_keys() -> None:
    values: list[dict[str, object]] = [
        {"string_value": "1"},
        {"bytes_value": b"1"},
        {"int_value": 1},
        {"double_value": 1.0},
        {"bool_value": True},
        {"bool_value": False},
        {},
        {"array_value": ArrayValue(values=[AnyValue(int_value=1)])},
        {"kvlist_value": KeyValueList(values=[pair("1", int_value=1)])},
    ]
    assert len({resource_key(Resource(attributes=[pair("a", **value)])) for value in values}) == len(values)
