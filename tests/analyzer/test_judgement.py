"""How the scores of several resolutions become one judgement, and when each is scored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from otel_memory.analyzer import judgement
from otel_memory.analyzer.judgement import CAPPED, Due, Judge, score_all
from otel_memory.analyzer.model import ProcessInfo, Trend
from otel_memory.analyzer.scoring import ScoreResult, SeriesInput
from otel_memory.analyzer.series import ProcessSeries
from otel_memory.analyzer.windows import LEVELS
from tests.analyzer.made_up import MIB, T0, MadeUp


def scored(score: float, *, growth: float = 1000.0, sufficient: bool = True, since: float | None = None) -> ScoreResult:
    return ScoreResult(score, growth, None, Trend.INCREASING, (f"score {score}",), sufficient=sufficient, since=since)


def judge_of(*results: ScoreResult | None) -> Judge:
    judge = Judge()
    judge.results = list(results)
    return judge


def series_of(values: Sequence[float], spacing: float = 1.0) -> ProcessSeries:
    made = ProcessSeries(ProcessInfo("0" * 16, "shop"))
    made.restore({"memory": ([T0 + spacing * index for index in range(len(values))], values)})
    return made


FLAT = series_of([100.0 * MIB] * 30)
GIVEN = SeriesInput(np.arange(30.0), np.full(30, 100.0 * MIB))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[SeriesInput]]:
    """What was given to scoring, call by call."""
    calls: list[list[SeriesInput]] = []

    def score_batch(inputs: Sequence[SeriesInput]) -> list[ScoreResult]:
        calls.append(list(inputs))
        return [scored(len(one.times) / 1000) for one in inputs]

    monkeypatch.setattr(judgement, "score_batch", score_batch)
    return calls


# --- which one counts ----------------------------------------------------------------------------------------


def test_without_any_score_there_is_none() -> None:
    assert Judge().combined(FLAT) is None


def test_the_most_alarming_resolution_counts_whichever_it_is() -> None:
    assert judge_of(scored(0.2), scored(0.9), scored(0.3)).combined(FLAT) == scored(0.9)
    assert judge_of(scored(0.2), scored(0.3), scored(0.9)).combined(FLAT) == scored(0.9)
    assert judge_of(scored(0.3), scored(0.1), None).combined(FLAT) == scored(0.3)


def test_those_that_had_too_little_count_only_where_nothing_else_is() -> None:
    little = scored(0.0, sufficient=False)
    assert judge_of(scored(0.1), little).combined(FLAT) == scored(0.1)
    assert judge_of(little, None).combined(FLAT) == little


@pytest.mark.parametrize(
    "broken", [scored(math.nan), scored(math.inf), scored(0.9, growth=math.nan), scored(0.9, growth=math.inf)]
)
def test_figures_that_are_no_numbers_are_no_score(broken: ScoreResult) -> None:
    judge = Judge()
    judge.take(Due(0, 0.0, GIVEN), broken)
    assert judge.combined(FLAT) is None
    judge.take(Due(1, 0.0, GIVEN), scored(0.2))
    assert judge.combined(FLAT) == scored(0.2)


def breathing(minutes: int) -> ProcessSeries:
    """High for a while, low for a while, and at the end a rise that stays below the earlier height."""
    values = [(300.0 if (second // 600) % 2 == 0 else 200.0) * MIB for second in range(60 * minutes)]
    values += [(200.0 + second / 10) * MIB for second in range(120)]
    return series_of(values)


def test_growth_that_stays_within_a_calm_history_is_no_alarm() -> None:
    series = breathing(50)
    end = series.memory.last_time  # type: ignore[union-attr]
    result = judge_of(scored(0.95, since=end - 120), scored(0.2), None).combined(series)
    assert result is not None
    assert result.score == CAPPED
    assert "score 0.95 without that history" in result.reasons[-1]
    assert result.growth_rate == 1000.0


def test_growth_above_all_that_was_before_is_an_alarm_though_the_history_is_calm() -> None:
    series = breathing(50)
    end = series.memory.last_time  # type: ignore[union-attr]
    series.restore({"memory": ([end + 1], [400.0 * MIB])})
    alarming = scored(0.95, since=end - 120)
    assert judge_of(alarming, scored(0.2), None).combined(series) == alarming


def test_a_history_that_is_short_or_that_grows_itself_silences_nothing() -> None:
    short = breathing(10)
    end = short.memory.last_time  # type: ignore[union-attr]
    alarming = scored(0.95, since=end - 120)
    assert judge_of(alarming, scored(0.2), None).combined(short) == alarming
    long = breathing(50)
    end = long.memory.last_time  # type: ignore[union-attr]
    alarming = scored(0.95, since=end - 120)
    assert judge_of(alarming, scored(0.6), None).combined(long) == alarming
    assert judge_of(alarming, scored(0.0, sufficient=False), None).combined(long) == alarming


def test_a_finer_window_never_silences_a_coarser_one() -> None:
    series = breathing(50)
    assert judge_of(scored(0.1), scored(0.95), None).combined(series) == scored(0.95)


# --- when each is scored -------------------------------------------------------------------------------------


def feed(series: ProcessSeries, process: MadeUp, indices: range) -> None:
    for index in indices:
        series.add(process.payload(index), process.time(index))


def test_a_resolution_is_scored_when_it_has_a_complete_new_bucket(asked: list[list[SeriesInput]]) -> None:
    series, judge, process = ProcessSeries(ProcessInfo("0" * 16, "shop")), Judge(), MadeUp()
    levels: list[list[int]] = []
    for index in range(46):
        feed(series, process, range(index, index + 1))
        levels.append([due.level for due in judge.due(series) if due.given is not None])
        score_all([(judge, series)])
    assert all(found[0] == 0 for found in levels[:16]), "the raw window has a new sample each time"
    assert [index for index, found in enumerate(levels) if 1 in found] == [15, 30, 45]
    # The bucket that is still being filled is not shown.
    assert [len(asked[index][-1].times) for index in (15, 30, 45)] == [1, 2, 3]


def scorings(judge: Judge, series: ProcessSeries, process: MadeUp, indices: range) -> list[int]:
    """The samples at which the raw window is scored."""
    found = []
    for index in indices:
        feed(series, process, range(index, index + 1))
        assert judge.is_due(series) == bool(judge.due(series))
        if any(due.level == 0 for due in judge.due(series)):
            found.append(index)
        score_all([(judge, series)])
    return found


def test_while_all_is_calm_a_resolution_waits_for_a_share_of_its_window(asked: list[list[SeriesInput]]) -> None:
    series, judge, process = ProcessSeries(ProcessInfo("0" * 16, "shop")), Judge(), MadeUp(leak_per_call=0)
    assert scorings(judge, series, process, range(16)) == list(range(16))
    found = scorings(judge, series, process, range(16, 400))
    assert set(np.diff(found)[:8]) == {2}
    assert found[-4:] == [336, 352, 368, 384], "of 256 samples"
    # Another one that goes on from what this one knew goes on at the same samples.
    other = Judge.resumed(judge.results, judge.buckets, judge.life)
    assert scorings(other, series, process, range(400, 420)) == [400, 416]


def test_the_younger_a_suspicion_the_closer_it_is_looked_at(asked: list[list[SeriesInput]]) -> None:
    series, judge, process = ProcessSeries(ProcessInfo("0" * 16, "shop")), Judge(), MadeUp()
    scorings(judge, series, process, range(300))
    judge.doubted = True
    assert scorings(judge, series, process, range(300, 320)) == list(range(300, 320))
    judge.doubted = False
    assert scorings(judge, series, process, range(320, 340)) == [320, 336]
    judge.results[2] = scored(0.5)
    assert scorings(judge, series, process, range(340, 345)) == list(range(340, 345))
    judge.suspicious_since = process.time(300)
    assert scorings(judge, series, process, range(345, 353)) == [348, 352]
    judge.suspicious_since = process.time(0)
    assert scorings(judge, series, process, range(353, 359)) == []


def test_nothing_new_is_not_scored_again(asked: list[list[SeriesInput]]) -> None:
    series, judge = ProcessSeries(ProcessInfo("0" * 16, "shop")), Judge()
    feed(series, MadeUp(), range(20))
    score_all([(judge, series)])
    before = list(judge.results)
    assert [due for due in judge.due(series) if due.given is not None] == []
    score_all([(judge, series)])
    assert judge.results == before


def test_what_is_no_coarser_than_the_samples_is_left_out(asked: list[list[SeriesInput]]) -> None:
    series, judge = ProcessSeries(ProcessInfo("0" * 16, "shop")), Judge()
    feed(series, MadeUp(spacing=60.0), range(20))
    score_all([(judge, series)])
    assert judge.results[1] is None
    assert judge.results[2] is not None


def test_after_a_restart_every_resolution_is_scored_again_at_once(asked: list[list[SeriesInput]]) -> None:
    series, judge, process = ProcessSeries(ProcessInfo("0" * 16, "shop")), Judge(), MadeUp(restart_at=50)
    for index in range(50):
        feed(series, process, range(index, index + 1))
        score_all([(judge, series)])
    asked.clear()
    feed(series, process, range(50, 51))
    score_all([(judge, series)])
    assert len(asked[0]) == len(LEVELS) - 1, "raw and the coarser one that has two buckets"


def test_many_processes_are_one_call_and_each_gets_its_own(asked: list[list[SeriesInput]]) -> None:
    pairs = []
    for number in range(1, 4):
        series = ProcessSeries(ProcessInfo(f"{number:016x}", "shop"))
        feed(series, MadeUp(instance=str(number)), range(number))
        pairs.append((Judge(), series))
    score_all(pairs)
    assert len(asked) == 1
    assert [judge.results[0] for judge, _ in pairs] == [scored(0.001), scored(0.002), scored(0.003)]


def test_limit_and_covariates_are_those_of_the_process(asked: list[list[SeriesInput]]) -> None:
    series = ProcessSeries(ProcessInfo("0" * 16, "shop"))
    feed(series, MadeUp(), range(20))
    score_all([(Judge(), series)])
    raw, coarse = asked[0]
    assert raw.limit == coarse.limit == 512 * MIB
    for one in (raw, coarse):
        assert one.covariates is not None
        assert {"requests", "start_time"} <= one.covariates.keys()
        assert all(len(column) == len(one.times) for column in one.covariates.values())


def test_a_process_without_memory_has_nothing_to_score(asked: list[list[SeriesInput]]) -> None:
    score_all([(Judge(), ProcessSeries(ProcessInfo("0" * 16, "shop")))])
    assert asked == [[]]
