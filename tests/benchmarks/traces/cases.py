"""What of a trace is shown to the scoring, and when: prefixes, the windows that the analyzer keeps, replays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from otel_memory.analyzer.scoring import SeriesInput
from tests.benchmarks.traces.shape import Trace

WINDOW = 256
"""Samples of each window that the analyzer keeps of a process."""
CUTS = (0.15, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)
LIVE_SECONDS = (26.0, 30.0, 35.0, 40.0, 50.0, 60.0, 80.0, 120.0, 180.0, 240.0, 300.0, 360.0, 420.0, 480.0, 540.0, 599.0)
_LEAST_SEEN = 0.2
_LEAST_SEEN_SECONDS = 25.0


@dataclass(frozen=True)
class Case:
    """One moment of one trace: what is known then, whether it leaks then, and when that is (share or seconds)."""

    trace: Trace
    series: SeriesInput
    leak: bool
    at: float
    covariates: bool


def shown(trace: Trace, end: float, *, covariates: bool = True, window: int | None = None) -> SeriesInput:
    """The trace as it is known at event time ``end``: all of it, or the last ``window`` samples."""
    known = trace.until(end)
    last = slice(-window if window else None, None)
    columns = {name: column[last] for name, column in known.covariates.items()} if covariates else None
    return SeriesInput(known.times[last], known.values[last], trace.limit, columns)


def coarse(trace: Trace, end: float, seconds: float) -> SeriesInput:
    """The least sample of each bucket of ``seconds`` with its covariates, as the analyzer keeps them; not the one
    that is not over yet."""
    known = trace.until(end)
    bucket = known.times // seconds
    edges = np.flatnonzero(np.diff(bucket)) + 1
    starts = np.concatenate(([0], edges))[:-1] if len(edges) else np.empty(0, dtype=np.int64)
    ends = edges if len(edges) else starts
    picks = np.array(
        [a + int(np.argmin(known.values[a:b])) for a, b in zip(starts, ends, strict=False)], dtype=np.int64
    )
    picks = picks[-WINDOW:]
    columns = {name: column[picks] for name, column in known.covariates.items()}
    return SeriesInput(known.times[picks], known.values[picks], trace.limit, columns)


def moments(traces: Sequence[Trace], *, covariates: bool = True) -> Iterator[Case]:
    """Each trace at several moments. Moments at which a leak has hardly begun are left out: neither answer is right."""
    for trace in traces:
        first, last = float(trace.times[0]), float(trace.times[-1])
        live = trace.origin == "live"
        for at in LIVE_SECONDS if live else CUTS:
            end = min(first + at, last) if live else first + at * (last - first)
            if trace.leak and trace.onset is not None:
                seen = end - max(trace.onset, first)
                if seen < (_LEAST_SEEN_SECONDS if live else _LEAST_SEEN * (last - first)):
                    continue
            series = shown(trace, end, covariates=covariates, window=WINDOW if live else None)
            yield Case(trace, series, trace.leak, at, covariates)
