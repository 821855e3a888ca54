"""What is said of a history: nothing from too little, leaks from what rises materially and goes on, nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from otel_memory.probe.packages.history import IMMATERIAL_SCORE, growth_rate, leak_score, statistics, trend

MIB = 1024 * 1024


def series(value: Callable[[int], float], count: int = 60, step: float = 30.0) -> list[tuple[float, float]]:
    return [(index * step, value(index)) for index in range(count)]


def noise(index: int, size: float) -> float:
    return random.Random(index).uniform(-size, size)


LEAKS = {
    "steady": lambda i: 50 * MIB + i * 200_000,
    "steady, noisy": lambda i: 50 * MIB + i * 300_000 + noise(i, MIB),
    "with peaks": lambda i: 20 * MIB + i * 200_000 + (30 * MIB if i % 7 == 0 else 0),
    "in steps that go on": lambda i: 10 * MIB + (i // 6) * 2 * MIB,
    "accelerating": lambda i: 10 * MIB + i * i * 10_000,
}
HEALTHY = {
    "flat": lambda i: 50 * MIB,
    "flat, noisy": lambda i: 50 * MIB + noise(i, 4 * MIB),
    "sawtooth": lambda i: 50 * MIB + (i % 10) * 2 * MIB,
    "fills up and stays": lambda i: min(i, 20) * 2 * MIB,
    "one step": lambda i: 10 * MIB + (30 * MIB if i > 35 else 0),
    "falls": lambda i: 80 * MIB - i * MIB,
    "one last reading far up": lambda i: 10 * MIB + (500 * MIB if i == 59 else 0),
    "grows by less than matters": lambda i: 500 * MIB + i * 1000,
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_material_rise_that_goes_on_scores_high(name: str) -> None:
    history = series(LEAKS[name])
    assert leak_score(history) >= 0.6
    assert trend(history) == "increasing"
    rate = growth_rate(history)
    assert rate is not None
    assert rate > 0


@pytest.mark.parametrize("name", HEALTHY)
def test_what_does_not_go_on_scores_low(name: str) -> None:
    assert leak_score(series(HEALTHY[name])) < 0.3


def test_a_rise_that_is_not_material_is_never_called_a_leak() -> None:
    assert leak_score(series(lambda i: 500 * MIB + i * 1000)) <= IMMATERIAL_SCORE
    assert trend(series(lambda i: 500 * MIB + i * 1000)) == "stable"


def test_the_material_rise_is_configurable() -> None:
    small = series(lambda i: float(i * 1000))
    assert leak_score(small) <= IMMATERIAL_SCORE
    assert leak_score(small, least_bytes=10_000) == 1.0


@pytest.mark.parametrize("count", range(6))
def test_nothing_is_said_from_fewer_than_six_measurements(count: int) -> None:
    history = series(lambda i: i * 100.0 * MIB, count)
    assert (leak_score(history), trend(history), growth_rate(history)) == (0.0, "stable", None)


def test_measurements_at_the_same_time_count_once() -> None:
    assert leak_score([(1.0, index * MIB) for index in range(50)]) == 0.0


def test_falling_is_decreasing() -> None:
    assert trend(series(lambda i: 80 * MIB - i * MIB)) == "decreasing"


def test_the_growth_rate_is_bytes_per_second() -> None:
    assert growth_rate(series(lambda i: 7 + i * 3000.0)) == pytest.approx(100.0)


def test_statistics_are_those_of_the_values() -> None:
    found = statistics([(0, 2.0), (1, 4.0), (2, 6.0)])
    assert found[:5] == (3, 4.0, 2.0, 6.0, pytest.approx(8 / 3))
    assert found.growth_rate is None
    assert statistics([]).average is None


def test_a_reading_that_failed_is_left_out() -> None:
    known = series(lambda i: 50 * MIB + i * 200_000)
    gaps: list[tuple[float, float | None]] = [(30.0 * 60, None), (30.0 * 61, float("nan")), (30.0 * 62, float("inf"))]
    assert leak_score([*known, *gaps]) == leak_score(known)
    assert statistics([*known, *gaps]) == statistics(known)
    assert (leak_score(gaps), trend(gaps), statistics(gaps).average) == (0.0, "stable", None)
