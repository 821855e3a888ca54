"""Gauges in a line and counts of chosen classes: asked for at any time, over any number of probes."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from otel_memory import count_instances, custom_values, names, register_gauge, track_class
from otel_memory.probe import live_objects
from otel_memory.probe.config import Settings, SettingsError
from otel_memory.probe.lifecycle import Probe
from tests.harness import wait_until


class Readings:
    """A meter provider of a test's own, and what it gives."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def __call__(self) -> dict[str, Any]:
        """Metric to value, or to values by the one attribute."""
        data = self._reader.get_metrics_data()
        found: dict[str, Any] = {}
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = [point for point in metric.data.data_points if isinstance(point, NumberDataPoint)]
                    values = {next(iter((point.attributes or {}).values()), None): point.value for point in points}
                    found[metric.name] = values[None] if values.keys() == {None} else values
        return found

    def encoded(self) -> set[str]:
        """The names of the metrics that an OTLP exporter would send."""
        data = self._reader.get_metrics_data()
        assert data is not None
        found = encode_metrics(data).resource_metrics
        return {metric.name for resource in found for scope in resource.scope_metrics for metric in scope.metrics}

    def unit(self, name: str) -> tuple[str | None, str | None]:
        data = self._reader.get_metrics_data()
        assert data is not None
        metrics = (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics)
        return next((metric.unit, metric.description) for metric in metrics if metric.name == name)


@pytest.fixture
def readings() -> Iterator[Readings]:
    found = Readings()
    yield found
    found.provider.shutdown()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    live_objects._gauges.clear()
    live_objects._classes.clear()
    live_objects._told.clear()


@pytest.fixture
def probe(readings: Readings) -> Iterator[Probe]:
    made = Probe(Settings.load({}, interval=100), readings.provider)
    made.start()
    yield made
    made.stop()


def test_a_gauge_is_emitted_whether_it_was_registered_before_or_after_the_start(readings: Readings) -> None:
    sessions = {1, 2, 3}
    register_gauge("chat.sessions", lambda: len(sessions), unit="{session}", description="Chats that are open.")
    probe = Probe(Settings.load({}), readings.provider)
    probe.start()
    try:
        undo = register_gauge("timers", lambda: Fraction(1, 2))
        assert (readings()["chat.sessions"], readings()["timers"]) == (3, 0.5)
        assert readings.unit("chat.sessions") == ("{session}", "Chats that are open.")
        sessions.add(4)
        assert custom_values() == {"chat.sessions": 4, "timers": 0.5}
        undo()
        undo()
        assert readings()["chat.sessions"] == 4
        assert "timers" not in readings()
        probe.stop()
        assert not readings().keys() & {"chat.sessions", "timers"}
        probe.start()
        assert readings()["chat.sessions"] == 4, "what was asked for outlives the probe"
    finally:
        probe.stop()


def test_the_last_to_register_a_name_has_it(readings: Readings, probe: Probe) -> None:
    first = register_gauge("locks", lambda: 1)
    register_gauge("locks", lambda: 2)
    first()
    assert readings()["locks"] == 2
    assert custom_values() == {"locks": 2}
    assert len(next(f for f in probe.features if f.part == "live_objects")._emitted) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_not_known_is_a_gap(value: Any, readings: Readings, probe: Probe) -> None:
    register_gauge("unknown", lambda: value)
    assert "unknown" not in readings()
    assert custom_values() == {}
    assert probe.ledger.failures == {}


@pytest.mark.parametrize(
    ("value", "told"), [(2**70, 2.0**70), (-(2**70), -(2.0**70)), (10**400, None), (2**63 - 1, 2**63 - 1)]
)
def test_an_integer_that_otlp_cannot_carry_does_not_cost_the_other_metrics(
    value: int, told: float | None, readings: Readings, probe: Probe
) -> None:
    register_gauge("huge", lambda: value)
    assert custom_values().get("huge") == told
    assert readings.encoded() >= {names.PROCESS_MEMORY_USAGE, *(() if told is None else ("huge",))}


