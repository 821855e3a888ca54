"""What came of asking an endpoint, and the mends that both protocols share.

Asks nobody anything but to see what speaks there.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Final, Literal

from otel_memory.doctor.report import Status
from otel_memory.doctor.targets import Target

Greeting = Literal["http1", "http2", "tls"]

TOKEN: Final = "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20<token>"
START: Final = "start the analyzer (`otel-memory serve`), or set {variable} to where a receiver listens"

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
"""RFC 9113, section 3.4: the preface and an empty SETTINGS frame. An HTTP/1 server refuses it politely."""
_SETTINGS_FRAME: Final = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """``detail`` goes on where the address ends. ``silent``: nobody is there, so asking again is of no use."""

    status: Status
    detail: str
    mend: str | None = None
    silent: bool = False


def nobody(target: Target, why: str) -> Answer:
    """Nothing listens, or it can't be reached."""
    return Answer("failure", f"does not answer ({why})", START.format(variable=target.variable), silent=True)


def bad_certificate(why: str) -> Answer:
    """Somebody is there, but isn't trusted."""
    return Answer(
        "failure",
        f"has a certificate that is not trusted ({why})",
        "OTEL_EXPORTER_OTLP_CERTIFICATE=<file with the authority's certificate, PEM>",
    )


def wants_token(target: Target, word: str) -> Answer:
    """It answers, but not to anybody. ``word`` is the status."""
    given = any(name == "authorization" for name, _ in target.headers)
    return Answer("failure", f"answers {word}: it {'does not accept this token' if given else 'wants a token'}", TOKEN)


def greets(place: tuple[str, int], timeout_seconds: float) -> Greeting | None:
    """What speaks at an address, by its answer to the preface of HTTP/2; None if that can't be told."""
    try:
        with socket.create_connection(place, timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(_PREFACE)
            first = connection.recv(64)
    except ConnectionError:
        first = b""
    except OSError:
        return None
    if first.startswith((b"HTTP/1", b"<")):
        return "http1"
    if len(first) >= 9 and first[3] == _SETTINGS_FRAME:
        return "http2"
    # Many a TLS server hangs up without a word on what is no TLS.
    return "tls" if _shakes_hands(place, timeout_seconds) else None


def _shakes_hands(place: tuple[str, int], timeout_seconds: float) -> bool:
    """Whether TLS is spoken there. Nothing is sent over it, so nobody need be trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(place, timeout_seconds) as connection,
            context.wrap_socket(connection, server_hostname=place[0]),
        ):
            return True
    except OSError:
        return False
