"""The garbage collector's hook: programs that do nothing but allocate, with the hook and without it, in turns.

The probe listens to collections, up to a number of them between two beats of its sampler, which come once a second. So
a turn is a second of a program and one beat: with the hook, with its pauses going into a histogram of the SDK, and
without. What that costs is told twice: by time, whose spread is wider than the cost where a machine is shared, and by
what was counted: the collections that the hook took, times what one takes. ``python -m tests.benchmarks.bench_gc``
prints the rows.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory.probe.reader import read_rss
from otel_memory.probe.sources import Gate
from otel_memory.probe.sources.gc import GcSource
from tests.benchmarks.rows import Rounds, Row, in_turns, machine_line, microseconds, print_rows

TITLE = "gc"
DISTRIBUTIONS = ("opentelemetry-sdk",)
UNIT = "ms"
TURN_SECONDS = 1.0
PIECES = 4
"""Each turn is cut into so many, with the hook and without by turns, so that the machine's other work meets both."""
CATALOG = json.dumps([{"sku": n, "name": f"article {n}", "tags": [n, n + 1], "price": n / 7} for n in range(200)])


class _Node:
    def __init__(self, depth: int) -> None:
        self.children = [_Node(depth - 1) for _ in range(2)] if depth else []


def _decode() -> None:
    """A batch is decoded, is there as a whole, and goes: ten thousand containers, more than a dozen collections."""
    batch = [json.loads(CATALOG) for _ in range(25)]
    batch.clear()


def _trees() -> None:
    """binary-trees, the allocation benchmark of many languages: no cycles, twenty thousand containers."""
    trees = [_Node(6) for _ in range(80)]
    trees.clear()


def _cycles() -> None:
    """The worst: nothing but garbage that only the collector can free."""
    for _ in range(4_000):
        ring: list[object] = []
        ring.append(ring)


PROGRAMS: dict[str, Callable[[], None]] = {
    "decoding JSON in batches": _decode,
    "binary trees": _trees,
    "nothing but cycles": _cycles,
}


class _Probed:
    """The source as a probe has it, its histogram in a real SDK."""

    def __init__(self) -> None:
        self.provider = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
        self.source = GcSource(read_rss)
        self.source.register(self.provider.get_meter("bench"), Gate(lambda part, error: None))

    def beat(self) -> None:
        """What the sampler does once a second."""
        self.source.record_pauses()


def _pair(work: Callable[[], None], probed: _Probed) -> tuple[float, float, int, int]:
    """Milliseconds of this thread's processor time that the work takes without the hook and with it, and the
    collections meanwhile with it: those that the hook took, and all."""
    spent, done = [0.0, 0.0], [0, 0]
    collections = 0
    gc.collect()
    probed.source.drain()
    for piece in range(2 * PIECES):
        hooked = piece % 4 in (1, 2)
        before = _collections()
        began = time.thread_time()
        if hooked:
            probed.source.install()
        while time.thread_time() - began < TURN_SECONDS / PIECES:
            work()
            done[hooked] += 1
        if hooked:
            probed.source.uninstall()
            collections += _collections() - before
        spent[hooked] += time.thread_time() - began
    began = time.thread_time()
    taken = len(probed.source.record_pauses())
    spent[True] += time.thread_time() - began
    return spent[False] / done[False] * 1e3, spent[True] / done[True] * 1e3, taken, collections


def _collections() -> int:
    return sum(int(each["collections"]) for each in gc.get_stats())


def run(runs: int = 11) -> list[Row]:
    """The rows; some two seconds for each run and program."""
    probed = _Probed()
    least, alone, recorded = _alone(probed, runs)
    rows = [least.row(), alone.over(least), recorded.row()]
    each = (alone.row().value + recorded.row().value) / 1e3
    gc.collect()
    gc.freeze()  # what is there already is no part of the programs, and a full collection need not look at it
    try:
        for name, work in PROGRAMS.items():
            _pair(work, probed)
            without, hooked, taken, collections = zip(*(_pair(work, probed) for _ in range(runs)), strict=True)
            bare = Rounds(name, UNIT, without)
            second = Row("", TURN_SECONDS * 1e3, UNIT)
            spent = each * sum(taken) / runs
            rows += [
                bare.row(),
                Rounds(f"  {name}, with the hook", UNIT, hooked).over(bare),
                Row(
                    f"  {name}, {sum(taken) / runs:.0f} of {sum(collections) / runs:,.0f} collections a second"
                    " × what one takes",
                    second.value + spent,
                    UNIT,
                    (second.value + spent) / second.value,
                    "a second",
                ),
            ]
        return rows
    finally:
        gc.unfreeze()
        probed.provider.shutdown()


def _alone(probed: _Probed, runs: int) -> tuple[Rounds, Rounds, Rounds]:
    """A young collection of nothing: what any callback adds to it, what the hook adds, and what a beat takes for it."""
    source = GcSource(read_rss, capacity=1 << 20)  # never away
    bare = microseconds(lambda: gc.collect(0))

    def empty() -> float:
        gc.callbacks.append(_empty)
        try:
            return bare()
        finally:
            gc.callbacks.remove(_empty)

    def hooked() -> float:
        source.install()
        try:
            return bare()
        finally:
            source.uninstall()
            source.drain()

    def beat() -> float:
        probed.source.install()
        for _ in range(200):
            gc.collect(0)
        probed.source.uninstall()
        began = time.thread_time()
        taken = len(probed.source.record_pauses())
        return (time.thread_time() - began) / taken * 1e6

    found = in_turns({"nothing": bare, "empty": empty, "hooked": hooked, "beat": beat}, "µs", runs)
    nothing = found["nothing"]
    return (
        found["empty"].minus(nothing, "an empty callback adds to a collection (floor)"),
        found["hooked"].minus(nothing, "the hook adds to a collection"),
        Rounds("recording its pause, once a second, for a collection", "µs", found["beat"].values),
    )


def _empty(phase: str, info: dict[str, int]) -> None:
    return


def main(runs: int = 11) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
