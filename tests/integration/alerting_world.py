"""What the tests of alerts share: processes that leak at speed, and a receiver of messages.

The leaks are made up and come through the real HTTP receiver: their event times lie in the past, so minutes of them
take seconds.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.analyzer.made_up import MadeUp
from tests.harness import Analyzer, fetch, fetch_json

PAST_SECONDS = 900
MOST_SAMPLES = 400
Json = dict[str, Any]


class Feeder:
    """Sends the samples of processes, all of one time in one request, each once the one before is taken."""

    def __init__(self, analyzer: Analyzer, processes: Sequence[MadeUp] | None = None, past: int = PAST_SECONDS) -> None:
        self.analyzer = analyzer
        self.processes = processes or [MadeUp(begin=float(int(time.time())) - past)]
        self.next = 0

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            request = ExportMetricsServiceRequest()
            for process in self.processes:
                process.add_to(request, self.next)
            fetch(
                f"{self.analyzer.http_endpoint}/v1/metrics",
                data=request.SerializeToString(),
                headers={"content-type": "application/x-protobuf"},
                timeout_seconds=60,
            )
            self.next += 1

    def send_until(self, seen: Callable[[], Any]) -> None:
        while not seen():
            assert self.next < MOST_SAMPLES, "it did not come true in time"
            self.send()


def alerts(analyzer: Analyzer, state: str | None = None) -> list[Json]:
    items: list[Json] = analyzer.get("/api/v1/alerts" + (f"?state={state}" if state else ""))["items"]
    return items


def firing(analyzer: Analyzer, count: int = 1) -> Callable[[], bool]:
    return lambda: len(alerts(analyzer, "firing")) == count


def outputs(analyzer: Analyzer) -> dict[str, Json]:
    """The health of each output, by the first word of its name."""
    return {output["name"].split()[0]: output for output in analyzer.get("/api/v1/summary")["health"]["outputs"]}


def silence(analyzer: Analyzer, **labels: str) -> str:
    """Silence alerts with these labels for ten minutes; its id."""
    form = {"matchers": [{"name": name, "value": value} for name, value in labels.items()], "duration_seconds": 600}
    answer = fetch(
        f"{analyzer.url}/api/v1/silences",
        data=json.dumps(form).encode(),
        headers={"content-type": "application/json"},
    )
    made: str = json.loads(answer)["id"]
    return made


def end_silence(analyzer: Analyzer, silence_id: str) -> None:
    fetch(f"{analyzer.url}/api/v1/silences/{silence_id}", method="DELETE")


def silences(analyzer: Analyzer) -> list[Json]:
    items: list[Json] = fetch_json(f"{analyzer.url}/api/v1/silences")["items"]
    return items


class Hook:
    """Takes what is posted to it; ``answer`` says with which status (a function of the number of posts so far)."""

    def __init__(self, answer: Callable[[int], int] = lambda _count: 200, port: int = 0) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(answer(len(hook.posts)))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"

    @property
    def messages(self) -> list[Json]:
        """The bodies so far."""
        return [json.loads(body) for _, body in self.posts]

    def states(self) -> list[list[str]]:
        """Of each message the states of its alerts."""
        return [[alert["state"] for alert in message["alerts"]] for message in self.messages]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
