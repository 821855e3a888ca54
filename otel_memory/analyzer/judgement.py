"""One judgement of a process out of the scores of its windows at several resolutions.

Owns which resolutions are scored when, and how their scores become one. Never scores by itself (``scoring``), never
decides a verdict (``alerting``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from otel_memory.analyzer.material import CAPPED, cap_immaterial
from otel_memory.analyzer.roles import WITH_GARBAGE
from otel_memory.analyzer.scoring import ScoreResult, SeriesInput, score_batch
from otel_memory.analyzer.series import ProcessSeries
from otel_memory.analyzer.windows import LEVELS, Window, spacing_of

LEAST_HISTORY_SECONDS: Final = 900.0
"""How far a coarser window must reach back before its silence counts against a finer one's alarm."""
SUSPICIOUS: Final = 0.5
RANGE_MARGIN: Final = 0.02
CALM_SHARE: Final = 1 / 8
"""Of the time that a resolution has seen, so much passes at most between two scores: less can't change them much. It
goes by the samples' own times, so that it does not matter who judges, and when."""
DOUBT_SHARE: Final = 0.1
"""The same of the time for which a process has been suspicious, if that is less."""
_NEVER: Final = float("-inf")


class Due(NamedTuple):
    """One resolution that has something new. ``given`` is None where a finer one says the same already."""

    level: int
    bucket: float
    given: SeriesInput | None
    with_garbage: bool = False
    """The memory is that of a heap with what the next collection frees."""


