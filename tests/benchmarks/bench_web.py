"""A real web application's throughput, with and without the probe, beside its peers.

Two servers run at a time, one worker process each: the bare SDK and a variant. A process of its own loads them by turns
in short slices A B B A, four connections in a closed loop, so that what else the machine does meets both alike; the
ratio of each such four is one reading, and the interval is that of the median of all readings, by bootstrap (95 %).
Processor time of a request counts all threads of the worker (the sampler's and the exporters' too) and is the figure to
trust where the machine is shared: the throughput of a worker that has its core to itself is its inverse.
``python -m tests.benchmarks.bench_web`` prints the rows.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.rows import Row, machine_line, print_rows
from tests.benchmarks.web_server import BARE, ROOT, VARIANTS, Server, serving, sink, variants_of_sherlock

TITLE = "web"
DISTRIBUTIONS = ("flask", "gunicorn", "opentelemetry-sdk", "opentelemetry-instrumentation-flask")
CONNECTIONS = 4
PATH = "/shop/5"
SECONDS = 1.0
"""Of one slice: the sampler's beat and its exports (every five seconds) come as they come in life."""
WARM_UP_SECONDS = 3.0
PEER_SHARE = 4
"""The probe's variants are measured so many times as often as the peers, whose cost is larger."""
RESAMPLES = 2_000
STARTS = 4
"""The servers are started anew so often: two processes of the same program differ by some per cent all their life."""


def _cpu_seconds(pid: int) -> float:
    """Time on a processor of all threads of a process, those that have ended too: its own clock, as Linux numbers those
    (``clock_getcpuclockid(3)``)."""
    return time.clock_gettime(~pid << 3 | 2)


@dataclass(frozen=True, slots=True)
class Slice:
    """What one server did in one slice."""

    requests: int
    seconds: float
    cpu_seconds: float

    def __add__(self, other: Slice) -> Slice:
        return Slice(self.requests + other.requests, self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


Figure = Callable[[Slice], float]
FIGURES: dict[str, tuple[str, Figure]] = {
    "throughput": ("requests/s", lambda each: each.requests / each.seconds),
    "processor time": ("µs/request", lambda each: each.cpu_seconds / each.requests * 1e6),
}


class Loader:
    """The process that loads one server at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def slice(self, server: Server, seconds: float = SECONDS) -> Slice:
        """Load ``server`` for ``seconds``."""
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        before = _cpu_seconds(server.worker)
        to.write(f"{server.port} {PATH} {CONNECTIONS} {seconds}\n")
        to.flush()
        line = back.readline()
        if not line:
            raise RuntimeError("the load has failed (its own words are above)")
        found = json.loads(line)
        return Slice(int(found["requests"]), float(found["seconds"]), _cpu_seconds(server.worker) - before)


def interval(readings: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """Bounds of the median of ``readings`` that hold in 95 of 100 samples drawn from them (percentile bootstrap)."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(readings, k=len(readings))) for _ in range(resamples))
    return medians[int(resamples * 0.025)], medians[int(resamples * 0.975)]


def run(runs: int = 40, only: Collection[str] = ()) -> list[Row]:
    """The rows; four slices for each run and variant: with forty of all, a quarter of an hour.

    Args:
        runs: fours of each variant; a multiple of ``STARTS``.
        only: the names of the variants to run, if not all.
    """
    variants = {**VARIANTS, **variants_of_sherlock()}
    variants = {name: env for name, env in variants.items() if not only or name in (BARE, *only)}
    fours: dict[str, list[tuple[Slice, Slice]]] = {name: [] for name in variants if name != BARE}
    for start in range(STARTS):
        for name in fours:
            fours[name] += _one_start(variants[BARE], variants[name], _fours_of(name, runs, start))
    return _rows(fours)


def _fours_of(name: str, runs: int, start: int) -> int:
    runs = runs // PEER_SHARE if "(peer)" in name else runs
    return (start + 1) * runs // STARTS - start * runs // STARTS


def _one_start(bare: Mapping[str, str], variant: Mapping[str, str], fours: int) -> list[tuple[Slice, Slice]]:
    """Two servers alone, each loaded half of the time: what they export meanwhile meets both alike."""
    if not fours:
        return []
    pairs = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoint = stack.enter_context(sink())
        first, second = (stack.enter_context(serving(env, endpoint, folder)) for env in (bare, variant))
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.web_load"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        loader = Loader(process)
        for server in (first, second):
            loader.slice(server, WARM_UP_SECONDS)
        for _ in range(fours):
            before = loader.slice(first)
            other = loader.slice(second) + loader.slice(second)
            pairs.append((before + loader.slice(first), other))
        assert process.stdin is not None
        process.stdin.close()
    return pairs


def _rows(fours: dict[str, list[tuple[Slice, Slice]]]) -> list[Row]:
    rows = []
    for what, (unit, figure) in FIGURES.items():
        bare = statistics.median(figure(one) for pairs in fours.values() for one, _ in pairs)
        rows.append(Row(f"{what}, {BARE}", bare, unit))
        for name, pairs in fours.items():
            ratios = [figure(other) / figure(one) for one, other in pairs]
            rows.append(
                Row(
                    f"{what}, {name}, {len(pairs)} × A B B A",
                    statistics.median(figure(other) for _, other in pairs),
                    unit,
                    statistics.median(ratios),
                    BARE,
                    interval(ratios),
                )
            )
    return rows


def main(runs: int = 40) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
