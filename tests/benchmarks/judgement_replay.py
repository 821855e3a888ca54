"""Replays traces as the analyzer sees them: bounded windows, a score for each resolution, verdicts and alerts.

What counts here is what wakes somebody: an alert of a leak that fires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otel_memory import names
from otel_memory.analyzer import alerting
from otel_memory.analyzer.alerting import AlertingState
from otel_memory.analyzer.judgement import SUSPICIOUS, Judge, score_all
from otel_memory.analyzer.model import DOUBTED, AlertState, Assessment, ProcessInfo, Trend, Verdict
from otel_memory.analyzer.windows import Window
from tests.benchmarks.traces.shape import Trace

Floats = NDArray[np.float64]


@dataclass
class Outcome:
    """What became of one trace: event times at which a leak's alert fired, at which the verdict became ``watch``, and
    days from its first sample to its last one."""

    trace: Trace
    fired: list[float]
    watched: list[float]
    days: float


class _Process:
    """A trace as the windows of a process: what ``judgement`` asks of a series, and no more."""

    def __init__(self, trace: Trace, covariates: bool) -> None:
        self.trace = trace
        self.memory = Window()
        self.memory_metric = names.PROCESS_MEMORY_USAGE
        self.limit_bytes = None if trace.limit is None else int(trace.limit)
        self._columns = dict(trace.covariates) if covariates else {}
        start = self._columns.get("start_time")
        self._starts = None if start is None else start
        self.life: float | None = None
        self.judge = Judge()
        self.state: AlertingState | None = None
        self.outcome = Outcome(trace, [], [], float(trace.times[-1] - trace.times[0]) / 86400)

    def take(self, index: int) -> None:
        time = float(self.trace.times[index])
        self.memory.append(time, float(self.trace.values[index]))
        if self._starts is not None:
            start = float(self._starts[index])
            if self.life is None or abs(start - self.life) > 1:
                self.life = start

    def covariates(self, level: int = 0) -> dict[str, Floats]:
        times, _ = self.memory.arrays(level)
        index = np.searchsorted(self.trace.times, times)
        return {name: column[index] for name, column in self._columns.items()}

    def settle(self) -> None:
        """The verdict and the alerts of now, as the pipeline finds them."""
        result = self.judge.combined(self)  # type: ignore[arg-type]
        now, value = self.memory.last_time, self.memory.last_value
        if result is None or not result.sufficient or result.score < SUSPICIOUS:
            self.judge.suspicious_since = None
        elif self.judge.suspicious_since is None:
            self.judge.suspicious_since = now
        shown = result if result is not None and result.sufficient else None
        step = alerting.step(
            self.state,
            Assessment(
                process=ProcessInfo(self.trace.name, self.trace.family),
                first_seen=float(self.trace.times[0]),
                last_seen=now,
                memory_bytes=None if value is None else int(value),
                limit_bytes=self.limit_bytes,
                limit_kind=None,
                verdict=Verdict.UNKNOWN,
                leak_score=None if shown is None else shown.score,
                trend=Trend.STABLE if shown is None else shown.trend,
                growth_bytes_per_second=None if shown is None else shown.growth_rate,
                time_to_limit=None if shown is None else shown.time_to_limit,
            ),
            now,
        )
        before = None if self.state is None else self.state.verdict
        if step.verdict is Verdict.WATCH and before is not Verdict.WATCH:
            self.outcome.watched.append(now)
        for change in step.changes:
            if change.name == alerting.MEMORY_LEAK and change.state is AlertState.FIRING:
                self.outcome.fired.append(now)
        self.state = step.state
        self.judge.doubted = step.verdict in DOUBTED


def replay(traces: Sequence[Trace], *, covariates: bool = True) -> list[Outcome]:
    """Each trace from its first sample to its last one, all of them side by side: one batch a sample."""
    processes = [_Process(trace, covariates) for trace in traces]
    for turn in _turns(processes):
        score_all([(process.judge, process) for process in turn])  # type: ignore[misc]
        for process in turn:
            process.settle()
    return [process.outcome for process in processes]


def _turns(processes: Sequence[_Process]) -> Iterator[list[_Process]]:
    for index in range(max(len(process.trace.times) for process in processes)):
        turn = [process for process in processes if index < len(process.trace.times)]
        for process in turn:
            process.take(index)
        yield turn
