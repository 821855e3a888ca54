"""What an application does while its broker goes away: the program of ``bench_kafka_exporter``.

Runs under the launcher until the file that it is given is there, then writes beside it when each operation began and
how long it took.
"""

from __future__ import annotations

import sys
import time
from array import array
from pathlib import Path

from opentelemetry import metrics
from opentelemetry._logs import get_logger

PAUSE_SECONDS = 0.004


def main() -> None:
    """Operations one after the other, each with a metric, a log record and a little work."""
    stop = Path(sys.argv[1])
    calls = metrics.get_meter("outage").create_counter("outage.calls")
    took = metrics.get_meter("outage").create_histogram("outage.duration", "s")
    logger = get_logger("outage")
    found = array("d")
    number = 0
    while number % 50 or not stop.exists():
        began = time.perf_counter()
        sum(range(5_000))
        calls.add(1, {"route": "/cart"})
        logger.emit(timestamp=time.time_ns(), body=f"number {number}")
        took.record(0.001, {"route": "/cart"})
        found.extend((time.monotonic(), time.perf_counter() - began))
        number += 1
        time.sleep(PAUSE_SECONDS)
    with stop.with_suffix(".times").open("wb") as output:
        found.tofile(output)


if __name__ == "__main__":
    main()
