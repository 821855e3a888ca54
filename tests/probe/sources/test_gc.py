"""The gc source: real collections, the hook by itself, and the metrics."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from otel_memory import names
from otel_memory.probe.sources import Gate
from otel_memory.probe.sources.gc import PAUSE_BOUNDARIES_SECONDS, Floor, GcReading, GcSource, Generation, Pause

MiB = 1 << 20


class Nanoseconds:
    """Moves 1000 ns at each look."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1000
        return self.now


@pytest.fixture
def source() -> Iterator[GcSource]:
    """Installed, with the automatic collector off so that only the test's own collections are heard."""
    made = GcSource(lambda: 123 * MiB)
    enabled = gc.isenabled()
    gc.disable()
    made.install()
    yield made
    made.uninstall()
    if enabled:
        gc.enable()


def told(generation: int = 0, collected: int = 0, uncollectable: int = 0) -> dict[str, int]:
    return {"generation": generation, "collected": collected, "uncollectable": uncollectable}


# --- real collections ---------------------------------------------------------------------------------------


def test_each_collection_is_one_pause(source):
    gc.collect()
    source.drain()
    gc.collect(0)
    gc.collect(1)
    gc.collect(2)
    pauses = source.drain()
    assert [pause.generation for pause in pauses] == [0, 1, 2]
    assert all(0 < pause.duration_seconds < 5 for pause in pauses)
    assert source.drain() == []


def test_the_floor_is_measured_after_a_full_collection_only(source):
    gc.collect(1)
    assert source.floor is None
    before = sys.getallocatedblocks()
    gc.collect()
    floor = source.floor
    assert floor.rss_bytes == 123 * MiB
    assert floor.blocks == pytest.approx(before, rel=0.1)
    gc.collect()
    assert source.floor.ended_ns > floor.ended_ns


def test_counts_are_the_interpreters_own(source):
    gc.collect()
    expected = tuple(Generation(s["collections"], s["collected"], s["uncollectable"]) for s in gc.get_stats())
    assert source.read() == GcReading(expected, source.floor, dropped=0, failed=0)


def test_installing_and_uninstalling_as_often_as_one_likes_leaves_other_callbacks_alone():
    other = lambda phase, info: None  # noqa: E731
    gc.callbacks.append(other)
    before = list(gc.callbacks)
    source = GcSource(lambda: None)
    for _ in range(50):
        source.install()
        source.install()
        assert len(gc.callbacks) == len(before) + 1
        source.uninstall()
        source.uninstall()
        assert gc.callbacks == before
    gc.callbacks.remove(other)


def test_a_hook_that_somebody_removed_is_no_obstacle():
    source = GcSource(lambda: None)
    before = list(gc.callbacks)
    source.install()
    gc.callbacks[:] = before
    source.uninstall()
    assert gc.callbacks == before


def test_collections_on_many_threads_while_another_drains_are_each_counted_once():
    source = GcSource(lambda: None, capacity=500)
    gc.disable()
    source.install()
    seen: list[Pause] = []
    stop = threading.Event()

    def drain() -> None:
        while not stop.is_set():
            seen.extend(source.drain())

    drainer = threading.Thread(target=drain)
    collectors = [threading.Thread(target=lambda: [gc.collect(0) for _ in range(100)]) for _ in range(4)]
    before = gc.get_stats()[0]["collections"]
    drainer.start()
    for thread in collectors:
        thread.start()
    for thread in collectors:
        thread.join()
    stop.set()
    drainer.join()
    seen.extend(source.drain())
    source.uninstall()
    gc.enable()
    # Of two threads that want to collect at the same time CPython lets one go on without.
    assert len(seen) == gc.get_stats()[0]["collections"] - before > 0
    assert source.dropped == 0
    assert all(pause.duration_ns > 0 for pause in seen)
    assert source.read().failed == 0


EVERY_ALLOCATION_COLLECTS = """
import gc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_memory.probe.sources import Gate
from otel_memory.probe.sources.gc import GcSource
from otel_memory.probe.sources.process import ProcessSource

reader = InMemoryMetricReader()
source = GcSource(ProcessSource().rss)
source.register(MeterProvider(metric_readers=[reader], shutdown_on_exit=False).get_meter("m"), Gate(print))
source.install()
gc.freeze()  # so that each collection is a short one
gc.set_threshold(1, 1, 1)
for _ in range(15):
    reader.get_metrics_data()
    source.record_pauses()
source.uninstall()
print(source.read().failed, source.read().generations[2].collections > 15)
"""


