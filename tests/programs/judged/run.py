"""Runs the programs under ``opentelemetry-instrument``, with load, and follows what the analyzer says of them."""

from __future__ import annotations

import csv
import sys
import time
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.harness import Analyzer, Program, free_port, wait_until
from tests.harness.net import listens
from tests.programs.judged.catalog import PROGRAMS, Judged

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
SECONDS = 180.0
TOGETHER = 5
SETTINGS = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics,threading,sqlite3,httpx",
    "OTEL_PYTHON_MEMORY_LIMIT": "512MiB",
}
RECORDED = ("memory_bytes", "leak_score", "verdict", "growth_bytes_per_second")
RANKS = ("unknown", "healthy", "watch", "leaking")


@dataclass
class Seen:
    """What the analyzer said of one program over time."""

    program: Judged
    timeline: list[dict[str, Any]] = field(default_factory=list)
    """One for each change of what it said: ``seconds`` since the load began, and the process as the API gives it."""

    def add(self, seconds: float, process: dict[str, Any]) -> None:
        """The analyzer says this now."""
        self.timeline.append({"seconds": seconds, **process})

    @property
    def verdict(self) -> str:
        """The verdict at the end."""
        return self.timeline[-1]["verdict"] if self.timeline else "unknown"

    @property
    def worst(self) -> str:
        """The most alarming verdict at any time."""
        return max((one["verdict"] for one in self.timeline), key=RANKS.index, default="unknown")

    @property
    def seconds_to_verdict(self) -> float | None:
        """Until it was called leaking for the first time, or for good what it is at the end."""
        called = [one["seconds"] for one in self.timeline if one["verdict"] == "leaking"]
        if called:
            return float(called[0])
        since = None
        for one in reversed(self.timeline):
            if one["verdict"] != self.verdict:
                break
            since = one["seconds"]
        return since

    @property
    def verdict_is_right(self) -> bool:
        """Whether it is leaking or healthy, as it should be, at the end; to be watched is neither."""
        return self.verdict == ("leaking" if self.program.leaks else "healthy")

    def seconds_of(self, verdict: str) -> float:
        """How long it had a verdict, altogether."""
        told = list(pairwise(self.timeline))
        return float(sum(after["seconds"] - one["seconds"] for one, after in told if one["verdict"] == verdict))

    @property
    def false_alarm(self) -> bool:
        """Whether what is healthy was called leaking at any time."""
        return not self.program.leaks and self.worst == "leaking"

    @property
    def first_suspect(self) -> dict[str, Any] | None:
        """Whom it suspects first at the end."""
        suspects = self.timeline[-1]["suspects"] if self.timeline else []
        return suspects[0] if suspects else None

    @property
    def culprit_is_first(self) -> bool:
        """Whether that is who is to blame."""
        return self.first_suspect is not None and self.program.blames(self.first_suspect)

    def write(self, folder: Path) -> None:
        """The recorded series as CSV, for a look at what went wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{self.program.name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["time", *RECORDED, "suspects", "reasons"])
            for one in self.timeline:
                suspects = [f"{s['kind']} {s['name']} {s['share']:.2f} {s['confidence']:.2f}" for s in one["suspects"]]
                figures = [one[name] for name in RECORDED]
                rows.writerow([round(one["seconds"], 1), *figures, "; ".join(suspects), "; ".join(one["reasons"])])


def judge(
    names: Iterable[str],
    seconds: float = SECONDS,
    together: int = TOGETHER,
    settled: Callable[[Sequence[Seen]], bool] = lambda seen: False,
    keep: Path | None = None,
) -> Iterator[Seen]:
    """Run the programs, ``together`` at a time, each for ``seconds`` of load or until all at work have ``settled``.

    ``keep``: a folder for what the analyzers stored, one for each group, named by its first program.
    """
    waiting = [PROGRAMS[name] for name in names]
    while waiting:
        group, waiting = waiting[:together], waiting[together:]
        data_dir = None if keep is None else keep.absolute() / f"{group[0].name}.data"
        yield from _judge_together(group, seconds, settled, data_dir)


def _judge_together(
    group: Sequence[Judged], seconds: float, settled: Callable[[Sequence[Seen]], bool], data_dir: Path | None
) -> Sequence[Seen]:
    with ExitStack() as stack:
        analyzer = stack.enter_context(Analyzer(data_dir=data_dir))
        running = [(one, *_started(one, analyzer, stack)) for one in group]
        served = [(one, port) for one, port, _ in running if port]
        for one, port, program in running:
            wait_until(
                lambda port=port, program=program: (not port or listens(port)) and program.running,
                timeout_seconds=90,
                what=f"{one.name} is up",
            )
        if served:
            urls = [f"{one.name}=http://127.0.0.1:{port}" for one, port in served]
            argv = [sys.executable, "-m", "tests.programs.judged.load", *urls]
            stack.enter_context(Program(argv, cwd=ROOT, name="load"))
        return _follow(analyzer, [(one, program) for one, _, program in running], seconds, settled)


def _started(one: Judged, analyzer: Analyzer, stack: ExitStack) -> tuple[int, Program]:
    port = free_port() if one.requests else 0
    env = {
        **SETTINGS,
        "OTEL_SERVICE_NAME": one.name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": analyzer.http_endpoint,
        "PORT": str(port),
    }
    argv = [str(BIN / "opentelemetry-instrument"), sys.executable, str(one.path)]
    return port, stack.enter_context(Program(argv, env=env, name=one.name))


def _follow(
    analyzer: Analyzer,
    running: Sequence[tuple[Judged, Program]],
    seconds: float,
    settled: Callable[[Sequence[Seen]], bool],
) -> Sequence[Seen]:
    seen = {one.name: Seen(one) for one, _ in running}
    began = time.monotonic()
    while (age := time.monotonic() - began) < seconds and not settled(list(seen.values())):
        time.sleep(1.0)
        try:
            items = analyzer.get("/api/v1/processes?limit=100")["items"]
        except (OSError, urllib.error.URLError):
            continue  # a busy machine: ask again
        for item in items:
            if item["service_name"] in seen:
                seen[item["service_name"]].add(age, item)
        for one, program in running:
            assert program.running, f"{one.name} has ended by itself\n{program.tail()}"
    return list(seen.values())
