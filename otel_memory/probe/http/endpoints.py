"""The endpoints, whoever serves them: which paths there are, and the answer to one request.

Owns the table of paths, the envelope (``{"status": "success", "data": …}``, or ``{"status": "error", "data": null,
"error": {"code", "message"}}``), and the bounds: bodies aren't read, so many requests at once and no more, one change
of a kind at a time. Knows no framework; ``app`` and ``wsgi`` bring requests here.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from otel_memory.probe.errors import MemoryWatchError
from otel_memory.probe.http import reports
from otel_memory.probe.http.access import HEALTH, Access, Refusal

MAX_BODY_BYTES: Final = 16 * 1024
"""No endpoint takes a body, but clients send empty objects."""
MAX_FIELDS: Final = 20
MAX_AT_ONCE: Final = 8

_logger: Final = logging.getLogger("otel_memory.probe")


@dataclass(frozen=True, slots=True)
class Route:
    """One path. ``{package_name}`` in it takes one segment; earlier routes win."""

    method: str
    path: str
    report: Callable[..., dict[str, Any]]

    @property
    def segments(self) -> list[str]:
        return self.path.split("/")

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters; None if it is another's."""
        given = path.split("/")
        if len(given) != len(self.segments):
            return None
        found: dict[str, str] = {}
        for mine, theirs in zip(self.segments, given, strict=True):
            if mine.startswith("{") and theirs:
                found[mine.strip("{}")] = theirs
            elif mine != theirs:
                return None
        return found


ROUTES: Final = (
    Route("GET", "/internal/memory/status", reports.status),
    Route("GET", "/internal/memory/metrics", reports.metrics),
    Route("POST", "/internal/memory/cleanup", reports.cleanup),
    Route("GET", HEALTH, reports.health),
    Route("GET", "/internal/memory/snapshots", reports.snapshots),
    Route("GET", "/internal/memory/breakdown", reports.breakdown),
    Route("POST", "/internal/memory/diagnostic-gc", reports.diagnostic_gc),
    Route("POST", "/internal/memory/evidence", reports.evidence),
    Route("GET", "/api/packages/memory/summary", reports.summary),
    Route("GET", "/api/packages/memory/leaks", reports.leaks),
    Route("GET", "/api/packages/memory/optimization-suggestions", reports.suggestions),
    Route("POST", "/api/packages/memory/garbage-collection", reports.garbage_collection),
    Route("POST", "/api/packages/memory/update-metrics", reports.update_metrics),
    Route("GET", "/api/packages/memory/{package_name}", reports.package),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. ``path`` is decoded and without the prefix that the endpoints are mounted under; ``headers`` are in
    lower case; ``client`` is the address that it comes from."""

    method: str
    path: str
    query: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body (JSON), headers."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]


class Endpoints:
    """Answers requests by the rules of ``access``. Usable from any thread, and in a forked child."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._places = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._changes = {route.path: threading.Lock() for route in ROUTES if route.method == "POST"}

    def refuse(self, asked: Asked) -> Reply | None:
        """The answer where nothing has to be read for it: cheap enough for an event loop. None: ask ``answer``."""
        try:
            self._route(asked)
        except Refusal as refusal:
            return _refused(refusal)
        return None

    def answer(self, asked: Asked) -> Reply:
        """The answer; blocks until it is there. Never raises."""
        if self._pid != os.getpid():
            self._begin()  # what was held when the process forked is held by nobody here
        try:
            route, parameters = self._route(asked)
            return self._within_bounds(route, parameters, asked)
        except Refusal as refusal:
            return _refused(refusal)
        except MemoryWatchError as error:
            return _refused(Refusal(409, "not_now", str(error)))
        except Exception as error:  # law 1: nothing reaches the host
            _logger.warning("otel-memory: %s %s failed", asked.method, asked.path[:200], exc_info=error)
            return _refused(Refusal(500, "failed", f"{type(error).__name__}: {error}"))

    def _route(self, asked: Asked) -> tuple[Route, dict[str, str]]:
        found = [(route, match) for route in ROUTES if (match := route.match(asked.path)) is not None]
        changing = asked.method not in ("GET", "HEAD")
        refusal = self.access.refusal(changing=changing, headers=asked.headers, client=asked.client)
        if refusal is not None and not (asked.path == HEALTH and not changing):
            raise refusal
        if not found:
            raise Refusal(404, "unknown_path", f"there is no such path; there are {', '.join(r.path for r in ROUTES)}")
        # The first that matches is meant: `leaks` is no package.
        meant = [each for each in found if each[0].path == found[0][0].path]
        method = "GET" if asked.method == "HEAD" else asked.method
        route, parameters = next((each for each in meant if each[0].method == method), (None, {}))
        if route is None:
            raise Refusal(405, "wrong_method", f"expected {meant[0][0].method}, not {asked.method[:20]}")
        length = asked.headers.get("content-length", "").strip()
        if length and not (length.isascii() and length.isdecimal() and len(length) <= 18):
            raise Refusal(400, "invalid_length", "Content-Length is no number")
        if length and int(length) > MAX_BODY_BYTES:
            raise Refusal(413, "too_large", f"the body is not read and may have {MAX_BODY_BYTES} bytes at most")
        return route, parameters

    def _within_bounds(self, route: Route, parameters: dict[str, str], asked: Asked) -> Reply:
        places = self._places
        if not places.acquire(blocking=False):
            raise Refusal(503, "busy", f"{MAX_AT_ONCE} requests are being answered; try again")
        try:
            change = self._changes.get(route.path)
            if change is None:
                return self._report(route, parameters, asked)
            if not change.acquire(blocking=False):
                raise Refusal(409, "under_way", "another request is doing just that; try again when it is over")
            try:
                return self._report(route, parameters, asked)
            finally:
                change.release()
        finally:
            places.release()

    def _report(self, route: Route, parameters: dict[str, str], asked: Asked) -> Reply:
        data = route.report(_query(asked.query), **parameters)
        if route.path != HEALTH:
            return _reply(200, {"status": "success", "data": data})
        if self.access.refusal(changing=False, headers=asked.headers, client=asked.client) is not None:
            data = {"status": data["status"]}
        return _reply(503 if data["status"] == "critical" else 200, {"status": "success", "data": data})


def _query(raw: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Refusal(400, "invalid_query", f"expected at most {MAX_FIELDS} parameters") from None


def _refused(refusal: Refusal) -> Reply:
    error = {"code": refusal.code, "message": refusal.message}
    headers = {401: (("www-authenticate", "Bearer"),), 409: (("retry-after", "1"),), 503: (("retry-after", "1"),)}
    return _reply(refusal.status, {"status": "error", "data": None, "error": error}, headers.get(refusal.status, ()))


def _reply(status: int, content: dict[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    body = json.dumps(reports.for_json(content), allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(
        status,
        body,
        (
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            *headers,
        ),
    )
