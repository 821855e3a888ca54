"""A fake analyzer: the page's files and the REST and SSE paths that it reads, over a fixture fleet.

``python -m tests.analyzer.dashboard.fake_server --fleet two --tick 2`` serves it for a person. In tests `FakeAnalyzer`
runs in a thread on a free loopback port. It judges nothing: what it serves is what `fleets` says or a test publishes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.analyzer.dashboard.fleets import FLEETS, OUTPUTS, SILENCES, Json, series, stamp

PAGE = Path(__file__).parents[3] / "otel_memory" / "analyzer" / "dashboard"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Headers:
    """The headers under which the page must work, and the token check of the interface."""

    def __init__(self, app: ASGIApp, analyzer: FakeAnalyzer) -> None:
        self.app = app
        self.analyzer = analyzer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = {"content-security-policy": CSP, "x-content-type-options": "nosniff"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
            await send(message)

        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            answer = self.analyzer.refusal(Request(scope))
            if answer is not None:
                await answer(scope, receive, with_headers)
                return
        await self.app(scope, receive, with_headers)


class FakeAnalyzer:
    """Serves a fleet on a free loopback port from `start` to `stop`. Thread-safe for one test thread."""

    def __init__(self, fleet: str = "two", *, port: int = 0, token: str | None = None) -> None:
        processes, alerts = FLEETS[fleet](time.time())
        self.processes = {item["id"]: item for item in processes}
        self.alerts = {item["id"]: item for item in alerts}
        self.events: dict[str, list[Json]] = {}
        self.fleet: list[Json] = []
        self.silences = SILENCES[fleet](time.time()) if fleet in SILENCES else []
        self.outputs = OUTPUTS[fleet](time.time()) if fleet in OUTPUTS else []
        self.token = token
        self.failing: int | None = None
        self.streams: set[asyncio.Queue[str | None]] = set()
        self.series_requests = 0
        self.socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(self.app(), log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._run, name="fake-analyzer", daemon=True)

    def app(self) -> Starlette:
        routes = [
            Route("/api/v1/summary", self.summary),
            Route("/api/v1/processes", self.list_processes),
            Route("/api/v1/processes/{id}", self.one_process),
            Route("/api/v1/processes/{id}/series", self.one_series),
            Route("/api/v1/fleet", self.list_fleet),
            Route("/api/v1/alerts", self.list_alerts),
            Route("/api/v1/silences", self.list_silences),
            Route("/api/v1/silences", self.make_silence, methods=["POST"]),
            Route("/api/v1/silences/{id}", self.end_silence, methods=["DELETE"]),
            Route("/api/v1/stream", self.stream),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
        return Starlette(routes=routes, middleware=[Middleware(Headers, analyzer=self)])

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self.server.serve(sockets=[self.socket])

        asyncio.run(serve())

    def start(self) -> FakeAnalyzer:
        self.thread.start()
        deadline = time.monotonic() + 10
        while not self.server.started:
            if time.monotonic() > deadline:
                raise TimeoutError("the fake analyzer did not start")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self.drop_streams()
        self.server.should_exit = True
        self.thread.join(10)
        self.socket.close()

    # --- what a test does to it ------------------------------------------------------------------------------

    def publish(self, event: str, item: Json) -> None:
        """Keep ``item`` (a process or an alert) and send it to every open stream."""
        (self.processes if event == "process" else self.alerts)[item["id"]] = item
        self._send(f"event: {event}\ndata: {json.dumps(item)}\n\n")

    def drop_streams(self) -> None:
        """End every open stream, as a restart would."""
        self._send(None)

    def _send(self, text: str | None) -> None:
        def put() -> None:
            for queue in self.streams:
                queue.put_nowait(text)

        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(put)

    def tick(self, noise: random.Random) -> None:
        """A new reading of each of up to 50 processes."""
        for item in list(self.processes.values())[:50]:
            if item["memory_bytes"] is None or item["service_name"] == "gone":
                continue
            before = datetime.fromisoformat(item["last_seen"]).timestamp()
            now = time.time()
            grown = (item["growth_bytes_per_second"] or 0) * (now - before)
            memory = int(item["memory_bytes"] + grown + noise.uniform(-1, 1) * item["memory_bytes"] * 0.002)
            self.publish("process", {**item, "last_seen": stamp(now), "memory_bytes": memory})

    # --- REST ------------------------------------------------------------------------------------------------

    def refusal(self, request: Request) -> Response | None:
        if self.failing is not None:
            return JSONResponse({"detail": "made to fail"}, self.failing)
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"detail": "token required"}, 401, {"www-authenticate": "Bearer"})
        return None

    async def summary(self, _request: Request) -> Response:
        verdicts = [item["verdict"] for item in self.processes.values()]
        counts = {name: verdicts.count(name) for name in verdicts}
        return JSONResponse({"processes": len(verdicts), "verdicts": counts, "health": {"outputs": self.outputs}})

    async def list_silences(self, _request: Request) -> Response:
        return JSONResponse({"items": self.silences})

    async def make_silence(self, request: Request) -> Response:
        asked = await request.json()
        if any(one["value"] == "(" for one in asked["matchers"]):
            return JSONResponse({"detail": "matcher service_name: no regular expression"}, 422)
        now = time.time()
        times = {"starts_at": stamp(now), "created_at": stamp(now), "ends_at": stamp(now + asked["duration_seconds"])}
        kept = {name: asked[name] for name in ("matchers", "comment", "created_by")}
        made = {"id": f"silence-{len(self.silences)}", "state": "active", **times, **kept}
        self.silences = [made, *self.silences]
        return JSONResponse(made, 201)

    async def end_silence(self, request: Request) -> Response:
        for silence in self.silences:
            if silence["id"] == request.path_params["id"]:
                silence |= {"state": "over", "ends_at": stamp(time.time())}
                return JSONResponse(silence)
        return JSONResponse({"detail": "no such silence"}, 404)

    async def list_processes(self, request: Request) -> Response:
        limit = int(request.query_params.get("limit", 100))
        begin = int(request.query_params.get("cursor", 0))
        items = list(self.processes.values())
        following = str(begin + limit) if begin + limit < len(items) else None
        return JSONResponse({"items": items[begin : begin + limit], "next": following})

    async def one_process(self, request: Request) -> Response:
        item = self.processes.get(request.path_params["id"])
        if item is None:
            return JSONResponse({"detail": "No process has this id."}, 404)
        events = self.events.get(item["id"], [])
        breakdown, evidence, suggestions = None, [], []
        if item["memory_bytes"]:
            parts = {"python_used": 0.61, "python_free": 0.04, "c_used": 0.18, "file": 0.09, "other": 0.08}
            breakdown = {name: int(item["memory_bytes"] * share) for name, share in parts.items()}
        if item["verdict"] == "leaking":
            evidence = [
                {
                    "time": item["last_seen"],
                    "summary": "Memory grows 412 kB/s: shop.cart.RECENT (dict) holds ever more entries.",
                    "kind": "python",
                    "site": ["/srv/shop/cart.py:41 add_item", "/srv/shop/<b>hostile</b>.py:7 f"],
                    "site_growth": [390_000.0, 12_000.0],
                    "holder": ["shop.cart.RECENT"],
                    "holder_growth": [41_000],
                    "type": ["shop.cart.Item"],
                    "type_growth": [41_000],
                    "note": ["threads grew from 12 to 96"],
                }
            ]
            suggestions = [
                {
                    "shape": "module_container",
                    "severity": "high",
                    "subject": "shop.cart.RECENT",
                    "message": "shop.cart.RECENT, a dict, took 41,000 more entries; allocated at cart.py:41 add_item",
                    "recommendation": "Bound it (`collections.deque(maxlen=…)`), <b>hostile</b>",
                    "expected_effect": "About 23 MB/min less growth",
                    "check": "`len()` of it rises with the requests and never falls.",
                    "example": "RECENT = collections.deque(maxlen=1_000)",
                    "link": "docs/suggestions.md#module-container",
                }
            ]
        more = {"events": events, "breakdown": breakdown, "evidence": evidence, "suggestions": suggestions}
        return JSONResponse({**item, **more})

    async def one_series(self, request: Request) -> Response:
        self.series_requests += 1
        item = self.processes.get(request.path_params["id"])
        if item is None:
            return JSONResponse({"detail": "No process has this id."}, 404)
        query = request.query_params
        begin, end = (datetime.fromisoformat(query[name]).timestamp() for name in ("from", "to"))
        return JSONResponse(series(item, query["metric"], begin, end, int(query["points"])))

    async def list_fleet(self, _request: Request) -> Response:
        return JSONResponse({"items": self.fleet})

    async def list_alerts(self, request: Request) -> Response:
        state = request.query_params.get("state")
        return JSONResponse({"items": [a for a in self.alerts.values() if state in (None, a["state"])], "next": None})

    async def stream(self, _request: Request) -> Response:
        queue: asyncio.Queue[str | None] = asyncio.Queue()

        async def events() -> AsyncIterator[str]:
            self.streams.add(queue)
            try:
                yield ": hello\n\n"
                while (text := await queue.get()) is not None:
                    yield text
            finally:
                self.streams.discard(queue)

        return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def threshold_event(now: float) -> Json:
    """An event as the probe sends it when a threshold rule is crossed."""
    return {
        "name": "otel_memory.threshold.crossed",
        "time": stamp(now),
        "body": None,
        "attributes": {
            "otel_memory.threshold.name": "growth_20_percent",
            "otel_memory.threshold.unit": "%",
            "otel_memory.threshold.value": 23.4,
            "otel_memory.threshold.bound": 20.0,
            "otel_memory.threshold.severity": "warning",
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleet", choices=FLEETS, default="two")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tick", type=float, default=2.0, help="seconds between live readings")
    arguments = parser.parse_args()
    analyzer = FakeAnalyzer(arguments.fleet, port=arguments.port).start()
    for identity in list(analyzer.processes)[:1]:
        analyzer.events[identity] = [threshold_event(time.time() - 420)]
    print(analyzer.url, flush=True)
    noise = random.Random(1)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(arguments.tick)
            analyzer.tick(noise)
    analyzer.stop()


if __name__ == "__main__":
    main()
