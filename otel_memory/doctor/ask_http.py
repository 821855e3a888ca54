"""Asks an OTLP/HTTP endpoint as the exporter would: same address, headers, proxy and certificates."""

from __future__ import annotations

import base64
import http.client
import importlib
import os
import ssl
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from otel_memory.doctor.answers import Answer, bad_certificate, greets, nobody, wants_token
from otel_memory.doctor.targets import Target
from otel_memory.version import __version__

CONTENT_TYPE: Final = "application/x-protobuf"
_LATER: Final = frozenset({429, 502, 503, 504})
"""What exporters take for "come again"."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere mostly arrives there as a GET: worth telling, not following."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def ask(target: Target, timeout_seconds: float) -> Answer:
    """Send an empty request: a valid message without any resource."""
    if not target.url.lower().startswith(("http://", "https://")):
        return Answer("failure", "is no http or https address", f"{target.variable}=http://127.0.0.1:4318")
    try:
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if target.secure:
            handlers.append(urllib.request.HTTPSHandler(context=_context(target)))
    except (OSError, ssl.SSLError) as error:
        return Answer("failure", f"can't be asked: a certificate or key can't be read ({_why(error)})", FILES)
    url, credentials = _without_credentials(target.url)
    request = urllib.request.Request(url, b"", method="POST")
    request.add_header("Content-Type", CONTENT_TYPE)
    request.add_header("User-Agent", f"otel-memory-doctor/{__version__}")
    for name, value in (*credentials, *target.headers):
        request.add_header(name, value)
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_seconds) as reply:
            return _taken(reply.status, reply.headers.get_content_type(), "content-type" in reply.headers)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(target, error.code, str(error.headers.get("location", "")))
    except (OSError, http.client.HTTPException) as error:
        return _failed(target, error, timeout_seconds)


def _without_credentials(url: str) -> tuple[str, list[tuple[str, str]]]:
    """The address without name and password, and the header that the exporter makes of them."""
    parts = urlsplit(url)
    user, found, place = parts.netloc.rpartition("@")
    if not found:
        return url, []
    basic = base64.b64encode(unquote(user).encode()).decode("ascii")
    return parts._replace(netloc=place).geturl(), [("authorization", f"Basic {basic}")]


FILES: Final = "correct OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY: paths of PEM files"


def _context(target: Target) -> ssl.SSLContext:
    """The certificates that the exporter trusts: requests takes certifi's, not the machine's."""
    trusted = target.certificate or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not trusted:
        try:
            trusted = str(importlib.import_module("certifi").where())
        except ImportError:
            trusted = None
    if trusted and os.path.isdir(trusted):
        context = ssl.create_default_context(capath=trusted)
    else:
        context = ssl.create_default_context(cafile=trusted)
    if target.client_certificate:
        context.load_cert_chain(target.client_certificate, target.client_key)
    return context


def _taken(status: int, content_type: str, typed: bool) -> Answer:
    if typed and content_type != CONTENT_TYPE:
        # The specification demands the request's own type back.
        return Answer(
            "warning",
            f"answers {status}, but with {content_type} as no OTLP receiver does",
            "is that the OTLP port, and not a web page's?",
        )
    return Answer("ok", f"answers {status} (http/protobuf)")


def _refused(target: Target, status: int, location: str) -> Answer:
    if status in (401, 403):
        return wants_token(target, str(status))
    if 300 <= status < 400:
        return Answer("failure", f"answers {status}: it sends on to {location}", f"{target.variable}=<that address>")
    if status in (404, 405):
        return Answer("failure", f"answers {status}: no OTLP receiver is at this path", _path_mend(target))
    if status in _LATER:
        return Answer("warning", f"answers {status}: not now; exporters try again")
    return Answer("failure", f"answers {status}", "is that an OTLP/HTTP endpoint?")


def _path_mend(target: Target) -> str:
    path = f"/v1/{target.signal}"
    if target.url.endswith(path * 2):
        return f"leave {path} out of {target.variable}: it is put behind"
    if not target.url.endswith(path) and target.signal.upper() in target.variable:
        return f"{target.variable} is used as it is: it must end with {path}"
    return "is that an OTLP/HTTP endpoint? The analyzer's is port 4318 unless set"


def _failed(target: Target, error: Exception, timeout_seconds: float) -> Answer:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return bad_certificate(reason.verify_message or "not verified")
    if isinstance(reason, ssl.SSLError):
        return Answer("failure", "does not speak TLS as asked", f"{target.variable}=http://… if it speaks in clear")
    if isinstance(reason, TimeoutError):
        return nobody(target, f"nothing within {timeout_seconds:g} s{_proxied(target)}")
    if isinstance(reason, http.client.HTTPException | ConnectionError) and not isinstance(
        reason, ConnectionRefusedError
    ):
        # Somebody took the connection, but not the words.
        greeting = None if target.secure else greets(target.place, timeout_seconds)
        if greeting == "http2":
            return Answer("failure", "speaks gRPC, not HTTP/1", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or its HTTP port")
        if greeting == "tls":
            return Answer("failure", "speaks TLS", f"{target.variable}=https://…")
        return Answer("failure", f"does not answer in HTTP ({_why(reason)})", "is that an OTLP/HTTP endpoint?")
    return nobody(target, f"{_why(reason)}{_proxied(target)}")


def _proxied(target: Target) -> str:
    """Said where a proxy stood between, which the exporter would ask too."""
    scheme, host = urlsplit(target.url).scheme, target.place[0]
    if scheme not in urllib.request.getproxies() or urllib.request.proxy_bypass(host):
        return ""
    return f"; asked by way of the proxy in {scheme}_proxy, which NO_PROXY={host} would leave out"


def _why(reason: object) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__ if isinstance(reason, Exception) else str(reason)
