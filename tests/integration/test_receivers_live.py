"""The OTLP receivers on real sockets: the exporters of the Python SDK, curl, and clients that mean harm."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvicorn
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.model import Decoded
from otel_memory.analyzer.receivers.base import Encoding, Overloaded, ReceiverError, Signal
from otel_memory.analyzer.receivers.grpc import GrpcReceiver
from otel_memory.analyzer.receivers.http import HttpReceiver, build_app

DATA = Path(__file__).parent.parent / "data" / "otlp"
METRICS = (DATA / "python_sdk_metrics.pb").read_bytes()
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
MAX_BYTES = 1_000_000
RESOURCE = Resource({"service.name": "shop"})


class Memory:
    """An ingest that decodes and keeps; refuses the next ``overloads`` requests."""

    def __init__(self) -> None:
        self.taken: list[tuple[Signal, Encoding, Decoded]] = []
        self.overloads = 0

    async def submit(self, body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
        if self.overloads:
            self.overloads -= 1
            raise Overloaded(0.2)
        decoded = decode(body, signal, encoding)
        self.taken.append((signal, encoding, decoded))
        return decoded


class Served:
    """Both receivers in an event loop on a thread, as the analyzer runs them."""

    def __init__(self, token: str | None = None) -> None:
        self.ingest = Memory()
        self.app: HttpReceiver
        self.grpc: GrpcReceiver
        self.http_port = self.grpc_port = 0
        self._token = token
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self.app = build_app(
            self.ingest,
            max_body_bytes=MAX_BYTES,
            max_decompressed_bytes=MAX_BYTES,
            read_timeout_seconds=0.5,
            token=self._token,
        )
        self.grpc = GrpcReceiver(self.ingest, "127.0.0.1", 0, MAX_BYTES, token=self._token)
        self.grpc_port = await self.grpc.start()
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=2)
        )
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 uvicorn has no event for it
            await asyncio.sleep(0.01)
        self.http_port = self._server.servers[0].sockets[0].getsockname()[1]
        self._ready.set()
        await serving
        await self.grpc.stop(1.0)

    def url(self, signal: str) -> str:
        return f"http://127.0.0.1:{self.http_port}/v1/{signal}"


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    """The receivers; after each test they still serve, and hold nothing of what it sent."""
    running.ingest.taken.clear()
    running.app.refused.clear()
    running.grpc.refused.clear()
    yield running
    running.ingest.overloads = 0
    assert post(running, METRICS)[0] == 200
    assert export(running)(METRICS, timeout=10) == b""
    deadline = time.monotonic() + 5  # the server learns a moment later that a client has gone
    while running.app._budget.held or running.grpc._budget.held:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def post(served: Served, body: bytes, signal: str = "metrics", **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(
        served.url(signal), body, {"content-type": "application/x-protobuf"} | headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def export(served: Served, method: str = EXPORT, **options: Any) -> Callable[..., bytes]:
    channel = grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}", **options)

    def call(body: bytes, **arguments: Any) -> bytes:
        try:
            answer: bytes = channel.unary_unary(method, bytes, bytes)(body, **arguments)
            return answer
        finally:
            channel.close()

    return call


# --- the exporters of the SDK -----------------------------------------------------------------------------------


def _observe(_: CallbackOptions) -> list[Observation]:
    return [Observation(52_428_800)]


def send_metrics(exporter: MetricExporter) -> None:
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=1e9)], resource=RESOURCE)
    provider.get_meter("test").create_observable_up_down_counter("process.memory.usage", [_observe], "By")
    provider.shutdown()  # which collects and exports once


def send_logs(exporter: Any) -> None:
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("test").emit(
        timestamp=time.time_ns(),
        severity_number=SeverityNumber.WARN,
        event_name="otel_memory.threshold.crossed",
        attributes={"otel_memory.threshold.value": 5.5},
    )
    provider.shutdown()


def send_traces(exporter: Any) -> None:
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("test").start_span("GET /cart").end()
    provider.shutdown()


def check_taken(served: Served, signal: Signal, encoding: Encoding = "protobuf") -> None:
    """One request of that signal with one item, and nothing refused."""
    [(got_signal, got_encoding, decoded)] = served.ingest.taken
    assert (got_signal, got_encoding, decoded.accepted, decoded.rejected) == (signal, encoding, 1, 0)
    if signal == "metrics":
        assert [(p.metric, p.value, p.kind) for p in decoded.payloads[0].points] == [
            ("process.memory.usage", 52_428_800.0, "gauge")
        ]
    if signal == "logs":
        assert [(e.name, e.severity_number) for e in decoded.payloads[0].events] == [
            ("otel_memory.threshold.crossed", 13)
        ]
    if signal != "traces":
        assert decoded.payloads[0].resource["service.name"] == "shop"
    assert not served.app.refused
    assert not served.grpc.refused


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize(
    ("signal", "exporter", "send"),
    [
        ("metrics", HttpMetricExporter, send_metrics),
        ("logs", HttpLogExporter, send_logs),
        ("traces", HttpSpanExporter, send_traces),
    ],
    ids=["metrics", "logs", "traces"],
)
def test_the_http_exporters_of_the_sdk_are_served(
    served: Served, signal: Signal, exporter: Any, send: Callable[[Any], None], compression: Compression
) -> None:
    send(exporter(endpoint=served.url(signal), compression=compression))
    check_taken(served, signal)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize(
    ("signal", "exporter", "send"),
    [
        ("metrics", GrpcMetricExporter, send_metrics),
        ("logs", GrpcLogExporter, send_logs),
        ("traces", GrpcSpanExporter, send_traces),
    ],
    ids=["metrics", "logs", "traces"],
)
def test_the_grpc_exporters_of_the_sdk_are_served(
    served: Served, signal: Signal, exporter: Any, send: Callable[[Any], None], compression: grpc.Compression
) -> None:
    send(exporter(endpoint=f"http://127.0.0.1:{served.grpc_port}", insecure=True, compression=compression))
    check_taken(served, signal)


@pytest.mark.parametrize("exporter", [HttpMetricExporter, GrpcMetricExporter], ids=["http", "grpc"])
def test_an_exporter_that_was_told_to_come_again_delivers(served: Served, exporter: Any) -> None:
    served.ingest.overloads = 1
    endpoint = served.url("metrics") if exporter is HttpMetricExporter else f"http://127.0.0.1:{served.grpc_port}"
    send_metrics(exporter(endpoint=endpoint))
    [(_, _, decoded)] = served.ingest.taken
    assert decoded.accepted == 1
    assert served.app.refused + served.grpc.refused in ({503: 1}, {"UNAVAILABLE": 1})


# --- curl ---------------------------------------------------------------------------------------------------------

curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def run_curl(*arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", "10", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@curl
@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_curl_with_the_json_form_is_served(served: Served, signal: Signal) -> None:
    body = f"@{DATA / f'curl_{signal}.json'}"
    answer = run_curl(
        "--header", "content-type: application/json", "--data", body, "--write-out", " %{http_code}", served.url(signal)
    )
    assert answer == "{} 200"
    [(got, encoding, decoded)] = served.ingest.taken
    assert (got, encoding, decoded.rejected) == (signal, "json", 0)
    assert decoded.accepted > 0


@curl
def test_curl_in_chunks_with_gzip_is_served(served: Served, tmp_path: Path) -> None:
    packed = tmp_path / "metrics.gz"
    packed.write_bytes(gzip.compress((DATA / "curl_metrics.json").read_bytes()))
    headers = ("content-type: application/json", "content-encoding: gzip", "transfer-encoding: chunked")
    arguments = [argument for header in headers for argument in ("--header", header)]
    assert run_curl(*arguments, "--data-binary", f"@{packed}", served.url("metrics")) == "{}"
    assert served.ingest.taken[0][2].accepted == 3


@curl
def test_curl_without_a_content_type_of_ours_is_told_what_to_send(served: Served) -> None:
    answer = run_curl("--data", "{}", "--write-out", " %{http_code}", served.url("metrics"))
    assert "application/json" in answer
    assert answer.endswith(" 415")


# --- gRPC: the answers of the specification -------------------------------------------------------------------------


def failure(call: Callable[..., bytes], body: bytes, **arguments: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call(body, timeout=10, **arguments)
    return caught.value


def details(error: Any) -> Any:
    [value] = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    return Status.FromString(value)


def test_a_partial_success_over_grpc(served: Served) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="process.memory.usage")
    metric.gauge.data_points.add(as_double=1.0)
    answer = ExportMetricsServiceResponse.FromString(export(served)(request.SerializeToString(), timeout=10))
    assert answer.partial_success.rejected_data_points == 1


def test_a_malformed_message_is_invalid_argument(served: Served) -> None:
    error = failure(export(served), b"nonsense")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not an ExportMetricsServiceRequest" in error.details()
    assert details(error).code == 3
    assert served.grpc.refused == {"INVALID_ARGUMENT": 1}


def test_overload_is_unavailable_with_retry_info(served: Served) -> None:
    served.ingest.overloads = 1
    error = failure(export(served), METRICS)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    retry = RetryInfo()
    assert details(error).details[0].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (0, 200_000_000)


@pytest.mark.parametrize(
    ("body", "compression"),
    [(os.urandom(MAX_BYTES + 1), grpc.Compression.NoCompression), (bytes(50_000_000), grpc.Compression.Gzip)],
    ids=["too large", "a bomb"],
)
def test_a_message_beyond_the_bound_is_resource_exhausted(
    served: Served, body: bytes, compression: grpc.Compression
) -> None:
    assert failure(export(served), body, compression=compression).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not served.ingest.taken


def test_another_method_is_unimplemented(served: Served) -> None:
    error = failure(export(served, EXPORT.replace("Export", "Import")), METRICS)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_port_that_is_taken_is_named_with_the_setting_to_change(served: Served) -> None:
    async def second() -> None:
        await GrpcReceiver(Memory(), "127.0.0.1", served.grpc_port).start()

    with pytest.raises(ReceiverError, match=rf"127.0.0.1:{served.grpc_port}.*--otlp-grpc-port"):
        asyncio.run(second())


def test_starting_and_stopping_twice() -> None:
    """A second start is an error, a second stop and a stop before the start are nothing, and after a stop it starts
    again."""

    async def scenario() -> None:
        receiver = GrpcReceiver(Memory(), "127.0.0.1", 0)
        await receiver.stop()
        assert await receiver.start() > 0
        with pytest.raises(ReceiverError, match="started already"):
            await receiver.start()
        await receiver.stop(0.1)
        await receiver.stop(0.1)
        assert await receiver.start() > 0
        await receiver.stop(0.1)

    asyncio.run(scenario())


def test_both_receivers_ask_for_the_token() -> None:
    with Served(token="secret-token") as served:
        assert post(served, METRICS)[0] == 401
        assert post(served, METRICS, authorization="Bearer secret-token")[0] == 200
        error = failure(export(served), METRICS)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert export(served)(METRICS, timeout=10, metadata=(("authorization", "Bearer secret-token"),)) == b""
        send_metrics(
            GrpcMetricExporter(
                endpoint=f"http://127.0.0.1:{served.grpc_port}", headers={"authorization": "Bearer secret-token"}
            )
        )
        assert len(served.ingest.taken) == 3


# --- hostile clients; the fixture checks after each one that the receivers still serve --------------------------------


def talk(port: int, *parts: bytes, wait: bool = True) -> bytes:
    """Sends ``parts`` on a bare socket and gives what comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while wait and (chunk := connection.recv(65536)):
            received += chunk
        return received


