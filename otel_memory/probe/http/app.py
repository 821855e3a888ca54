"""``memory_app()``: the endpoints as an ASGI application, served alone or mounted in FastAPI, Starlette and their like.

Owns the way from an ASGI request to ``Endpoints`` and back. Everything that reads or changes memory happens on a thread
beside the event loop. Needs nothing installed: paths are matched in one place for ASGI and WSGI (``endpoints``), so a
framework would have nothing left to do here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from otel_memory.probe.http.access import Access
from otel_memory.probe.http.endpoints import Asked, Endpoints, Reply
from otel_memory.probe.isolation import in_thread

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def memory_app(token: str | None = None, *, protected: bool = False) -> MemoryApp:
    """The endpoints as an ASGI application to mount: ``app.mount("/memory", memory_app(token="…"))``.

    With a ``token`` every request has to carry it (``Authorization: Bearer``). Without one, requests from this machine
    are answered, and none that changes something. ``protected=True`` says that the application checks who may come
    here before it passes requests on; then all are answered. ``/internal/memory/health`` answers its status to all.

    Raises:
        ValueError: the token is empty.
    """
    return MemoryApp(mounted_access(token, protected))


def mounted_access(token: str | None, protected: bool) -> Access:
    """The rules of endpoints within an application.

    Raises:
        TypeError: the token is no text.
        ValueError: the token is empty.
    """
    given: object = token
    if given is not None and not isinstance(given, str):
        raise TypeError(f"the token is a text, not {type(given).__name__}")
    if token is not None and not token.strip():
        raise ValueError("the token is empty; leave it out, or give one that can't be guessed")
    return Access(None if token is None else token.strip(), protected=protected)


class MemoryApp:
    """An ASGI application that answers by the rules of ``access``."""

    def __init__(self, access: Access) -> None:
        self._endpoints = Endpoints(access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            asked = _asked(scope)
            reply = self._endpoints.refuse(asked)
            if reply is None:
                reply = await in_thread(partial(self._endpoints.answer, asked))
            await _send(reply, asked.method, send)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _asked(scope: Scope) -> Asked:
    client = scope.get("client")
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        # Of one that comes twice the first: a second Host or token is no better for being last.
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    path, root = scope["path"], scope.get("root_path", "")
    if root and path.startswith(root + "/"):
        path = path.removeprefix(root)
    return Asked(scope["method"], path, scope.get("query_string", b""), headers, str(client[0]) if client else None)


async def _send(reply: Reply, method: str, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else reply.body})
