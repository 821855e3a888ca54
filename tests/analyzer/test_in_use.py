"""Resident memory against what is in use: which of two opinions holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from otel_memory import names
from otel_memory.analyzer.in_use import InUse, weigh_all
from otel_memory.analyzer.judgement import Judge, score_all
from otel_memory.analyzer.model import Payload, Point, ProcessInfo
from otel_memory.analyzer.scoring import ScoreResult
from otel_memory.analyzer.series import ProcessSeries

MB = 1e6
SECONDS = 180
Course = Callable[[int], float]
"""Something at each second of a process."""


def noise(seed: int, size: float) -> Course:
    values = np.random.default_rng(seed).normal(0, size, SECONDS)
    return lambda second: float(values[second])


def judged(
    resident: Course, used: Course | None, outside: Course = lambda second: 0.0, after: int = SECONDS
) -> tuple[ScoreResult, ScoreResult]:
    """What is said of a process of 100 MB by its resident memory alone, and by both. ``used``: bytes of Python's blocks
    above 60 MB. ``outside``: bytes outside both allocators."""
    series = ProcessSeries(ProcessInfo("id", "shop"))
    judge, in_use = Judge(), InUse()
    for second in range(after):
        time = 1_000_000.0 + second
        rss = 100 * MB + resident(second)
        points = [Point(names.PROCESS_MEMORY_USAGE, (), time, None, rss, "gauge")]
        if used is not None:
            held = 60 * MB + used(second)
            points.append(Point(names.PYTHON_BLOCK_COUNT, (), time, None, round(held / 100), "gauge"))
            points.append(Point(names.HEAP_USAGE, (), time, None, 20 * MB, "gauge"))
            parts = {"python_used": held, "c_used": 20 * MB, "c_free": 0.0, "other": 10 * MB + outside(second)}
            parts["python_free"] = max(rss - sum(parts.values()), 0.0)
            for part, size in parts.items():
                attributes = ((names.MEMORY_PART, part),)
                points.append(Point(names.MEMORY_BREAKDOWN, attributes, time, None, size, "gauge"))
        series.add(Payload({}, points, ()))
        in_use.learn(series)
    score_all([(judge, series)])
    alone = judge.results[0]
    weigh_all([(in_use, judge, series)])
    both = judge.results[0]
    assert alone is not None
    assert both is not None
    return alone, both


def test_a_floor_that_the_allocators_keep_up_is_no_leak() -> None:
    jitter = noise(1, 0.1 * MB)
    alone, both = judged(lambda second: 0.2 * MB * second + jitter(second), noise(2, 0.1 * MB))
    assert alone.score >= 0.8
    assert both.score < 0.5
    assert "what is in use did not" in both.reasons[-1]
    assert both.time_to_limit is None


def test_what_grows_outside_both_allocators_is_not_excused_by_them() -> None:
    jitter = noise(1, 0.1 * MB)
    alone, both = judged(
        lambda second: 0.2 * MB * second + jitter(second), noise(2, 0.1 * MB), lambda second: 0.2 * MB * second
    )
    assert both == alone
    assert both.score >= 0.8


def test_a_leak_that_noise_hides_shows_in_what_is_in_use() -> None:
    hidden, jitter = noise(3, 4 * MB), noise(4, 0.1 * MB)
    alone, both = judged(
        lambda second: 0.06 * MB * second + 3 * hidden(second // 10), lambda second: 0.06 * MB * second + jitter(second)
    )
    assert 0.4 <= alone.score < 0.8
    assert both.score >= 0.8
    assert "more noise" in both.reasons[-1]
    assert abs(both.growth_rate - 0.06 * MB) < 0.01 * MB


def test_where_both_say_the_same_resident_memory_is_spoken_of() -> None:
    alone, both = judged(lambda second: 0.2 * MB * second, lambda second: 0.2 * MB * second)
    assert both == alone


def test_a_process_that_does_not_tell_what_it_uses_is_judged_by_its_resident_memory() -> None:
    alone, both = judged(lambda second: 0.2 * MB * second, None)
    assert both == alone
    assert both.score >= 0.8


def test_a_score_is_weighed_once_until_the_process_is_scored_again() -> None:
    jitter = noise(1, 0.1 * MB)
    series = ProcessSeries(ProcessInfo("id", "shop"))
    for second in range(100):
        time = 1_000_000.0 + second
        rss = 100 * MB + 0.2 * MB * second + jitter(second)
        points = [Point(names.PROCESS_MEMORY_USAGE, (), time, None, rss, "gauge")]
        points.append(Point(names.PYTHON_BLOCK_COUNT, (), time, None, 600_000, "gauge"))
        points.append(Point(names.HEAP_USAGE, (), time, None, 20 * MB, "gauge"))
        series.add(Payload({}, points, ()))
    judge, in_use = Judge(), InUse()
    score_all([(judge, series)])
    weigh_all([(in_use, judge, series)])
    assert in_use.fresh(judge) == []
