"""The caches of attribute sets and resources: what they know is right, and they stay small."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.decode_cache import MAX_KEY_BYTES, Cache, Known, split
from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.model import AttributeValue
from tests.analyzer.made_up import MadeUp

TIME = 1_790_000_000 * 10**9


def point(**fields: object) -> NumberDataPoint:
    made = NumberDataPoint(time_unix_nano=TIME, **fields)  # type: ignore[arg-type]
    made.attributes.add(key="k").value.string_value = "v"
    return made


@pytest.mark.parametrize("start", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("value", [{"as_double": -0.5}, {"as_double": 0.0}, {"as_int": 0}, {"as_int": -(2**63)}])
def test_a_point_is_split_into_start_time_value_and_rest(start: int, value: dict[str, float]) -> None:
    parts = split(point(start_time_unix_nano=start, **value).SerializeToString())
    assert parts is not None
    assert parts[:3] == (start, TIME, *value.values())


def test_the_rest_is_the_same_for_another_time_and_value_and_differs_for_other_attributes() -> None:
    one = split(point(as_double=1.0).SerializeToString())
    two = split(point(as_int=2, start_time_unix_nano=5).SerializeToString())
    other = point(as_double=1.0)
    other.attributes[0].value.string_value = "w"
    three = split(other.SerializeToString())
    assert one is not None
    assert two is not None
    assert three is not None
    assert one[3] == two[3] != three[3]


@pytest.mark.parametrize("fields", [{}, {"start_time_unix_nano": 5}, {"flags": 1}])
def test_a_point_without_a_value_is_left_to_the_fields(fields: dict[str, int]) -> None:
    assert split(point(**fields).SerializeToString()) is None


def test_a_point_without_a_time_is_left_to_the_fields() -> None:
    assert split(NumberDataPoint(as_double=1.0, start_time_unix_nano=5).SerializeToString()) is None


@pytest.mark.parametrize("length", range(40))
def test_a_point_cut_anywhere_never_fails(length: int) -> None:
    split(point(as_double=1.0, start_time_unix_nano=5).SerializeToString()[:length])


def test_what_was_put_is_found_again_as_the_same_object() -> None:
    cache: Cache[Known] = Cache()
    known = (0, (("k", "v"),))
    cache.put(b"rest", known)
    assert cache.get(b"rest") is known
    assert cache.get(b"other") is None


def test_the_cache_stays_within_its_bound() -> None:
    cache: Cache[Known] = Cache(max_bytes=1000)
    for index in range(1000):
        cache.put(b"%0100d" % index, (0, ()))
        assert len(cache) <= 10
    assert cache.get(b"%0100d" % 999) is not None


def test_long_attribute_sets_are_not_kept() -> None:
    cache: Cache[Known] = Cache()
    cache.put(b"x" * (MAX_KEY_BYTES + 1), (0, ()))
    assert len(cache) == 0


def resources(instance: str) -> Mapping[str, AttributeValue]:
    (payload,) = decode(MadeUp(instance).body(0), "metrics", "protobuf").payloads
    return payload.resource


def test_a_resource_that_comes_again_is_the_same_object_and_knows_its_process() -> None:
    first, other = resources("one"), resources("two")
    assert resources("one") is first
    assert identify(first) == identify(dict(first)) != identify(other)
    assert identify(first) is identify(resources("one"))
