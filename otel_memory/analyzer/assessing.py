"""From what was found out about a process to its ``Assessment``.

Pure. Owns which figures are shown when; never decides the verdict (``alerting``).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from otel_memory.analyzer.model import Assessment, Suspect, TimeToLimit, Trend, Verdict
from otel_memory.analyzer.scoring import ScoreResult
from otel_memory.analyzer.series import ProcessSeries


class Findings(NamedTuple):
    """The score of a process, who is suspected, and when it was first seen, if that is longer ago than its windows."""

    result: ScoreResult | None
    suspects: tuple[Suspect, ...] = ()
    first_seen: float | None = None


def assess(series: ProcessSeries, findings: Findings) -> Assessment | None:
    """The assessment, its verdict still unknown; None where the memory in use was never reported.

    ``last_seen`` is the time of the youngest sample of memory: another metric's point with a wrong time must not put
    off every later judgement.
    """
    memory = series.memory
    if memory is None or memory.last_value is None or series.first_seen is None:
        return None
    result = findings.result
    usable = result is not None and math.isfinite(result.score) and math.isfinite(result.growth_rate)
    shown = result if result is not None and usable and result.sufficient else None
    first_seen = series.first_seen if findings.first_seen is None else findings.first_seen
    return Assessment(
        process=series.info,
        first_seen=min(first_seen, memory.last_time),
        last_seen=memory.last_time,
        memory_bytes=int(memory.last_value),
        limit_bytes=series.limit_bytes,
        limit_kind=series.limit_kind,
        verdict=Verdict.UNKNOWN,
        leak_score=None if shown is None else shown.score,
        trend=Trend.STABLE if shown is None else shown.trend,
        growth_bytes_per_second=None if shown is None else shown.growth_rate,
        time_to_limit=None if shown is None else finite(shown.time_to_limit),
        reasons=result.reasons if result is not None and usable else (),
        suspects=findings.suspects,
        leaking_since=None if shown is None else shown.since,
        breakdown=series.breakdown,
    )


def renewed(assessment: Assessment, series: ProcessSeries) -> Assessment:
    """The same judgement with the process's latest sample of memory, which has changed nothing else."""
    memory = series.memory
    if memory is None or memory.last_value is None:
        return assessment
    return replace(
        assessment,
        process=series.info,
        last_seen=memory.last_time,
        memory_bytes=int(memory.last_value),
        limit_bytes=series.limit_bytes,
        limit_kind=series.limit_kind,
        breakdown=series.breakdown,
    )


def silenced(assessment: Assessment, reason: str) -> Assessment:
    """What is said of a process that is judged no more: who it was and its last memory, but no score."""
    return replace(
        assessment,
        leak_score=None,
        trend=Trend.STABLE,
        growth_bytes_per_second=None,
        time_to_limit=None,
        reasons=(reason,),
        suspects=(),
        leaking_since=None,
    )


def finite(time_to_limit: TimeToLimit | None) -> TimeToLimit | None:
    """``time_to_limit`` if its figures are numbers; an upper end that is infinite is none."""
    if time_to_limit is None or not (math.isfinite(time_to_limit.estimate) and math.isfinite(time_to_limit.low)):
        return None
    if time_to_limit.high is not None and not math.isfinite(time_to_limit.high):
        return replace(time_to_limit, high=None)
    return time_to_limit
