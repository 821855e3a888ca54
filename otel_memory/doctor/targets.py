"""What the SDK's exporters will do, worked out from the environment by the SDK's own rules.

Owns which exporter is chosen, where it sends, with which headers and over which transport. Asks nobody; what it says
mirrors ``opentelemetry.sdk._configuration`` and the OTLP exporters of opentelemetry-python, quirks included.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

Signal = Literal["metrics", "logs", "traces"]
Protocol = Literal["grpc", "http/protobuf"]

PROTOCOLS: Final[dict[str, Protocol]] = {"grpc": "grpc", "http/protobuf": "http/protobuf"}
OTLP: Final[dict[str, Protocol]] = {"otlp_proto_grpc": "grpc", "otlp_proto_http": "http/protobuf"}
"""Entry point of an OTLP exporter -> what it speaks."""
_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_BASES: Final[dict[Protocol, str]] = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
GRPC_DEFAULT_PORT: Final = 443
"""What gRPC takes where the address names no port."""


class UnsupportedProtocol(ValueError):
    """A protocol that the Python SDK has no exporter for. ``variable`` says where it was set."""

    def __init__(self, variable: str, value: str) -> None:
        super().__init__(f"{variable}={value!r} is not one that the Python exporters speak")
        self.variable = variable


class BadAddress(ValueError):
    """An endpoint that is no address."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one signal goes. ``variable`` is what the address was taken from; the files are paths for TLS."""

    signal: Signal
    protocol: Protocol
    url: str
    variable: str
    secure: bool
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            BadAddress: there are none in it.
        """
        parts = urlsplit(self.url if "//" in self.url else f"//{self.url}")
        try:
            port = parts.port
        except ValueError as error:
            raise BadAddress(str(error)) from error
        if not parts.hostname:
            raise BadAddress("it names no host")
        if port is None:
            port = GRPC_DEFAULT_PORT if self.protocol == "grpc" else (443 if self.secure else 80)
        return parts.hostname, port

    @property
    def shown(self) -> str:
        """The address without a name and password that it may carry."""
        return re.sub(r"(?<=//)[^/@]*@", "", self.url)


def exporter_names(environ: Mapping[str, str], signal: Signal) -> list[str]:
    """The exporters as the user named them. The distro's default is ``otlp``; a variable that is set and empty, or
    ``none``, is no exporter at all."""
    value = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp")
    if not value or value.lower().strip() == "none":
        return []
    return [name.strip() for name in value.split(",")]


def entry_points_of(environ: Mapping[str, str], signal: Signal) -> list[str]:
    """The names of the entry points that the SDK loads for them, each once.

    Raises:
        UnsupportedProtocol: ``otlp`` is asked for with a protocol that isn't there.
    """
    resolved = []
    for name in exporter_names(environ, signal):
        if name == "otlp":
            variable, value = _first(environ, f"{_PREFIX}{signal.upper()}_PROTOCOL", f"{_PREFIX}PROTOCOL")
            protocol = (value or "grpc").strip()
            if protocol not in PROTOCOLS:
                raise UnsupportedProtocol(variable, protocol)
            name = next(point for point, spoken in OTLP.items() if spoken == protocol)
        resolved.append(name)
    return list(dict.fromkeys(resolved))


def targets_of(environ: Mapping[str, str], signal: Signal) -> list[Target]:
    """Where a signal goes by OTLP: nowhere, somewhere, or (twice) by both protocols.

    Raises:
        UnsupportedProtocol: see there.
    """
    return [_target(environ, signal, OTLP[name]) for name in entry_points_of(environ, signal) if name in OTLP]


def _target(environ: Mapping[str, str], signal: Signal, protocol: Protocol) -> Target:
    own = f"{_PREFIX}{signal.upper()}_"
    variable, url = _first(environ, f"{own}ENDPOINT", f"{_PREFIX}ENDPOINT")
    url = url or _BASES[protocol]
    if protocol == "http/protobuf" and variable != f"{own}ENDPOINT":
        # A signal's own endpoint is used as it is; the path is put behind the common one alone.
        url = f"{url.removesuffix('/')}/v1/{signal}"
    _, headers = _first(environ, f"{own}HEADERS", f"{_PREFIX}HEADERS")
    files = {
        name: _first(environ, f"{own}{name}", f"{_PREFIX}{name}")[1] or None
        for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    }
    return Target(
        signal,
        protocol,
        url,
        variable,
        _is_secure(environ, own, url, protocol),
        tuple(parse_headers(headers)[0].items()),
        files["CERTIFICATE"],
        files["CLIENT_CERTIFICATE"],
        files["CLIENT_KEY"],
    )


def _is_secure(environ: Mapping[str, str], own: str, url: str, protocol: Protocol) -> bool:
    scheme = urlsplit(url).scheme
    if protocol == "http/protobuf" or scheme == "https":
        return scheme == "https"
    for variable in (f"{own}INSECURE", f"{_PREFIX}INSECURE"):
        if variable in environ:
            return environ[variable].lower() != "true"
    # Without a scheme it is TLS, which surprises many.
    return scheme != "http"


def parse_headers(text: str) -> tuple[dict[str, str], int]:
    """The headers as the exporters read them, and how many of the entries they drop as malformed."""
    # It logs what it drops, and that may be a secret.
    logger = logging.getLogger("opentelemetry.util.re")
    before, logger.disabled = logger.disabled, True
    try:
        entries = [entry for entry in re.split(r"[ \t]*,[ \t]*", text) if entry.strip()]
        parsed = [parse_env_headers(entry, liberal=True) for entry in entries]
    finally:
        logger.disabled = before
    return {name: value for one in parsed for name, value in one.items()}, sum(not one for one in parsed)


def headers_variable(environ: Mapping[str, str], signal: Signal) -> tuple[str, str]:
    """The variable that a signal's headers are taken from, and its value."""
    return _first(environ, f"{_PREFIX}{signal.upper()}_HEADERS", f"{_PREFIX}HEADERS")


def _first(environ: Mapping[str, str], *variables: str) -> tuple[str, str]:
    """The first variable that is set to something, with its value; else the last one, and nothing."""
    for variable in variables:
        if environ.get(variable, "").strip():
            return variable, environ[variable].strip()
    return variables[-1], ""
