"""What evidence costs: a tick without growth, a census, and a burst: in its pieces and over all of it, against the
same work without.

``python -m tests.benchmarks.bench_evidence`` prints the rows.
"""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from otel_memory.probe import burst, census
from otel_memory.probe.config import Settings
from otel_memory.probe.evidence_feature import EvidenceFeature
from otel_memory.probe.sources.heap import HeapSource
from otel_memory.probe.sources.process import ProcessSource
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "evidence"
SETTINGS = Settings.load({})
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
    parts = SimpleNamespace(process=ProcessSource(), heap=HeapSource())
    around: Any = SimpleNamespace(settings=SETTINGS, parts=parts, background=None, emit=None)
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
    tracemalloc.start(SETTINGS.evidence_frames)
    try:
        traced = Row(f"{name}, in a piece of a burst", median_seconds(work, runs=runs) * 1e3, "ms")
    finally:
        tracemalloc.stop()
    return [plain, traced.over(plain)]


def _whole_burst() -> list[Row]:
    """One thread that serves without a pause, while a burst with the default settings comes and goes beside it."""
    ended, took = threading.Event(), [0.0]

    def trace() -> None:
        began = time.perf_counter()
        burst.run(SETTINGS.evidence_burst_seconds, frames=SETTINGS.evidence_frames, max_pause_seconds=0.05)
        took[0] = time.perf_counter() - began
        ended.set()

    def serve(until: Callable[[], bool]) -> tuple[float, float]:
        longest, count, began = 0.0, 0, time.perf_counter()
        while not until():
            started = time.perf_counter()
            request()
            longest, count = max(longest, time.perf_counter() - started), count + 1
        return (time.perf_counter() - began) / count, longest

    thread = threading.Thread(target=trace)
    thread.start()
    with_burst, longest = serve(ended.is_set)
    thread.join()
    end = time.perf_counter() + took[0]
    plain, longest_plain = serve(lambda: time.perf_counter() >= end)
    alone = Row("a request, one after the other", plain * 1e3, "ms")
    return [
        alone,
        Row(f"a request, over a whole burst of {took[0]:.0f} s", with_burst * 1e3, "ms").over(alone),
        Row("the longest of those requests", longest * 1e3, "ms"),
        Row("the longest request without", longest_plain * 1e3, "ms"),
    ]


def run(runs: int = 7) -> list[Row]:
    """The rows; about twenty seconds."""
    return [
        _tick(runs),
        *_burst("2,000 objects made and dropped", allocate, runs),
        *_burst("a request that decodes and encodes JSON", request, runs),
        *_whole_burst(),
        *_census(100_000),
        *_census(1_000_000),
    ]


def main(runs: int = 7) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line((), runs=runs))


if __name__ == "__main__":
    main()
