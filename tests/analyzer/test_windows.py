"""Bounded columns and monotone counts."""

from __future__ import annotations

import math
import random
from itertools import accumulate
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.analyzer.windows import Counted, Level, Window

SMALL = (Level(0.0, 8), Level(10.0, 4), Level(60.0, 4))


def test_a_window_keeps_the_youngest_samples_and_no_more() -> None:
    window = Window("minimum", SMALL)
    for time in range(1000):
        window.append(float(time), float(time))
    times, values = window.arrays()
    assert times.tolist() == values.tolist() == [float(time) for time in range(992, 1000)]
    assert len(window) == 8
    assert window.nbytes <= 16 * (9 + 5 + 5)


def test_late_and_repeated_samples_are_dropped_and_counted() -> None:
    window = Window()
    assert [window.append(time, 1.0) for time in (5.0, 5.0, 4.0, 6.0)] == [True, False, False, True]
    assert window.dropped == 2
    assert window.arrays()[0].tolist() == [5.0, 6.0]


def test_a_coarse_level_keeps_the_smallest_sample_of_a_bucket_with_its_own_time() -> None:
    window = Window("minimum", SMALL)
    for time, value in ((0.0, 5.0), (3.0, 2.0), (9.0, 4.0), (10.0, 7.0), (15.0, 8.0)):
        window.append(time, value)
    times, values = window.arrays(1)
    assert (times.tolist(), values.tolist()) == ([3.0, 10.0], [2.0, 7.0])


def test_a_coarse_level_of_a_count_keeps_the_last_sample_of_a_bucket() -> None:
    window = Window("last", SMALL)
    for time in range(25):
        window.append(float(time), float(time * 2))
    times, values = window.arrays(1)
    assert (times.tolist(), values.tolist()) == ([9.0, 19.0, 24.0], [18.0, 38.0, 48.0])


def test_a_gap_stays_a_gap_on_every_level() -> None:
    window = Window("minimum", SMALL)
    for time in (0.0, 1.0, 1000.0):
        window.append(time, 1.0)
    assert window.arrays(0)[0].tolist() == [0.0, 1.0, 1000.0]
    assert window.arrays(1)[0].tolist() == [0.0, 1000.0]


def test_the_rest_of_a_sum_replaces_the_sample_of_the_same_time() -> None:
    window = Window("minimum", SMALL)
    window.append(1.0, 10.0)
    window.put(2.0, 3.0)
    assert window.since(2.0) == ([], [])
    window.put(2.0, 12.0)
    assert window.arrays()[1].tolist() == [10.0, 12.0]
    assert window.since(2.0) == ([2.0], [12.0]), "who has stored it must store it again"
    assert window.since(1.0) == ([2.0], [12.0])
    assert window.dropped == 0


def test_a_value_is_known_at_and_after_its_time_and_not_before() -> None:
    window = Window()
    for time, value in ((10.0, 1.0), (20.0, 2.0)):
        window.append(time, value)
    found = window.at(np.array([9.0, 10.0, 15.0, 19.9, 20.0, 99.0]), tolerance=0.5)
    assert np.isnan(found[0])
    assert found[1:].tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert np.isnan(Window().at(np.array([1.0]))).all()


