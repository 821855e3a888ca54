"""What the exporters will do, held against the exporters themselves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.sdk._configuration import _get_exporter_names

from otel_memory.doctor.targets import (
    BadAddress,
    UnsupportedProtocol,
    entry_points_of,
    parse_headers,
    targets_of,
)

BASE = "OTEL_EXPORTER_OTLP_"
ENDPOINTS = [
    {},
    {f"{BASE}ENDPOINT": "http://collector:4318"},
    {f"{BASE}ENDPOINT": "http://collector:4318/"},
    {f"{BASE}ENDPOINT": "http://collector:4318/v1/metrics"},
    {f"{BASE}ENDPOINT": "https://collector.example/otlp"},
    {f"{BASE}METRICS_ENDPOINT": "http://collector:4318"},
    {
        f"{BASE}METRICS_ENDPOINT": "http://a:1/x",
        f"{BASE}LOGS_ENDPOINT": "http://b:2/y",
        f"{BASE}ENDPOINT": "http://c:3",
    },
    {f"{BASE}ENDPOINT": "collector:4317"},
    {f"{BASE}ENDPOINT": "collector:4317", f"{BASE}INSECURE": "true"},
    {f"{BASE}ENDPOINT": "collector:4317", f"{BASE}INSECURE": "false", f"{BASE}METRICS_INSECURE": "True"},
    {f"{BASE}ENDPOINT": "http://collector:4317", f"{BASE}INSECURE": "false"},
    {f"{BASE}ENDPOINT": "https://collector:4317", f"{BASE}INSECURE": "true"},
    {f"{BASE}HEADERS": "authorization=Bearer%20one two,x-a=1"},
    {f"{BASE}HEADERS": "Authorization=Bearer common", f"{BASE}METRICS_HEADERS": "x-own=1"},
]


@contextlib.contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize("environ", ENDPOINTS, ids=str)
@pytest.mark.parametrize(("signal", "exporter"), [("metrics", HttpMetricExporter), ("logs", HttpLogExporter)])
def test_over_http_address_and_headers_are_those_of_the_exporter(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], signal: str, exporter: type
) -> None:
    (target,) = targets_of({**environ, f"{BASE}PROTOCOL": "http/protobuf"}, signal)
    with environment(monkeypatch, environ):
        real = exporter()
    try:
        assert target.url == real._endpoint
        own = {
            name: value for name, value in real._client._headers.items() if name not in ("content-type", "user-agent")
        }
        assert dict(target.headers) == own
    finally:
        real.shutdown()


@pytest.mark.parametrize("environ", ENDPOINTS, ids=str)
@pytest.mark.parametrize(("signal", "exporter"), [("metrics", GrpcMetricExporter), ("logs", GrpcLogExporter)])
def test_over_grpc_address_tls_and_headers_are_those_of_the_exporter(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], signal: str, exporter: type
) -> None:
    (target,) = targets_of({**environ, f"{BASE}PROTOCOL": "grpc"}, signal)
    with environment(monkeypatch, environ):
        real = exporter()
    try:
        assert target.secure is not real._insecure
        assert target.url.endswith(real._endpoint) or f"//{real._endpoint}/" in target.url
        own = {name: value for name, value in real._headers if name != "user-agent"}
        assert dict(target.headers) == own
    finally:
        real.shutdown()


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_METRICS_EXPORTER": "otlp"},
        {"OTEL_METRICS_EXPORTER": ""},
        {"OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_METRICS_EXPORTER": " NONE "},
        {"OTEL_METRICS_EXPORTER": "console, otlp"},
        {"OTEL_METRICS_EXPORTER": "none,console"},
        {"OTEL_METRICS_EXPORTER": "otlp", f"{BASE}PROTOCOL": "http/protobuf"},
        {"OTEL_METRICS_EXPORTER": "otlp", f"{BASE}PROTOCOL": "http/protobuf", f"{BASE}METRICS_PROTOCOL": "grpc"},
        {"OTEL_METRICS_EXPORTER": "otlp_proto_http"},
        {"OTEL_METRICS_EXPORTER": "otlp,otlp_proto_http", f"{BASE}PROTOCOL": "grpc"},
    ],
    ids=str,
)
def test_the_exporters_chosen_are_those_that_the_sdk_chooses(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    with environment(monkeypatch, environ):
        assert entry_points_of(environ, "metrics") == _get_exporter_names("metrics")


def test_without_a_variable_the_distro_sets_otlp_over_grpc() -> None:
    assert entry_points_of({}, "logs") == ["otlp_proto_grpc"]


def test_a_protocol_without_exporter_is_named_with_the_variable_that_sets_it() -> None:
    environ = {f"{BASE}PROTOCOL": "grpc", f"{BASE}METRICS_PROTOCOL": "http/json"}
    with pytest.raises(UnsupportedProtocol, match="OTEL_EXPORTER_OTLP_METRICS_PROTOCOL='http/json'"):
        targets_of(environ, "metrics")
    assert len(targets_of(environ, "logs")) == 1


def test_a_password_in_the_address_is_never_shown() -> None:
    (target,) = targets_of({f"{BASE}ENDPOINT": "https://me:secret@collector:4317"}, "metrics")
    assert target.shown == "https://collector:4317"
    assert "secret" not in target.shown


def test_headers_are_not_in_the_representation() -> None:
    (target,) = targets_of({f"{BASE}HEADERS": "authorization=Bearer secret"}, "metrics")
    assert "secret" not in repr(target)


@pytest.mark.parametrize(
    ("protocol", "url", "place"),
    [
        ("grpc", "http://collector", ("collector", 443)),
        ("grpc", "collector:4317", ("collector", 4317)),
        ("grpc", "http://[::1]:4317", ("::1", 4317)),
        ("http/protobuf", "http://collector", ("collector", 80)),
        ("http/protobuf", "https://collector", ("collector", 443)),
    ],
)
def test_the_place_has_the_port_that_the_exporter_takes(protocol: str, url: str, place: tuple[str, int]) -> None:
    (target,) = targets_of({f"{BASE}PROTOCOL": protocol, f"{BASE}ENDPOINT": url}, "metrics")
    assert target.place == place


@pytest.mark.parametrize("url", ["http://collector:99999", "http://collector:port", "http://"])
def test_what_is_no_address_says_so(url: str) -> None:
    (target,) = targets_of({f"{BASE}ENDPOINT": url}, "metrics")
    with pytest.raises(BadAddress):
        target.place


def test_a_malformed_header_is_counted_and_its_text_goes_to_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        headers, malformed = parse_headers("authorization=Bearer ok, just-a-secret ,,x=1")
    assert headers == {"authorization": "Bearer ok", "x": "1"}
    assert malformed == 1
    assert "secret" not in caplog.text
    assert not logging.getLogger("opentelemetry.util.re").disabled
