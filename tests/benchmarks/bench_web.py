"""A real web application's throughput and latency, with and without the probe, beside its peers.

All variants of the application run; a process of its own loads one after the other, each for most of a second, round
after round in changing order, four connections in a closed loop. The ratios are those of each round, to the bare SDK in
the same round. The processor time of a request counts all threads of the worker (the sampler's and the exporters'
too) and is the steadier figure where the machine is shared. The bare SDK runs twice: the second shows what chance does.
``python -m tests.benchmarks.bench_web`` prints the rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.rows import Rounds, Row, machine_line, print_rows
from tests.benchmarks.web_server import BARE, ROOT, VARIANTS, Server, serving, sink, variants_of_sherlock

TITLE = "web"
DISTRIBUTIONS = ("flask", "gunicorn", "opentelemetry-sdk", "opentelemetry-instrumentation-flask")
CONNECTIONS = 4
PATH = "/shop/5"
SECONDS = 0.8
WARM_UP_SECONDS = 1.5


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _load(loader: subprocess.Popen[str], server: Server, seconds: float) -> dict[str, float]:
    to, back = loader.stdin, loader.stdout
    assert to is not None
    assert back is not None
    before = _cpu_seconds(server.worker)
    to.write(f"{server.port} {PATH} {CONNECTIONS} {seconds}\n")
    to.flush()
    line = back.readline()
    if not line:
        raise RuntimeError("the load has failed (its own words are above)")
    found: dict[str, float] = json.loads(line)
    cpu = _cpu_seconds(server.worker) - before
    return {
        "throughput": found["requests"] / found["seconds"],
        "processor time": cpu / found["requests"] * 1e6,
        "p50": found["p50"],
        "p99": found["p99"],
    }


UNITS = {"throughput": "requests/s", "processor time": "µs/request", "p50": "ms", "p99": "ms"}


def run(runs: int = 10) -> list[Row]:
    """The rows; somewhat more than a minute and a half."""
    variants = {**VARIANTS, **variants_of_sherlock()}
    values: dict[str, dict[str, list[float]]] = {what: {name: [] for name in variants} for what in UNITS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoint = stack.enter_context(sink())
        servers = {name: stack.enter_context(serving(env, endpoint, folder)) for name, env in variants.items()}
        loader = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.web_load"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        for server in servers.values():
            _load(loader, server, WARM_UP_SECONDS)
        order = list(servers)
        for number in range(runs):
            for name in order if number % 2 else reversed(order):
                for what, value in _load(loader, servers[name], SECONDS).items():
                    values[what][name].append(value)
            order = order[1:] + order[:1]
        assert loader.stdin is not None
        loader.stdin.close()
    rows = []
    for what, unit in UNITS.items():
        found = {name: Rounds(f"{what}, {name}", unit, values[what][name]) for name in variants}
        rows += [found[BARE].row(), *(found[name].over(found[BARE]) for name in variants if name != BARE)]
    return rows


def main(runs: int = 10) -> None:
    """Print the rows."""
    print_rows(TITLE, run(runs), machine_line(DISTRIBUTIONS, runs=runs))


if __name__ == "__main__":
    main()
