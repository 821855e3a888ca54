"""Who a process is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.analyzer.identity import digest, identify, pid_of, runtime_of

SHOP = {"service.name": "shop", "service.namespace": "eu", "service.instance.id": "a1"}


@pytest.mark.parametrize(
    "volatile",
    [
        {"service.version": "2"},
        {"process.pid": 7},
        {"host.name": "other"},
        {"telemetry.sdk.version": "1.45"},
        {"process.command_args": ("python", "app.py")},
        {"k8s.pod.uid": "u"},
    ],
)
def test_volatile_attributes_never_change_the_id(volatile: dict[str, object]) -> None:
    assert identify({**SHOP, **volatile}).id == identify(SHOP).id  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("key", ["service.name", "service.namespace", "service.instance.id"])
def test_each_identifying_attribute_changes_the_id(key: str) -> None:
    assert identify({**SHOP, key: "other"}).id != identify(SHOP).id  # type: ignore[union-attr]


def test_the_id_is_the_same_after_a_restart_of_the_analyzer() -> None:
    """The literal value is what stores and alert receivers hold: a change of the rule must be a decision."""
    assert identify(SHOP).id == "8b74955a2b042264"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "place",
    [
        {"k8s.pod.uid": "u1", "k8s.container.name": "web"},
        {"container.id": "c1"},
        {"host.id": "h1"},
        {"host.name": "box"},
    ],
)
def test_without_an_instance_id_the_place_and_the_pid_tell_instances_apart(place: dict[str, str]) -> None:
    one = identify({"service.name": "shop", **place, "process.pid": 1})
    other = identify({"service.name": "shop", **place, "process.pid": 2})
    moved = identify({"service.name": "shop", **{key: value + "x" for key, value in place.items()}, "process.pid": 1})
    assert one is not None
    assert other is not None
    assert moved is not None
    assert len({one.id, other.id, moved.id}) == 3


def test_the_default_name_of_an_unnamed_service_works() -> None:
    info = identify({"service.name": "unknown_service:python", "service.instance.id": "x"})
    assert info is not None
    assert info.service_name == "unknown_service:python"


def test_a_name_alone_stands_for_one_process() -> None:
    assert identify({"service.name": "shop"}) == identify({"service.name": "shop", "service.version": None})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "resource",
    [{}, {"service.name": " "}, {"host.name": "box"}, {"k8s.pod.uid": "u"}, {"telemetry.sdk.language": "python"}],
)
def test_nothing_is_identified_where_nothing_identifies(resource: dict[str, str]) -> None:
    assert identify(resource) is None


def test_a_container_without_a_service_takes_its_own_name() -> None:
    info = identify({"k8s.pod.uid": "u", "k8s.container.name": "web", "k8s.deployment.name": "shop"})
    assert info is not None
    assert info.service_name == "shop"


def test_a_pid_is_the_same_as_text_and_as_a_number() -> None:
    as_text = identify({"service.name": "s", "host.name": "h", "process.pid": "12"})
    as_number = identify({"service.name": "s", "host.name": "h", "process.pid": 12})
    as_double = identify({"service.name": "s", "host.name": "h", "process.pid": 12.0})
    assert as_text == as_number == as_double
    assert as_text is not None
    assert as_text.pid == 12
    assert pid_of({"process.pid": "twelve"}) is None


def test_the_runtime_is_named_with_its_version_or_by_the_language() -> None:
    runtime = {"process.runtime.name": "cpython", "process.runtime.version": "3.12.4"}
    assert runtime_of({**runtime, "telemetry.sdk.language": "python"}) == "cpython 3.12.4"
    assert runtime_of({"telemetry.sdk.language": "java"}) == "java"
    assert runtime_of({}) is None


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_two_lists_of_parts_have_one_digest_only_if_they_are_the_same(one: list[str], other: list[str]) -> None:
    """Parts run into one another (``ab`` + ``c``, ``a`` + ``bc``) must not make two services one."""
    assert (digest(*one) == digest(*other)) == (one == other)


def test_a_number_that_no_process_can_have_is_no_pid() -> None:
    assert pid_of({"process.pid": 4_294_967_295}) == 4_294_967_295
    assert pid_of({"process.pid": "9" * 1000}) is None
    assert pid_of({"process.pid": 10**18}) is None
