"""Buckets and thinning: pure functions over samples."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.analyzer.store.rollup import (
    FIVE_MINUTES,
    HOUR,
    bucket_piece,
    join,
    merge,
    raw_piece,
    summarize,
    thin,
)

START = 3600.0 * 1000


def rows(count: int, step: float = 1.0, start: float = START) -> list[tuple[float, float]]:
    return [(start + index * step, float(index)) for index in range(count)]


def test_a_bucket_keeps_lowest_highest_and_last_with_their_times() -> None:
    buckets = summarize([(START, 5.0), (START + 10, 1.0), (START + 20, 9.0), (START + 30, 4.0)], FIVE_MINUTES)
    assert buckets == [(int(START), 4, 19.0, 1.0, START + 10, 9.0, START + 20, 4.0, START + 30)]


@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(-(2**40), 2**40)), min_size=1, unique_by=lambda row: row[0])
)
def test_hours_from_five_minutes_are_hours_from_samples(samples: list[tuple[int, int]]) -> None:
    ordered = sorted((START + time, float(value)) for time, value in samples)
    assert merge(summarize(ordered, FIVE_MINUTES), HOUR) == summarize(ordered, HOUR)


def test_few_samples_are_shown_as_they_are() -> None:
    times, values = thin(raw_piece(rows(10)), 100)
    assert times == [START + index for index in range(10)]
    assert values == [float(index) for index in range(10)]


def test_nothing_gives_nothing() -> None:
    assert thin(raw_piece([]), 10) == ([], [])


def test_one_spike_among_many_samples_stays_visible() -> None:
    samples = [(time, 1.0) for time, _ in rows(10_000)]
    samples[7777] = (samples[7777][0], 1e9)
    samples[3333] = (samples[3333][0], -5.0)
    times, values = thin(raw_piece(samples), 100)
    assert len(times) <= 100
    assert samples[7777][0] in times
    assert 1e9 in values
    assert -5.0 in values


def test_a_pause_is_shown_as_one_point_without_value() -> None:
    samples = rows(100) + rows(100, start=START + 1000)
    times, values = thin(raw_piece(samples), 50)
    assert values.count(None) == 1
    gap = times[values.index(None)]
    assert START + 99 < gap < START + 1000


def test_two_lost_samples_are_not_yet_a_gap() -> None:
    samples = [row for index, row in enumerate(rows(100)) if index not in (50, 51)]
    assert None not in thin(raw_piece(samples), 200)[1]


def test_a_missing_bucket_is_a_gap() -> None:
    buckets = summarize(rows(3, FIVE_MINUTES) + rows(3, FIVE_MINUTES, START + 10 * FIVE_MINUTES), FIVE_MINUTES)
    values = thin(bucket_piece(buckets, FIVE_MINUTES), 100)[1]
    assert values == [0.0, 1.0, 2.0, None, 0.0, 1.0, 2.0]


def test_between_buckets_and_samples_a_long_pause_is_a_gap() -> None:
    early = bucket_piece(summarize(rows(300), FIVE_MINUTES), FIVE_MINUTES)
    near, far = rows(5, start=START + 300), rows(5, start=START + 5000)
    assert None not in thin(join([(early, 300.0), (raw_piece(near), 0.0)]), 100)[1]
    assert None in thin(join([(early, 300.0), (raw_piece(far), 0.0)]), 100)[1]


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e12, 1e12)), unique_by=lambda row: row[0]),
    st.integers(10, 60),
)
def test_thinning_is_bounded_ordered_and_invents_no_value(samples: list[tuple[int, float]], points: int) -> None:
    ordered = sorted((START + time, value) for time, value in samples)
    times, values = thin(raw_piece(ordered), points)
    assert len(times) == len(values) <= points
    assert times == sorted(times)
    shown = [pair for pair in zip(times, values, strict=True) if pair[1] is not None]
    assert set(shown) <= set(ordered)
    if ordered:
        assert shown[0] == ordered[0]
        assert shown[-1] == ordered[-1]
        assert np.max([value for _, value in shown]) == max(value for _, value in ordered)
