"""What scoring costs per series in a batch, against one sort and one straight-line fit of the same numbers.

``python -m tests.benchmarks.bench_scoring`` prints the rows.
"""

from __future__ import annotations

import time
from statistics import fmean, median

import numpy as np

from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.judgement import Judge, score_all
from otel_memory.analyzer.model import ProcessInfo
from otel_memory.analyzer.scoring import SeriesInput, score_batch
from otel_memory.analyzer.series import ProcessSeries
from otel_memory.analyzer.windows import LEVELS
from tests.analyzer.made_up import MadeUp
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "scoring"
SERIES, POINTS = 1000, 128
RUNS = 5
PROCESSES, SLIDES = 200, 300
"""Processes, and samples until their windows are full (and as many again)."""
SCORED, CALM = 5, 16
"""Of these the last ones are timed: so many with a score of each process at each sample, and so many, before them, as
the analyzer scores what is calm."""
NOBODY = ProcessInfo("0" * 16, "nobody")
UNIT = "µs a series"


def batch(series: int, points: int, covariates: bool, seed: int = 1) -> list[SeriesInput]:
    """Series of which half leak, with noise and a saw; counts of requests on demand."""
    rng = np.random.default_rng(seed)
    times = 1.75e9 + np.arange(points, dtype=float)
    made = []
    for index in range(series):
        slope = rng.uniform(1e5, 1e6) if index % 2 else 0.0
        saw = rng.uniform(1e6, 1e7) * ((np.arange(points) / rng.uniform(5, 30)) % 1)
        values = rng.uniform(5e7, 5e8) + slope * np.arange(points) + saw + rng.normal(0, 1e5, points)
        columns = {"requests": np.cumsum(rng.poisson(20, points)).astype(float)} if covariates else None
        made.append(SeriesInput(times, values, 1e9, columns))
    return made


def _from_the_wire() -> list[Row]:
    """A sample of each of many processes as it comes in: decoded, kept, scored. First with windows that have just
    filled, then after they have slid on by as much again; and what the windows take."""
    makers = [MadeUp(instance=f"i{number}", leak_per_call=0) for number in range(PROCESSES)]
    known = [(Judge(), ProcessSeries(identify(maker.payload(0).resource) or NOBODY)) for maker in makers]
    each: dict[int, list[float]] = {0: [], 1: []}
    calm: list[float] = []
    for sample in range(2 * SLIDES):
        # Made before the clock runs; all processes in one request, as a Collector sends them.
        request = makers[0].request(sample)
        for maker in makers[1:]:
            maker.add_to(request, sample)
        body = request.SerializeToString()
        left = SLIDES - sample % SLIDES
        for judge, _ in known:
            judge.doubted = left <= SCORED
        begun = time.process_time()
        for (_, series), payload in zip(known, decode(body, "metrics", "protobuf").payloads, strict=True):
            series.add(payload)
        if left <= SCORED + CALM:
            score_all(known)
        spent = time.process_time() - begun
        if left <= SCORED:
            each[sample // SLIDES].append(spent)
        elif left <= SCORED + CALM and sample > SLIDES:
            calm.append(spent)
    filled, slid = (median(each[part]) / PROCESSES for part in (0, 1))
    # A mean: not every sample is scored.
    as_judged = fmean(calm) / PROCESSES
    memory = [series.memory for _, series in known if series.memory is not None]
    return [
        Row("decoded, kept, scored at each sample, windows full", filled * 1e6, "µs a process"),
        Row("the same, windows slid on", slid * 1e6, "µs a process"),
        Row("processes a minute on a core", 60 / slid, "1"),
        Row("decoded, kept, scored as what is calm", as_judged * 1e6, "µs a process"),
        Row("processes a minute on a core, calm", 60 / as_judged, "1"),
        Row("window of one series at one resolution", memory[0].nbytes / len(LEVELS), "B"),
    ]


def main() -> None:
    """Measure and print."""
    plain, with_requests = batch(SERIES, POINTS, False), batch(SERIES, POINTS, True)
    matrix = np.array([one.values for one in plain])
    x = np.arange(POINTS, dtype=float)
    scale = 1e6 / SERIES
    fit = Row("floor: one polyfit", median_seconds(lambda: np.polyfit(x, matrix.T, 1), runs=RUNS) * scale, UNIT)
    sort = Row("floor: one sort", median_seconds(lambda: np.sort(matrix, axis=1), runs=RUNS) * scale, UNIT)
    rows = [fit, sort]
    for name, series in (("memory alone", plain), ("with requests", with_requests)):
        seconds = median_seconds(lambda: score_batch(series), runs=RUNS)  # noqa: B023 - called before the next turn
        rows.append(Row(f"score_batch, {name}", seconds * scale, UNIT).over(sort))
    rows.extend(_from_the_wire())
    one = plain[:1]
    alone = median_seconds(lambda: score_batch(one), runs=RUNS)
    rows.append(Row("score, one series at a time", alone * 1e6, UNIT).over(sort))
    print_rows(f"{TITLE}: {SERIES} series of {POINTS} points", rows, machine_line(("numpy",), runs=RUNS))


if __name__ == "__main__":
    main()
