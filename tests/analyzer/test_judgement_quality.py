"""Guards of the judgement: kinds held back, bad input, and shapes of which one thing is sure.

Not the measure of quality (``./dev bench judgement`` is): bounds here are far enough from it to catch breaks alone.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from otel_memory.analyzer.lives import lives
from otel_memory.analyzer.scoring import SeriesInput, score, score_batch
from tests.benchmarks import judgement_fit
from tests.benchmarks.traces import ordinary, unseen

Floats = NDArray[np.float64]
EPOCH = 1.75e9
MB = 1e6


def test_kinds_held_back_are_told_apart() -> None:
    traces = unseen.make(7, 1)
    found = score_batch([SeriesInput(t.times, t.values, t.limit, t.covariates) for t in traces])
    leak, scores = np.array([t.leak for t in traces]), np.array([r.score for r in found])
    assert judgement_fit.f1(scores >= 0.5, leak) >= 0.85
    assert judgement_fit.auc(scores, leak) >= 0.95


def test_ordinary_days_end_without_a_leak() -> None:
    days = ordinary.make(7, 2)
    found = score_batch([SeriesInput(t.times, t.values, t.limit, t.covariates) for t in days])
    assert max(result.score for result in found) < 0.8
    assert np.mean([result.score >= 0.5 for result in found]) <= 0.25


def saw(teeth: int, each: int, rise: float, leak: float = 0.0, seed: int = 1) -> tuple[Floats, Floats, Floats]:
    """Times, values and the count of full collections: garbage that grows and goes, above a floor that may leak."""
    x = np.arange(float(teeth * each))
    values = 100 * MB + rise * (x % each) / each + leak * x + np.random.default_rng(seed).normal(0, 2e4, len(x))
    return EPOCH + 30 * x, values, np.floor(x / each)


@pytest.mark.parametrize("counted", [True, False], ids=["collections counted", "not counted"])
@pytest.mark.parametrize("teeth", [1, 2, 3, 5, 9])
def test_a_saw_is_no_leak_however_few_of_its_teeth_are_seen(teeth: int, counted: bool) -> None:
    times, values, collections = saw(teeth, 60, 20 * MB)
    # It is seen in the middle of a tooth, where it rises.
    seen = slice(20, len(times) - 10 if teeth > 1 else None)
    covariates = {"gc_gen2": collections[seen]} if counted else None
    found = score(times[seen], values[seen], covariates=covariates)
    # The first tooth can't be told from a leak until it falls.
    assert found.score < 0.5 or teeth == 1


@pytest.mark.parametrize("counted", [True, False], ids=["collections counted", "not counted"])
def test_a_floor_that_rises_under_a_saw_is_a_leak_and_is_measured(counted: bool) -> None:
    times, values, collections = saw(9, 40, 20 * MB, leak=0.1 * MB)
    found = score(times, values, limit=5e8, covariates={"gc_gen2": collections} if counted else None)
    assert found.score >= 0.7
    assert found.growth_rate == pytest.approx(0.1 * MB / 30, rel=0.1)
    assert found.time_to_limit is not None


def test_a_restart_out_of_a_level_life_begins_a_new_one_without_a_start_time() -> None:
    x = np.arange(300.0)
    warm = 80 * MB + 20 * MB * (1 - np.exp(-(x % 150) / 10)) + np.random.default_rng(1).normal(0, 1e5, 300)
    found = lives(SeriesInput(EPOCH + x, warm))
    assert [len(life.times) for life in found] == [150, 150]
    # A peak that returns is none.
    peak = 80 * MB + np.where((x > 100) & (x < 120), 20 * MB, 0.0) + np.random.default_rng(1).normal(0, 1e5, 300)
    assert len(lives(SeriesInput(EPOCH + x, peak))) == 1


def test_what_the_life_before_did_counts_as_long_as_the_present_one_is_short() -> None:
    x = np.arange(500.0)
    life, age = x // 460, x % 460
    noise = np.random.default_rng(2).normal(0, 5e4, 500)
    start = {"start_time": EPOCH + life * 460}
    warms = 60 * MB + 30 * MB * np.minimum(age / 60, 1.0) + noise
    leaks = 60 * MB + 0.5 * MB * age + noise
    now_alone = score(EPOCH + x[460:], warms[460:])
    after_level = score(EPOCH + x, warms, covariates=start)
    after_leak = score(EPOCH + x, leaks, covariates=start)
    assert after_level.score < now_alone.score
    assert after_leak.score >= 0.8


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -5.0, 0.0, 1e300])
def test_a_limit_that_is_none_gives_no_forecast_and_a_reason(limit: float) -> None:
    x = np.arange(200.0)
    found = score(EPOCH + x, 1e8 + 1e5 * x, limit=limit)
    assert found.score >= 0.8
    assert found.time_to_limit is None
    assert found.forecast_reason


def test_times_that_go_back_and_counters_that_reset_change_little() -> None:
    rng = np.random.default_rng(5)
    x = np.arange(300.0)
    values = 1e8 + 2e5 * x + rng.normal(0, 1e5, 300)
    requests = np.cumsum(rng.poisson(20, 300)).astype(float)
    steady = score(EPOCH + x, values, covariates={"requests": requests})
    reset = np.where(x >= 150, requests - requests[150], requests)
    assert score(EPOCH + x, values, covariates={"requests": reset}).score == pytest.approx(steady.score, abs=0.05)
    back = x.copy()
    back[200:] -= 30  # a clock that was put back: the same moments come twice
    assert score(EPOCH + back, values, covariates={"requests": requests}).score >= 0.8


def test_a_million_samples_are_judged_in_one_go() -> None:
    x = np.arange(1_000_000.0)
    found = score(EPOCH + x, 1e9 + 50.0 * x + 1e6 * ((x / 900) % 1), limit=4e9)
    assert found.score >= 0.8
    assert found.growth_rate == pytest.approx(50.0, rel=0.05)


def test_many_series_of_any_kind_are_each_answered() -> None:
    times = EPOCH + np.arange(40.0)
    odd = [np.full(40, np.nan), np.full(40, -1.0), np.empty(0), np.zeros(40), np.linspace(1e8, 2e8, 40)]
    found = score_batch([SeriesInput(times, odd[i % len(odd)]) for i in range(3000)])
    assert len(found) == 3000
    assert [result.sufficient for result in found[:5]] == [False, False, False, True, True]
    assert all(found[i] == found[i % 5] for i in range(3000))


columns = st.lists(
    st.floats(allow_nan=True, allow_infinity=True, width=64) | st.sampled_from([0.0, -1.0, 1e300, 2.0**60, 1e-300]),
    max_size=120,
)


@settings(max_examples=80, deadline=None)
@given(values=columns, second=columns, spacing=st.sampled_from([1e-9, 1.0, 60.0, 1e9]), shuffle=st.booleans())
def test_nothing_raises_and_every_answer_can_be_shown(
    values: list[float], second: list[float], spacing: float, shuffle: bool
) -> None:
    n = len(values)
    times = EPOCH + spacing * np.arange(float(n))
    if shuffle:
        times = times[np.random.default_rng(n).permutation(n)]
    column = np.resize(np.array(second or [0.0]), n)
    for name in ("requests", "start_time", "gc_gen2", "heap", "rss"):
        with np.errstate(all="raise", under="ignore"):
            found = score(times, np.array(values), limit=1e9, covariates={name: column})
        assert 0 <= found.score <= 1
        assert 0 <= found.confidence <= 1
        assert np.isfinite(found.growth_rate)
        assert found.reasons
        assert all(isinstance(reason, str) and reason for reason in found.reasons)
        if found.time_to_limit is not None:
            reach = found.time_to_limit
            assert 0 <= reach.low <= reach.estimate
            assert reach.high is None or reach.high >= reach.estimate
