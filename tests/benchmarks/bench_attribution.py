"""Attribution: how often the leaking route is named first, and what asking costs.

Real little programs (``tests/analyzer/attribution_program.py``: five ways to leak beside four healthy routes, forty
requests a second that breathe), cut into stretches of 20 to 60 one-second samples. The peer is non-negative least
squares of five-second differences of resident memory on the calls of all routes, the same for allocated blocks; the
floor of the cost is one unconstrained least squares. ``python -m tests.benchmarks.bench_attribution`` prints the rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from otel_memory import names
from otel_memory.analyzer.attribution import AttributionInput, attribute
from otel_memory.analyzer.attribution_fit import nnls
from otel_memory.analyzer.model import Payload, Point, ProcessInfo
from otel_memory.analyzer.series import ProcessSeries
from otel_memory.analyzer.windows import Floats
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "attribution"
DISTRIBUTIONS = ("numpy",)
PROGRAM = Path(__file__).parents[1] / "analyzer" / "attribution_program.py"
LEAKS = ("objects", "buffers", "mixed", "strings", "rare")
SEEDS = range(4)
SECONDS = 120
STRETCHES = (20, 30, 60)
SPAN = 5


def run(runs: int = 5) -> list[Row]:
    """The rows; about half a minute."""
    programs = {(leak, seed): _sampled(leak, seed) for leak in LEAKS for seed in SEEDS}
    rows = []
    for seconds in STRETCHES:
        peer = Row(
            f"right of {seconds} s: NNLS, 5 s differences of RSS", _right(programs, seconds, _nnls_memory), "share"
        )
        rows += [
            peer,
            Row(
                f"right of {seconds} s: NNLS, 5 s differences of blocks",
                _right(programs, seconds, _nnls_blocks),
                "share",
            ),
        ]
        rows.append(
            Row(f"right of {seconds} s: from RSS alone", _right(programs, seconds, _memory_alone), "share").over(peer)
        )
        rows.append(
            Row(f"right of {seconds} s: from all signals", _right(programs, seconds, _first), "share").over(peer)
        )
    return [*rows, *_cost(runs), *_series(runs)]


def _sampled(leak: str, seed: int) -> AttributionInput:
    command = [sys.executable, str(PROGRAM), leak, str(seed), str(SECONDS)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    return AttributionInput(
        times=np.array(found["times"], float),
        memory=np.array(found["memory"], float),
        blocks=np.array(found["blocks"], float),
        heap=np.array(found["heap"], float) if found["heap"] else None,
        routes={name: np.array(counts, float) for name, counts in found["routes"].items()},
    )


def _cut(inputs: AttributionInput, part: slice) -> AttributionInput:
    return AttributionInput(
        times=inputs.times[part],
        memory=inputs.memory[part],
        blocks=None if inputs.blocks is None else inputs.blocks[part],
        heap=None if inputs.heap is None else inputs.heap[part],
        routes={name: counts[part] for name, counts in inputs.routes.items()},
    )


def _right(
    programs: Mapping[tuple[str, int], AttributionInput], seconds: int, first: Callable[[AttributionInput], str | None]
) -> float:
    hits = [
        first(_cut(inputs, slice(start, start + seconds))) == leak
        for (leak, _), inputs in programs.items()
        for start in range(0, SECONDS - seconds + 1, max(seconds // 2, 15))
    ]
    return sum(hits) / len(hits)


def _first(inputs: AttributionInput) -> str | None:
    suspects = attribute(inputs)
    return suspects[0].name if suspects else None


def _memory_alone(inputs: AttributionInput) -> str | None:
    return _first(replace(inputs, blocks=None, heap=None))


def _nnls_memory(inputs: AttributionInput) -> str | None:
    return _nnls(inputs, inputs.memory)


def _nnls_blocks(inputs: AttributionInput) -> str | None:
    return None if inputs.blocks is None else _nnls(inputs, inputs.blocks)


def _nnls(inputs: AttributionInput, signal: Floats) -> str | None:
    columns = np.column_stack(list(inputs.routes.values()))
    steps, calls = signal[SPAN:] - signal[:-SPAN], columns[SPAN:] - columns[:-SPAN]
    steps, calls = steps - steps.mean(), calls - calls.mean(axis=0)
    kept = nnls(calls.T @ calls, calls.T @ steps) * (columns[-1] - columns[0])
    return list(inputs.routes)[int(np.argmax(kept))] if kept.any() else None


def _cost(runs: int) -> list[Row]:
    rng = np.random.default_rng(1)
    rows = []
    for seconds, routes in ((60, 5), (256, 5), (256, 64)):
        counts = rng.poisson(8, (seconds, routes)).cumsum(axis=0).astype(float)
        memory = 6e7 + 30e3 * counts[:, 0] + 2e5 * np.abs(rng.normal(size=seconds))
        inputs = AttributionInput(
            times=np.arange(float(seconds)),
            memory=memory,
            blocks=1e5 + 100 * counts[:, 0] + 300 * rng.normal(size=seconds),
            routes={str(route): counts[:, route] for route in range(routes)},
        )
        what = f"{seconds} samples, {routes} routes"
        design = np.column_stack([np.ones(seconds - SPAN), counts[SPAN:] - counts[:-SPAN]])
        steps = memory[SPAN:] - memory[:-SPAN]

        def least_squares(design: Floats = design, steps: Floats = steps) -> object:
            return np.linalg.lstsq(design, steps, rcond=None)

        def suspects(inputs: AttributionInput = inputs) -> object:
            return attribute(inputs)

        floor = Row(f"{what}: one least squares", median_seconds(least_squares, runs=runs) * 1e3, "ms")
        rows += [floor, Row(f"{what}: attribute", median_seconds(suspects, runs=runs) * 1e3, "ms").over(floor)]
    return rows


def _series(runs: int) -> list[Row]:
    """What it costs to take a payload of 25 points, against walking through them."""
    series = ProcessSeries(ProcessInfo("id", "shop"))
    payloads = iter([_payload(1e9 + second, second) for second in range(15_000)])
    walked = _payload(1e9, 0)

    def walk() -> object:
        return [(metric, attributes, value) for metric, attributes, _, _, value, _, _ in walked.points]

    def add() -> object:
        return series.add(next(payloads), 2e9)

    floor = Row("series: walking 25 points", median_seconds(walk, runs=runs) * 1e6, "µs")
    return [floor, Row("series: adding 25 points", median_seconds(add, runs=runs) * 1e6, "µs").over(floor)]


def _payload(time: float, number: int) -> Payload:
    points = [
        Point(names.PROCESS_MEMORY_USAGE, (), time, None, 1e8 + number, "gauge"),
        Point(names.MEMORY_LIMIT, ((names.LIMIT_KIND, "cgroup_v2"),), time, None, 5e8, "gauge"),
        Point(names.HEAP_USAGE, ((names.HEAP_KIND, "arena"),), time, None, 5e6, "gauge"),
        Point(names.HEAP_USAGE, ((names.HEAP_KIND, "mmap"),), time, None, 5e6, "gauge"),
        Point(names.PYTHON_BLOCK_COUNT, (), time, None, 1e5 + number, "gauge"),
        Point(names.GC_FLOOR_USAGE, (), time, None, 1e8, "gauge"),
        Point(names.GC_COLLECTIONS, ((names.CPYTHON_GC_GENERATION, 2),), time, 1.0, number, "sum"),
        Point(names.PROCESS_UPTIME, (), time, None, time - 5, "gauge"),
        Point(names.PROCESS_INFO, ((names.PROCESS_PID, 4),), time, None, 1, "gauge"),
    ]
    for series in range(12):
        attributes = (
            ("http.request.method", "GET"),
            ("http.response.status_code", 200 + series % 2),
            ("http.route", f"/route/{series // 2}"),
        )
        points.append(Point("http.server.request.duration", attributes, time, 1.0, number * 3.0, "sum"))
    for operation in range(2):
        name = (names.OPERATION_NAME, f"shop.jobs:{operation}")
        status = (names.OPERATION_STATUS, "success")
        points.append(Point(names.OPERATION_CALLS, (name, status), time, 1.0, number, "sum"))
        points.append(Point(names.OPERATION_GROWTH, (name,), time, 1.0, number * 100.0, "gauge"))
    return Payload({"service.name": "shop", "service.instance.id": "a1"}, points, ())


if __name__ == "__main__":
    print_rows(TITLE, run(), machine_line(DISTRIBUTIONS, runs=5))
