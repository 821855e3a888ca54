"""A burst of tracemalloc: the line that keeps, never the one that gives back; tracing left as it was found."""

from __future__ import annotations

import itertools
import json
import os
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from otel_memory import capture_evidence
from otel_memory.probe import burst, sites
from otel_memory.probe.added import Watched
from otel_memory.probe.traced import SharedTracing
from otel_memory.probe.tracing_switch import SAFE_TO_STOP, Switch
from tests.harness import wait_until

kept: list[Any] = []


def leak() -> None:
    kept.append(bytearray(20_000))


def churn() -> int:
    return len([bytearray(20_000) for _ in range(20)])


@contextmanager
def busy() -> Iterator[None]:
    """A thread that leaks at one line and only churns at another."""
    end = threading.Event()

    def work() -> None:
        while not end.wait(0.005):
            leak()
            churn()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        kept.clear()


@pytest.fixture(autouse=True)
def _tracing_is_off() -> Iterator[None]:
    wait_until(lambda: not tracemalloc.is_tracing())
    yield
    wait_until(lambda: not tracemalloc.is_tracing())


def run(seconds: float = 0.4, **more: Any) -> burst.Burst:
    return burst.run(seconds, frames=4, max_pause_seconds=1.0, **{"rest_times": 0.0, **more})


def test_the_leaking_line_and_its_function_are_named_first() -> None:
    with busy():
        found = run()
    first = found.sites[0]
    assert str(first).endswith(f"test_burst.py:{leak.__code__.co_firstlineno + 1} leak")
    assert first.bytes_per_second > 100_000
    assert first.bytes_per_second > 0.7 * found.growth
    assert found.gave_up is None


def test_it_is_cut_into_pieces_with_rests_between_them() -> None:
    rests: list[float] = []

    def sleep(seconds: float) -> None:
        if not tracemalloc.is_tracing():
            rests.append(seconds)
        threading.Event().wait(min(seconds, 0.02))

    with busy():
        found = run(1.0, rest_times=burst.REST_TIMES, sleep=sleep, tracing=SharedTracing(Switch(safe_to_stop=True)))
    # Five pieces of 0.2 s, or fewer where the machine is so busy that they take longer.
    assert 1 <= len(rests) <= 5
    assert all(rest >= burst.REST_TIMES * 0.2 for rest in rests)
    assert found.seconds >= 0.9


def test_a_line_far_below_which_a_library_allocates_is_found_with_few_frames() -> None:
    document = json.dumps([{"name": f"article {number}"} for number in range(300)])
    end = threading.Event()

    def load() -> None:
        while not end.wait(0.005):
            kept.append(json.loads(document))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        found = burst.run(0.8, frames=1, max_pause_seconds=1.0, rest_times=0.0)
    finally:
        end.set()
        thread.join()
        kept.clear()
    assert str(found.sites[0]).endswith(f"test_burst.py:{load.__code__.co_firstlineno + 2} {load.__qualname__}")


def test_what_came_to_a_growing_container_is_told_apart() -> None:
    watched = Watched([kept])
    with busy():
        found = run(0.4, rest_times=0.0, watched=watched)
    ((first, *_),) = found.added
    assert str(first).endswith(f"test_burst.py:{leak.__code__.co_firstlineno + 1} leak")
    assert first.bytes_per_second > 100_000


def test_tracing_that_somebody_else_started_goes_on_and_is_used() -> None:
    tracemalloc.start()
    try:
        old = [bytearray(50_000) for _ in range(10)]
        with busy():
            found = run()
        assert tracemalloc.is_tracing()
        assert tracemalloc.get_object_traceback(old[0]) is not None
        assert str(found.sites[0]).endswith(" leak")
    finally:
        tracemalloc.stop()


def test_somebody_elses_tracing_that_knows_too_much_is_left_alone() -> None:
    tracemalloc.start()
    try:
        many = [object() for _ in range(20_000)]
        found = burst.run(0.1, frames=1, max_pause_seconds=0.001)
        assert found.gave_up is not None
        assert "on already" in found.gave_up
        assert many
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_it_ends_early_where_a_look_would_take_too_long() -> None:
    tracing = SharedTracing()
    hoard: list[Any] = []

    def sleep(_: float) -> None:
        if len(hoard) < 100_000:
            hoard.extend([] for _ in range(5_000))

    times = itertools.count()
    found = burst.run(
        0.6, frames=1, max_pause_seconds=0.01, sleep=sleep, clock=lambda: next(times) / 1_000, tracing=tracing
    )
    assert found.ended_early


def test_it_ends_when_the_probe_stops() -> None:
    assert run(60.0, stopping=lambda: True).seconds < 10


def test_two_bursts_share_tracing() -> None:
    tracing = SharedTracing()
    first = tracing.begin(4)
    second = tracing.begin(4)
    tracing.end(first)
    assert tracemalloc.is_tracing()
    assert not tracing._switch.resting
    tracing.end(second)


def test_the_child_of_a_fork_in_a_burst_does_not_trace() -> None:
    tracing = SharedTracing()
    use = tracing.begin(1)
    child = os.fork()
    if child == 0:
        tracing.reset_after_fork()
        os._exit(int(tracemalloc.is_tracing()))
    try:
        assert os.waitpid(child, 0)[1] == 0
        assert tracemalloc.is_tracing()
    finally:
        tracing.end(use)


def test_threads_that_allocate_without_the_interpreters_lock_survive_the_stop() -> None:
    """gh-128679: the interpreters before 3.12.9 and 3.13.2 die here of a plain ``tracemalloc.stop()``."""
    tracing = SharedTracing()
    data, end = zlib.compress(b"x" * 200_000), threading.Event()

    def inflate() -> None:
        while not end.is_set():
            zlib.decompressobj().decompress(data, 50_000)

    threads = [threading.Thread(target=inflate) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            for _ in range(3):
                use = tracing.begin(1)
                threading.Event().wait(0.002)
                tracing.end(use)
            wait_until(lambda: not tracemalloc.is_tracing(), every=0.01)
    finally:
        end.set()
        for thread in threads:
            thread.join()


@pytest.mark.skipif(SAFE_TO_STOP, reason="this interpreter stops at once")
def test_a_start_while_the_stop_is_still_due_goes_on_tracing() -> None:
    switch = Switch(leave_seconds=0.1)
    switch.start(1)
    switch.stop()
    assert switch.resting
    switch.start(1)
    assert not switch.resting
    thing = bytearray(1000)
    threading.Event().wait(0.3)
    assert tracemalloc.get_object_traceback(thing) is not None
    switch.stop()


def test_functions_are_found_in_classes_closures_and_wrappers() -> None:
    path = os.path.abspath(__file__)
    line = run.__code__.co_firstlineno + 1
    assert sites.function_at(path, line) == "run"
    assert sites.function_at("/no/such/file.py", 1) is None
    work = busy.__wrapped__.__code__.co_firstlineno + 5  # type: ignore[attr-defined]
    assert sites.function_at(path, work) == "busy.<locals>.work"


def test_capture_evidence_names_site_and_holder_without_a_probe() -> None:
    with busy():
        wait_until(lambda: len(kept) > 50)
        found = capture_evidence(seconds=1.0, max_pause_seconds=1.0)
    assert found.sites[0].name.endswith(" leak")
    assert any(holder.name == f"{__name__}.kept (module global)" for holder in found.holders)
    assert found.gave_up == ()


@pytest.mark.parametrize("seconds", [0, -1, 61])
def test_capture_evidence_refuses_what_is_no_time_for_a_burst(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds="):
        capture_evidence(seconds=seconds)
