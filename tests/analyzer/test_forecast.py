"""Time to the limit: an estimate with an 80 % interval, or the reason why there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.analyzer.forecast import FARTHEST, time_to_limit
from otel_memory.analyzer.model import TimeToLimit
from otel_memory.analyzer.scoring import SeriesInput, score_batch
from tests.benchmarks.traces import live, long


@pytest.mark.parametrize("limit", [None, 0.0, -1.0, math.nan, math.inf])
def test_without_a_limit_there_is_no_forecast(limit: float | None) -> None:
    assert time_to_limit(1e8, limit, 1e3, 1.0) == (None, "no limit is known")


@pytest.mark.parametrize("growth", [0.0, -5.0, math.nan, math.inf])
def test_without_growth_there_is_no_forecast(growth: float) -> None:
    assert time_to_limit(1e8, 2e8, growth, 1.0) == (None, "memory does not grow")


def test_over_the_limit_the_time_is_over() -> None:
    assert time_to_limit(2e8, 1e8, 10.0, 1.0).time_to_limit == TimeToLimit(0.0, 0.0, 0.0)


def test_what_is_farther_than_ten_years_is_not_forecast() -> None:
    found = time_to_limit(0.0, 1e8, 1e8 / (FARTHEST * 1.1), 0.0)
    assert found.time_to_limit is None
    assert found.reason is not None


def test_a_growth_that_may_be_none_has_no_upper_end() -> None:
    found = time_to_limit(1e8, 2e8, 1e3, 1e3).time_to_limit
    assert found is not None
    assert found.high is None
    assert found.estimate == pytest.approx(1e5)


@given(
    level=st.floats(1e6, 1e10),
    gap=st.floats(1, 1e10),
    growth=st.floats(1e-3, 1e8),
    error=st.floats(0, 1e8),
    level_error=st.floats(0, 1e9),
)
def test_the_estimate_lies_in_its_interval(
    level: float, gap: float, growth: float, error: float, level_error: float
) -> None:
    found = time_to_limit(level, level + gap, growth, error, level_error).time_to_limit
    if found is not None:
        assert 0 <= found.low <= found.estimate
        assert found.high is None or found.estimate <= found.high


def test_more_doubt_gives_a_wider_interval() -> None:
    narrow, wide = (time_to_limit(1e8, 2e8, 1e3, error).time_to_limit for error in (10.0, 200.0))
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low
    assert wide.high is not None
    assert narrow.high is not None
    assert wide.high > narrow.high


def test_a_young_growth_is_doubted() -> None:
    widths = []
    for samples in (10, 100, 10_000, None):
        reach = time_to_limit(1e8, 2e8, 1e6, 0.0, samples=samples).time_to_limit
        assert reach is not None
        assert reach.estimate == 100
        assert reach.high is not None
        widths.append(reach.high - reach.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 60


def test_the_interval_holds_at_least_as_often_as_it_says() -> None:
    """On leaks with a known rate, made here; accelerating ones and bursts of threads have no one rate."""
    traces = [t for t in [*live.make(31, 3), *long.make(31, 3)] if t.leak and t.time_to_limit is not None]
    traces = [t for t in traces if not t.family.endswith(("accelerating", "stuck_threads"))]
    results = score_batch([SeriesInput(t.times, t.values, t.limit, t.covariates) for t in traces])
    inside = []
    for trace, result in zip(traces, results, strict=True):
        if result.score >= 0.5 and result.time_to_limit is not None and trace.time_to_limit is not None:
            high = np.inf if result.time_to_limit.high is None else result.time_to_limit.high
            inside.append(result.time_to_limit.low <= trace.time_to_limit <= high)
    assert len(inside) > 60
    assert np.mean(inside) >= 0.8
