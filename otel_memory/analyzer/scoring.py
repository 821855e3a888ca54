"""Says of one series of memory whether it looks like a leak, how sure that is, how fast it grows, and why.

Owns the score: evidence (``evidence``) weighed by a logistic sum (``weights``), and what stands beside it. Pure: takes
event time, keeps nothing, raises for no input. Never decides a verdict: that is alerting's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_memory.analyzer import envelope, forecast, shapes
from otel_memory.analyzer.envelope import Life, SeriesInput
from otel_memory.analyzer.evidence import LATE, Evidence, gather
from otel_memory.analyzer.lives import as_before
from otel_memory.analyzer.lives import lives as lives_of
from otel_memory.analyzer.model import TimeToLimit, Trend
from otel_memory.analyzer.scoring_reasons import Facts, sentences
from otel_memory.analyzer.weights import INTERCEPT, WEIGHTS

__all__ = ["ScoreResult", "SeriesInput", "score", "score_batch", "terms_batch"]

Floats = NDArray[np.float64]

_CHUNK: Final = 128
"""Series that are judged together: so many that the matrices stay in the processor's cache."""
_ROWS: Final = 32
"""Matrices are filled up to a multiple of so many rows: products of matrices round a row otherwise in small ones than
in large ones, and the score of a series would depend in its last digits on those that happen to be judged with it."""
_GROWS: Final = 0.5


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """The judgement of one series.

    ``score`` 0-1: how much it looks like a leak. ``growth_rate`` By/s at the end (0 where nothing grows; negative
    where memory falls). ``sufficient`` is False while there is too little to judge; the score is then 0.
    ``confidence`` 0-1: how far the score is from undecided, and how much it stands on. ``since``: event time from
    which growth is seen. ``forecast_reason``: why ``time_to_limit`` is None.
    """

    score: float
    growth_rate: float
    time_to_limit: TimeToLimit | None
    trend: Trend
    reasons: tuple[str, ...]
    sufficient: bool = True
    confidence: float = 0.0
    since: float | None = None
    forecast_reason: str | None = None


def score(
    times: Floats,
    values: Floats,
    *,
    limit: float | None = None,
    covariates: Mapping[str, Floats] | None = None,
) -> ScoreResult:
    """Judge one series: ``times`` (s, event time), ``values`` and ``limit`` (bytes).

    ``covariates`` are aligned with ``times``; of them ``requests`` (cumulative count) and ``start_time`` (s) are
    used, others are ignored. Samples that are not finite or negative are left out.
    """
    return score_batch([SeriesInput(times, values, limit, covariates)])[0]


def score_batch(series: Sequence[SeriesInput]) -> list[ScoreResult]:
    """Judge many series at once; the results are those of ``score`` for each, in the same order."""
    results: list[ScoreResult | None] = [None] * len(series)
    members = {index: _Member(one, lives_of(one)) for index, one in enumerate(series)}
    for indices, evidence in _gathered(members):
        found = _results(evidence, [members[index] for index in indices])
        for index, result in zip(indices, found, strict=True):
            results[index] = result
    return [_too_little(members[i].lives) if result is None else result for i, result in enumerate(results)]


def terms_batch(series: Sequence[SeriesInput]) -> Floats:
    """The evidence of each series, columns as ``evidence.TERMS``; NaN where there is too little to judge. It is what
    the weights are fitted on."""
    terms = np.full((len(series), len(WEIGHTS)), np.nan)
    for indices, evidence in _gathered({i: _Member(one, lives_of(one)) for i, one in enumerate(series)}):
        terms[indices] = evidence.terms[: len(indices)]
    return terms


class _Member(NamedTuple):
    series: SeriesInput
    lives: list[Life]

    @property
    def judged(self) -> int | None:
        """The present life or, just after a restart, the one before it."""
        for back in (1, 2):
            if len(self.lives) >= back and len(self.lives[-back].times) >= envelope.MIN_SAMPLES:
                return len(self.lives) - back
        return None

    @property
    def before(self) -> Life | None:
        """The longest life before the one that is judged, if it is longer than that one."""
        judged = self.judged
        if not judged:
            return None
        longest = max(self.lives[:judged], key=lambda life: len(life.times))
        return longest if len(longest.times) > len(self.lives[judged].times) else None


