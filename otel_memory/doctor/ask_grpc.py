"""Asks an OTLP/gRPC endpoint as the exporter would; where grpcio is missing, whether it speaks HTTP/2 at all."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from otel_memory.doctor.answers import Answer, bad_certificate, greets, nobody, wants_token
from otel_memory.doctor.targets import Target

_METHODS: Final = {
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
_HTTP_MEND: Final = "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (the default is grpc), or its gRPC port"


def ask(target: Target, timeout_seconds: float) -> Answer:
    """Send an empty request: a valid message without any resource."""
    # gRPC's own log lines would stand between the findings.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        grpc: Any = importlib.import_module("grpc")
    except ImportError:
        return _without_grpc(target, timeout_seconds)
    try:
        channel = _channel(grpc, target)
    except OSError as error:
        return Answer(
            "failure",
            f"can't be asked: a certificate or key can't be read ({error.strerror})",
            "correct OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY: paths of PEM files",
        )
    try:
        call = channel.unary_unary(_METHODS[target.signal], request_serializer=bytes, response_deserializer=bytes)
        call(b"", timeout=timeout_seconds, metadata=target.headers)
    except grpc.RpcError as error:
        return _failed(grpc, target, error, timeout_seconds)
    finally:
        channel.close()
    return Answer("ok", "answers (grpc)")


def _channel(grpc: Any, target: Target) -> Any:
    # The exporter takes host and port from an address with a scheme, and anything else as it is.
    address = urlsplit(target.url).netloc or target.url
    if not target.secure:
        return grpc.insecure_channel(address)
    root, key, chain = (None, None, None)
    if target.certificate:
        root, key, chain = (_read(f) for f in (target.certificate, target.client_key, target.client_certificate))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, chain))


def _read(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _failed(grpc: Any, target: Target, error: Any, timeout_seconds: float) -> Answer:
    code, details = error.code(), str(error.details() or "")
    codes = grpc.StatusCode
    if code in (codes.UNAUTHENTICATED, codes.PERMISSION_DENIED):
        return wants_token(target, code.name)
    if code in (codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED, codes.INTERNAL, codes.UNKNOWN):
        greeting = greets(target.place, timeout_seconds)
        if greeting == "http1":
            return Answer("failure", "speaks HTTP/1, not gRPC", _HTTP_MEND)
        if "CERTIFICATE" in details:
            return bad_certificate("not verified")
        if target.secure and greeting == "http2":
            why = "" if "//" in target.url else "; without http:// in front the exporter takes TLS"
            return Answer("failure", f"does not speak TLS as asked{why}", f"{target.variable}=http://…")
        if not target.secure and greeting == "tls":
            return Answer("failure", "speaks TLS", f"{target.variable}=https://…")
        if code == codes.UNAVAILABLE and greeting == "http2":
            return Answer("warning", f"answers {code.name}: not now; exporters try again ({details[:200]})")
    if code == codes.DEADLINE_EXCEEDED:
        return nobody(target, f"nothing within {timeout_seconds:g} s")
    if code == codes.UNAVAILABLE:
        return nobody(target, details[:200])
    if code == codes.RESOURCE_EXHAUSTED:
        return Answer("warning", f"answers {code.name}: not now; exporters try again")
    return Answer("failure", f"answers {code.name}: {details[:200]}", "is that an OTLP/gRPC endpoint?")


def _without_grpc(target: Target, timeout_seconds: float) -> Answer:
    greeting = greets(target.place, timeout_seconds)
    if greeting == "http1":
        return Answer("failure", "speaks HTTP/1, not gRPC", _HTTP_MEND)
    if greeting is None:
        return nobody(target, "not in HTTP/2")
    return Answer("note", "takes connections; more can't be asked without grpcio", "pip install 'otel-memory[otlp]'")
