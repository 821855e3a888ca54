"""One series of memory in, a judgement out: leaks are seen soon, healthy shapes are not taken for leaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from otel_memory.analyzer.envelope import MIN_SAMPLES
from otel_memory.analyzer.evidence import TERMS
from otel_memory.analyzer.lives import lives
from otel_memory.analyzer.material import cap_immaterial
from otel_memory.analyzer.model import Trend
from otel_memory.analyzer.scoring import SeriesInput, score, score_batch
from otel_memory.analyzer.weights import WEIGHTS
from tests.benchmarks.traces import live, long
from tests.benchmarks.traces.cases import shown

Floats = NDArray[np.float64]
MB = 1e6
EPOCH = 1.75e9


def started(
    seconds: int, *, rate: float = 0.0, warm: float = 0.0, tau: float = 10.0, seed: int = 1
) -> tuple[Floats, Floats]:
    """A process from its start: imports in the first seconds, a warm-up of ``warm`` bytes, ``rate`` bytes a second."""
    x = np.arange(seconds, dtype=float)
    noise = np.random.default_rng(seed).normal(0, 2e4, seconds)
    imports = 15 * MB + 45 * MB * (1 - np.exp(-x / 0.7))
    return EPOCH + x, imports + warm * (1 - np.exp(-x / tau)) + rate * x + noise


@pytest.mark.parametrize("rate", [0.2 * MB, 0.5 * MB, 2 * MB])
def test_a_leak_is_suspected_within_40_seconds_of_the_start_and_sure_within_60(rate: float) -> None:
    assert score(*started(40, rate=rate), limit=1e9).score >= 0.6
    found = score(*started(60, rate=rate), limit=1e9)
    assert found.sufficient
    assert found.score >= 0.8
    assert found.trend is Trend.INCREASING
    assert found.growth_rate == pytest.approx(rate, rel=0.15)
    assert found.time_to_limit is not None
    assert found.time_to_limit.low <= found.time_to_limit.estimate


@pytest.mark.parametrize("warm", [5 * MB, 30 * MB])
@pytest.mark.parametrize("seconds", [MIN_SAMPLES, 30, 40, 60, 120])
def test_a_warm_up_never_looks_like_a_leak_and_says_what_it_is(warm: float, seconds: int) -> None:
    found = score(*started(seconds, warm=warm))
    assert found.score < 0.5
    assert "warm" in found.reasons[0] or "level" in found.reasons[0]


def test_too_little_is_said_to_be_too_little() -> None:
    times, values = started(MIN_SAMPLES - 1, rate=MB)
    found = score(times, values, limit=1e9)
    assert (found.sufficient, found.score, found.time_to_limit) == (False, 0.0, None)
    assert found.forecast_reason == "too little to judge"
    assert str(MIN_SAMPLES) in found.reasons[0]


# A cache that fills can't be told from a leak until it stops, nor a load that still rises with memory.
_CANNOT_BE_TOLD_WHILE_THEY_RISE = {"live_cache_that_stops", "live_load_burst"}


@pytest.mark.parametrize("trace", [t for t in live.make(23, 1) if not t.leak], ids=lambda t: t.name)
def test_a_healthy_program_is_never_sure_to_leak_in_its_first_ten_minutes(trace: live.Trace) -> None:
    ends = np.arange(trace.times[0] + 20, trace.times[-1], 10)
    series = [shown(trace, end, window=256) for end in ends]
    results = zip(series, score_batch(series), strict=True)
    scores = np.array([cap_immaterial(found, one.times, one.values).score for one, found in results])
    if trace.family in _CANNOT_BE_TOLD_WHILE_THEY_RISE:
        assert scores[-1] < 0.5
    else:
        assert np.minimum(scores[1:], scores[:-1]).max() < 0.8
        assert (scores >= 0.5).mean() < 0.5


@pytest.mark.parametrize("trace", [t for t in live.make(23, 1) if t.leak], ids=lambda t: t.name)
def test_a_leaking_program_is_seen_and_measured_within_ten_minutes(trace: live.Trace) -> None:
    found = score(trace.times[-256:], trace.values[-256:], limit=trace.limit)
    assert found.score >= 0.7
    assert trace.rate is not None
    if trace.family != "live_accelerating":
        assert found.growth_rate == pytest.approx(trace.rate, rel=0.35)


def test_kinds_over_hours_are_told_apart_for_the_most_part() -> None:
    """A guard against a break, not the measure of quality: that is the benchmark's."""
    traces = long.make(23, 1)
    found = score_batch([SeriesInput(t.times, t.values, t.limit, t.covariates) for t in traces])
    right = [(result.score >= 0.5) == trace.leak for result, trace in zip(found, traces, strict=True)]
    assert np.mean(right) >= 0.8


