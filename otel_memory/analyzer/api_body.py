"""What a request that changes something may carry: a small body, and soon.

Owns the bound on request bodies of the API. Only such requests have one; reading ones, streams among them, pass
through untouched.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_memory.analyzer.api_guard import READING

MAX_BYTES: Final = 64 * 1024
MAX_SECONDS: Final = 10.0
"""For the whole body."""


class _TooLarge(Exception):
    """More than the bound."""


class BodyLimit:
    """Wraps the application: it sees a body whole and within ``max_bytes``, or is not called."""

    def __init__(self, app: ASGIApp, *, max_bytes: int = MAX_BYTES, max_seconds: float = MAX_SECONDS) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._max_seconds):
                body = await self._read(Headers(scope=scope), receive)
        except _TooLarge:
            await _refusal(413, f"a body of at most {self._max_bytes} bytes is taken")(scope, receive, send)
            return
        except TimeoutError:
            await _refusal(408, f"the body did not come within {self._max_seconds:g} s")(scope, receive, send)
            return
        if body is None:
            # The sender went away.
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > self._max_bytes:
            raise _TooLarge
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise _TooLarge
            if not message.get("more_body", False):
                return bytes(body)


def _refusal(status: int, detail: str) -> JSONResponse:
    # What is left of the body is not read: the connection can't be used again.
    return JSONResponse({"detail": detail}, status_code=status, headers={"Connection": "close"})
