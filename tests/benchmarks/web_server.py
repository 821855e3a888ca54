"""The web application under gunicorn and ``opentelemetry-instrument``, once for each set of telemetry compared.

One worker with four threads, spans and metrics leaving by OTLP over HTTP for a sink on this machine, metrics every
five seconds. What differs between the variants is the environment, and nothing else.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from tests.benchmarks.peer import NAME as SHERLOCK
from tests.benchmarks.peer import sherlock_folder
from tests.harness.net import fetch, free_port
from tests.harness.process import Child, clean_environment
from tests.harness.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 60.0
DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
BARE: Final = "the bare SDK (floor)"
AGAIN: Final = "the bare SDK again (what chance does)"
PROBE: Final = "with the probe as it comes"
MEASURED: Final = "with the probe, the handler's work measured"
ALL_ON: Final = "with the probe, the handler's work measured, logs enriched"
CONTRIB: Final = "with contrib's system-metrics (peer)"
VARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    BARE: {DISABLED: "otel_memory,system_metrics"},
    AGAIN: {DISABLED: "otel_memory,system_metrics"},
    PROBE: {DISABLED: "system_metrics"},
    MEASURED: {
        DISABLED: "system_metrics",
        "OTEL_PYTHON_MEMORY_OPERATIONS": "tests.benchmarks.web_app:work",
    },
    ALL_ON: {
        DISABLED: "system_metrics",
        "OTEL_PYTHON_MEMORY_OPERATIONS": "tests.benchmarks.web_app:work",
        "OTEL_PYTHON_MEMORY_LOG_ENRICHMENT": "true",
    },
    CONTRIB: {DISABLED: "otel_memory"},
}


def variants_of_sherlock() -> dict[str, dict[str, str]]:
    """The bare SDK with the handler's work under that library's decorator; none where it can't be installed."""
    folder = sherlock_folder()
    if folder is None:
        return {}
    env = {**VARIANTS[BARE], "BENCH_SHERLOCK": str(folder)}
    return {
        f"with {SHERLOCK}, the handler's work measured, tracemalloc off (peer)": {**env, "BENCH_SHERLOCK_TRACE": "0"},
        f"with {SHERLOCK}, the handler's work measured, as it comes (peer)": env,
    }


@dataclass(frozen=True)
class Server:
    """A running application."""

    port: int
    worker: int
    """The process that answers."""


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def sink() -> Iterator[str]:
    """An OTLP receiver that throws everything away; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def serving(variant: Mapping[str, str], endpoint: str, folder: Path) -> Iterator[Server]:
    """The application with the environment of ``variant``, its telemetry going to ``endpoint``."""
    port = free_port()
    env = {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "OTEL_LOGS_EXPORTER": "otlp",
        "PYTHONHASHSEED": "0",  # else the order of sets, and with it the speed, is another in each process
        "PYTHONPATH": str(ROOT),
        **variant,
    }
    command = [
        str(Path(sys.executable).with_name("opentelemetry-instrument")),
        *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1"),
        *("--worker-class", "gthread", "--threads", "4", "--no-control-socket", "tests.benchmarks.web_app:app"),
    ]
    log = folder / f"{port}.log"
    child = Child(command, env=clean_environment(env), cwd=folder, log=log)
    try:

        def worker() -> int | None:
            if not child.running:
                raise RuntimeError(f"the application has ended:\n{log.read_text()[-2000:]}")
            try:
                return int(fetch(f"http://127.0.0.1:{port}/pid"))
            except OSError:
                return None

        yield Server(port, wait_until(worker, timeout_seconds=START_SECONDS, what="the application") or 0)
    finally:
        child.stop()
