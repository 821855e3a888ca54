"""A decorated call, against the least that measuring resident memory can cost: two readings in a plain wrapper.

``python -m tests.benchmarks.bench_operations`` prints the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Tracer, get_current_span

from otel_memory.probe.operations import MemoryTracker, monitor_memory
from tests.benchmarks.peer import NAME as SHERLOCK
from tests.benchmarks.peer import sherlock_folder
from tests.benchmarks.rows import Row, in_turns, machine_line, microseconds, print_rows

TITLE = "operations"
DISTRIBUTIONS = ("opentelemetry-sdk",)
UNIT = "µs"
FLOOR = "a wrapper with two readings (floor)"


def _nothing() -> None: ...


async def _nothing_async() -> None: ...


def _plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """What any decorator costs."""

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapped


def _floor(fn: Callable[..., Any], descriptor: int) -> Callable[..., Any]:
    """A wrapper that does no more than take two readings."""
    pread = os.pread

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before = int(pread(descriptor, 128, 0).split(None, 2)[1])
        try:
            return fn(*args, **kwargs)
        finally:
            int(pread(descriptor, 128, 0).split(None, 2)[1]) - before

    return wrapped


def run(runs: int = 15) -> list[Row]:
    """The rows; some ten seconds."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    # No processor: a batch's thread would add its processor time now to this row and now to that.
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("bench")
    unsampled = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("bench")
    measured = monitor_memory(_nothing)

    def in_span(tracer: Tracer, fn: Callable[[], object]) -> Callable[[], object]:
        def call() -> None:
            with tracer.start_as_current_span("s"):
                fn()

        return call

    with asyncio.Runner() as runner:

        def many(fn: Callable[[], Any]) -> Callable[[], object]:
            async def calls() -> None:
                for _ in range(100):
                    await fn()

            return lambda: runner.run(calls())

        measures = {
            "a plain wrapper": microseconds(_plain(_nothing)),
            FLOOR: microseconds(_floor(_nothing, descriptor)),
            "@monitor_memory, no span": microseconds(measured),
            "with MemoryTracker(…), no span": microseconds(_in_block),
            "@monitor_memory(peak=True), no span": microseconds(monitor_memory(peak=True)(_nothing)),
            "a recording span (the SDK alone)": microseconds(in_span(tracer, _nothing)),
            "@monitor_memory in a recording span": microseconds(in_span(tracer, measured)),
            "five attributes on a recording span (the SDK alone)": microseconds(in_span(tracer, _five_attributes)),
            "a span that isn't sampled (the SDK alone)": microseconds(in_span(unsampled, _nothing)),
            "@monitor_memory in a span that isn't sampled": microseconds(in_span(unsampled, measured)),
            "a coroutine": _hundredth(microseconds(many(_nothing_async))),
            "@monitor_memory on a coroutine": _hundredth(microseconds(many(monitor_memory(_nothing_async)))),
        }
        found = in_turns(measures, UNIT, runs)
    cold = _cold({FLOOR: _floor(_nothing, descriptor), "@monitor_memory, no span": measured})
    provider.shutdown()
    os.close(descriptor)

    floor, call = found[FLOOR], found["@monitor_memory, no span"]
    bare = found["a recording span (the SDK alone)"]
    spanned = found["@monitor_memory in a recording span"].minus(bare, "  in a recording span: what it adds")
    five = found["five attributes on a recording span (the SDK alone)"].minus(bare, "  five attributes by the SDK")
    off = found["@monitor_memory in a span that isn't sampled"].minus(
        found["a span that isn't sampled (the SDK alone)"], "  in a span that isn't sampled: what it adds"
    )
    coroutine = found["@monitor_memory on a coroutine"].minus(found["a coroutine"], "  of a coroutine: what it adds")
    peers = [each.over(call.row()) for each in _of_sherlock()]
    return [
        found["a plain wrapper"].row(),
        floor.row(),
        call.over(floor),
        cold[FLOOR],
        cold["@monitor_memory, no span"].over(cold[FLOOR]),
        found["with MemoryTracker(…), no span"].over(floor),
        found["@monitor_memory(peak=True), no span"].over(floor),
        found["@monitor_memory in a recording span"].over(bare),
        spanned.over(floor),
        five.row(),
        spanned.minus(call, "  of which the attributes on the span").over(five),
        off.over(floor),
        coroutine.over(floor),
        *peers,
    ]


def _cold(fns: Mapping[str, Callable[[], object]], calls: int = 2_000) -> dict[str, Row]:
    """Microseconds of single calls, each after some work of another kind, which leaves neither the processor's caches
    nor the process's memory as they were: what a call costs that isn't one of a thousand in a row. Medians."""
    document = json.dumps([{"number": number, "price": number / 7} for number in range(150)])
    chance = random.Random(1)
    taken: dict[str, list[int]] = {name: [] for name in fns}
    order = list(fns)
    for _ in range(calls):
        chance.shuffle(order)
        for name in order:
            work = fns[name]
            rows = json.loads(document)
            kept = bytearray(chance.randrange(1, 400) * 4096)
            began = time.perf_counter_ns()
            work()
            taken[name].append(time.perf_counter_ns() - began)
            del rows, kept
    return {name: Row(f"{name}, between other work", statistics.median(ns) / 1e3, UNIT) for name, ns in taken.items()}


def _of_sherlock() -> list[Row]:
    """That library's decorator on the same function, with its tracemalloc and without. Last, because it loads much."""
    folder = sherlock_folder()
    if folder is None:
        return []
    sys.path.append(str(folder))
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # it writes files where it is
        try:
            with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                warnings.simplefilter("ignore")
                theirs = importlib.import_module("sherlock_ai").monitor_memory
                found = in_turns(
                    {
                        f"{SHERLOCK}, tracemalloc {'on' if traced else 'off'} (peer)": microseconds(
                            theirs(trace_malloc=traced)(_nothing)
                        )
                        for traced in (False, True)
                    },
                    UNIT,
                    5,
                )
        finally:
            os.chdir(before)
            sys.path.remove(str(folder))
    return [each.row() for each in found.values()]


def _in_block() -> None:
    with MemoryTracker("block"):
        pass


def _five_attributes() -> None:
    get_current_span().set_attributes(
        {"bench.name": "module.function", "bench.overlap": False, "bench.before": 1, "bench.after": 2, "bench.delta": 1}
    )


def _hundredth(measure: Callable[[], float]) -> Callable[[], float]:
    return lambda: measure() / 100


def main(runs: int = 15) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
