"""Who may talk to the API, and what browsers are told about its answers.

Owns the token, the cookie that a browser gets for it, the check of the Host header, and the security headers. A plain
ASGI layer: it never touches a body, so streams pass through it untouched.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE: Final = "otel_memory"
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""What a container's probes ask, which carry no token."""
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
_COOKIE_SECONDS: Final = 30 * 24 * 3600

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Wraps the application.

    ``token``: demanded of everything but ``/healthz``, as ``Authorization: Bearer`` or as the cookie that
    ``/?token=...`` sets once. ``hosts``: names that the Host header may carry, without port; None allows any. Needed
    where only the loopback address protects: a web page whose name is made to point at 127.0.0.1 is stopped by it.
    """

    def __init__(self, app: ASGIApp, *, token: str | None = None, hosts: frozenset[str] | None = None) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        # The cookie proves knowledge of the token without carrying it.
        self._cookie = hmac.new(token.encode(), b"otel-memory cookie", hashlib.sha256).hexdigest() if token else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """The refusal or redirect; None lets the request through."""
        headers = Headers(scope=scope)
        if self._hosts is not None and host_name(headers.get("host", "")) not in self._hosts:
            return JSONResponse(
                {"detail": "this address is not known to the analyzer; use http://localhost"},
                status_code=421,
            )
        if scope["method"] not in READING and _comes_from_elsewhere(headers):
            return JSONResponse({"detail": "another web page may not change anything here"}, status_code=403)
        if self._token is None or scope["path"] in _OPEN_PATHS:
            return None
        given = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if scope["path"] == "/" and "token" in given and self._is_token(given["token"]):
            return self._with_cookie(scope, given)
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(credential.strip()):
            return None
        if _same(_cookie_of(headers), self._cookie):
            return None
        return JSONResponse(
            {"detail": "a token is needed: Authorization: Bearer TOKEN, or open /?token=TOKEN once in a browser"},
            status_code=401,
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _with_cookie(self, scope: Scope, given: dict[str, str]) -> Response:
        # Redirected, so that the token leaves the address bar and the history's newest entry.
        rest = urlencode({name: value for name, value in given.items() if name != "token"})
        response = RedirectResponse("/" + (f"?{rest}" if rest else ""), status_code=303)
        response.set_cookie(
            COOKIE,
            self._cookie,
            max_age=_COOKIE_SECONDS,
            httponly=True,
            samesite="lax",
            secure=scope.get("scheme") == "https",
        )
        return response

    def _is_token(self, given: str) -> bool:
        return self._token is not None and _same(given, self._token)


def host_name(header: str) -> str:
    """The name in a Host header, without port and in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def is_loopback(host: str) -> bool:
    """Whether binding to ``host`` reaches this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, more: tuple[str, ...] = ()) -> frozenset[str] | None:
    """What ``Guard`` takes as ``hosts``: bound to loopback its names and ``more``, elsewhere ``more`` or anything."""
    if is_loopback(host):
        names = {"localhost", "127.0.0.1", "::1", host.strip("[]").lower()}
        return frozenset(names | {host_name(name) for name in more})
    return frozenset(host_name(name) for name in more) or None


def _comes_from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that a page of another address sends this. Programs say nothing of the kind."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and host_name(origin.partition("://")[2]) != host_name(headers.get("host", ""))


def _cookie_of(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def _same(given: str, expected: str) -> bool:
    """Compares in a time that does not tell how much agrees."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
