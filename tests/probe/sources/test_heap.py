"""The heap source: real figures, and how seldom expensive ones are taken."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import psutil
import pytest

from otel_memory import names
from otel_memory.probe.sources.heap import HeapReading, HeapSource

MiB = 1 << 20
has_heap_info = pytest.mark.skipif(not hasattr(psutil, "heap_info"), reason="this C library doesn't tell")


def test_blocks_follow_the_objects_of_the_program():
    source = HeapSource(clock=iter(range(0, 10**9, 10**6)).__next__)
    before = source.read().blocks
    kept = [object() for _ in range(50_000)]
    assert 50_000 <= source.read().blocks - before < 60_000
    del kept


@has_heap_info
def test_a_large_block_shows_as_mapped_and_small_ones_in_the_arenas():
    source = HeapSource(clock=iter(range(0, 10**9, 10**6)).__next__)
    before = source.read()
    large = bytearray(64 * MiB)
    small = [bytearray(1000) for _ in range(20_000)]  # above pymalloc's 512 bytes, below the mapping threshold
    after = source.read()
    assert after.mmap_bytes - before.mmap_bytes == pytest.approx(64 * MiB, abs=MiB)
    assert after.arena_bytes - before.arena_bytes > 20_000 * 1000
    del large, small


class Cost:
    """A cost clock on which each reading takes what was set for it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def of(self, seconds: float, result: object) -> object:
        def read() -> object:
            self.now += seconds
            return result

        return read


def test_an_expensive_count_is_taken_seldom_while_the_cheap_one_goes_on(clock):
    """20 ms a count, half of 0.05 % of the time: once in 80 s."""
    cost, counted, seen = Cost(), [], []

    def count() -> int:
        counted.append(clock.now)
        return cost.of(0.02, len(counted))()

    def info() -> object:
        seen.append(clock.now)
        return SimpleNamespace(heap_used=1, mmap_used=2)

    source = HeapSource(clock=clock, cost_clock=cost, heap_info=info, allocated_blocks=count)
    for _ in range(161):
        assert source.latest().blocks == len(counted), "between two counts the last one stands"
        clock.now += 1.0
    assert [at - counted[0] for at in counted] == [0.0, 80.0, 160.0]
    assert len(seen) == 161
    assert cost.now / 161 < 0.0005


@pytest.mark.parametrize("expensive", ["heap_info", "allocated_blocks"])
def test_the_share_of_the_time_can_be_set_and_holds_for_either_reading(clock, expensive):
    cost = Cost()
    readings = {"heap_info": None, "allocated_blocks": None, expensive: cost.of(0.2, 5)}
    source = HeapSource(clock=clock, cost_clock=cost, share=0.1, **readings)
    source.read()
    clock.now += 3.9
    source.read()
    assert cost.now == pytest.approx(0.2)
    clock.now += 0.1
    source.read()
    assert cost.now == pytest.approx(0.4)


def test_a_platform_that_tells_nothing_is_a_gap():
    assert HeapSource(heap_info=None, allocated_blocks=None).read() == HeapReading(None, None, None)


def test_an_allocator_that_fails_is_a_gap_and_the_blocks_are_still_counted():
    def fails() -> object:
        raise OSError

    assert HeapSource(heap_info=fails, allocated_blocks=lambda: 3).read() == HeapReading(None, None, 3)


def test_after_a_fork_nothing_of_the_parent_is_handed_out(clock):
    cost = Cost()
    source = HeapSource(clock=clock, cost_clock=cost, heap_info=None, allocated_blocks=cost.of(10.0, 1))
    source.read()
    source.reopen()
    cost_before = cost.now
    assert source.latest().blocks == 1
    assert cost.now > cost_before, "counted anew although its time hadn't come"


def test_metrics(exported, gate, failures):
    info = SimpleNamespace(heap_used=11, mmap_used=22)
    undo = HeapSource(heap_info=lambda: info, allocated_blocks=lambda: 33).register(exported.meter, gate)
    assert exported.points() == {
        names.HEAP_USAGE: {("arena",): 11, ("mmap",): 22},
        names.PYTHON_BLOCK_COUNT: {(): 33},
    }
    undo()
    assert exported.metrics() == []
    assert failures == []


def test_by_default_the_interpreters_own_figures_are_read():
    assert HeapSource().read().blocks == pytest.approx(sys.getallocatedblocks(), rel=0.1)