HEAD = b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"


def test_a_client_that_goes_away_half_way(served: Served) -> None:
    for _ in range(20):
        talk(served.http_port, HEAD + b"content-length: 1056\r\n\r\n", METRICS[:500], wait=False)
    assert not served.ingest.taken


def test_a_client_that_sends_its_body_drop_by_drop_is_cut_off(served: Served) -> None:
    began = time.monotonic()
    answer = talk(served.http_port, HEAD + b"content-length: 1056\r\n\r\n", METRICS[:10])
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 5
    assert served.app.refused == {408: 1}


def test_a_body_without_end(served: Served) -> None:
    chunk = b"%x\r\n%s\r\n" % (50_000, bytes(50_000))
    answer = talk(served.http_port, HEAD + b"transfer-encoding: chunked\r\n\r\n", *([chunk] * 20 + [b"5\r\n"]))
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 408"))


def test_a_bomb_over_http(served: Served) -> None:
    bomb = gzip.compress(bytes(100_000_000))
    assert post(served, bomb, **{"content-encoding": "gzip"})[0] == 413


def test_a_body_that_says_it_is_huge(served: Served) -> None:
    assert talk(served.http_port, HEAD + b"content-length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 5000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99,
    ],
    ids=["tls", "wrong version", "zeros", "http2"],
)
def test_noise_on_either_port(served: Served, noise: bytes) -> None:
    talk(served.http_port, noise)
    talk(served.grpc_port, noise, wait=False)


def test_many_requests_at_once_that_all_fail(served: Served) -> None:
    """A mixture of refusals from several threads; none is answered with a fault of ours."""
    bodies = [b"nonsense", METRICS[:-1], gzip.compress(bytes(2 * MAX_BYTES)), b"\x0a\x00" * 1000]
    statuses: list[int] = []

    def client() -> None:
        for body in bodies * 3:
            coding = {"content-encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
            statuses.append(post(served, body, **coding)[0])

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(statuses) == 4 * 3 * len(bodies)
    assert set(statuses) == {200, 400, 413}
