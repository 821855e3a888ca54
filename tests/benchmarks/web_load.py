"""Closed-loop load from a process of its own: each connection sends its next request when it has the last answer.

Reads lines ``port path connections seconds`` and answers each with one line of JSON: ``requests``, ``seconds`` and the
latencies' ``p50`` and ``p99`` in milliseconds. An answer that isn't 200 ends it.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time


def _request(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    received = connection.recv(65536)
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _more(connection)
    if not received.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(received[:200])
    at = received.lower().index(b"content-length:") + len(b"content-length:")
    length = int(received[at : received.index(b"\r", at)])
    while len(received) < end + 4 + length:
        received += _more(connection)


def _more(connection: socket.socket) -> bytes:
    more = connection.recv(65536)
    if not more:
        raise ConnectionError("the server closed the connection in the middle of an answer")
    return more


def _loop(port: int, request: bytes, until: float, latencies: list[float], errors: list[BaseException]) -> None:
    clock = time.perf_counter
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (began := clock()) < until:
                _request(connection, request)
                latencies.append(clock() - began)
    except Exception as error:
        errors.append(error)


def load(port: int, path: str, connections: int, seconds: float) -> dict[str, float]:
    """Load for ``seconds``."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    latencies: list[float] = []
    errors: list[BaseException] = []
    began = time.perf_counter()
    threads = [
        threading.Thread(target=_loop, args=(port, request, began + seconds, latencies, errors))
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if errors:
        raise errors[0]
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
    return {"requests": len(latencies), "seconds": took, "p50": p50, "p99": p99}


def main() -> None:
    """Serve stdin until it ends."""
    for line in sys.stdin:
        port, path, connections, seconds = line.split()
        print(json.dumps(load(int(port), path, int(connections), float(seconds))), flush=True)


if __name__ == "__main__":
    main()
