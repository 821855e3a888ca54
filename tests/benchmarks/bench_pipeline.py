"""What one payload costs the analyzer, from the bytes to what is told: alone, and a thousand processes in one batch.

The floor is decoding the same bytes, which every receiver of OTLP has to do. ``python -m
tests.benchmarks.bench_pipeline`` prints the rows.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_memory.analyzer import pipeline as module
from otel_memory.analyzer.alerting import step
from otel_memory.analyzer.attribution import attribute_series
from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.judgement import score_all
from otel_memory.analyzer.keeper import Keeper
from otel_memory.analyzer.pipeline import Pipeline
from otel_memory.analyzer.series import ProcessSeries, SeriesTable
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store import FILE_NAME, Store
from otel_memory.analyzer.view import View
from tests.analyzer.made_up import MadeUp
from tests.benchmarks.rows import Row, machine_line, print_rows

TITLE = "pipeline"
DISTRIBUTIONS = ("numpy", "protobuf")
UNIT = "µs/process"
KNOWN = 200
"""Samples that each process has sent before."""
FLEET = 1000
LEAKING = 20
"""One process of so many leaks."""


class Bench:
    """A pipeline that knows a fleet, filled without going through it."""

    def __init__(self, processes: Sequence[MadeUp], store: Store | None) -> None:
        self.processes = processes
        self.table = SeriesTable()
        self.pipeline = Pipeline(self.table, View(), Stats(), store=store, outputs=("none",))
        self.next = KNOWN
        samples: dict[int, dict[str, tuple[list[float], list[float]]]] = {}
        for process in processes:
            kept = samples.get(process.leak_per_call)
            if kept is None:
                known = _series(process, KNOWN)
                kept = samples[process.leak_per_call] = {key: w.since(float("-inf")) for key, w in known.kept()}
            info = identify(process.payload(0).resource)
            assert info is not None
            self.table.restore(info, kept)
            self.pipeline._keeper.resume(info.id, {key: times[-1] for key, (times, _) in kept.items()})

    def batch(self) -> list[bytes]:
        """The next sample of each process."""
        self.next += 1
        return [process.body(self.next - 1) for process in self.processes]


def _series(process: MadeUp, count: int) -> ProcessSeries:
    info = identify(process.payload(0).resource)
    assert info is not None
    made = ProcessSeries(info)
    for index in range(count):
        made.add(process.payload(index), process.time(index))
    return made


class Stopwatch:
    """Adds up what the parts of one batch take."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def begin(self) -> None:
        """A new batch."""
        for laps in self.seconds.values():
            laps.append(0.0)

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, its time added to ``part``."""
        laps = self.seconds.setdefault(part, [0.0])

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                laps[-1] += time.perf_counter() - began

        return timed


@contextmanager
def _watched() -> Iterator[Stopwatch]:
    """The parts of a batch, timed in place."""
    watch = Stopwatch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessSeries, "add", watch.around("series", ProcessSeries.add))
        patch.setattr(module, "score_all", watch.around("scoring", score_all))
        patch.setattr(module, "attribute_series", watch.around("attribution", attribute_series))
        patch.setattr(module, "step", watch.around("alerting", step))
        patch.setattr(Keeper, "keep", watch.around("store", Keeper.keep))
        patch.setattr(View, "publish", watch.around("publishing", View.publish))
        yield watch


def _measure(name: str, bench: Bench, batches: int) -> list[Row]:
    """Decoding and processing of batches, each with a new sample of every process."""
    decoding, processing = [], []
    with _watched() as watch:
        for number in range(batches + 2):
            bodies = bench.batch()
            watch.begin()
            began = time.perf_counter()
            decoded = [decode(body, "metrics", "protobuf") for body in bodies]
            middle = time.perf_counter()
            bench.pipeline.process(decoded, bench.processes[0].time(bench.next))
            ended = time.perf_counter()
            if number >= 2:
                decoding.append(middle - began)
                processing.append(ended - middle)
    each = 1e6 / len(bench.processes)
    floor = Row(f"{name}: decode", statistics.median(decoding) * each, UNIT)
    # Means here: not every part has its turn in every batch.
    parts = [
        Row(f"  of which {part}", statistics.fmean(laps[-batches:]) * each, UNIT).over(floor)
        for part, laps in watch.seconds.items()
    ]
    whole = Row(f"{name}: process()", statistics.fmean(processing) * each, UNIT)
    return [floor, whole.over(floor), *parts]


def run(runs: int = 7) -> list[Row]:
    """The rows; about half a minute."""
    fleet = [
        MadeUp(instance=f"i{number}", leak_per_call=0 if number % LEAKING else 40_000, operations=6)
        for number in range(FLEET)
    ]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, processes, batches in (
            ("1 healthy", [fleet[1]], 10 * runs),
            ("1 leaking", [fleet[0]], 10 * runs),
            (f"{FLEET} at once, 5 % leak", fleet, runs),
        ):
            store = Store.open(Path(folder) / name / FILE_NAME)
            try:
                rows += _measure(name, Bench(processes, store), batches)
            finally:
                store.close()
    return rows


def main(runs: int = 7) -> None:
    """Print the rows."""
    logging.disable(logging.CRITICAL)
    points = len(MadeUp(operations=6).payload(0).points)
    print_rows(f"{TITLE} ({points} points a process)", run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
