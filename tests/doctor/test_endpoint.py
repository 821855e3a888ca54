"""Endpoints of every kind, asked for real on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from otel_memory.doctor.endpoint import check_endpoint
from otel_memory.doctor.report import Finding
from tests.doctor.servers import (
    LOOPBACK,
    TLS,
    Memory,
    free_port,
    grpc_receiver,
    hang,
    http_receiver,
    nonsense,
    raw_server,
    tls_grpc_server,
    trickle,
    web_server,
)

BASE = "OTEL_EXPORTER_OTLP_"
TIMEOUT_SECONDS = 2.0


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def ingest() -> Iterator[Memory]:
    return Memory()


def findings(
    protocol: str, url: str, *, events: bool = False, timeout: float = TIMEOUT_SECONDS, **more: str
) -> list[Finding]:
    environ = {f"{BASE}PROTOCOL": protocol, f"{BASE}ENDPOINT": url, **{BASE + k: v for k, v in more.items()}}
    return list(check_endpoint(environ, events=events, timeout_seconds=timeout))


def only(protocol: str, url: str, **more: str) -> Finding:
    (finding,) = findings(protocol, url, **more)
    return finding


# --- it is well -----------------------------------------------------------------------------------------------


def test_the_analyzers_http_receiver_is_well_for_metrics_and_logs(ingest: Memory) -> None:
    with http_receiver(ingest) as port:
        metrics, logs = findings("http/protobuf", f"http://{LOOPBACK}:{port}", events=True)
    assert (metrics.check, metrics.status) == ("endpoint (metrics)", "ok")
    assert (logs.check, logs.status) == ("endpoint (logs)", "ok")
    assert ingest.bodies == [("metrics", b""), ("logs", b"")], "the question changes nothing"


def test_the_analyzers_grpc_receiver_is_well_for_metrics_and_logs(ingest: Memory) -> None:
    with grpc_receiver(ingest) as port:
        metrics, logs = findings("grpc", f"http://{LOOPBACK}:{port}", events=True)
    assert (metrics.status, logs.status) == ("ok", "ok")
    assert ingest.bodies == [("metrics", b""), ("logs", b"")]


def test_an_endpoint_of_the_logs_own_is_asked_too(ingest: Memory) -> None:
    with http_receiver(ingest) as port:
        own = {"LOGS_ENDPOINT": f"http://{LOOPBACK}:{free_port()}/v1/logs"}
        metrics, logs = findings("http/protobuf", f"http://{LOOPBACK}:{port}", events=True, **own)
    assert metrics.status == "ok"
    assert logs.status == "warning", "without logs memory can still be judged"
    assert "threshold events are lost" in logs.detail
    assert "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" in (logs.mend or "")


# --- tokens and headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_that_wants_a_token_gets_the_exporters_headers(ingest: Memory, protocol: str) -> None:
    receiver = grpc_receiver if protocol == "grpc" else http_receiver
    with receiver(ingest, token="s3cret-token") as port:
        url = f"http://{LOOPBACK}:{port}"
        without = only(protocol, url)
        wrong = only(protocol, url, HEADERS="authorization=Bearer%20another-one")
        right = only(protocol, url, HEADERS="Authorization=Bearer%20s3cret-token")
        own = only(protocol, url, HEADERS="x=1", METRICS_HEADERS="authorization=Bearer s3cret-token")
    assert (without.status, right.status, own.status) == ("failure", "ok", "ok")
    assert "wants a token" in without.detail
    assert "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20" in (without.mend or "")
    assert "does not accept this token" in wrong.detail
    assert not any("another-one" in f"{f.detail}{f.mend}" for f in (wrong, right)), "a secret is never shown"


def test_name_and_password_in_the_address_are_sent_as_the_exporter_sends_them_and_not_shown() -> None:
    with web_server(200, {"Content-Type": "application/x-protobuf"}) as (port, seen):
        finding = only("http/protobuf", f"http://me:p%40ss@{LOOPBACK}:{port}")
    assert finding.status == "ok"
    assert seen[0][1]["authorization"] == "Basic bWU6cEBzcw=="
    assert "ss@" not in finding.detail


def test_a_malformed_header_is_told_without_its_text(ingest: Memory) -> None:
    with http_receiver(ingest) as port:
        answer, headers = findings("http/protobuf", f"http://{LOOPBACK}:{port}", HEADERS="a-secret-without-a-name")
    assert answer.status == "ok"
    assert (headers.check, headers.status) == ("headers", "warning")
    assert "a-secret" not in f"{headers.detail}{headers.mend}"


def test_a_header_that_can_not_be_sent_is_a_failure_that_does_not_show_it() -> None:
    with web_server(200) as (port, seen):
        finding = only("http/protobuf", f"http://{LOOPBACK}:{port}", HEADERS="x=se%0Acret")
    assert finding.status == "failure"
    assert "cret" not in finding.detail
    assert seen == []


# --- the wrong port, path or protocol -------------------------------------------------------------------------


def test_a_grpc_port_asked_by_http_is_recognised(ingest: Memory) -> None:
    with grpc_receiver(ingest) as port:
        finding = only("http/protobuf", f"http://{LOOPBACK}:{port}")
    assert finding.status == "failure"
    assert "speaks gRPC" in finding.detail
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in (finding.mend or "")


def test_an_http_port_asked_by_grpc_is_recognised(ingest: Memory) -> None:
    """The commonest mistake: an endpoint of 4318, and the protocol left at its default."""
    with http_receiver(ingest) as port:
        finding = only("grpc", f"http://{LOOPBACK}:{port}")
    assert finding.status == "failure"
    assert "speaks HTTP/1" in finding.detail
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in (finding.mend or "")
    assert ingest.bodies == []


def test_a_signals_own_endpoint_without_its_path_is_told_what_is_missing(ingest: Memory) -> None:
    with http_receiver(ingest) as port:
        finding = only("http/protobuf", "unused", METRICS_ENDPOINT=f"http://{LOOPBACK}:{port}")
    assert finding.status == "failure"
    assert "404" in finding.detail
    assert finding.mend == "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is used as it is: it must end with /v1/metrics"


def test_a_common_endpoint_with_the_path_of_a_signal_is_told_what_is_too_much(ingest: Memory) -> None:
    with http_receiver(ingest) as port:
        finding = only("http/protobuf", f"http://{LOOPBACK}:{port}/v1/metrics")
    assert "leave /v1/metrics out of OTEL_EXPORTER_OTLP_ENDPOINT" in (finding.mend or "")


def test_a_web_page_that_answers_everything_with_200_is_not_taken_for_a_receiver() -> None:
    with web_server(200, {"Content-Type": "text/html"}, b"<html>hello</html>") as (port, _):
        finding = only("http/protobuf", f"http://{LOOPBACK}:{port}")
    assert finding.status == "warning"
    assert "text/html" in finding.detail


@pytest.mark.parametrize(
    ("status", "verdict", "words"),
    [
        (400, "failure", "answers 400"),
        (403, "failure", "wants a token"),
        (405, "failure", "no OTLP receiver is at this path"),
        (429, "warning", "not now"),
        (503, "warning", "not now"),
        (500, "failure", "answers 500"),
    ],
)
def test_each_refusal_has_its_meaning(status: int, verdict: str, words: str) -> None:
    with web_server(status) as (port, _):
        finding = only("http/protobuf", f"http://{LOOPBACK}:{port}")
    assert finding.status == verdict
    assert words in finding.detail


def test_a_redirect_is_told_and_not_followed() -> None:
    with web_server(302, {"Location": "http://elsewhere.invalid/v1/metrics"}) as (port, seen):
        finding = only("http/protobuf", f"http://{LOOPBACK}:{port}")
    assert finding.status == "failure"
    assert "http://elsewhere.invalid/v1/metrics" in finding.detail
    assert len(seen) == 1


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://localhost:4318", "http://localhost:99999", "http://"])
def test_what_is_no_address_is_told(url: str) -> None:
    assert only("http/protobuf", url).status == "failure"


# --- nobody, or worse -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_where_nothing_listens_the_next_step_is_named_and_the_logs_are_not_asked_again(protocol: str) -> None:
    (finding,) = findings(protocol, f"http://{LOOPBACK}:{free_port()}", events=True)
    assert finding.status == "failure"
    assert "does not answer" in finding.detail
    assert "refused" in finding.detail
    assert "otel-memory serve" in (finding.mend or "")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_server_that_hangs_costs_no_more_than_the_time_out(protocol: str) -> None:
    with raw_server(hang) as port:
        began = time.monotonic()
        (finding,) = findings(protocol, f"http://{LOOPBACK}:{port}", events=True, timeout=0.3)
        took = time.monotonic() - began
    assert finding.status == "failure"
    assert "within 0.3 s" in finding.detail
    assert took < 3, "one question, one look at what speaks there, and the grace"


def test_a_server_that_drips_its_answer_is_bounded_too() -> None:
    """No time-out of a socket ever strikes; the doctor's own clock does."""
    with raw_server(trickle) as port:
        began = time.monotonic()
        finding = only("http/protobuf", f"http://{LOOPBACK}:{port}", timeout=0.3)
        took = time.monotonic() - began
    assert finding.status == "failure"
    assert "does not answer within 0.3 s" in finding.detail
    assert took < 3


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_something_else_altogether_is_a_failure(protocol: str) -> None:
    with raw_server(nonsense) as port:
        finding = only(protocol, f"http://{LOOPBACK}:{port}")
    assert finding.status == "failure"


