"""An ASGI application on a socket of its own, inside a running event loop.

Owns binding and the life of one uvicorn server. Leaves signals to the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from otel_memory.analyzer.receivers.base import ReceiverError

STOP_SECONDS: Final = 3.0
MAX_CONNECTIONS: Final = 2000
BACKLOG: Final = 512
_ABOUT_THE_PORT: Final = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EPERM})


class _QuietServer(uvicorn.Server):
    """A server that doesn't take the process's signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Ending:
    """Answers a request that is cut at the end of the server: its sender is to come again, to the next one."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def noting(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if begun or scope["type"] != "http":
                raise
            headers = [(b"retry-after", b"1"), (b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b""})


class AsgiServer:
    """Serves ``app`` on ``host``:``port`` (0: any free one)."""

    def __init__(self, app: Any, host: str, port: int, setting: str) -> None:
        """``setting`` is the name of the flag that sets the port, for the error where it is taken."""
        self._address = (host, port)
        self._setting = setting
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._server = _QuietServer(
            uvicorn.Config(
                _Ending(app),
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=int(STOP_SECONDS),
                server_header=False,
                # A connection whose headers never come must not use up the descriptors.
                limit_concurrency=MAX_CONNECTIONS,
            )
        )

    def bind(self) -> int:
        """Take the port and return it.

        Raises:
            ReceiverError: it can't be had.
        """
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
            # At once: a bound address that nobody listens on can still be taken by another.
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            setting, other = (self._setting, "port") if error.errno in _ABOUT_THE_PORT else ("--host", "address")
            variable = "OTEL_MEMORY_" + setting.removeprefix("--").replace("-", "_").upper()
            raise ReceiverError(
                f"can't listen on {host}:{port}: {error.strerror}. Another {other}: {setting} or {variable}"
            ) from error
        bound.setblocking(False)
        self._socket = bound
        return int(bound.getsockname()[1])

    async def start(self) -> None:
        """Serve from now on."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # uvicorn has a flag for it, and no event
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Take no more requests, end those under way within ``STOP_SECONDS``. Idempotent."""
        self._server.should_exit = True
        task, self._task = self._task, None
        if task is not None:
            # Streams never end by themselves; after the grace they are cut.
            done, _ = await asyncio.wait({task}, timeout=STOP_SECONDS + 1)
            if not done:
                self._server.force_exit = True
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._socket is not None:
            self._socket.close()
            self._socket = None
