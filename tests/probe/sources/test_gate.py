"""The gate and the registry, against the real SDK."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import weakref

import pytest
from opentelemetry.metrics import CallbackOptions, NoOpMeterProvider, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory import names
from otel_memory.probe import sources
from otel_memory.probe.sources import Gate, observe_metrics, one

BLOCKS, LIMIT, FAULTS = names.PYTHON_BLOCK_COUNT, names.SYSTEM_MEMORY_LIMIT, names.PROCESS_PAGING_FAULTS


def observers(value: int) -> dict:
    """A gauge, an up-down counter and a counter."""
    return {name: lambda: one(value) for name in (BLOCKS, LIMIT, FAULTS)}


def test_instruments_have_the_kind_unit_and_description_of_the_contract(exported, gate):
    observe_metrics(exported.meter, gate, "heap", observers(7))
    by_name = {metric.name: metric for metric in exported.metrics()}
    assert set(by_name) == {BLOCKS, LIMIT, FAULTS}
    for name, metric in by_name.items():
        assert (metric.unit, metric.description) == (names.METRICS[name].unit, names.METRICS[name].description)
    assert not hasattr(by_name[BLOCKS].data, "is_monotonic")
    assert by_name[LIMIT].data.is_monotonic is False
    assert by_name[FAULTS].data.is_monotonic is True


def test_each_metric_comes_exactly_once_after_fifty_rounds_and_never_in_between(exported, gate, caplog):
    with caplog.at_level(logging.WARNING):
        for value in range(1, 51):
            undo = observe_metrics(exported.meter, gate, "heap", observers(value))
            assert exported.points() == {name: {(): value} for name in (BLOCKS, LIMIT, FAULTS)}
            undo()
            assert exported.metrics() == []
    assert caplog.records == []


def test_undo_is_idempotent_and_does_not_take_away_a_later_registration(exported, gate):
    first = observe_metrics(exported.meter, gate, "heap", observers(1))
    first()
    second = observe_metrics(exported.meter, gate, "heap", observers(2))
    first()
    assert exported.points()[BLOCKS] == {(): 2}
    second()
    second()
    assert exported.metrics() == []


def test_the_last_to_register_is_the_only_one_who_emits(exported, gate):
    first = observe_metrics(exported.meter, gate, "heap", observers(1))
    observe_metrics(exported.meter, gate, "heap", observers(2))
    assert exported.points()[BLOCKS] == {(): 2}
    first()
    assert exported.points()[BLOCKS] == {(): 2}


def test_two_meters_know_nothing_of_one_another(exported, gate):
    other = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[other], shutdown_on_exit=False)
    undo = observe_metrics(exported.meter, gate, "heap", observers(1))
    observe_metrics(provider.get_meter("otel_memory"), gate, "heap", observers(2))
    undo()
    assert exported.metrics() == []
    assert other.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0].value == 2
    provider.shutdown()


def test_a_closed_gate_lets_nothing_through_until_it_is_opened(exported, gate):
    observe_metrics(exported.meter, gate, "heap", observers(1))
    gate.close()
    assert not gate.is_open
    assert exported.metrics() == []
    gate.open()
    assert exported.names() == sorted([BLOCKS, LIMIT, FAULTS])


def test_a_claimed_metric_is_left_to_its_claimant_for_as_long_as_it_claims(exported):
    claimed = {LIMIT}
    observe_metrics(exported.meter, Gate(lambda *_: None, lambda name: name in claimed), "heap", observers(1))
    assert exported.names() == sorted([BLOCKS, FAULTS])
    claimed.clear()
    assert exported.names() == sorted([BLOCKS, LIMIT, FAULTS])


def test_a_failing_callback_is_counted_and_the_others_go_on(exported, gate, failures, caplog):
    def fails_at_once():
        raise ZeroDivisionError

    def fails_on_the_way():
        yield Observation(1)
        raise KeyError

    observe_metrics(exported.meter, gate, "heap", {**observers(1), BLOCKS: fails_at_once, LIMIT: fails_on_the_way})
    assert exported.names() == [FAULTS]
    assert [(part, type(error)) for part, error in failures] == [("heap", ZeroDivisionError), ("heap", KeyError)]
    assert caplog.records == []


def test_not_even_a_failing_failure_count_or_claim_reaches_the_sdk():
    def broken(*_args):
        raise RuntimeError

    assert list(Gate(broken, broken).observe("heap", BLOCKS, lambda: one(1))(CallbackOptions())) == []


def test_an_interrupt_is_not_swallowed(gate):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gate.observe("heap", BLOCKS, interrupted)(CallbackOptions())


def test_nothing_is_registered_when_one_name_is_unknown(exported, gate):
    with pytest.raises(KeyError):
        observe_metrics(exported.meter, gate, "heap", {**observers(1), "no.such.metric": lambda: one(1)})
    assert exported.metrics() == []


def test_after_undo_nothing_keeps_the_source_alive(exported, gate):
    class Source:
        def read(self):
            return one(1)

    source = Source()
    gone = weakref.ref(source)
    undo = observe_metrics(exported.meter, gate, "heap", {BLOCKS: source.read})
    undo()
    del source
    gc.collect()
    assert gone() is None


def test_a_dropped_provider_is_freed_with_its_slots(gate):
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
    meter = provider.get_meter("otel_memory")
    observe_metrics(meter, gate, "heap", observers(1))
    known = len(sources._slots)
    gone = weakref.ref(meter)
    del meter, provider
    gc.collect()
    assert gone() is None
    assert len(sources._slots) < known


def test_a_meter_that_does_nothing_is_fine(gate):
    meter = NoOpMeterProvider().get_meter("otel_memory")
    for _ in range(2):
        observe_metrics(meter, gate, "heap", observers(1))()


def test_callbacks_do_not_wait_for_the_lock_that_registering_holds(exported, gate):
    observe_metrics(exported.meter, gate, "heap", observers(1))
    with sources._lock:
        assert len(exported.names()) == 3


def test_registering_works_in_a_child_forked_while_another_thread_held_the_lock(exported, gate, monkeypatch):
    held = threading.Lock()
    held.acquire()
    monkeypatch.setattr(sources, "_lock", held)
    sources.reset_after_fork()
    observe_metrics(exported.meter, gate, "heap", observers(1))
    assert len(exported.names()) == 3


BEFORE_THE_PROVIDER = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_memory.probe.sources import Gate, observe_metrics, one

def register(value):
    meter = metrics.get_meter("otel_memory")
    return observe_metrics(meter, Gate(print), "heap", {"otel_memory.python.block.count": lambda: one(value)})

register(1)()
undo = register(2)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))

def values():
    data = reader.get_metrics_data()
    return [p.value for r in (data.resource_metrics if data else ()) for s in r.scope_metrics for m in s.metrics
            for p in m.data.data_points]

assert values() == [2], values()
undo()
assert values() == [], values()
register(3)
assert values() == [3], values()
"""


def test_a_registration_from_before_the_provider_was_set_can_be_undone_and_made_again():
    """The meter is a stand-in then; the real one already has the instruments."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_THE_PROVIDER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