# --- TLS ------------------------------------------------------------------------------------------------------


def test_a_certificate_that_nobody_trusts_is_told_over_http_and_mended_by_naming_it() -> None:
    with web_server(200, {"Content-Type": "application/x-protobuf"}, tls=True) as (port, _):
        url = f"https://localhost:{port}"
        distrusted = only("http/protobuf", url)
        trusted = only("http/protobuf", url, CERTIFICATE=str(TLS / "certificate.pem"))
        own = only("http/protobuf", url, CERTIFICATE="/nowhere", METRICS_CERTIFICATE=str(TLS / "certificate.pem"))
    assert distrusted.status == "failure"
    assert "not trusted" in distrusted.detail
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in (distrusted.mend or "")
    assert (trusted.status, own.status) == ("ok", "ok")


def test_a_certificate_that_nobody_trusts_is_told_over_grpc_and_mended_by_naming_it() -> None:
    with tls_grpc_server() as port:
        url = f"https://localhost:{port}"
        distrusted = only("grpc", url)
        trusted = only("grpc", url, CERTIFICATE=str(TLS / "certificate.pem"))
    assert distrusted.status == "failure"
    assert "not trusted" in distrusted.detail
    assert trusted.status == "ok"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_certificate_file_that_is_not_there_is_told(protocol: str) -> None:
    finding = only(protocol, f"https://localhost:{free_port()}", CERTIFICATE="/nowhere/ca.pem")
    assert finding.status == "failure"
    assert "No such file" in finding.detail


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_tls_asked_of_a_server_that_speaks_in_clear(ingest: Memory, protocol: str) -> None:
    receiver = grpc_receiver if protocol == "grpc" else http_receiver
    with receiver(ingest) as port:
        finding = only(protocol, f"https://localhost:{port}")
    assert finding.status == "failure"
    assert "TLS" in finding.detail


