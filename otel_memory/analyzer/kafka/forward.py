"""Reads of one process handed on to the worker that has it: its chart and its events are there and nowhere else.

Owns which requests are handed on, and what is answered where that fails. Stands behind the guard, so only what may be
read here is handed on; with it goes the token, which all analyzers of a group share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_memory.analyzer.stats import KAFKA_FORWARDED, Stats
from otel_memory.version import __version__

TIMEOUT_SECONDS: Final = 5.0
MARK: Final = "x-otel-memory-forwarded"
"""A request that carries it is answered where it is: owners that differ must not send it round and round."""
_PATH: Final = re.compile(r"/api/v1/processes/([0-9a-f]{16})(/series)?")


class Forwarding:
    """ASGI middleware. ``elsewhere`` gives the address of the worker that has a process, None where it is here."""

    def __init__(
        self, app: ASGIApp, elsewhere: Callable[[str], str | None], stats: Stats, token: str | None = None
    ) -> None:
        self._app = app
        self._elsewhere = elsewhere
        self._stats = stats
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, or let the application answer."""
        address, chart = self._address(scope)
        if address is None:
            await self._app(scope, receive, send)
            return
        answer = await self._ask(address, scope)
        self._stats.add(KAFKA_FORWARDED, outcome="failed" if answer is None else "answered")
        if answer is not None and (chart or answer.status_code == 200):
            kind = answer.headers.get("content-type", "application/json")
            await _answer(send, answer.status_code, answer.content, kind)
        elif chart:
            detail = f"this process's history is at {address}, which can't be reached now"
            body = json.dumps({"detail": detail}).encode()
            await _answer(send, 503, body, "application/json", ("retry-after", "5"))
        else:
            # All but its events is known here, too.
            await self._app(scope, receive, send)

    def _address(self, scope: Scope) -> tuple[str | None, bool]:
        if scope["type"] != "http" or scope["method"] != "GET":
            return None, False
        found = _PATH.fullmatch(scope["path"])
        if found is None or any(name == MARK.encode() for name, _ in scope["headers"]):
            return None, False
        return self._elsewhere(found[1]), found[2] is not None

    async def _ask(self, address: str, scope: Scope) -> httpx.Response | None:
        if self._client is None:
            # Made in the loop that uses it. No proxy of the outside world stands between analyzers.
            self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False)
        headers = {MARK: "1", "user-agent": f"otel-memory/{__version__}"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        query = scope.get("query_string", b"").decode("latin-1")
        url = f"{address.rstrip('/')}{scope['path']}{'?' if query else ''}{query}"
        try:
            return await self._client.get(url, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL):
            return None


async def _answer(send: Send, status: int, body: bytes, kind: str, *more: tuple[str, str]) -> None:
    headers = [("content-type", kind), ("content-length", str(len(body))), *more]
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