def test_what_was_handed_out_does_not_change_when_samples_come_in() -> None:
    window = Window("minimum", SMALL)
    window.append(1.0, 1.0)
    times, values = window.arrays()
    for time in range(2, 50):
        window.append(float(time), 0.0)
    assert (times.tolist(), values.tolist()) == ([1.0], [1.0])


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(-50, 50)), max_size=200))
def test_a_coarse_level_is_what_the_samples_say(samples: list[tuple[int, int]]) -> None:
    """Against the definition: of the accepted samples the smallest of each bucket, of the youngest four buckets."""
    window = Window("minimum", SMALL)
    taken = [(time, value) for time, value in samples if window.append(float(time), float(value))]
    assert len(taken) + window.dropped == len(samples)
    buckets: dict[int, int] = {}
    for time, value in taken:
        buckets[time // 10] = min(value, buckets.get(time // 10, value))
    times, values = window.arrays(1)
    assert values.tolist() == [float(value) for _, value in sorted(buckets.items())][-4:]
    assert [time // 10 for time in times] == sorted(buckets)[-4:]
    assert window.arrays(0)[0].tolist() == [float(time) for time, _ in taken][-8:]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([(1, 0, 5), (2, 0, 9)], [5, 4], id="a cumulative count adds what it grew by"),
        pytest.param([(1, 0, 5), (2, 0, 5)], [5, 0], id="a count that stands still adds nothing"),
        pytest.param([(1, 0, 5), (2, 1.5, 7)], [5, 7], id="a new start means that all was counted since"),
        pytest.param([(1, 0, 5), (2, 0, 3)], [5, 3], id="a fall without a new start is a reset too"),
        pytest.param([(1, 0, 5), (2, 0.2, 8)], [5, 3], id="a start that moves before the last sample is jitter"),
        pytest.param([(1, None, 5), (2, None, 8)], [5, 3], id="a start may be absent"),
        pytest.param([(2, 0, 5), (1, 0, 3), (2, 0, 5)], [5, None, None], id="late and repeated points add nothing"),
    ],
)
def test_a_cumulative_stream_becomes_increments(
    points: list[tuple[float, float | None, float]], expected: list[float | None]
) -> None:
    counted = Counted()
    assert [counted.increment(time, start, value, "sum") for time, start, value in points] == expected


def test_delta_points_are_their_own_increments() -> None:
    counted = Counted()
    assert [counted.increment(float(t), t - 1.0, 4.0, "delta") for t in (1, 2, 2, 3)] == [4.0, 4.0, None, 4.0]


def test_a_sum_that_may_fall_falls() -> None:
    counted = Counted(monotonic=False)
    assert [counted.increment(t, 0.0, value, "gauge") for t, value in ((1.0, 10.0), (2.0, 4.0))] == [10.0, -6.0]
    assert counted.reset is None


@given(st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=8), min_size=1, max_size=5))
def test_the_sum_of_increments_is_what_was_counted_over_all_lives(lives: list[list[int]]) -> None:
    """Each life counts up from zero; whatever it had counted at its last sample is in the sum, once."""
    counted, total, time = Counted(), 0.0, 0.0
    for steps in lives:
        start = time + 0.5
        for value in accumulate(steps):
            time += 1.0
            added = counted.increment(time, start, float(value), "sum")
            assert added is not None
            assert added >= 0
            total += added
    assert math.isclose(total, sum(map(sum, lives)))


def test_a_count_at_a_coarser_level_is_known_inside_its_buckets_too() -> None:
    window = Window("last", (Level(0.0, 4), Level(15.0, 64)))
    for second in range(120):
        window.append(float(second), 3.0 * second)
    asked = np.array([14.0, 20.0, 31.5, 60.0, 110.0, 119.0, 200.0])
    assert window.between(asked, 1) == pytest.approx([42.0, 60.0, 94.5, 180.0, 330.0, 357.0, 357.0])
    assert np.isnan(window.between(np.array([-1.0]), 1)).all()
    assert np.isnan(Window("last").between(asked, 1)).all()


@pytest.mark.parametrize("keep", ["minimum", "last"])
@pytest.mark.parametrize("seed", range(5))
def test_a_resolution_that_says_the_same_as_the_raw_samples_is_as_if_it_were_kept(
    keep: Literal["minimum", "last"], seed: int
) -> None:
    chance = random.Random(seed)
    lazy, eager = Window(keep), Window(keep)
    for column in eager._coarse:
        column.idle = False
    time = 1_800_000_000.0
    for number in range(700):
        # First rare samples, then often ones, and rare ones again.
        time += chance.choice((15.0, 60.0, 200.0) if number // 300 != 1 else (1.0, 4.0, 30.0))
        value = chance.uniform(0, 100)
        for window in (lazy, eager):
            window.append(time, value)
            if number % 7 == 0:
                window.put(time, value + 1)
            if number % 50 == 0:
                window.forget_before(time // 180 * 180 - 20_000)
        for level in range(3):
            for mine, its in zip(lazy.arrays(level), eager.arrays(level), strict=True):
                assert mine.tolist() == its.tolist()
            assert lazy.span(level) == eager.span(level)
    assert lazy.nbytes == eager.nbytes