def test_a_step_is_not_a_leak_and_is_named() -> None:
    x = np.arange(240.0)
    values = 60 * MB + np.where(x > 100, 20 * MB, 0) + np.random.default_rng(1).normal(0, 2e4, 240)
    found = score(EPOCH + x, values)
    assert found.score < 0.3
    assert "one step of 20" in found.reasons[0]


def test_growth_that_returns_with_the_load_is_not_a_leak_but_growth_that_stays_is() -> None:
    rng = np.random.default_rng(3)
    x = np.arange(480.0)
    rate = 40 * (1.2 + np.sin(2 * np.pi * x / 600 - 1.2))
    requests = np.cumsum(rng.poisson(rate)).astype(float)
    follows = 60 * MB + rate * 5e5 + rng.normal(0, 2e4, 480)
    half = slice(0, 300)  # the load has only risen until then
    level = score(EPOCH + x[half], follows[half], covariates={"requests": requests[half]})
    leak = score(EPOCH + x[half], follows[half] + 2e5 * x[half], covariates={"requests": requests[half]})
    without = score(EPOCH + x[half], follows[half])
    assert level.score < 0.5
    assert without.score > level.score
    assert leak.score > level.score


def test_each_life_of_a_restarted_process_is_judged_by_itself() -> None:
    """A crash loop leaks in each life; the jump down between lives does not hide it."""
    x = np.arange(300.0)
    life = x // 100
    values = 50 * MB + MB * (x % 100) + np.random.default_rng(2).normal(0, 2e4, 300)
    start = EPOCH + life * 100
    for covariates in ({"start_time": start}, None):
        found = score(EPOCH + x, values, limit=200 * MB, covariates=covariates)
        assert found.score >= 0.8
        assert found.growth_rate == pytest.approx(MB, rel=0.1)
        assert any("restarted 2 times" in reason for reason in found.reasons)
    # Ten seconds into a new life it is the life before that speaks, without a forecast.
    just = score(EPOCH + x[:210], values[:210], limit=200 * MB, covariates={"start_time": start[:210]})
    assert just.score >= 0.8
    assert (just.time_to_limit, just.forecast_reason) == (None, "the process has just restarted")


def test_growth_that_began_late_is_dated() -> None:
    x = np.arange(250.0)
    values = 80 * MB + np.maximum(x - 100, 0) * 0.5 * MB + np.random.default_rng(5).normal(0, 5e4, 250)
    found = score(EPOCH + x, values)
    assert found.score >= 0.8
    assert found.since == pytest.approx(EPOCH + 100, abs=20)


def test_reasons_carry_figures_that_stand_on_the_chart() -> None:
    x = np.arange(600.0) * 60
    requests = np.cumsum(np.full(600, 600.0))
    values = 100 * MB + 1000 * x + 5 * MB * ((x / 1800) % 1)
    found = score(EPOCH + x, values, limit=5e8, covariates={"requests": requests})
    assert found.score >= 0.8
    assert "rose 19.5 MB in 5 h 37 min" in found.reasons[0]  # about 1 kB/s, less what the saw takes from its ends
    assert "3.6 MB/h" in found.reasons[0]
    assert "requests stayed level in the same time" in found.reasons


def test_falling_memory_is_a_falling_trend() -> None:
    x = np.arange(200.0)
    found = score(EPOCH + x, 200 * MB - 0.3 * MB * x)
    assert found.trend is Trend.DECREASING
    assert found.growth_rate == pytest.approx(-0.3 * MB, rel=0.1)
    assert found.score < 0.2


