"""What the features beside the readings cost when they are used, each in a process with a running probe.

``python -m tests.benchmarks.bench_features`` prints the rows.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import otel_memory
from otel_memory.probe.config import Settings
from otel_memory.probe.lifecycle import Probe
from tests.benchmarks.rows import Row, in_turns, machine_line, median_seconds, microseconds, print_rows

TITLE = "features"
OBJECTS = 100_000


class _Item:
    def __init__(self, number: int) -> None:
        self.number = number


def _formatted() -> Callable[[], None]:
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    stream: io.StringIO = handler.stream

    def work() -> None:
        logger.info("served %d bytes", 5)
        stream.seek(0)

    return work


def _enriched(measure: Callable[[], float]) -> Callable[[], float]:
    def enriched() -> float:
        otel_memory.enrich_logs(True)
        try:
            return measure()
        finally:
            otel_memory.enrich_logs(False)

    return enriched


def run(runs: int = 15) -> list[Row]:
    """The rows; some ten seconds."""
    probe = Probe(Settings())
    probe.start()
    try:
        plain = microseconds(_formatted())
        logs = in_turns({"a log record, formatted": plain, "a log record, enriched": _enriched(plain)}, "µs", runs)
        bare, enriched = logs.values()
        profiler = otel_memory.MemoryProfiler()
        rows = [bare.row(), enriched.over(bare)]
        kept = [_Item(number) for number in range(OBJECTS)]
        for name, work in {
            "a snapshot": profiler.take_snapshot,
            "a health check": otel_memory.health_check_sync,
            "the split of resident memory": otel_memory.memory_breakdown,
            f"counting a class with {OBJECTS:,} instances": lambda: otel_memory.count_instances(_Item),
            f"a diagnostic collection, {OBJECTS:,} objects": otel_memory.diagnostic_gc_run,
        }.items():
            rows.append(Row(name, median_seconds(work, runs=5) * 1e6, "µs"))
        kept.clear()
        return rows
    finally:
        probe.stop()


def main(runs: int = 15) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line((), runs=runs))


if __name__ == "__main__":
    main()
