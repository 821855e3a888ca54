"""A second opinion on what seems to grow: the memory that the process has in use, beside that which is resident.

Resident memory also holds what the allocators keep free, and lags behind what a program lets go. Where a process
tells how many blocks Python's allocator has handed out and how many bytes the C allocator has, their sum is scored
too, as far as resident memory looks suspicious. Where the two disagree it decides: a floor that allocators keep up is
no leak, and a leak that noise hides is one. Not where what grows is outside both allocators (mapped files, stacks,
libraries that map memory themselves).

Owns that weighing, and what it has to remember of a process. Never scores by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from otel_memory.analyzer.judgement import Judge
from otel_memory.analyzer.material import cap_immaterial, rise
from otel_memory.analyzer.scoring import ScoreResult, SeriesInput, score_batch
from otel_memory.analyzer.series import ProcessSeries, tolerance_of
from otel_memory.analyzer.windows import LEVELS, Floats
from otel_memory.humanize import format_bytes

BYTES_OF_A_BLOCK: Final = 100.0
"""What a block of Python's allocator takes on average, with what is lost around it: 96-108 were measured in sixteen
programs. How fast memory grows hangs on it, whether it does hardly."""
DOUBTFUL: Final = 0.4
"""From which score of the resident memory on the other one is asked for."""
_MARKS: Final = (0.5, 0.8)
"""Two scores disagree if one of these lies between them. What is in use alone is believed from the higher one on."""
_OUTSIDE_SHARE: Final = 0.5
"""Share of the growth outside both allocators from which on they have nothing to say about it."""
_KNOWN_SHARE: Final = 0.9
"""Of the samples of resident memory, for which it must be known what was in use."""
_ALLOCATORS: Final = ("python_used", "python_free", "c_used", "c_free")
_MOST_READINGS: Final = 32


class InUse:
    """What is remembered of one process between samples."""

    __slots__ = ("_outside", "_parts", "_weighed")

    def __init__(self) -> None:
        self._parts: Mapping[str, int] | None = None
        self._outside: list[tuple[float, float]] = []
        self._weighed: list[ScoreResult | None] = [None] * len(LEVELS)

    def learn(self, series: ProcessSeries) -> None:
        """Take the newest breakdown of the resident memory, if there is a new one."""
        parts, memory = series.breakdown, series.memory
        if memory is None or not parts or parts == self._parts or not all(name in parts for name in _ALLOCATORS):
            return
        self._parts = parts
        self._outside.append((memory.last_time, float(sum(parts.values()) - sum(parts[name] for name in _ALLOCATORS))))
        if len(self._outside) > _MOST_READINGS:
            del self._outside[1:-1:2]

    def kept_free(self, risen: float, since: float | None) -> bool:
        """Whether it is the allocators that keep what the resident memory rose by (bytes) from ``since`` (s) on.

        They do where little came to what lies outside both; as long as that was told once only, where they have so much
        free. Where it was never told, they don't.
        """
        if self._parts is None:
            return False
        if len(self._outside) < 2:
            return self._parts["python_free"] + self._parts["c_free"] >= risen
        before = [size for time, size in self._outside if since is not None and time <= since]
        return self._outside[-1][1] - (before[-1] if before else self._outside[0][1]) <= _OUTSIDE_SHARE * risen

    def fresh(self, judge: Judge) -> list[int]:
        """The resolutions whose score is doubtful and was not weighed yet."""
        return [
            level
            for level, result in enumerate(judge.results)
            if result is not None
            and result.sufficient
            and result is not self._weighed[level]
            and result.score >= DOUBTFUL
        ]

    def put(self, judge: Judge, level: int, result: ScoreResult) -> None:
        """Let ``result`` stand for that resolution until it is scored again."""
        judge.results[level] = self._weighed[level] = result


class _Asked(NamedTuple):
    in_use: InUse
    judge: Judge
    level: int
    times: Floats
    memory: Floats
    given: SeriesInput


def weigh_all(processes: Iterable[tuple[InUse, Judge, ProcessSeries]]) -> None:
    """Weigh the doubtful scores of all processes that tell what they have in use, in one batch."""
    asked: list[_Asked] = []
    for in_use, judge, series in processes:
        in_use.learn(series)
        for level in in_use.fresh(judge):
            found = _ask(in_use, judge, series, level)
            if found is not None:
                asked.append(found)
    for one, result in zip(asked, score_batch([one.given for one in asked]), strict=True):
        resident = one.judge.results[one.level]
        assert resident is not None
        used = cap_immaterial(result, one.given.times, one.given.values)
        one.in_use.put(one.judge, one.level, _weighed(resident, used, one))


def _ask(in_use: InUse, judge: Judge, series: ProcessSeries, level: int) -> _Asked | None:
    window, blocks, heap = series.memory, series.blocks, series.heap
    if window is None or blocks is None or heap is None:
        return None
    times, memory = window.arrays(level)
    if level:
        # The youngest bucket is provisional.
        times, memory = times[:-1], memory[:-1]
    if not len(times):
        return None
    tolerance = tolerance_of(times)
    used = BYTES_OF_A_BLOCK * blocks.at(times, level, tolerance) + heap.at(times, level, tolerance)
    known = np.isfinite(used)
    if not known[-1] or known.mean() < _KNOWN_SHARE:
        return None
    # On the level of the resident memory, so that its limit and its shares hold for it.
    used = np.maximum(used + (memory[-1] - used[-1]), 0.0)
    columns = series.covariates(level).items()
    covariates = {name: column[: len(times)][known] for name, column in columns}
    limit = None if series.limit_bytes is None else float(series.limit_bytes)
    given = SeriesInput(times[known], used[known], limit, covariates)
    return _Asked(in_use, judge, level, times, memory, given)


def _weighed(resident: ScoreResult, used: ScoreResult, one: _Asked) -> ScoreResult:
    """The one of both opinions that holds."""
    if not used.sufficient or _class(resident.score) == _class(used.score):
        return resident
    if used.score < resident.score:
        risen = max(rise(one.times, one.memory, resident.since) or 0.0, 0.0)
        if not one.in_use.kept_free(risen, resident.since):
            return resident
        said = "what is in use in Python's and the C allocator grows less clearly"
        if used.score < _MARKS[0]:
            said = f"resident memory rose {format_bytes(risen)}, but what is in use did not: allocators keep it"
    elif used.score < _MARKS[-1]:
        return resident
    else:
        said = "judged by what is in use in Python's and the C allocator, which resident memory follows with more noise"
    return replace(used, reasons=(*used.reasons, f"{said} (score {resident.score:.2f} by resident memory alone)"))


def _class(score: float) -> int:
    return sum(score >= mark for mark in _MARKS)