def _gathered(members: Mapping[int, _Member]) -> Iterator[tuple[list[int], Evidence]]:
    """The evidence of those that have enough, in groups of one grid each; rows beyond those named only fill up.

    As long as the present life is short, what the longest life before did counts too; and all the more, the more of
    the present growth that one showed at the same age."""
    life_of = {index: member.lives[at] for index, member in members.items() if (at := member.judged) is not None}
    before = {index: life for index in life_of if (life := members[index].before) is not None}
    earlier = {
        index: row for found, evidence in _grouped(before) for index, row in zip(found, evidence.terms, strict=False)
    }
    for found, evidence in _grouped(life_of):
        for row, index in enumerate(found):
            if index in earlier:
                own = evidence.terms[row] + (1 - evidence.history[row]) * earlier[index]
                alike = as_before(before[index], life_of[index])
                evidence.terms[row] = (1 - alike) * own + alike * earlier[index]
        yield found, evidence


def _grouped(lives: Mapping[int, Life]) -> Iterator[tuple[list[int], Evidence]]:
    groups: dict[tuple[int, bool], list[tuple[int, Life]]] = {}
    for index, life in lives.items():
        groups.setdefault((envelope.buckets(len(life.times)), life.work is not None), []).append((index, life))
    for (count, _), group in groups.items():
        for first in range(0, len(group), _CHUNK):
            chunk = group[first : first + _CHUNK]
            rows = [life for _, life in chunk]
            yield [index for index, _ in chunk], gather(rows + rows[-1:] * (-len(rows) % _ROWS), count)


def _too_little(lives: Sequence[Life]) -> ScoreResult:
    samples = len(lives[-1].times) if lives else 0
    reason = f"too little to judge: {samples} of the {envelope.MIN_SAMPLES} samples that it takes"
    return ScoreResult(0.0, 0.0, None, Trend.STABLE, (reason,), sufficient=False, forecast_reason="too little to judge")


def _results(evidence: Evidence, members: Sequence[_Member]) -> list[ScoreResult]:
    scores = 1 / (1 + np.exp(-(evidence.terms @ np.asarray(WEIGHTS) + INTERCEPT)))
    count = evidence.floor.shape[1]
    growing = evidence.classes[:, shapes.GROWING]
    # How much the figures stand on: full from 32 independent buckets on.
    stands = np.minimum(evidence.independent / 32, 1.0)
    confidence = np.clip(2 * np.abs(scores - 0.5) * (0.5 + 0.5 * stands), 0.0, 1.0)
    likely = (growing >= _GROWS) | (scores >= _GROWS)
    up = (evidence.late_rise > evidence.unrest) & likely
    down = (evidence.late_rise < -2 * evidence.wobble) & ~up
    falling = evidence.late_rise / np.maximum(evidence.grid.seconds * LATE, 1e-9)
    growth = np.where(up, np.maximum(evidence.slope, 0.0), np.where(down, falling, growing * evidence.slope))
    growth = np.where(likely & ~down, np.maximum(evidence.slope, 0.0), growth)
    begin, seconds = evidence.grid.begin, evidence.grid.seconds
    moment = begin + np.clip(evidence.since, 0, 1) * seconds
    now = np.median(evidence.floor[:, -max(count // 16, 1) :], axis=1)
    results = []
    for row, member in enumerate(members):
        one, lives, judged = member.series, member.lives, member.judged
        assert judged is not None
        present = judged == len(lives) - 1
        rises = bool(up[row])
        if not rises:
            foreseen = forecast.Forecast(None, "memory does not grow")
        elif not present:
            foreseen = forecast.Forecast(None, "the process has just restarted")
        else:
            level = max(float(now[row]), float(lives[judged].values[-1]))
            rate, error = float(growth[row]), float(evidence.slope_sd[row])
            seen = int(np.count_nonzero(lives[judged].times >= moment[row]))
            foreseen = forecast.time_to_limit(level, one.limit, rate, error, float(evidence.wobble[row]), seen)
        trend = Trend.INCREASING if rises else Trend.DECREASING if down[row] else Trend.STABLE
        facts = Facts.of(evidence, row, float(scores[row]), rises, float(growth[row]), len(lives) - 1, present)
        results.append(
            ScoreResult(
                score=float(scores[row]),
                growth_rate=float(growth[row]),
                time_to_limit=foreseen.time_to_limit,
                trend=trend,
                reasons=sentences(facts),
                confidence=float(confidence[row]),
                since=float(moment[row]) if rises else None,
                forecast_reason=foreseen.reason,
            )
        )
    return results
