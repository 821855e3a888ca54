"""A decorated call, against the least that measuring resident memory can cost: two readings in a plain wrapper.

``python -m tests.benchmarks.bench_operations`` prints the rows.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from otel_memory.probe.operations import monitor_memory
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "operations"
DISTRIBUTIONS = ("opentelemetry-sdk",)
UNIT = "µs"


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


def run(runs: int = 7) -> list[Row]:
    """The rows; some seconds."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)

    def row(name: str, work: Callable[[], object]) -> Row:
        return Row(name, median_seconds(work, runs=runs) * 1e6, UNIT)

    plain = row("a plain wrapper", _plain(_nothing))
    floor = row("a wrapper with two readings (floor)", _floor(_nothing, descriptor))
    decorated = row("@monitor_memory, no span", monitor_memory(_nothing))
    peak = row("@monitor_memory(peak=True), no span", monitor_memory(peak=True)(_nothing))

    # No processor: a batch's thread would add its processor time now to this row and now to that.
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("bench")
    measured = monitor_memory(_nothing)

    def bare_span() -> None:
        with tracer.start_as_current_span("s"):
            _nothing()

    def span() -> None:
        with tracer.start_as_current_span("s"):
            measured()

    bare = row("a recording span (the SDK alone)", bare_span)
    with_span = row("@monitor_memory in a recording span", span)
    with asyncio.Runner() as runner:

        async def many(fn: Callable[[], Any]) -> None:
            for _ in range(100):
                await fn()

        def per_call(name: str, fn: Callable[[], Any]) -> Row:
            return Row(name, median_seconds(lambda: runner.run(many(fn)), runs=runs) * 1e6 / 100, UNIT)

        coroutine = per_call("a coroutine", _nothing_async)
        measured_coroutine = per_call("@monitor_memory on a coroutine", monitor_memory(_nothing_async))
    provider.shutdown()
    os.close(descriptor)
    return [
        plain,
        floor,
        decorated.over(floor),
        peak.over(floor),
        bare,
        with_span.over(bare),
        Row("  of which the operation", with_span.value - bare.value, UNIT).over(floor),
        coroutine,
        measured_coroutine.over(coroutine),
        Row("  of which the operation", measured_coroutine.value - coroutine.value, UNIT).over(floor),
    ]


def main(runs: int = 7) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
