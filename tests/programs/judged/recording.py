"""What programs sent, kept in files, and judged again from there: in a second rather than in three minutes.

A recording is a gzipped file of JSON lines. The first one names the program and when its load began (s since the
epoch); each other one is a request as the program sent it: when, what signal, its body.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from otel_memory.analyzer.alerting import AlertingSettings
from otel_memory.analyzer.decode import Signal, decode
from otel_memory.analyzer.model import Alert, Assessment, Event
from otel_memory.analyzer.pipeline import Pipeline
from otel_memory.analyzer.series import SeriesTable
from otel_memory.analyzer.stats import Stats
from tests.harness.net import LOOPBACK, fetch
from tests.programs.judged.catalog import PROGRAMS
from tests.programs.judged.seen import Seen

SUFFIX = ".jsonl.gz"
FORWARD_SECONDS = 10.0


class Sent(NamedTuple):
    """One request of a program. ``at``: s since the epoch."""

    at: float
    signal: Signal
    body: bytes


class Recorder:
    """An OTLP endpoint for each program: keeps what comes, and hands it on if there is an analyzer to hand it to."""

    def __init__(self, folder: Path, forward_to: str) -> None:
        self._folder = folder
        self._forward_to = forward_to
        self._sent: dict[str, list[Sent]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.load_began = 0.0
        """When the load began (s since the epoch); set by whoever begins it."""

    def endpoint(self, program: str) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT`` with http/protobuf."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/{program}"

    def take(self, program: str, sent: Sent) -> None:
        """Keep a request and hand it on."""
        with self._lock:
            self._sent.setdefault(program, []).append(sent)
        fetch(
            f"{self._forward_to}/v1/{sent.signal}",
            data=sent.body,
            headers={"Content-Type": "application/x-protobuf"},
            timeout_seconds=FORWARD_SECONDS,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        if kind is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for program, requests in self._sent.items():
            _write(_free(self._folder, program), program, self.load_began, requests)


def recordings(folder: Path, programs: Collection[str] = ()) -> list[Path]:
    """The recordings in a folder, in the order of the catalogue; all, or those of some programs."""
    wanted = [name for name in PROGRAMS if not programs or name in programs]
    return [path for name in wanted for path in sorted(folder.rglob(f"{name}.*{SUFFIX}"))]


def replay(path: Path, alerting: AlertingSettings | None = None) -> Seen:
    """What the analyzer of this checkout says of a recording, request by request."""
    with gzip.open(path, "rt") as file:
        head = json.loads(file.readline())
        sent = [json.loads(line) for line in file]
    seen = Seen(PROGRAMS[head["program"]])
    readers = _Readers()
    pipeline = Pipeline(SeriesTable(), readers, Stats(), alerting=alerting)
    for one in sent:
        pipeline.process([decode(base64.b64decode(one["body"]), one["signal"], "protobuf")], one["at"])
        age = one["at"] - head["load_began"]
        if readers.latest and age >= 0:
            seen.add(age, _as_told(readers.latest))
    return seen


class _Readers:
    """Stands where the page and the API read."""

    latest: Assessment | None = None

    def publish(
        self,
        assessments: Collection[Assessment] = (),
        alerts: Collection[Alert] = (),
        *,
        events: Mapping[str, Sequence[Event]] | None = None,
        forget: Collection[str] = (),
    ) -> None:
        for one in assessments:
            self.latest = one


def _as_told(one: Assessment) -> dict[str, Any]:
    """The part of what the API tells of a process that is looked at here."""
    return {
        "memory_bytes": one.memory_bytes,
        "leak_score": one.leak_score,
        "verdict": one.verdict.value,
        "growth_bytes_per_second": one.growth_bytes_per_second,
        "suspects": [
            {"kind": s.kind, "name": s.name, "share": s.share, "confidence": s.confidence, "evidence": s.evidence}
            for s in one.suspects
        ],
        "reasons": list(one.reasons),
    }


def _handler(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            at = time.time()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            program, _, signal = self.path.strip("/").partition("/v1/")
            try:
                recorder.take(program, Sent(at, signal, body))  # type: ignore[arg-type]
            except OSError:
                self._answer(503)
            else:
                self._answer(200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of each request."""

    return Handler


def _free(folder: Path, program: str) -> Path:
    number = 1
    while (path := folder / f"{program}.{number}{SUFFIX}").exists():
        number += 1
    return path


def _write(path: Path, program: str, load_began: float, requests: Iterable[Sent]) -> None:
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"program": program, "load_began": load_began}) + "\n")
        for one in requests:
            body = base64.b64encode(one.body).decode()
            file.write(json.dumps({"at": one.at, "signal": one.signal, "body": body}) + "\n")