def test_a_collection_in_the_middle_of_recording_does_not_deadlock():
    """The collector calls the hook on the thread that holds the SDK's locks; one that recorded there would hang."""
    assert run(EVERY_ALLOCATION_COLLECTS) == "0 True\n"


# --- the hook by itself -------------------------------------------------------------------------------------


def test_a_pause_is_the_time_between_start_and_stop():
    source = GcSource(lambda: None, clock_ns=Nanoseconds())
    source._hook("start", told(1))
    source._hook("stop", told(1, 5, 2))
    assert source.drain() == [Pause(1, 1000)]


def test_a_collection_that_began_before_the_hook_was_there_is_not_guessed_at():
    source = GcSource(lambda: None, clock_ns=Nanoseconds())
    source._hook("stop", told(2))
    assert (source.drain(), source.floor, source.read().failed) == ([], None, 0)


def test_a_collection_within_a_collection_is_measured_and_the_outer_one_left_out():
    source = GcSource(lambda: None, clock_ns=Nanoseconds())
    source._hook("start", told(2))
    source._hook("start", told(0))
    source._hook("stop", told(0))
    source._hook("stop", told(2))
    assert [(pause.generation, pause.duration_ns) for pause in source.drain()] == [(0, 1000)]


def test_a_start_whose_stop_never_came_is_forgotten():
    source = GcSource(lambda: None, clock_ns=Nanoseconds())
    source._hook("start", told(0))  # at 1000
    source.uninstall()
    source._hook("stop", told(0))
    source._hook("start", told(0))  # at 3000
    source.reset_after_fork()
    source._hook("stop", told(0))
    assert source.drain() == []
    source._hook("start", told(0))  # at 5000
    source._hook("start", told(1))  # at 6000
    source._hook("stop", told(1))
    assert [(pause.generation, pause.duration_ns) for pause in source.drain()] == [(1, 1000)]


def test_nothing_that_goes_wrong_in_the_hook_gets_out_and_it_is_counted():
    def fails() -> int:
        raise OSError

    source = GcSource(fails)
    source._hook("start", told(2))
    source._hook("stop", told(2))
    assert len(source.drain()) == 1, "the pause was measured, only the floor was not"
    source._hook("start", told(2))
    source._hook("stop", {})
    assert (source.read().failed, source.floor) == (2, None)


def test_the_hook_keeps_no_object(source):
    """Between two collections: one would hold fast what is around it, long after the program has given that back."""
    for _ in range(3):
        gc.collect()
    cells = {
        name: cell.cell_contents
        for name, cell in zip(source._hook.__code__.co_freevars, source._hook.__closure__, strict=True)
    }
    numbers = {name: value for name, value in cells.items() if type(value) is int}
    assert {"started_ns", "written", "last"} <= set(numbers)
    assert all(-5 <= number <= 256 for number in numbers.values()), "others are objects of their own"


# --- a bound on what it costs -----------------------------------------------------------------------------------


@pytest.fixture
def small() -> Iterator[GcSource]:
    """Takes four pauses between two drains."""
    made = GcSource(lambda: 123 * MiB, capacity=4)
    enabled = gc.isenabled()
    gc.disable()
    made.install()
    yield made
    made.uninstall()
    if enabled:
        gc.enable()


def test_the_hook_goes_when_it_has_had_enough_and_comes_back_with_the_next_drain(small):
    without = [callback for callback in gc.callbacks if callback is not small._hook]
    for _ in range(3):
        for _ in range(10):
            gc.collect(0)
        assert gc.callbacks == without, "the last in the list leaves nothing behind"
        assert len(small.drain()) == 4
        assert gc.callbacks == [*without, small._hook]
    assert small.dropped == 3 * 6
    gc.collect(0)
    assert small.read().dropped == 18
    assert small.read().failed == 0
    assert len(small.drain()) == 1


def test_a_callback_that_comes_after_the_hook_is_passed_over_not_even_once(small):
    heard: list[str] = []
    other = lambda phase, info: heard.append(phase)  # noqa: E731
    gc.callbacks.append(other)
    try:
        for _ in range(3):
            for _ in range(10):
                gc.collect(0)
            assert small._hook not in gc.callbacks
            assert gc.callbacks[-1] is other
            assert len(small.drain()) == 4
            assert gc.callbacks[-2:] == [small._hook, other]
        assert heard == ["start", "stop"] * 30
    finally:
        gc.callbacks.remove(other)