def test_a_batch_is_each_series_by_itself_whatever_stands_beside_it() -> None:
    traces = live.make(7, 1)[::4]
    series = [SeriesInput(t.times[: 30 + 37 * i], t.values[: 30 + 37 * i], t.limit) for i, t in enumerate(traces)]
    series.insert(2, SeriesInput(np.empty(0), np.empty(0)))
    together = score_batch(series)
    for one, found in zip(series, together, strict=True):
        alone = score(one.times, one.values, limit=one.limit)
        assert alone.score == pytest.approx(found.score, abs=1e-9)
        assert alone.reasons == found.reasons


def test_order_of_samples_and_repeats_do_not_matter() -> None:
    times, values = started(60, rate=0.5 * MB)
    order = np.random.default_rng(1).permutation(60)
    twice = np.concatenate([order, order[:20]])
    assert score(times[twice], values[twice]) == score(times, values)


def test_samples_that_are_no_numbers_are_left_out() -> None:
    times, values = started(80, rate=0.5 * MB)
    spoilt_times, spoilt = times.copy(), values.copy()
    spoilt[10], spoilt[20], spoilt[30], spoilt_times[40] = np.nan, np.inf, -1.0, np.nan
    found = score(spoilt_times, spoilt)
    assert found.score == pytest.approx(score(times, values).score, abs=0.05)


@pytest.mark.parametrize(
    "values",
    [[], [5e7], [np.nan] * 40, [-1.0] * 40, [1e300] * 40, [0.0] * 40, [5e7] * 40],
    ids=["none", "one", "nan", "negative", "huge", "zero", "constant"],
)
def test_input_without_news_is_no_leak(values: list[float]) -> None:
    found = score(EPOCH + np.arange(float(len(values))), np.array(values))
    assert found.score < 0.3
    assert found.time_to_limit is None
    assert found.reasons


def test_equal_times_are_one_sample() -> None:
    assert not score(np.full(100, EPOCH), np.linspace(1e7, 1e8, 100)).sufficient


numbers = st.floats(width=64) | st.floats(0, 1e10) | st.sampled_from([0.0, -0.0, 1e308, -1e308])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(0, 90), elements=numbers),
    hnp.arrays(np.float64, st.integers(0, 90), elements=numbers),
    hnp.arrays(np.float64, st.integers(0, 90), elements=numbers),
    st.none() | numbers,
)
def test_no_input_raises_or_gives_a_score_outside_0_to_1(
    times: Floats, values: Floats, column: Floats, limit: float | None
) -> None:
    n = min(len(times), len(values))
    for given_times in (times, EPOCH + np.arange(float(n))):
        covariates = {"requests": column, "start_time": column, "gc_gen2": column}
        found = score(given_times, values, limit=limit, covariates=covariates)
        assert 0 <= found.score <= 1
        assert 0 <= found.confidence <= 1
        assert np.isfinite(found.growth_rate)
        assert found.reasons


def test_every_piece_of_evidence_has_a_weight_and_none_speaks_against_itself() -> None:
    assert len(WEIGHTS) == len(TERMS)
    assert min(WEIGHTS) >= 0


def test_a_high_score_is_never_explained_by_a_floor_that_does_not_rise() -> None:
    """Two processes under one identity, or a large breathing load: the growth is small beside what comes and goes."""
    seconds = np.arange(200.0)
    values = 1e8 + 3e5 * seconds + np.where(seconds % 2 == 0, 0.0, 6e7)
    result = score(seconds, values)
    assert result.score >= 0.5
    assert "did not rise" not in " ".join(result.reasons)


def test_less_than_one_request_is_no_load_to_go_by() -> None:
    seconds = np.arange(24.0)
    requests = np.concatenate([[-4e-29], np.zeros(23)])
    with_requests = score(seconds, np.zeros(24), covariates={"requests": requests})
    assert with_requests == score(seconds, np.zeros(24))


def old(times: Floats, age: float) -> dict[str, Floats]:
    return {"start_time": np.full(len(times), times[0] - age)}


