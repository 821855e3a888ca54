"""One-off readings, and the wording of sizes in log lines."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.probe import resource_monitor
from otel_memory.probe.resource_monitor import MemoryCapture, ResourceMonitor, format_bytes

MIB = 1024 * 1024


class Memory:
    rss: int | None = 100 * MIB


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    fake = Memory()
    monkeypatch.setattr(resource_monitor, "read_rss", lambda: fake.rss)
    resource_monitor._forget_first()
    yield fake
    resource_monitor._forget_first()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1023.7, "1.00KB"),
        (1024, "1.00KB"),
        (24.33 * 1024, "24.33KB"),
        (1024 * 1024 - 1, "1.00MB"),
        (52.18 * MIB, "52.18MB"),
        (-1.5 * MIB, "-1.50MB"),
        (3 * 1024**3, "3.00GB"),
        (2**60, "1024.00PB"),
        (-0.2, "0B"),
    ],
)
def test_sizes_are_worded_in_powers_of_1024_with_two_digits(size: float, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "+0B"), (12.34 * MIB, "+12.34MB"), (-5 * 1024, "-5.00KB"), (-0.2, "+0B")]
)
def test_a_change_carries_its_sign(size: float, text: str) -> None:
    assert format_bytes(size, signed=True) == text


@given(st.integers(-(2**59), 2**59))
def test_the_wording_is_never_1024_of_a_unit_and_is_near_the_size(size: int) -> None:
    text = format_bytes(size)
    unit = next(u for u in ("KB", "MB", "GB", "TB", "PB", "B") if text.endswith(u))
    figure = float(text.removesuffix(unit))
    assert abs(figure) < 1024
    factor = 1024 ** ("B", "KB", "MB", "GB", "TB", "PB").index(unit)
    assert figure * factor == pytest.approx(size, rel=0.005, abs=0.5)


def test_the_first_snapshot_is_what_later_ones_are_compared_with(memory: Memory) -> None:
    first = ResourceMonitor.capture_memory()
    assert (first.current_size, first.size_diff) == (100 * MIB, 0)
    memory.rss = 130 * MIB
    assert ResourceMonitor.capture_memory().size_diff == 30 * MIB
    memory.rss = 90 * MIB
    assert ResourceMonitor.capture_memory().size_diff == -10 * MIB


def test_a_named_snapshot_is_compared_with_and_asking_changes_nothing_for_others(memory: Memory) -> None:
    first = ResourceMonitor.capture_memory()
    memory.rss = 110 * MIB
    second = ResourceMonitor.capture_memory(since=first)
    memory.rss = 115 * MIB
    assert ResourceMonitor.capture_memory(since=second).size_diff == 5 * MIB
    assert ResourceMonitor.capture_memory(since=first).size_diff == 15 * MIB


def test_a_comparison_with_a_named_snapshot_does_not_become_the_first(memory: Memory) -> None:
    ResourceMonitor.capture_memory(since=MemoryCapture(0.0, 1, None, None))
    assert ResourceMonitor.capture_memory().size_diff == 0


def test_an_unreadable_memory_is_a_gap_and_never_the_first(memory: Memory) -> None:
    memory.rss = None
    blind = ResourceMonitor.capture_memory()
    assert (blind.current_size, blind.size_diff) == (None, None)
    memory.rss = 50 * MIB
    assert ResourceMonitor.capture_memory(since=blind).size_diff is None
    assert ResourceMonitor.capture_memory().size_diff == 0


def test_traced_bytes_are_given_only_while_somebody_traces(memory: Memory) -> None:
    assert ResourceMonitor.capture_memory().traced_size is None
    tracemalloc.start()
    try:
        held = bytes(MIB)
        traced = ResourceMonitor.capture_memory().traced_size
    finally:
        tracemalloc.stop()
    assert traced is not None
    assert traced >= len(held)


def test_a_real_reading_is_the_resident_memory_now() -> None:
    before = ResourceMonitor.capture_memory()
    hoard = b"x" * (64 * MIB)
    after = ResourceMonitor.capture_memory(since=before)
    assert after.size_diff is not None
    assert 60 * MIB < after.size_diff < 80 * MIB
    assert before.timestamp <= after.timestamp <= time.time()
    assert len(hoard) == 64 * MIB
    assert ResourceMonitor.format_bytes(1536) == "1.50KB"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_compares_with_a_snapshot_of_its_own(memory: Memory) -> None:
    ResourceMonitor.capture_memory()
    child = os.fork()
    if child == 0:
        memory.rss = 500 * MIB
        os._exit(0 if ResourceMonitor.capture_memory().size_diff == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_reading_that_failed_is_said_to_be_unknown() -> None:
    assert ResourceMonitor.format_bytes(None) == format_bytes(None, signed=True) == "unknown"