@pytest.mark.parametrize("followed", [False, True])
def test_nothing_is_left_of_a_hook_that_is_uninstalled_while_it_is_away(followed):
    other = lambda phase, info: None  # noqa: E731
    before = list(gc.callbacks)
    source = GcSource(lambda: None, capacity=2)
    source.install()
    if followed:
        gc.callbacks.append(other)
    for _ in range(5):
        gc.collect(0)
    source.uninstall()
    assert gc.callbacks == [*before, *([other] if followed else [])]
    gc.callbacks[:] = before
    dropped = source.dropped
    assert dropped >= 3
    gc.collect(0)
    source.drain()
    assert gc.callbacks == before, "a drain brings back only what is installed"
    assert source.dropped == dropped
    source.install()
    gc.collect(0)
    assert len(source.drain()) >= 1
    source.uninstall()
    assert gc.callbacks == before


def test_callbacks_that_somebody_threw_out_while_the_hook_was_away_are_no_obstacle(small):
    before = list(gc.callbacks)
    gc.callbacks.append(print)
    try:
        for _ in range(6):
            small._hook("start", told())
            small._hook("stop", told())
        gc.callbacks.clear()
        small.drain()
        assert gc.callbacks == [small._hook]
    finally:
        gc.callbacks[:] = before


def test_the_floor_is_that_of_the_last_full_collection_seen(small):
    gc.collect()
    seen = small.floor
    for _ in range(6):
        gc.collect(0)
    gc.collect()  # nobody listens
    assert small.floor == seen
    small.drain()
    gc.collect()
    assert small.floor is not None
    assert seen is not None
    assert small.floor.ended_ns > seen.ended_ns


def test_many_threads_collect_while_the_hook_comes_and_goes(small):
    before = sum(each["collections"] for each in gc.get_stats())
    start = small.dropped + len(small.drain())
    stop = threading.Event()
    seen: list[Pause] = []

    def drain() -> None:
        while not stop.is_set():
            seen.extend(small.drain())
            stop.wait(0.001)

    drainer = threading.Thread(target=drain)
    collectors = [threading.Thread(target=lambda: [gc.collect(0) for _ in range(300)]) for _ in range(4)]
    for thread in (drainer, *collectors):
        thread.start()
    for thread in collectors:
        thread.join()
    stop.set()
    drainer.join()
    seen.extend(small.drain())
    collections = sum(each["collections"] for each in gc.get_stats()) - before
    assert len(seen) + small.dropped - start == collections
    assert small.read().failed == 0
    assert gc.callbacks.count(small._hook) == 1


# --- metrics ------------------------------------------------------------------------------------------------


def test_metrics(source, exported, gate, failures):
    gc.collect()
    undo = source.register(exported.meter, gate)
    stats = gc.get_stats()
    assert exported.points() == {
        names.GC_COLLECTIONS: {(g,): stats[g]["collections"] for g in range(3)},
        names.GC_COLLECTED_OBJECTS: {(g,): stats[g]["collected"] for g in range(3)},
        names.GC_UNCOLLECTABLE_OBJECTS: {(g,): stats[g]["uncollectable"] for g in range(3)},
        names.GC_FLOOR_USAGE: {(): 123 * MiB},
        names.GC_FLOOR_BLOCK_COUNT: {(): source.floor.blocks},
    }
    assert failures == []
    undo()
    assert exported.metrics() == []


def test_before_the_first_full_collection_there_is_no_floor(source, exported, gate):
    source.register(exported.meter, gate)
    assert names.GC_FLOOR_USAGE not in exported.names()
    source._floor = Floor(None, None, 0)
    assert names.GC_FLOOR_USAGE not in exported.names()


