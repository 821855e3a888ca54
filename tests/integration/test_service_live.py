"""``otel-memory serve`` as a process: how it starts, what it says when it can't, how it ends, how it bears a burst."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from tests.analyzer.made_up import MIB, MadeUp
from tests.harness import Analyzer, wait_until
from tests.harness.process import clean_environment

PROTOBUF = {"content-type": "application/x-protobuf"}
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
FREE_PORTS = ("--http-port", "0", "--otlp-grpc-port", "0", "--otlp-http-port", "0")


def serve(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    return subprocess.run(
        [sys.executable, "-m", "otel_memory", "serve", *argv],
        env=clean_environment(environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def recent(**changes: object) -> MadeUp:
    return MadeUp(begin=float(int(time.time())) - 900, **changes)  # type: ignore[arg-type]


# --- the end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_time_with_an_open_stream_and_a_request_under_way(
    analyzer: Analyzer, number: signal.Signals
) -> None:
    body = recent().body(0)
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("GET", f"{analyzer.url}/api/v1/stream") as stream,
        socket.create_connection(("127.0.0.1", analyzer.http_port)) as slow,
    ):
        lines = stream.iter_lines()
        next(lines)
        # A request whose second half never comes.
        slow.sendall(
            b"POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: "
            + str(len(body)).encode()
            + b"\r\n\r\n"
            + body[: len(body) // 2]
        )
        reply = client.post(f"{analyzer.http_endpoint}/v1/metrics", content=body, headers=PROTOBUF)
        assert reply.status_code == 200
        began = time.monotonic()
        analyzer.send_signal(number)
        assert analyzer.wait(10)
        assert time.monotonic() - began < 10
        # The stream was ended, not cut: reading to its end raises nothing.
        list(lines)
        assert slow.recv(100).startswith(b"HTTP/1.1 503")
    assert analyzer.stop() == 0
    assert "Traceback" not in analyzer.output()
    left = {path.name for path in analyzer.data_dir.iterdir()}
    assert left <= {"analyzer.db", "analyzer.db.lock"}, "no write-ahead log is left to be folded in"


def test_a_second_signal_does_no_harm(analyzer: Analyzer) -> None:
    analyzer.send_signal(signal.SIGTERM)
    analyzer.send_signal(signal.SIGTERM)
    assert analyzer.wait(10)
    assert analyzer.stop() == 0


def test_a_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "otel_memory", "serve", *FREE_PORTS, "--data-dir", str(tmp_path)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: (tmp_path / "analyzer.db").exists(), timeout_seconds=20)
        child.send_signal(signal.SIGTERM)
        output, _ = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0, output.decode()


# --- starts --------------------------------------------------------------------------------------------------


def test_port_0_takes_free_ports_and_says_which(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "otel_memory", "serve", *FREE_PORTS, "--data-dir", str(tmp_path)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            banner = [child.stdout.readline() for _ in range(5)]
            addresses = {line.split()[0]: line.split()[1] for line in banner[1:]}
            assert "is ready" in banner[0]
            with httpx.Client(trust_env=False) as client:
                assert client.get(f"{addresses['page']}/healthz").status_code == 200
                assert client.get(f"{addresses['page']}/readyz").status_code == 200
                sent = client.post(f"{addresses['OTLP/HTTP']}/v1/metrics", content=recent().body(0), headers=PROTOBUF)
                assert sent.status_code == 200
            with grpc.insecure_channel(addresses["OTLP/gRPC"].removeprefix("http://")) as channel:
                channel.unary_unary(EXPORT)(recent().body(1), timeout=10)
            limits = Path(f"/proc/{child.pid}/limits").read_text()
            (files,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
            soft, hard = (int(word) for word in files.split()[3:5])
            assert soft == max(soft, min(8192, hard))
        finally:
            child.terminate()
            child.wait(20)
    assert child.returncode == 0


@pytest.mark.parametrize("flag", ["--http-port", "--otlp-http-port", "--otlp-grpc-port"])
def test_a_port_that_is_taken_is_an_error_that_names_the_flag(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [word for name in FREE_PORTS[::2] if name != flag for word in (name, "0")]
        ended = serve(*ports, flag, str(taken.getsockname()[1]), "--data-dir", str(tmp_path))
    assert ended.returncode == 2
    assert flag in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_data_folder_in_use_is_an_error_and_harms_nobody(analyzer: Analyzer) -> None:
    ended = serve(*FREE_PORTS, "--data-dir", str(analyzer.data_dir))
    assert ended.returncode == 2
    assert "another analyzer uses this data directory" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert analyzer.get("/readyz")["status"] == "ready"


@pytest.mark.parametrize("kind", ["a file", "below a file", "no permission"])
def test_a_data_folder_that_can_not_be_written_is_an_error(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "data"
    if kind == "no permission":
        if os.geteuid() == 0:
            folder = Path("/proc/otel-memory")
        else:
            folder.mkdir(mode=0o500)
    else:
        folder.write_text("")
        folder = folder / "inside" if kind == "below a file" else folder
    ended = serve(*FREE_PORTS, "--data-dir", str(folder))
    assert ended.returncode == 2
    assert str(folder) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_setting_is_an_error_that_names_it(tmp_path: Path) -> None:
    for ended in (
        serve("--http-port", "many", "--data-dir", str(tmp_path)),
        serve("--data-dir", str(tmp_path), OTEL_MEMORY_HTTP_PORT="many"),
        serve("--host", "0.0.0.0", "--data-dir", str(tmp_path)),
        serve("--host", "192.0.2.1", "--insecure-no-auth", *FREE_PORTS, "--data-dir", str(tmp_path)),
    ):
        assert ended.returncode == 2
        assert "--http-port" in ended.stderr or "OTEL_MEMORY_HTTP_PORT" in ended.stderr or "--host" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_second_start_on_the_same_data_knows_what_the_first_did(analyzer: Analyzer) -> None:
    process = recent()
    with httpx.Client(trust_env=False) as client:
        for index in range(30):
            client.post(f"{analyzer.http_endpoint}/v1/metrics", content=process.body(index), headers=PROTOBUF)
    before = analyzer.get("/api/v1/processes")
    assert len(before["items"]) == 1
    assert analyzer.stop() == 0
    analyzer.start()
    assert analyzer.get("/api/v1/processes") == before


def test_with_a_token_nobody_is_served_without_it(tmp_path: Path) -> None:
    with Analyzer(env={"OTEL_MEMORY_TOKEN": "a-token-of-16-ch"}, data_dir=tmp_path) as analyzer:
        bearer = {"authorization": "Bearer a-token-of-16-ch"}
        with httpx.Client(trust_env=False) as client:
            for headers, status in (({}, 401), (bearer, 200)):
                sent = client.post(
                    f"{analyzer.http_endpoint}/v1/metrics", content=recent().body(0), headers={**PROTOBUF, **headers}
                )
                assert sent.status_code == status
                assert client.get(f"{analyzer.url}/api/v1/summary", headers=headers).status_code == status
            assert client.get(f"{analyzer.url}/healthz").status_code == 200


# --- a burst -------------------------------------------------------------------------------------------------


class SdkSender:
    """One process with the Python SDK's own exporter, told to wait and trying again as it does by itself."""

    def __init__(self, name: str, exporter: MetricExporter) -> None:
        self._reader = PeriodicExportingMetricReader(exporter, export_interval_millis=600_000)
        self._provider = MeterProvider(
            [self._reader], Resource({"service.name": "sender", "service.instance.id": name}), shutdown_on_exit=False
        )
        meter = self._provider.get_meter("test")
        meter.create_observable_up_down_counter(
            "process.memory.usage", [lambda _: iter([Observation(50 * MIB)])], unit="By"
        )

    def send(self) -> None:
        self._provider.force_flush(20_000)

    def close(self) -> None:
        self._provider.shutdown(1000)