def test_growth_that_is_younger_than_the_process_is_waited_for_and_said_to_be() -> None:
    """A saw of 4 h, of which less than a tooth was seen, in a process of ten days."""
    times = EPOCH + 60.0 * np.arange(120)
    values = 300 * MB + 14 * MB * np.arange(120) / 60 + np.random.default_rng(3).normal(0, 0.3 * MB, 120)
    unknown, young = score(times, values), score(times, values, covariates=old(times, 0))
    waited = score(times, values, covariates=old(times, 10 * 86400))
    assert young.score == unknown.score >= 0.8
    assert waited.score < young.score
    assert any("it has run for 10 d" in reason for reason in waited.reasons)
    assert not any("it has run for" in reason for reason in young.reasons)


def test_growth_that_is_younger_than_the_process_is_a_leak_when_it_lasts() -> None:
    times = EPOCH + 60.0 * np.arange(600)
    values = 300 * MB + 14 * MB * np.arange(600) / 60 + np.random.default_rng(3).normal(0, 0.3 * MB, 600)
    assert score(times, values, covariates=old(times, 10 * 86400)).score >= 0.8


def warm_ups(lengths: list[int], tau: float, leak: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Lives of so many samples, each with the same warm-up (s) and leak (By/s), and when each began."""
    rng = np.random.default_rng(5)
    ages = [10.0 * np.arange(length) for length in lengths]
    values = [100 * MB + 200 * MB * (1 - np.exp(-age / tau)) + leak * age for age in ages]
    begins = EPOCH + 10.0 * np.cumsum([0, *lengths[:-1]])
    times = np.concatenate([begin + age for begin, age in zip(begins, ages, strict=True)])
    noisy = np.concatenate(values) + rng.normal(0, 0.5 * MB, len(times))
    return times, noisy, np.repeat(begins, lengths)


def test_a_process_that_warms_up_as_it_did_before_is_not_suspect() -> None:
    times, values, starts = warm_ups([1500, 300], tau=2500)
    second = slice(1500, None)
    alone = score(times[second], values[second], covariates={"start_time": starts[second]})
    known = score(times, values, covariates={"start_time": starts})
    assert known.score < 0.25 < alone.score


def test_a_process_that_leaks_as_it_did_before_stays_suspect() -> None:
    times, values, starts = warm_ups([1500, 300], tau=500, leak=20e3)
    assert score(times, values, covariates={"start_time": starts}).score >= 0.8


def test_a_start_that_is_missing_from_some_samples_still_tells_the_lives() -> None:
    times, values, starts = warm_ups([200, 200], tau=500)
    starts[::7] = np.nan
    series = SeriesInput(times, values, None, {"start_time": starts})
    assert [len(life.times) for life in lives(series)] == [200, 200]


@pytest.mark.parametrize("known", [True, False], ids=["start known", "start unknown"])
def test_a_small_heap_that_is_collected_all_the_time_is_not_restarted(known: bool) -> None:
    x = np.arange(256.0)
    values = 8 * MB + 12 * MB * ((x / 21) % 1)
    columns = {"start_time": np.full(256, EPOCH)} if known else None
    assert len(lives(SeriesInput(EPOCH + x, values, None, columns))) == 1


def test_a_cache_that_has_stopped_for_a_third_of_the_time_is_not_suspect() -> None:
    times = EPOCH + 12.0 * np.arange(300)
    filled = np.minimum(np.arange(300) / 190, 1.0)
    values = 460 * MB + 330 * MB * filled + np.random.default_rng(2).normal(0, MB, 300)
    assert score(times, values).score < 0.5


def test_growth_is_found_in_noise_that_goes_both_ways() -> None:
    """The least of each bucket wavers most there."""
    times = EPOCH + 10.0 * np.arange(720)
    values = 200 * MB + 20e3 / 10 * 10.0 * np.arange(720) + np.random.default_rng(4).normal(0, 8 * MB, 720)
    found = score(times, values)
    assert found.score >= 0.5
    assert found.growth_rate == pytest.approx(2e3, rel=0.25)
