"""OTLP over HTTP: an ASGI application for POST /v1/metrics, /v1/logs and /v1/traces.

Plain ASGI, because a route of a web framework would cost three times as much for each request. Owns sizes, types,
encodings, the token, and the answers that the OTLP specification asks for ("OTLP/HTTP Response"). A request is
bounded in bytes as sent, in bytes decompressed and in the time it takes to arrive; none can end the server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

from otel_memory.analyzer.receivers.base import (
    MAX_BODY_BYTES,
    MAX_BUFFERED_BYTES,
    Budget,
    Encoding,
    Ingest,
    MalformedPayload,
    Overloaded,
    Share,
    Signal,
    authorized,
    response,
    rpc_status,
)

_logger = logging.getLogger(__name__)

READ_TIMEOUT_SECONDS: Final = 10.0

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_SIGNALS: Final[dict[str, Signal]] = {"/v1/metrics": "metrics", "/v1/logs": "logs", "/v1/traces": "traces"}
_ENCODINGS: Final[dict[str, Encoding]] = {"application/x-protobuf": "protobuf", "application/json": "json"}
_CONTENT_TYPES: Final[dict[Encoding, bytes]] = {"protobuf": b"application/x-protobuf", "json": b"application/json"}
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
# zlib's window bits for each content coding; the Python SDK can send deflate too.
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}


class _Refusal(Exception):
    """The answer to a request that is not taken. ``close``: the rest of the body won't be read."""

    def __init__(
        self, status: int, reason: str, headers: tuple[tuple[bytes, bytes], ...] = (), *, close: bool = False
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = (*headers, (b"connection", b"close")) if close else headers


class _Disconnected(Exception):
    """The client went away; nobody waits for an answer."""


class _Request(NamedTuple):
    signal: Signal
    encoding: Encoding
    window_bits: int | None


def build_app(
    ingest: Ingest,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_decompressed_bytes: int = MAX_BODY_BYTES,
    max_buffered_bytes: int = MAX_BUFFERED_BYTES,
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    token: str | None = None,
) -> HttpReceiver:
    """The ASGI application.

    ``max_body_bytes`` bounds a body as sent, ``max_decompressed_bytes`` what it unpacks to, ``max_buffered_bytes``
    the bodies of all requests at one moment, ``read_timeout_seconds`` the time in which a body must arrive. With
    ``token`` a request must carry ``Authorization: Bearer TOKEN``.
    """
    return HttpReceiver(
        ingest, max_body_bytes, max_decompressed_bytes, Budget(max_buffered_bytes), read_timeout_seconds, token
    )


class HttpReceiver:
    """The ASGI application that ``build_app`` makes."""

    def __init__(
        self,
        ingest: Ingest,
        max_body_bytes: int,
        max_decompressed_bytes: int,
        budget: Budget,
        read_timeout_seconds: float,
        token: str | None,
    ) -> None:
        self._ingest = ingest
        self._max_body_bytes = max_body_bytes
        self._max_decompressed_bytes = max_decompressed_bytes
        self._budget = budget
        self._read_timeout_seconds = read_timeout_seconds
        self._token = token
        self.refused: Counter[int] = Counter()
        """Requests that were not taken, by the status they were answered with."""

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"OTLP over HTTP has no {scope['type']}")
        headers = {name.lower(): value for name, value in scope["headers"]}
        encoding = _ENCODINGS.get(_content_type(headers)[0], "json")
        try:
            answer = await self._serve(scope, headers, receive)
        except _Disconnected:
            return
        except _Refusal as refusal:
            self.refused[refusal.status] += 1
            await _answer(send, refusal.status, encoding, _status(refusal.reason, encoding), refusal.headers)
        except Exception:
            # What went wrong is ours, and the sender may come again.
            _logger.exception("an OTLP request failed")
            self.refused[500] += 1
            await _answer(send, 500, encoding, _status("internal error", encoding), ())
        else:
            await _answer(send, 200, encoding, answer, ())

    async def _serve(self, scope: _Scope, headers: dict[bytes, bytes], receive: _Receive) -> bytes:
        request = self._check(scope, headers)
        try:
            with self._budget.share() as share:
                body = await self._read(request, receive, share)
                decoded = await self._ingest.submit(body, request.signal, request.encoding)
        except Overloaded as overloaded:
            retry_after = str(max(1, math.ceil(overloaded.retry_after_seconds))).encode()
            raise _Refusal(503, str(overloaded), ((b"retry-after", retry_after),)) from None
        except MalformedPayload as malformed:
            raise _Refusal(400, str(malformed)) from None
        return response(request.signal, decoded, request.encoding)

    def _check(self, scope: _Scope, headers: dict[bytes, bytes]) -> _Request:
        """All that can be said before the body is read."""
        signal = _SIGNALS.get(scope["path"])
        if signal is None:
            raise _Refusal(404, f"no such path; OTLP goes to {', '.join(_SIGNALS)}", close=True)
        if scope["method"] != "POST":
            raise _Refusal(405, "only POST", ((b"allow", b"POST"),), close=True)
        if not authorized(self._token, headers.get(b"authorization")):
            raise _Refusal(401, "a bearer token is needed", ((b"www-authenticate", b"Bearer"),), close=True)
        content_type, charset = _content_type(headers)
        encoding = _ENCODINGS.get(content_type)
        if encoding is None or charset not in _CHARSETS:
            raise _Refusal(415, f"content type must be {' or '.join(_ENCODINGS)}, in UTF-8", close=True)
        coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        if coding not in ("", "identity") and coding not in _WINDOW_BITS:
            accepted = ", ".join(_WINDOW_BITS)
            raise _Refusal(
                415,
                f"content encoding must be one of {accepted}, identity",
                ((b"accept-encoding", accepted.encode()),),
                close=True,
            )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 19 or int(length) > self._max_body_bytes):
            raise self._too_large()
        return _Request(signal, encoding, _WINDOW_BITS.get(coding))

    async def _read(self, request: _Request, receive: _Receive, share: Share) -> bytes:
        """The body, decompressed as it arrives."""
        inflate = None if request.window_bits is None else _Inflate(request.window_bits, self._max_decompressed_bytes)
        body = bytearray()  # many tiny chunks in a list would take far more than their bytes
        received = 0
        try:
            async with asyncio.timeout(self._read_timeout_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Disconnected
                    chunk: bytes = message.get("body", b"")
                    more = message.get("more_body", False)
                    received += len(chunk)
                    if received > self._max_body_bytes:
                        raise self._too_large()
                    if inflate is not None:
                        chunk = inflate.feed(chunk)
                    share.take(len(chunk))
                    body += chunk
        except TimeoutError:
            raise _Refusal(408, f"the body took longer than {self._read_timeout_seconds:g} s", close=True) from None
        if inflate is not None:
            inflate.finish()
        return bytes(body)

    def _too_large(self) -> _Refusal:
        return _Refusal(413, f"the body is larger than {self._max_body_bytes} bytes", close=True)


class _Inflate:
    """Decompresses in steps and never makes more than ``max_bytes``."""

    def __init__(self, window_bits: int, max_bytes: int) -> None:
        self._stream = zlib.decompressobj(window_bits)
        self._left = max_bytes
        self._max_bytes = max_bytes

    def feed(self, chunk: bytes) -> bytes:
        """What ``chunk`` gives. Raises a refusal with 413 or 400."""
        if not chunk:
            return b""
        try:
            # One byte more than allowed tells "exactly full" from "too large"; 0 would mean "no limit".
            out = self._stream.decompress(chunk, self._left + 1)
        except zlib.error as error:
            raise _Refusal(400, f"can't decompress the body: {error}", close=True) from None
        self._left -= len(out)
        if self._left < 0:
            raise _Refusal(413, f"the body unpacks to more than {self._max_bytes} bytes", close=True)
        if self._stream.unused_data:
            raise _Refusal(400, "the body goes on after the end of its compressed stream", close=True)
        return out

    def finish(self) -> None:
        """Checks that the stream came to its end."""
        if not self._stream.eof:
            raise _Refusal(400, "the compressed body ends too soon")


def _content_type(headers: dict[bytes, bytes]) -> tuple[str, str]:
    """Media type and charset; UTF-8 where none is said."""
    media_type, *parameters = headers.get(b"content-type", b"").decode("latin-1").lower().split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            charset = value.strip().strip('"')
    return media_type.strip(), charset


def _status(reason: str, encoding: Encoding) -> bytes:
    """The body of a refusal: a ``google.rpc.Status``, whose code OTLP over HTTP leaves out."""
    return json.dumps({"message": reason}).encode() if encoding == "json" else rpc_status(reason)


async def _answer(
    send: _Send, status: int, encoding: Encoding, body: bytes, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    length = (b"content-length", str(len(body)).encode())
    head = [(b"content-type", _CONTENT_TYPES[encoding]), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
