"""The endpoints on an address of their own: one daemon thread with one event loop, run by uvicorn.

Owns the socket, the thread and their end. Installs no signal handler, touches no logger of the application, and delays
nobody's exit. Every connection carries one request and ends within bounds, so that a client that is slow or silent
takes one of a few places for a while and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_memory.probe.http.app import MemoryApp
from otel_memory.probe.threads import DaemonThread

if TYPE_CHECKING:
    import uvicorn

THREAD_NAME: Final = "otel-memory-http"
INSTALL: Final = "pip install 'otel-memory[http]'"
NEXT_PORTS: Final = 32
"""So many ports after a busy one are tried before any free one is taken."""
BACKLOG: Final = 64
MAX_CONNECTIONS: Final = 64
HEADER_SECONDS: Final = 10.0
"""A connection that has sent no whole request by then is closed."""
CONNECTION_SECONDS: Final = 120.0
"""A connection is closed by then whatever it is at."""
START_SECONDS: Final = 5.0
STOP_SECONDS: Final = 1.0
_LOGGERS: Final = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi", "asyncio")


class MissingExtra(ImportError):
    """What serves the endpoints isn't installed; the message names the extra that brings it."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on ``host``:``port``, or where that is taken on the next free port; 0 is any free one.

    Raises:
        OSError: the address can't be had.
    """
    if not port:
        return _listen(host, 0)
    for candidate in (*range(port, min(port + NEXT_PORTS, 65536)), 0):
        try:
            return _listen(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == 0:
                raise
    raise AssertionError("port 0 is never in use")


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would take a port from whoever has it
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # At once: an address that is bound and not listened on can still be taken by another worker.
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


class HttpServer:
    """Serves ``app`` on ``listening`` from ``start()`` until ``stop()``; ``failed`` is told what ends it otherwise.

    Raises:
        MissingExtra: uvicorn isn't installed.
    """

    def __init__(self, app: MemoryApp, listening: socket.socket, failed: Callable[[Exception], object]) -> None:
        try:
            self._server = _make_server(app)
        except ImportError as error:
            raise MissingExtra(f"the endpoints need {error.name or error}: {INSTALL}", name=error.name) from None
        self._pid = os.getpid()
        self._failed = failed
        self._socket = listening
        host, self.port, *_ = listening.getsockname()
        self.host = str(host)
        self._started = threading.Event()
        # Chosen here and not by a policy, because a forked child has to close the selector and nothing else of it.
        self._selector = selectors.DefaultSelector()
        self._thread = DaemonThread(self._run, THREAD_NAME)

    @property
    def address(self) -> str:
        """Where it is reached."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def start(self) -> None:
        """Serve from now on.

        Raises:
            RuntimeError: the system has no thread to give.
        """
        try:
            self._thread.start()
        except RuntimeError:
            self._socket.close()
            self._selector.close()
            raise

    def wait_started(self, timeout: float = START_SECONDS) -> bool:
        """Whether requests are answered within the time. Connections are taken before."""
        return self._started.wait(timeout)

    def stop(self, timeout: float = STOP_SECONDS + 0.5) -> bool:
        """Free the port and end the thread; requests under way get a second. Idempotent. Returns whether it ended."""
        if self._pid != os.getpid():
            self.abandon()
            return True
        self._server.end()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        if not self._thread.is_alive():
            self._socket.close()
            return True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # frees the port; closing it is the loop's, which still knows it
        except OSError:
            pass  # it is closed
        return False

    def abandon(self) -> None:
        """In a forked child: let go of the parent's sockets without a word to its selector or its clients.

        The selector is shared with the parent, so nothing may be unregistered. The descriptors of connections belong
        to objects that close them some day: they are pointed at /dev/null, so that nothing else is closed then.
        """
        connections = [key.fd for key in (self._selector.get_map() or {}).values()]
        own = self._socket.fileno()
        self._socket.close()
        self._selector.close()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            for descriptor in connections:
                if descriptor not in (own, -1):
                    os.dup2(null, descriptor, inheritable=False)
        finally:
            os.close(null)
        _abandoned.append(self)  # its loop would complain when it is collected

    def _run(self) -> None:
        quiet = _Quiet(threading.get_ident())
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addFilter(quiet)
        try:
            with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(self._selector)) as runner:
                runner.run(self._server.serve_on(self._socket, self._started))
        except Exception as error:  # law 1: nothing of ours reaches the host's hook for threads
            self._failed(error)
        finally:
            self._socket.close()
            for logger in loggers:
                logger.removeFilter(quiet)


_abandoned: Final[list[HttpServer]] = []


class _Quiet(logging.Filter):
    """Keeps this thread's messages out of loggers that the application may use itself: uvicorn's are for whoever runs
    uvicorn, and a client's junk is no news."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


def _make_server(app: MemoryApp) -> Any:
    """A uvicorn server that waits for its end instead of looking for it ten times a second.

    Made here, because uvicorn is imported only where the endpoints are served.
    """
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class OneRequest(H11Protocol):
        """A connection for one request, with an end."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timers = (
                self.loop.call_later(HEADER_SECONDS, self._end_if_silent),
                self.loop.call_later(CONNECTION_SECONDS, transport.abort),
            )

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in self._timers:
                timer.cancel()
            super().connection_lost(exc)

        def _end_if_silent(self) -> None:
            if getattr(self, "cycle", None) is None:
                self.transport.abort()

    class Config(uvicorn.Config):
        def configure_logging(self) -> None:
            """Would change loggers that the application's own uvicorn uses."""

    class Server(uvicorn.Server):
        _loop: asyncio.AbstractEventLoop | None = None
        _ending: asyncio.Event | None = None

        async def serve_on(self, listening: socket.socket, started: threading.Event) -> None:
            self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
            self._told = started
            await self.serve(sockets=[listening])

        async def main_loop(self) -> None:
            await self.on_tick(0)
            self._told.set()
            if self._ending is not None and not self.should_exit:
                await self._ending.wait()

        def end(self) -> None:
            """From any thread."""
            self.should_exit = True
            if self._loop is not None and self._ending is not None:
                try:
                    self._loop.call_soon_threadsafe(self._ending.set)
                except RuntimeError:  # it has ended
                    return

    config: uvicorn.Config = Config(
        app,
        http=OneRequest,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        headers=[("connection", "close")],
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(STOP_SECONDS),
        h11_max_incomplete_event_size=16 * 1024,
    )
    config.load()
    return Server(config)