def test_pauses_become_a_histogram_with_buckets_for_pauses(exported, gate, failures):
    source = GcSource(lambda: None, clock_ns=Nanoseconds())
    source.register(exported.meter, gate)
    for generation in (0, 0, 2):
        source._hook("start", told(generation))
        source._hook("stop", told(generation))
    assert len(source.record_pauses()) == 3
    assert source.record_pauses() == []
    (metric,) = (metric for metric in exported.metrics() if metric.name == names.GC_PAUSE_DURATION)
    assert metric.unit == "s"
    points = {point.attributes[names.CPYTHON_GC_GENERATION]: point for point in metric.data.data_points}
    assert {generation: (point.count, point.sum) for generation, point in points.items()} == {
        0: (2, pytest.approx(2e-6)),
        2: (1, pytest.approx(1e-6)),
    }
    assert points[0].explicit_bounds == PAUSE_BOUNDARIES_SECONDS
    assert sorted(PAUSE_BOUNDARIES_SECONDS) == list(PAUSE_BOUNDARIES_SECONDS)
    assert (PAUSE_BOUNDARIES_SECONDS[0], PAUSE_BOUNDARIES_SECONDS[-1]) == (1e-5, 1.0)
    assert failures == []


def test_pauses_are_recorded_once_whatever_was_registered_before(exported, gate):
    for _ in range(50):
        source = GcSource(lambda: None)
        undo = source.register(exported.meter, gate)
        source._hook("start", told())
        source._hook("stop", told())
        source.record_pauses()
        undo()
        source._hook("start", told())
        source._hook("stop", told())
        assert len(source.record_pauses()) == 1, "drained, though nobody records it any more"
    (metric,) = exported.metrics()
    assert metric.data.data_points[0].count == 50


@pytest.mark.parametrize("closed", [True, False])
def test_pauses_are_not_recorded_through_a_closed_gate_or_when_claimed(exported, closed):
    gate = Gate(lambda *_: None, lambda name: not closed and name == names.GC_PAUSE_DURATION)
    source = GcSource(lambda: None)
    source.register(exported.meter, gate)
    if closed:
        gate.close()
    source._hook("start", told())
    source._hook("stop", told())
    source.record_pauses()
    gate.open()
    assert names.GC_PAUSE_DURATION not in exported.names()


def test_a_histogram_that_fails_is_counted_and_does_not_stop_the_sampler(exported, gate, failures):
    class Broken:
        def record(self, *_args: object) -> None:
            raise RuntimeError

    source = GcSource(lambda: None)
    source._recorder = (Broken(), gate)  # type: ignore[assignment]
    source._hook("start", told())
    source._hook("stop", told())
    assert len(source.record_pauses()) == 1
    assert [(part, type(error)) for part, error in failures] == [("gc", RuntimeError)]


# --- forks and the end --------------------------------------------------------------------------------------

FORKS = """
import gc, json, os
from otel_memory.probe.sources.gc import GcSource

gc.disable()
source = GcSource(lambda: 5)
source.install()
for _ in range(7):
    gc.collect()
report, write = os.pipe()
child = os.fork()
if child == 0:
    source.reset_after_fork()
    fresh = source.read()
    left = len(source.drain())
    gc.collect()
    reading = source.read()
    os.write(write, json.dumps({"fresh": [sum(g) for g in fresh.generations], "floor": fresh.floor, "left": left,
        "collections": reading.generations[2].collections, "pauses": len(source.drain())}).encode())
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps({"parent": source.read().generations[2].collections, "child": json.loads(os.read(report, 4096))}))
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_counts_its_own_collections_and_none_of_the_parents():
    found = json.loads(run(FORKS))
    assert found["parent"] >= 7
    assert found["child"] == {"fresh": [0, 0, 0], "floor": None, "left": 0, "collections": 1, "pauses": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_listens_though_the_parents_hook_was_away(small):
    for _ in range(10):
        gc.collect(0)
    assert small._hook not in gc.callbacks
    child = os.fork()
    if child == 0:
        status = 1
        try:
            small.reset_after_fork()
            gc.collect(0)
            status = 0 if (small.dropped, len(small.drain()), gc.callbacks.count(small._hook)) == (0, 1, 1) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert len(small.drain()) == 4


def test_the_interpreter_ends_in_peace_while_the_hook_is_installed():
    run(
        "import gc\n"
        "from otel_memory.probe.sources.gc import GcSource\n"
        "from otel_memory.probe.sources.process import ProcessSource\n"
        "process = ProcessSource()\n"
        "source = GcSource(process.rss)\n"
        "source.install()\n"
        "class Cycle: pass\n"
        "for _ in range(1000):\n"
        "    a = Cycle(); a.a = a\n"
    )
