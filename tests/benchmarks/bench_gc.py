"""The garbage collector's hook: programs that do nothing but allocate, with the hook and without it, in turns.

The probe listens to every collection. What that costs is the hook's own time, against what a collection takes; here
stand the hook alone and whole programs: by time, whose spread is wider than the cost where a machine is shared, and by
the number of their collections, which is exact. The pauses are drained once a turn, as the sampler does.
``python -m tests.benchmarks.bench_gc`` prints the rows.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from otel_memory.probe.reader import read_rss
from otel_memory.probe.sources.gc import GcSource
from tests.benchmarks.rows import Rounds, Row, in_turns, machine_line, microseconds, print_rows

TITLE = "gc"
UNIT = "ms"
REPEATS = 2
TURNS = 12
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


@contextmanager
def _listening(source: GcSource) -> Iterator[None]:
    source.install()
    try:
        yield
    finally:
        source.uninstall()
        source.drain()


def _pairs(work: Callable[[], None], source: GcSource) -> tuple[float, float]:
    """Milliseconds of this thread's processor time without the hook and with it: many short turns, A B B A."""
    without = hooked = 0.0
    gc.collect()
    for turn in range(TURNS):
        for listening in (False, True) if turn % 2 else (True, False):
            if not listening:
                without += _milliseconds(work)
                continue
            with _listening(source):
                hooked += _milliseconds(work)
    return without, hooked


def _collections(work: Callable[[], None]) -> int:
    """How many collections one turn makes."""
    before = [int(each["collections"]) for each in gc.get_stats()]
    _milliseconds(work)
    return sum(int(each["collections"]) for each in gc.get_stats()) - sum(before)


def _milliseconds(work: Callable[[], None]) -> float:
    began = time.thread_time()
    for _ in range(REPEATS):
        work()
    return (time.thread_time() - began) * 1e3


def run(runs: int = 11) -> list[Row]:
    """The rows; some ten seconds."""
    source = GcSource(read_rss)
    least, alone = _alone(source, runs)
    rows = [least.row(), alone.over(least)]
    gc.collect()
    gc.freeze()  # what is there already is no part of the programs, and a full collection need not look at it
    try:
        for name, work in PROGRAMS.items():
            _pairs(work, source)
            without, hooked = zip(*(_pairs(work, source) for _ in range(runs)), strict=True)
            bare = Rounds(name, UNIT, without)
            collections = _collections(work)
            spent = TURNS * collections * alone.row().value / 1e3
            rows += [
                bare.row(),
                Rounds(f"  {name}, with the hook", UNIT, hooked).over(bare),
                Row(f"  {name}, {TURNS * collections} collections × the hook", bare.row().value + spent, UNIT).over(
                    bare.row()
                ),
            ]
        return rows
    finally:
        gc.unfreeze()


def _alone(source: GcSource, runs: int) -> tuple[Rounds, Rounds]:
    """A young collection of nothing: what any callback adds to it, and what the hook adds."""
    bare = microseconds(lambda: gc.collect(0))

    def empty() -> float:
        gc.callbacks.append(_empty)
        try:
            return bare()
        finally:
            gc.callbacks.remove(_empty)

    def hooked() -> float:
        with _listening(source):
            return bare()

    found = in_turns({"nothing": bare, "empty": empty, "hooked": hooked}, "µs", runs)
    nothing = found["nothing"]
    return (
        found["empty"].minus(nothing, "an empty callback adds to a collection (floor)"),
        found["hooked"].minus(nothing, "the hook adds to a collection"),
    )


def _empty(phase: str, info: dict[str, int]) -> None:
    return


def main(runs: int = 11) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line((), runs=runs))


if __name__ == "__main__":
    main()
