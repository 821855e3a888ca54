"""Real servers on free loopback ports, each in a thread that ends with its ``with`` block: the analyzer's receivers,
and what else may listen where an exporter was sent to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import uvicorn

from otel_memory.analyzer.decode import Encoding, Signal, decode
from otel_memory.analyzer.model import Decoded
from otel_memory.analyzer.receivers.grpc import GrpcReceiver
from otel_memory.analyzer.receivers.http import build_app

LOOPBACK = "127.0.0.1"
TLS = Path(__file__).parent / "tls"


class Memory:
    """An ingest that decodes and keeps what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []

    async def submit(self, body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
        self.bodies.append((signal, body))
        return decode(body, signal, encoding)


@contextlib.contextmanager
def http_receiver(ingest: Memory, token: str | None = None) -> Iterator[int]:
    """The analyzer's OTLP/HTTP receiver; gives its port."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        config = uvicorn.Config(build_app(ingest, token=token), log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


@contextlib.contextmanager
def grpc_receiver(ingest: Memory, token: str | None = None) -> Iterator[int]:
    """The analyzer's OTLP/gRPC receiver; gives its port."""
    ports: list[int] = []
    started, loop = threading.Event(), asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def serve() -> None:
        receiver = GrpcReceiver(ingest, LOOPBACK, 0, token=token)
        ports.append(await receiver.start())
        started.set()
        await stopped.wait()
        await receiver.stop(0)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)


@contextlib.contextmanager
def tls_grpc_server() -> Iterator[int]:
    """A gRPC server under the certificate in ``tls/`` that takes any call; gives its port."""

    class Anything(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: grpc.HandlerCallDetails) -> object:
            return grpc.unary_unary_rpc_method_handler(lambda body, context: b"")

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[Anything()])
        pair = ((TLS / "key.pem").read_bytes(), (TLS / "certificate.pem").read_bytes())
        port = server.add_secure_port(f"{LOOPBACK}:0", grpc.ssl_server_credentials([pair]))
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait(10)


@contextlib.contextmanager
def web_server(
    status: int, headers: dict[str, str] | None = None, body: bytes = b"", *, tls: bool = False
) -> Iterator[tuple[int, list[tuple[str, dict[str, str]]]]]:
    """Some web server that answers every POST alike; gives its port and a list that fills with (path, headers)."""
    seen: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return

    server = Quiet((LOOPBACK, 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
        # The handshake belongs to the connection's own thread: the one that accepts must go on.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Whatever ``talk`` says to each connection, until the event is set; gives the port."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def converse(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            talk(connection, over)

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=converse, args=(connection,)))
            threads[-1].start()

    with socket.create_server((LOOPBACK, 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (acceptor, *threads):
                thread.join(10)


def hang(connection: socket.socket, over: threading.Event) -> None:
    """Takes the connection and never says a word."""
    over.wait(30)


def trickle(connection: socket.socket, over: threading.Event) -> None:
    """Says a header without an end, a byte now and then: no time-out of a socket ever strikes."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not over.wait(0.05):
        connection.sendall(b"x")


def nonsense(connection: socket.socket, over: threading.Event) -> None:
    """Speaks something else altogether."""
    connection.recv(4096)
    connection.sendall(b"220 mail.example ESMTP\r\n")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