def _large(count: int, first: int, index: int) -> bytes:
    request = ExportMetricsServiceRequest()
    for number in range(first, first + count):
        recent(instance=f"many-{number}", leak_per_call=0).add_to(request, index)
    return request.SerializeToString()


def test_a_burst_is_refused_with_a_time_to_come_again_and_the_sdks_come_again(tmp_path: Path) -> None:
    """More than the queue holds: 503 or UNAVAILABLE, memory stays bounded, and what was accepted is there."""
    settings = ("--no-console", "--queue-bytes", "600KiB", "--max-decompressed-bytes", "512KiB")
    with Analyzer(*settings, data_dir=tmp_path / "data") as analyzer:
        child = psutil.Process(analyzer.pid)
        statuses: list[tuple[int, str | None]] = []
        accepted: set[int] = set()
        bodies = {number: _large(100, 100 * number, 0) for number in range(10)}
        assert 100_000 < len(bodies[0]) < 400_000
        over = threading.Event()

        def burst(numbers: range) -> None:
            with httpx.Client(trust_env=False, timeout=60) as client:
                while not over.is_set():
                    for number in numbers:
                        reply = client.post(
                            f"{analyzer.http_endpoint}/v1/metrics", content=bodies[number], headers=PROTOBUF
                        )
                        statuses.append((reply.status_code, reply.headers.get("retry-after")))
                        if reply.status_code == 200:
                            accepted.add(number)

        threads = [threading.Thread(target=burst, args=(range(first, first + 2),)) for first in range(0, 10, 2)]
        senders = [
            SdkSender("by-http", HttpMetricExporter(endpoint=f"{analyzer.http_endpoint}/v1/metrics")),
            SdkSender("by-grpc", GrpcMetricExporter(endpoint=analyzer.grpc_endpoint, insecure=True)),
        ]
        try:
            for thread in threads:
                thread.start()
            wait_until(lambda: any(status == 503 for status, _ in statuses), timeout_seconds=30, what="a refusal")
            with grpc.insecure_channel(f"127.0.0.1:{analyzer.grpc_port}") as channel:
                export = channel.unary_unary(EXPORT)

                def refused() -> bool:
                    try:
                        export(bodies[0], timeout=60)
                    except grpc.RpcError as error:
                        told = [key for key, _ in error.trailing_metadata()]
                        return error.code() is grpc.StatusCode.UNAVAILABLE and "grpc-status-details-bin" in told
                    return False

                wait_until(refused, timeout_seconds=30, what="a refusal by gRPC")
            wait_until(lambda: len(statuses) >= 60, timeout_seconds=40, what="enough of a burst")
            stopper = threading.Timer(1.0, over.set)
            stopper.start()
            for sender in senders:
                sender.send()
            stopper.join()
        finally:
            over.set()
            for thread in threads:
                thread.join()
            for sender in senders:
                sender.close()
        rss = child.memory_info().rss
        assert {status for status, _ in statuses} == {200, 503}
        assert all(int(after or 0) >= 1 for status, after in statuses if status == 503)
        shown = {
            item["service_instance_id"] for item in analyzer.get("/api/v1/processes?limit=1000&service=shop")["items"]
        }
        assert shown == {f"many-{100 * number + one}" for number in accepted for one in range(100)}
        sent = analyzer.get("/api/v1/processes?service=sender")["items"]
        assert {item["service_instance_id"] for item in sent} == {"by-http", "by-grpc"}
        assert rss < 400 * MIB
        assert analyzer.get("/readyz")["status"] == "ready"
