"""What scoring costs per series in a batch, against one sort and one straight-line fit of the same numbers.

``python -m tests.benchmarks.bench_scoring`` prints the rows.
"""

from __future__ import annotations

import numpy as np

from otel_memory.analyzer.scoring import SeriesInput, score_batch
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "scoring"
SERIES, POINTS = 1000, 128
RUNS = 5
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
    one = plain[:1]
    alone = median_seconds(lambda: score_batch(one), runs=RUNS)
    rows.append(Row("score, one series at a time", alone * 1e6, UNIT).over(sort))
    print_rows(f"{TITLE}: {SERIES} series of {POINTS} points", rows, machine_line(("numpy",), runs=RUNS))


if __name__ == "__main__":
    main()
