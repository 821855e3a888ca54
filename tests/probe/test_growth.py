"""Whether the floor grows: what counts as growth, and what doesn't."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from otel_memory.probe.growth import LEAST_BLOCKS, GrowthWatch, Rise

MB = 1_000_000


def watched(value: Callable[[int], float | None], seconds: int, signal: str = "anonymous") -> list[tuple[int, Rise]]:
    """(second, rise) of every second at which the watch saw a rise."""
    watch = GrowthWatch(45, 20)
    seen = []
    for second in range(seconds):
        watch.add(float(second), {signal: value(second)})  # type: ignore[dict-item]
        rise = watch.rise()
        if rise is not None:
            seen.append((second, rise))
    return seen


def test_a_leak_of_200_kb_a_second_is_seen_within_a_window_and_the_grace() -> None:
    second, rise = watched(lambda t: 100 * MB + 200_000 * t, 100)[0]
    assert second <= 20 + 45
    assert rise.per_second == pytest.approx(200_000, rel=0.1)


def test_a_slow_leak_is_seen_in_a_wider_window() -> None:
    second, rise = watched(lambda t: 100 * MB + 20_000 * t, 500)[0]
    assert 200 < second <= 20 + 360
    assert rise.seconds > 200


def test_a_leak_under_sawing_garbage_is_seen_by_its_floor() -> None:
    found = watched(lambda t: 100 * MB + 300_000 * t + (t % 5) * 10 * MB, 120)
    assert found
    assert found[-1][1].per_second == pytest.approx(300_000, rel=0.5)


@pytest.mark.parametrize(
    "healthy",
    [
        lambda t: 100 * MB,
        lambda t: 100 * MB + 50 * MB * (t > 60),
        lambda t: 100 * MB + min(t, 20) * 5 * MB,
        lambda t: 100 * MB + 40 * MB * (t % 30 < 10),
        lambda t: 100 * MB + 3 * MB * math.sin(t / 3),
        lambda t: 100 * MB + (t % 20) * 4 * MB,
        lambda t: 500 * MB - 1 * MB * t,
        lambda t: None,
    ],
    ids=["flat", "a step", "start-up", "batches", "noise", "a saw", "falling", "unreadable"],
)
def test_what_does_not_grow_is_silent(healthy: Callable[[int], float | None]) -> None:
    assert watched(healthy, 400) == []


def test_two_per_cent_of_a_large_process_are_its_own_unrest() -> None:
    assert watched(lambda t: 10_000 * MB + 200_000 * t, 60 + 45) == []


def test_blocks_count_in_their_own_unit() -> None:
    assert watched(lambda t: 300_000 + LEAST_BLOCKS / 100 * t, 66, "blocks") == []
    assert watched(lambda t: 300_000 + LEAST_BLOCKS / 20 * t, 66, "blocks")


def test_growth_that_has_ended_does_not_go_on() -> None:
    watch = GrowthWatch(45, 0)
    for second in range(46):
        watch.add(float(second), {"anonymous": 100 * MB + 300_000.0 * second})
    rise = watch.rise()
    assert rise is not None
    for second in range(46, 76):
        watch.add(float(second), {"anonymous": 100 * MB + 300_000.0 * 45})
    assert not watch.goes_on(rise, 46.0)


def test_growth_that_goes_on_is_told() -> None:
    watch = GrowthWatch(45, 0)
    for second in range(76):
        watch.add(float(second), {"anonymous": 100 * MB + 300_000.0 * second})
    assert watch.goes_on(Rise("anonymous", 100 * MB, 113 * MB, 37.5), 46.0)
