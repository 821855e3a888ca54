"""Runs the programs under ``opentelemetry-instrument``, with load, and follows what the analyzer says of them."""

from __future__ import annotations

import sys
import time
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.harness import Analyzer, Program, free_port, wait_until
from tests.harness.net import listens
from tests.programs.judged.catalog import PROGRAMS, Judged
from tests.programs.judged.recording import Recorder
from tests.programs.judged.seen import Seen

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


def judge(
    names: Iterable[str],
    seconds: float = SECONDS,
    together: int = TOGETHER,
    settled: Callable[[Sequence[Seen]], bool] = lambda seen: False,
    record: Path | None = None,
) -> Iterator[Seen]:
    """Run the programs, ``together`` at a time, each for ``seconds`` of load or until all at work have ``settled``.

    ``record``: a folder for what they sent; see ``recording``.
    """
    waiting = [PROGRAMS[name] for name in names]
    while waiting:
        group, waiting = waiting[:together], waiting[together:]
        yield from _judge_together(group, seconds, settled, record)


def _judge_together(
    group: Sequence[Judged], seconds: float, settled: Callable[[Sequence[Seen]], bool], record: Path | None
) -> Sequence[Seen]:
    with ExitStack() as stack:
        analyzer = stack.enter_context(Analyzer())
        recorder = None if record is None else stack.enter_context(Recorder(record, analyzer.http_endpoint))
        running = []
        for one in group:
            endpoint = analyzer.http_endpoint if recorder is None else recorder.endpoint(one.name)
            running.append((one, *_started(one, endpoint, stack)))
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
        if recorder is not None:
            recorder.load_began = time.time()
        return _follow(analyzer, [(one, program) for one, _, program in running], seconds, settled)


def _started(one: Judged, endpoint: str, stack: ExitStack) -> tuple[int, Program]:
    port = free_port() if one.requests else 0
    env = {
        **SETTINGS,
        "OTEL_SERVICE_NAME": one.name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
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