class Judge:
    """The latest score of each resolution of one process. A resolution is scored again when it has a new sample and
    enough of its time has passed: the less, the younger a suspicion is."""

    __slots__ = ("_buckets", "_life", "doubted", "results", "suspicious_since")

    def __init__(self) -> None:
        self.results: list[ScoreResult | None] = [None] * len(LEVELS)
        self.doubted = False
        """Whether somebody was told that the process may leak."""
        self.suspicious_since: float | None = None
        """Since when (s) the process as a whole has looked suspicious."""
        self._buckets: list[float] = [_NEVER] * len(LEVELS)
        self._life: float | None = None

    @classmethod
    def resumed(cls, results: Sequence[ScoreResult | None], buckets: Sequence[float], life: float | None) -> Judge:
        """One that goes on from what another one knew: its ``results``, ``buckets`` and ``life``."""
        judge = cls()
        if len(results) == len(buckets) == len(LEVELS):
            judge.results, judge._buckets, judge._life = list(results), list(buckets), life
        return judge

    @property
    def buckets(self) -> list[float]:
        """Of each resolution the bucket that was scored last (-inf: none)."""
        return list(self._buckets)

    @property
    def life(self) -> float | None:
        """When the present life of the process began (s), as far as that is known."""
        return self._life

    @property
    def suspicious(self) -> bool:
        """Whether any resolution speaks for a leak, or somebody was told that it may be one."""
        return self.doubted or any(result is not None and result.score >= SUSPICIOUS for result in self.results)

    def is_due(self, series: ProcessSeries) -> bool:
        """Whether anything is to be scored now."""
        memory = series.memory
        return memory is not None and bool(self._pending(series, memory))

    def due(self, series: ProcessSeries) -> list[Due]:
        """What is to be scored now."""
        memory = series.memory
        pending = [] if memory is None else self._pending(series, memory)
        if memory is None or not pending:
            return []
        found = []
        with_garbage = series.memory_metric in WITH_GARBAGE
        limit = None if series.limit_bytes is None else float(series.limit_bytes)
        spacing = spacing_of(memory.arrays()[0])
        for index, bucket in pending:
            times, values = memory.arrays(index)
            stop = len(times)
            if index:
                if LEVELS[index].bucket_seconds <= 1.5 * spacing or stop < 2:
                    # No coarser than what comes in: the raw window says the same.
                    found.append(Due(index, bucket, None))
                    continue
                stop -= 1
            covariates = {name: column[:stop] for name, column in series.covariates(index).items()}
            found.append(Due(index, bucket, SeriesInput(times[:stop], values[:stop], limit, covariates), with_garbage))
        return found

    def _pending(self, series: ProcessSeries, memory: Window) -> list[tuple[int, float]]:
        """Indices and buckets of the resolutions that are to be scored now."""
        life = series.life
        if life != self._life:
            # What a coarse window said of the life before must not stand until its next bucket begins.
            self._life = life
            self._buckets = [_NEVER] * len(LEVELS)
        pause = float("inf")
        if self.suspicious:
            began = self.suspicious_since
            pause = 0.0 if began is None else DOUBT_SHARE * (memory.last_time - began)
        pending = []
        for index, level in enumerate(LEVELS):
            # The youngest bucket is provisional until the next one begins; of raw samples each counts.
            width = level.bucket_seconds or 1.0
            bucket = memory.last_time // width if level.bucket_seconds else memory.last_time
            before = self._buckets[index]
            period = _power_of_two(min(pause, CALM_SHARE * memory.span(index)))
            if bucket != before and (period < width or bucket * width // period != before * width // period):
                pending.append((index, bucket))
        return pending

    def take(self, due: Due, result: ScoreResult | None) -> None:
        """The score of what was due. One that is not a number is no score."""
        self._buckets[due.level] = due.bucket
        usable = result is not None and math.isfinite(result.score) and math.isfinite(result.growth_rate)
        if result is None or due.given is None or not usable:
            self.results[due.level] = None
        else:
            self.results[due.level] = cap_immaterial(
                result, due.given.times, due.given.values, with_garbage=due.with_garbage
            )

    def combined(self, series: ProcessSeries) -> ScoreResult | None:
        """The score of the process: the most alarming of those that had enough to go by.

        An alarm of a finer window is capped where a coarser one, long enough, is calm and shows that the memory was
        as high before.
        """
        judged = [(index, result) for index, result in enumerate(self.results) if result is not None]
        sufficient = [(index, result) for index, result in judged if result.sufficient]
        if not sufficient:
            return judged[0][1] if judged else None
        index, worst = max(sufficient, key=lambda pair: pair[1].score)
        if worst.score < SUSPICIOUS:
            return worst
        for coarser, result in sufficient:
            if coarser > index and result.score < SUSPICIOUS and _within_history(series, coarser, worst):
                reason = (
                    "the growth of the last minutes stays within what the memory was before "
                    f"(score {worst.score:.2f} without that history)"
                )
                return replace(worst, score=min(worst.score, CAPPED), reasons=(*worst.reasons, reason))
        return worst


def _power_of_two(seconds: float) -> float:
    """The largest one that is not larger. By such periods many processes come due at once, and the more that are scored
    in one batch, the less each costs."""
    return math.ldexp(0.5, math.frexp(seconds)[1]) if math.isfinite(seconds) else seconds


def _within_history(series: ProcessSeries, level: int, growing: ScoreResult) -> bool:
    """True if the memory now isn't above what it was before the growth, over a history that is long enough."""
    memory = series.memory
    if memory is None or memory.last_value is None:
        return False
    times, values = memory.arrays(level)
    begun = growing.since if growing.since is not None else times[-1]
    before = times < begun
    if not before.any() or begun - times[0] < LEAST_HISTORY_SECONDS:
        return False
    return bool(memory.last_value <= values[before].max() * (1 + RANGE_MARGIN))


def score_all(processes: Sequence[tuple[Judge, ProcessSeries]]) -> None:
    """Score everything that is due, of all processes in one batch."""
    owners: list[tuple[Judge, Due]] = []
    inputs: list[SeriesInput] = []
    for judge, series in processes:
        for due in judge.due(series):
            if due.given is None:
                judge.take(due, None)
            else:
                owners.append((judge, due))
                inputs.append(due.given)
    for (judge, due), result in zip(owners, score_batch(inputs), strict=True):
        judge.take(due, result)