def test_without_a_scheme_grpc_means_tls_and_the_doctor_says_so(ingest: Memory) -> None:
    with grpc_receiver(ingest) as port:
        secure = only("grpc", f"{LOOPBACK}:{port}")
        clear = only("grpc", f"{LOOPBACK}:{port}", INSECURE="true")
    assert secure.status == "failure"
    assert "without http:// in front the exporter takes TLS" in secure.detail
    assert clear.status == "ok"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_tls_port_asked_in_clear_is_recognised(protocol: str) -> None:
    with web_server(200, tls=True) as (web, _), tls_grpc_server() as rpc:
        finding = only(protocol, f"http://localhost:{rpc if protocol == 'grpc' else web}")
    assert finding.status == "failure"
    assert "speaks TLS" in finding.detail


# --- proxies --------------------------------------------------------------------------------------------------


def test_a_proxy_that_the_exporter_would_ask_is_named_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", f"http://{LOOPBACK}:{free_port()}")
    finding = only("http/protobuf", f"http://{LOOPBACK}:{free_port()}")
    assert finding.status == "failure"
    assert "NO_PROXY=127.0.0.1" in finding.detail


# --- without grpcio -------------------------------------------------------------------------------------------


def test_without_grpcio_it_is_still_told_what_speaks_there(ingest: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with grpc_receiver(ingest) as rpc, http_receiver(ingest) as web:
        monkeypatch.setitem(sys.modules, "grpc", None)
        right, wrong = only("grpc", f"http://{LOOPBACK}:{rpc}"), only("grpc", f"http://{LOOPBACK}:{web}")
        nobody = only("grpc", f"http://{LOOPBACK}:{free_port()}")
    assert (right.status, wrong.status, nobody.status) == ("note", "failure", "failure")
    assert "speaks HTTP/1" in wrong.detail
