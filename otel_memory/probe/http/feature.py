"""Serves the endpoints while the probe runs: each process on an address of its own, which it tells.

Owns when a server starts and ends. A forked child lets go of its parent's socket at once and serves on another port a
second later, so that short-lived children open none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from otel_memory import names
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.http.access import Access, is_loopback
from otel_memory.probe.http.app import MemoryApp
from otel_memory.probe.http.server import HttpServer, listen
from otel_memory.probe.ledger import LOGGER

PART: Final = "http"
CHILD_SECONDS: Final = 1.0


class HttpFeature(Feature):
    """Listens from its making on; uvicorn is imported here and now, because a fork in the middle of an import on
    another thread would leave the child without it for ever.

    Raises:
        MissingExtra: uvicorn isn't installed.
        OSError: the address can't be had.
    """

    part = PART

    def __init__(self, around: Surroundings, clock: Callable[[], float] = time.monotonic) -> None:
        settings = around.settings
        self._around = around
        self._clock = clock
        self._host, self._port = settings.http_host, settings.http_port
        self._access = Access(settings.http_token, changes=is_loopback(settings.http_host))
        self._server: HttpServer | None = None
        self._serve_at: float | None = None
        self._closed = False
        self._forked = False
        self._serve()

    def _serve(self) -> None:
        listening = listen(self._host, self._port)
        try:
            server = HttpServer(MemoryApp(self._access), listening, partial(self._around.ledger.failed, PART))
        except BaseException:
            listening.close()
            raise
        server.start()
        self._server = server
        self._tell(server)

    def _tell(self, server: HttpServer) -> None:
        instead = ""
        if self._port and server.port != self._port:
            instead = f" (port {self._port} is taken)"
        # A worker's port is never the first; without a fork somebody else has it, which is worth a look.
        log = LOGGER.warning if instead and not self._forked else LOGGER.info
        log("otel-memory: endpoints of process %d at %s%s", os.getpid(), server.address, instead)
        self._around.emit(
            names.EVENT_HTTP_LISTENING,
            f"Endpoints of process {os.getpid()} at {server.address}{instead}.",
            {names.SERVER_ADDRESS: server.host, names.SERVER_PORT: server.port},
        )

    def tick(self, now: float) -> None:
        """In a child, begin to serve when it has lived for a second."""
        if self._serve_at is not None and self._clock() >= self._serve_at and not self._closed:
            self._serve_at = None
            self._serve()

    def after_fork(self) -> None:
        """In the child: the parent's server isn't ours."""
        server, self._server = self._server, None
        self._forked = True
        self._serve_at = self._clock() + CHILD_SECONDS
        if server is not None:
            server.abandon()

    def close(self) -> None:
        self._closed = True
        server, self._server = self._server, None
        if server is not None and not server.stop():
            self._around.ledger.failed(PART, TimeoutError("the thread of the endpoints has not ended in time"))

    def status(self) -> Mapping[str, Any]:
        server = self._server
        return {"address": None if server is None else server.address, "token": self._access.token is not None}
