"""What evidence costs: a tick without growth, a census, and the burst while it runs, against the same work without.

``python -m tests.benchmarks.bench_evidence`` prints the rows.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from otel_memory.probe import census
from otel_memory.probe.config import Settings
from otel_memory.probe.evidence_feature import EvidenceFeature
from otel_memory.probe.sources.heap import HeapSource
from otel_memory.probe.sources.process import ProcessSource
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "evidence"
FRAMES = 4
CATALOG = json.dumps([{"sku": number, "name": f"article {number}", "price": number / 7} for number in range(40)])


class Item:
    def __init__(self, number: int) -> None:
        self.number = number
        self.tags = [number]


def allocate() -> None:
    """Nothing but allocations."""
    for number in range(2_000):
        Item(number)


def request() -> str:
    """What a small endpoint does: decode, compute, encode."""
    articles = json.loads(CATALOG)
    total = sum(article["price"] for article in articles)
    return json.dumps({"total": total, "names": [article["name"].upper() for article in articles]})


def _tick(runs: int) -> Row:
    settings = Settings.load({})
    parts = SimpleNamespace(process=ProcessSource(), heap=HeapSource())
    around: Any = SimpleNamespace(settings=settings, parts=parts, background=None, emit=None)
    feature, now = EvidenceFeature(around), 0.0

    def beat() -> None:
        nonlocal now
        now += 1.0
        feature.tick(now)

    for _ in range(600):
        beat()
    row = Row("a tick without growth", median_seconds(beat, runs=runs) * 1e6, "µs")
    parts.process.close()
    return row


def _census(count: int) -> list[Row]:
    kept = [Item(number) for number in range(count // 2)]
    taken = census.take(max_pause_seconds=10)
    rows = [
        Row(f"a census of {taken.objects:,} objects, its longest pause", taken.pause_seconds * 1e3, "ms"),
        Row(f"a census of {taken.objects:,} objects, beside the program", taken.duration_seconds * 1e3, "ms"),
    ]
    kept.clear()
    return rows


def _burst(name: str, work: Callable[[], object], runs: int) -> list[Row]:
    plain = Row(name, median_seconds(work, runs=runs) * 1e3, "ms")
    tracemalloc.start(FRAMES)
    try:
        traced = Row(f"{name}, in a burst", median_seconds(work, runs=runs) * 1e3, "ms")
    finally:
        tracemalloc.stop()
    return [plain, traced.over(plain)]


def run(runs: int = 7) -> list[Row]:
    """The rows; about ten seconds."""
    return [
        _tick(runs),
        *_burst("2,000 objects made and dropped", allocate, runs),
        *_burst("a request that decodes and encodes JSON", request, runs),
        *_census(100_000),
        *_census(1_000_000),
    ]


def main(runs: int = 7) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line((), runs=runs))


if __name__ == "__main__":
    main()