@pytest.mark.parametrize("value", ["text", [1], Decimal("2.5"), 1j])
def test_one_that_gives_no_number_is_counted_and_others_go_on(
    value: Any, readings: Readings, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    register_gauge("wrong", lambda: value)
    register_gauge("right", lambda: True)
    found = readings()
    assert "wrong" not in found
    assert found["right"] == 1
    assert probe.ledger.failures == {"gauges": 1}
    assert f"gauge wrong returned {type(value).__name__}, expected a number or None" in caplog.text
    assert custom_values() == {"right": 1}


def test_one_that_raises_is_counted_and_others_go_on(readings: Readings, probe: Probe) -> None:
    register_gauge("raises", lambda: 1 // 0)
    register_gauge("right", lambda: 7)
    assert readings()["right"] == 7
    assert probe.ledger.failures == {"gauges": 1}


def test_a_slow_one_is_told_of_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(live_objects, "SLOW_SECONDS", -1.0)
    register_gauge("slow", lambda: 1)
    with caplog.at_level(logging.WARNING):
        assert custom_values() == custom_values() == {"slow": 1}
    (record,) = caplog.records
    assert "gauge slow took" in record.getMessage()


@pytest.mark.parametrize("name", ["", "1st", "with space", "a" * 256, "é"])
def test_a_name_that_opentelemetry_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a letter and then letters"):
        register_gauge(name, lambda: 1)


@pytest.mark.parametrize("name", [names.PROCESS_MEMORY_USAGE, "otel_memory.mine"])
def test_a_name_of_this_package_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="otel-memory's own"):
        register_gauge(name, lambda: 1)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a function that returns a number, not int"):
        register_gauge("five", 5)  # type: ignore[arg-type]


def test_too_many_are_dropped_counted_and_told(
    monkeypatch: pytest.MonkeyPatch, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live_objects, "MAX_GAUGES", 1)
    monkeypatch.setattr(live_objects, "MAX_CLASSES", 0)
    monkeypatch.setattr(live_objects, "_dropped", 0)
    register_gauge("one", lambda: 1)
    register_gauge("two", lambda: 2)()
    track_class(Readings)()
    assert custom_values() == {"one": 1}
    assert probe.ledger.drops == {"live_objects": 2}
    assert "gauge two is not emitted: there are 1 already" in caplog.text


class Document:
    pass


class Draft(Document):
    pass


def test_instances_of_a_tracked_class_are_emitted_until_taken_back(readings: Readings, probe: Probe) -> None:
    held = [Document(), Draft()]
    undo = track_class(Document)
    track_class(Draft, name="drafts")
    key = f"{__name__}.Document"
    wait_until(lambda: readings().get(names.OBJECT_COUNT) == {key: 2, "drafts": 1}, timeout_seconds=30)
    held.append(Document())
    assert readings()[names.OBJECT_COUNT] == {key: 3, "drafts": 1}
    assert count_instances(Document) == 3
    undo()
    assert readings()[names.OBJECT_COUNT] == {"drafts": 1}


def test_classes_named_in_the_setting_are_counted_once_their_module_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readings: Readings, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "counted_shop.py").write_text("class Cart:\n    class Line: pass\nprice = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = "counted_shop:Cart, counted_shop:Cart.Line, counted_shop:Kart, counted_shop:price"
    probe = Probe(Settings.load({}, interval=100, live_objects=wanted), readings.provider)
    probe.start()
    try:
        module = importlib.import_module("counted_shop")
        held = [module.Cart(), module.Cart.Line(), module.Cart.Line()]
        expected = {"counted_shop.Cart": 1, "counted_shop.Cart.Line": len(held) - 1}
        wait_until(lambda: readings().get(names.OBJECT_COUNT) == expected, timeout_seconds=30)
        assert "OTEL_PYTHON_MEMORY_LIVE_OBJECTS: counted_shop:Kart: there is no Kart" in caplog.text
        assert "counted_shop:price: expected a class, not int" in caplog.text
    finally:
        probe.stop()
        sys.modules.pop("counted_shop", None)
    assert live_objects.live_counts() == {}


def test_a_setting_of_another_form_is_an_error() -> None:
    with pytest.raises(SettingsError, match="expected names of the form module:Class"):
        Settings.load({}, live_objects="shop.Cart")
