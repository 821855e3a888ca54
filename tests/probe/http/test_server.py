"""The server on a thread of its own: its address, its end, and clients that mean harm."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from otel_memory import MemoryInstrumentor, SettingsError
from otel_memory.probe.config import Settings
from otel_memory.probe.http import server as module
from otel_memory.probe.http.access import Access
from otel_memory.probe.http.app import MemoryApp
from otel_memory.probe.http.server import THREAD_NAME, HttpServer, MissingExtra, listen
from otel_memory.probe.lifecycle import running_probe
from tests.harness import wait_until

LOOPBACK = "127.0.0.1"


def raised(error: Exception) -> None:
    raise AssertionError("the server ended by itself") from error


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer(MemoryApp(Access(changes=True)), listen(LOOPBACK, 0), raised)
    server.start()
    yield server
    assert server.stop(30)
    assert not threads()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD_NAME]


def ask(port: int, method: str = "GET", path: str = "/internal/memory/metrics", **headers: str) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=60)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def raw(port: int, data: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection((LOOPBACK, port), timeout=60) as connection:
        connection.sendall(data)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:  # closed with something of ours unread
            pass
        return received


def test_it_answers_and_every_connection_ends(server: HttpServer) -> None:
    status, content = ask(server.port)
    assert (status, content["data"]["pid"]) == (200, os.getpid())
    answer = raw(server.port, b"GET /internal/memory/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert b"uvicorn" not in answer


def test_post_without_a_token_is_for_this_machine_alone(server: HttpServer) -> None:
    assert ask(server.port, "POST", "/internal/memory/cleanup")[0] == 200
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert ask(server.port, "POST", "/internal/memory/cleanup", **headers)[0] == 403
    assert ask(server.port, Host="rebound.example")[0] == 403


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n : x\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        b"POST /internal/memory/cleanup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nxyz\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/%ff\xff?%ff=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_junk_is_refused_and_not_told_to_the_application(
    server: HttpServer, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = raw(server.port, junk)
    assert answer == b"" or answer.split()[1] in (b"400", b"403", b"404", b"405", b"431"), answer[:100]
    assert ask(server.port)[0] == 200
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_body_over_the_cap_is_refused_unread(server: HttpServer) -> None:
    head = b"POST /internal/memory/cleanup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    assert raw(server.port, head).startswith(b"HTTP/1.1 413")


def test_an_endless_body_is_not_read(server: HttpServer) -> None:
    head = b"POST /internal/memory/cleanup HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(server.port, head + b"1\r\nx\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_clients_that_send_nothing_block_nobody_and_are_closed(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.5)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((LOOPBACK, server.port), timeout=60)) for _ in range(30)]
        for number, connection in enumerate(slow):
            connection.sendall(b"GET / HTTP/1.1\r\nHost:"[: number % 22])
        assert ask(server.port)[0] == 200
        for connection in slow:
            try:
                assert connection.recv(100) == b""
            except ConnectionResetError:
                pass
    assert ask(server.port)[0] == 200


def test_more_connections_than_allowed_are_turned_away_and_room_comes_back(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEADER_SECONDS", 2.0)
    with ExitStack() as stack:
        for _ in range(module.MAX_CONNECTIONS + 6):
            stack.enter_context(socket.create_connection((LOOPBACK, server.port), timeout=60))
        answer = raw(server.port, b"GET /internal/memory/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        wait_until(
            lambda: raw(server.port, b"GET /internal/memory/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(
                b"HTTP/1.1 200"
            ),
            timeout_seconds=60,
            what="room for another connection",
        )


def test_a_busy_port_gives_way_to_the_next() -> None:
    with closing(listen(LOOPBACK, 0)) as first:
        port = first.getsockname()[1]
        with closing(listen(LOOPBACK, port)) as second:
            assert second.getsockname()[1] != port
    with pytest.raises(OSError, match=r"assign|family|known|address"):
        listen("192.0.2.1", 0)


def test_stop_frees_the_port_at_once_and_leaves_no_thread_also_with_a_request_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, release = threading.Event(), threading.Event()

    def held(*_: object, **__: object) -> dict[str, Any]:
        begun.set()
        release.wait(60)
        return {"status": "healthy", "checks": {}}

    monkeypatch.setattr("otel_memory.probe.health.health_check_sync", held)
    server = HttpServer(MemoryApp(Access()), listen(LOOPBACK, 0), raised)
    server.start()
    with socket.create_connection((LOOPBACK, server.port), timeout=60) as connection:
        connection.sendall(b"GET /internal/memory/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert begun.wait(60)
        server.stop(0)
        wait_until(lambda: not listens(server.port), timeout_seconds=60, what="the port is free")
        assert server.stop(60)
    assert not threads()
    release.set()
    server.stop()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def test_a_stop_right_after_the_start_ends_too() -> None:
    for _ in range(10):
        server = HttpServer(MemoryApp(Access()), listen(LOOPBACK, 0), raised)
        server.start()
        assert server.stop(60)
        assert not listens(server.port)
    assert not threads()


def test_without_uvicorn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with closing(listen(LOOPBACK, 0)) as listening, pytest.raises(MissingExtra, match=r"otel-memory\[http\]"):
        HttpServer(MemoryApp(Access()), listening, raised)


# --- in the probe ---------------------------------------------------------------------------------------------


def address() -> str:
    probe = running_probe()
    assert probe is not None
    (found,) = [feature.status()["address"] for feature in probe.features if feature.part == "http"]
    assert isinstance(found, str)
    return found


def test_the_probe_serves_while_it_runs_and_says_where(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "otel_memory.probe")
    instrumentor = MemoryInstrumentor()
    instrumentor.instrument(http=True, http_port=0, evidence="none")
    try:
        port = int(address().rpartition(":")[2])
        assert f"endpoints of process {os.getpid()} at http://127.0.0.1:{port}" in caplog.text
        status, content = ask(port, path="/internal/memory/status")
        assert status == 200
        assert content["data"]["features"]["http"] == {"address": address(), "token": False}
    finally:
        instrumentor.uninstrument()
    assert not listens(port)
    assert not threads()


def test_by_default_nothing_listens() -> None:
    instrumentor = MemoryInstrumentor()
    instrumentor.instrument(evidence="none")
    try:
        probe = running_probe()
        assert probe is not None
        assert "http" not in [feature.part for feature in probe.features]
        assert not threads()
    finally:
        instrumentor.uninstrument()


def test_a_taken_port_is_told_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with closing(listen(LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        instrumentor = MemoryInstrumentor()
        instrumentor.instrument(http=True, http_port=port, http_token="s3cret", evidence="none")
        try:
            other = int(address().rpartition(":")[2])
            assert other != port
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            assert f"(port {port} is taken)" in caplog.text
            assert ask(other)[0] == 401
            assert ask(other, Authorization="Bearer s3cret")[0] == 200
        finally:
            instrumentor.uninstrument()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "memory.example"])
def test_elsewhere_than_on_loopback_a_token_is_demanded(host: str) -> None:
    environ = {"OTEL_PYTHON_MEMORY_HTTP": "true", "OTEL_PYTHON_MEMORY_HTTP_HOST": host}
    with pytest.raises(SettingsError, match=r"HTTP_HOST=.*OTEL_PYTHON_MEMORY_HTTP_TOKEN"):
        Settings.load(environ)
    settings = Settings.load({**environ, "OTEL_PYTHON_MEMORY_HTTP_TOKEN": "s3cret"})
    assert settings.http_token == "s3cret"
    assert "s3cret" not in repr(settings)


def test_the_thread_sleeps_while_nobody_asks(server: HttpServer) -> None:
    """No beat of its own: an idle server must not wake the process ten times a second."""
    assert server.wait_started(60)
    ask(server.port)
    native = next(thread.native_id for thread in threading.enumerate() if thread.name == THREAD_NAME)
    path = f"/proc/self/task/{native}/status"
    if not os.path.exists(path):
        pytest.skip("has no /proc")

    def switches() -> int:
        with open(path) as file:
            return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)

    quiet = wait_until(lambda: settled(switches), timeout_seconds=30, what="the thread has settled")
    assert quiet


def settled(switches: Any) -> bool:
    before = switches()
    time.sleep(0.5)
    return bool(switches() - before <= 1)
