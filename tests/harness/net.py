"""Loopback only: free ports, and plain HTTP that no proxy setting of the machine can divert."""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import Any

LOOPBACK = "127.0.0.1"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A TCP port of loopback that nobody listened on a moment ago. Another may take it: `Part` then tries again."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        port: int = sock.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something accepts connections on ``port`` of loopback."""
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex((LOOPBACK, port)) == 0


def fetch(
    url: str,
    *,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
    timeout_seconds: float = 10.0,
) -> bytes:
    """Body of one HTTP exchange; `OSError` (``urllib.error.HTTPError`` among them) where it fails."""
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    with _opener.open(request, timeout=timeout_seconds) as reply:
        body: bytes = reply.read()
        return body


def fetch_json(url: str, *, timeout_seconds: float = 10.0) -> Any:
    """Decoded JSON body of one GET."""
    return json.loads(fetch(url, timeout_seconds=timeout_seconds))
