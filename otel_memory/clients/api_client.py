"""The REST client of the command line: one place for the address, the token and what can go wrong.

Owns requests, their bounds (time, size, pages) and their errors. Never formats anything for people, and never trusts
what answers: whatever listens there may be no analyzer at all.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import httpx

from otel_memory.humanize import printable

DEFAULT_URL: Final = "http://127.0.0.1:8431"
TIMEOUT_SECONDS: Final = 10.0
"""Between two signs of life of the server."""
ANSWER_SECONDS: Final = 60.0
"""For one whole answer."""
MAX_ANSWER_BYTES: Final = 64 * 2**20
MAX_EVENT_BYTES: Final = 4 * 2**20
SILENCE_SECONDS: Final = 60.0
"""A stream says something every 15 s, at least that it is there."""
MAX_PAGES: Final = 1000
PAGE: Final = 500

Json = dict[str, Any]


class ClientError(Exception):
    """The analyzer could not be asked. The message says what is wrong and how to mend it; it holds no control
    characters but the line breaks that are ours."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every reading verb has."""
    parser.add_argument(
        "--url",
        default=os.environ.get("OTEL_MEMORY_URL") or DEFAULT_URL,
        help=f"the analyzer's address (environment: OTEL_MEMORY_URL; default: {DEFAULT_URL})",
    )
    parser.add_argument(
        "--token", default=os.environ.get("OTEL_MEMORY_TOKEN"), help="bearer token (environment: OTEL_MEMORY_TOKEN)"
    )
    parser.add_argument("--json", action="store_true", help="JSON for a program")


class ApiClient:
    """A connection to one analyzer; use it in a ``with`` block.

    ``url`` may lack its scheme and may carry a path (of a proxy in front). ``transport`` and ``clock`` (monotonic
    seconds) are for tests.

    Raises:
        ClientError: ``url`` or ``token`` can't be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        address = _address(url)
        # The address as it is shown: a password in it is nobody else's business.
        self.url: Final = printable(str(address.copy_with(username=None, password=None)).rstrip("/"))
        self._has_token = bool(token)
        self._clock = clock
        if token and not (token.isascii() and token.isprintable()):
            raise ClientError("the token has characters that no header can carry\n  mend: --token or OTEL_MEMORY_TOKEN")
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            # A proxy set for the outside world must not be asked for this machine itself.
            trust_env=not _is_loopback(address.host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Json | None:
        """The JSON object at ``path``; ``None`` where there is none (404). A parameter that is ``None`` is left out.

        Raises:
            ClientError: the analyzer can't be reached, refuses, or isn't one.
        """
        asked = {name: value for name, value in (params or {}).items() if value is not None}
        with self._speaking(), self._http.stream("GET", path, params=asked) as answer:
            body = self._read(answer)
        return self._document(path, answer, body)

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[tuple[str, Json]]]:
        """The server-sent events at ``path`` as (name, JSON object), until the server ends them.

        Raises:
            ClientError: as :meth:`get`, also while the events are read.
        """
        patience = httpx.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        asks = {"Accept": "text/event-stream"}
        with self._speaking(), self._http.stream("GET", path, headers=asks, timeout=patience) as answer:
            kind, _, _ = answer.headers.get("content-type", "").partition(";")
            if not answer.is_success or kind.strip() != "text/event-stream":
                self._document(path, answer, self._read(answer))
                raise self._stranger(f"it has no {printable(path)}")
            yield self._events(answer)

    def _events(self, answer: httpx.Response) -> Iterator[tuple[str, Json]]:
        name, data = "message", ""
        for line in self._lines(answer):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data += value
            elif not line:
                if data:
                    yield name, self._object(data, "an event")
                name, data = "message", ""

    def _lines(self, answer: httpx.Response) -> Iterator[str]:
        rest = b""
        for chunk in answer.iter_bytes():
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_EVENT_BYTES:
                raise ClientError(f"{self.url} sends an event of more than {MAX_EVENT_BYTES >> 20} MiB")
            for line in lines:
                yield line.removesuffix(b"\r").decode("utf-8", "replace")

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """What goes wrong on the way as ClientError."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise ClientError(
                f"{self.url} does not answer within {TIMEOUT_SECONDS:g} s\n"
                "  mend: is that the analyzer's address? Name another with --url or OTEL_MEMORY_URL"
            ) from error
        except httpx.RemoteProtocolError as error:
            raise self._stranger("it does not speak HTTP") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(
                f"no analyzer answers at {self.url} ({printable(str(error) or type(error).__name__)})\n"
                "  mend: start one with `otel-memory serve`, or name its address with --url or OTEL_MEMORY_URL"
            ) from error

    def _read(self, answer: httpx.Response) -> bytes:
        deadline = self._clock() + ANSWER_SECONDS
        body = bytearray()
        for chunk in answer.iter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ClientError(f"{self.url} answers with more than {MAX_ANSWER_BYTES >> 20} MiB, which is not read")
            if self._clock() > deadline:
                raise ClientError(f"{self.url} has not finished its answer within {ANSWER_SECONDS:g} s")
        return bytes(body)

    def _document(self, path: str, answer: httpx.Response, body: bytes) -> Json | None:
        status = answer.status_code
        if status == httpx.codes.NOT_FOUND:
            return None
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            wants = "does not accept this token" if self._has_token else "wants a token"
            raise ClientError(f"{self.url} {wants}\n  mend: give the analyzer's with --token or OTEL_MEMORY_TOKEN")
        if answer.has_redirect_location:
            target = printable(answer.headers.get("location", ""))
            raise ClientError(f"{self.url} sends on to {target}\n  mend: name the address itself with --url")
        if not answer.is_success:
            raise ClientError(f"{self.url}{printable(path)} answers {status}: {_detail(body)}")
        return self._object(body, path)

    def _object(self, text: str | bytes, what: str) -> Json:
        try:
            document = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise self._stranger("it does not answer with JSON") from error
        if not isinstance(document, dict):
            raise self._stranger(f"{printable(what)} is not an object")
        return document

    def _stranger(self, why: str) -> ClientError:
        return ClientError(
            f"{self.url} is no otel-memory analyzer: {why}\n"
            "  mend: --url names the port of the page (8431 unless set), not one of OTLP"
        )

    def items(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[Json]:
        """All items of a list, page after page, at most ``MAX_PAGES`` of them.

        Raises:
            ClientError: as :meth:`get`, also where the path does not exist or the list does not end.
        """
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = self.get(path, {**(params or {}), "cursor": cursor})
            if page is None:
                raise self._stranger(f"it has no {printable(path)}")
            items = page.get("items")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise self._stranger(f"{printable(path)} is not a list")
            yield from items
            following = page.get("next")
            if not following:
                return
            if not items or following == cursor or not isinstance(following, str):
                break
            cursor = following
        raise ClientError(f"the list {self.url}{printable(path)} does not end")


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url.strip() if "://" in url else f"http://{url.strip()}")
    except (httpx.InvalidURL, ValueError) as error:
        raise ClientError(f"--url {printable(url)!r} is no address: {printable(str(error))}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise ClientError(f"--url {printable(url)!r} is no address such as {DEFAULT_URL}")
    return address


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _detail(body: bytes) -> str:
    """What an answer says is wrong: the field ``detail`` of JSON, else the beginning of its text."""
    text = body.decode("utf-8", "replace")
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, RecursionError, TypeError, KeyError):
        detail = text
    return printable(" ".join(str(detail).split()))[:300] or "nothing more"


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
