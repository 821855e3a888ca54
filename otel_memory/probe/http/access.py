"""Who may ask, and who may change something. Pure: takes what a request says of itself, returns the refusal or None.

Owns the token, the check for requests that come from this machine, and the check against foreign web pages.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HEALTH: Final = "/internal/memory/health"
"""Answered to everybody, because a container's probes carry no token; without one it gives the status alone."""

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """An answer that is not the one asked for: HTTP status, a word for programs, a sentence for people."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one application.

    With a ``token`` it is demanded of every request (``Authorization: Bearer``). Without one, requests are answered
    that come from this machine, and those that change something only where ``changes`` says that nobody else can reach
    the address (a server of our own on a loopback address). ``protected``: the application that this is mounted in has
    an access control of its own before it, so that all is allowed but requests of foreign web pages.
    """

    token: str | None = None
    changes: bool = False
    protected: bool = False

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the token."""
        if not self.token:
            return False
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and _same(credential.strip(), self.token)

    def refusal(self, *, changing: bool, headers: Mapping[str, str], client: str | None) -> Refusal | None:
        """Why the request isn't answered; None lets it through.

        ``headers`` in lower case. ``client`` is the address it comes from, None or empty where that isn't known.
        """
        if self.knows(headers):
            return None
        if self.token and not self.protected:
            return Refusal(401, "token_needed", "a token is needed: send `Authorization: Bearer TOKEN`")
        if _from_foreign_page(headers):
            return Refusal(
                *(403, "foreign_origin"),
                "the request comes from a web page of another origin; only requests with a token are answered to those",
            )
        if self.protected:
            return None
        if not _from_here(headers, client):
            return Refusal(
                *(403, "not_local"),
                "without a token only requests from this machine are answered, sent to localhost or 127.0.0.1; give "
                "the endpoints a token: OTEL_PYTHON_MEMORY_HTTP_TOKEN, or memory_app(token=...)",
            )
        if changing and not self.changes:
            return Refusal(
                *(403, "token_needed"),
                "what changes something needs a token here: memory_app(token=...), or protected=True where the "
                "application itself checks who may come here",
            )
        return None


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) is reached from this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def host_name(header: str) -> str:
    """The name in a Host header, without the port and in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _from_here(headers: Mapping[str, str], client: str | None) -> bool:
    """By the address, and by the Host: a page whose name was made to point at 127.0.0.1 carries that name. Whoever was
    forwarded by a proxy may be anywhere."""
    if not client or not is_loopback(client) or any(name in headers for name in _FORWARDED):
        return False
    return is_loopback(host_name(headers.get("host", "")))


def _from_foreign_page(headers: Mapping[str, str]) -> bool:
    """Browsers say where a request comes from; other clients say nothing."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").strip().lower()


def _same(given: str, expected: str) -> bool:
    """Compares in a time that does not tell how much agrees. Servers hand headers on as latin-1."""
    return hmac.compare_digest(given.encode("latin-1", "replace"), expected.encode("utf-8", "surrogateescape"))
