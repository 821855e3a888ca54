"""The probe's own memory: a web application with the bare SDK, with the probe, with features of it, and with peers.

Each variant runs several times side by side under ``opentelemetry-instrument``, spans and metrics leaving by OTLP, and
is weighed from outside after twenty seconds: resident memory, and the private part of it, which is what one more
process costs. ``python -m tests.benchmarks.bench_memory`` prints the rows.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.rows import Row, machine_line, print_rows
from tests.benchmarks.web_server import BARE, CONTRIB, PROBE, ROOT, VARIANTS, sink, variants_of_sherlock
from tests.harness.process import clean_environment

TITLE = "memory"
DISTRIBUTIONS = ("flask", "opentelemetry-sdk", "psutil")
SECONDS = 20
COPIES = 3
_MEMORY = "OTEL_PYTHON_MEMORY_"
_PROBE = VARIANTS[PROBE]
FEATURES: Mapping[str, Mapping[str, str]] = {
    BARE: VARIANTS[BARE],
    PROBE: _PROBE,
    "… without evidence and snapshots": {**_PROBE, f"{_MEMORY}EVIDENCE": "none", f"{_MEMORY}SNAPSHOTS": "0"},
    "… with log enrichment": {**_PROBE, f"{_MEMORY}LOG_ENRICHMENT": "true"},
    "… with packages": {**_PROBE, f"{_MEMORY}PACKAGES": "true"},
    "… with events in a file": {**_PROBE, f"{_MEMORY}EVENTS": "file"},
    CONTRIB: VARIANTS[CONTRIB],
    "psutil alone (contrib's and the probe's only dependency)": {**VARIANTS[BARE], "BENCH_IMPORT": "psutil"},
}


def _started(env: Mapping[str, str], endpoint: str, folder: str) -> subprocess.Popen[str]:
    full = {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "PYTHONPATH": str(ROOT),
        **env,
    }
    return subprocess.Popen(
        [
            str(Path(sys.executable).with_name("opentelemetry-instrument")),
            *(sys.executable, "-m", "tests.benchmarks.memory_program", str(SECONDS)),
        ],
        cwd=folder,
        env=clean_environment(full),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _weigh(pid: int) -> tuple[float, float]:
    """Resident and private MB (proc(5), smaps_rollup)."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[2] == "kB":
            sizes[fields[0]] = int(fields[1]) * 1024 / 1e6
    return sizes["Rss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"]


def run(runs: int = COPIES) -> list[Row]:
    """The rows; about a minute."""
    variants = {**FEATURES, **variants_of_sherlock()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        endpoint = stack.enter_context(sink())
        started = [(name, _started(env, endpoint, folder)) for _ in range(runs) for name, env in variants.items()]
        for _, process in started:
            stack.callback(_end, process)
        for name, process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "done\n":
                raise RuntimeError(f"the application {name} has ended early")
            found[name].append(_weigh(process.pid))
    return [row for index, what in enumerate(("resident", "private")) for row in _rows(what, index, found)]


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _rows(what: str, index: int, found: Mapping[str, list[tuple[float, float]]]) -> list[Row]:
    medians = {name: statistics.median(pair[index] for pair in pairs) for name, pairs in found.items()}
    floor = Row(f"{what}, {BARE}", medians[BARE], "MB")
    rows = [floor]
    for name, pairs in found.items():
        if name != BARE:
            lowest, highest = (bound(pair[index] for pair in pairs) - medians[BARE] for bound in (min, max))
            more = f"{what}, {name}: {medians[name] - medians[BARE]:+.2f} MB ({lowest:+.2f} to {highest:+.2f})"
            rows.append(Row(more, medians[name], "MB").over(floor))
    return rows


def main(runs: int = COPIES) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
