"""The harness itself, against the real parts: they start, do real work, show their log, and are gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from tests.harness import (
    Alertmanager,
    Chromium,
    Collector,
    Kafka,
    PartFailed,
    Program,
    Prometheus,
    free_port,
    promtool,
    validate,
    wait_until,
)
from tests.harness.net import fetch, listens
from tests.harness.part import Launch

FORWARD = Path(__file__).resolve().parents[2] / "collector-config" / "forward.yaml"

SINK = """
extensions: {health_check: {endpoint: "${env:HEALTH_LISTEN}"}}
receivers:
  otlp: {protocols: {grpc: {endpoint: "${env:OTLP_GRPC_LISTEN}"}, http: {endpoint: "${env:OTLP_HTTP_LISTEN}"}}}
exporters:
  file: {path: "${env:OUT}", flush_interval: 50ms}
  debug: {verbosity: detailed}
service:
  extensions: [health_check]
  telemetry:
    metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:TELEMETRY_PORT}"}}}}]}
  pipelines:
    metrics: {receivers: [otlp], exporters: [file, debug]}
    logs: {receivers: [otlp], exporters: [file, debug]}
    traces: {receivers: [otlp], exporters: [file, debug]}
"""


class Sink(Collector):
    """A Collector that writes what it gets into a file, as OTLP JSON lines, and into its own log."""

    def __init__(self, out: Path) -> None:
        super().__init__(SINK, {"OUT": str(out)})
        self.out = out

    def metrics(self) -> dict[str, float]:
        """Value of each gauge that arrived, by name."""
        found: dict[str, float] = {}
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        for line in lines:
            for resource in json.loads(line).get("resourceMetrics", []):
                for scope in resource["scopeMetrics"]:
                    for metric in scope["metrics"]:
                        found[metric["name"]] = float(metric["gauge"]["dataPoints"][0]["asInt"])
        return found


def one_gauge(name: str, value: int) -> MetricsData:
    """What an SDK hands to its exporter for one gauge."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource({"service.name": "harness"}))
    provider.get_meter("harness").create_gauge(name).set(value)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data


def send(exporter: MetricExporter, name: str, value: int) -> None:
    try:
        assert exporter.export(one_gauge(name, value)) is MetricExportResult.SUCCESS
    finally:
        exporter.shutdown()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    with Sink(tmp_path / "out.jsonl") as part:
        yield part


@pytest.mark.needs("collector")
def test_otlp_grpc_and_http_come_out_of_a_real_collector(sink: Sink) -> None:
    send(GrpcMetricExporter(sink.grpc_endpoint, insecure=True), "by.grpc", 11)
    send(HttpMetricExporter(f"{sink.http_endpoint}/v1/metrics"), "by.http", 12)
    assert wait_until(lambda: len(sink.metrics()) == 2 and sink.metrics(), what="both gauges in the file") == {
        "by.grpc": 11,
        "by.http": 12,
    }
    assert "by.grpc" in sink.output(), "the debug exporter writes into the part's own log"


@pytest.mark.needs("collector")
def test_forward_yaml_is_valid_and_passes_metrics_on(sink: Sink) -> None:
    env = {"ANALYZER_OTLP_ENDPOINT": f"127.0.0.1:{sink.grpc_port}"}
    validate(FORWARD, env)
    with Collector(FORWARD, env) as collector:
        send(GrpcMetricExporter(collector.grpc_endpoint, insecure=True), "by.grpc", 21)
        send(HttpMetricExporter(f"{collector.http_endpoint}/v1/metrics"), "by.http", 22)
        wait_until(lambda: sink.metrics() == {"by.grpc": 21, "by.http": 22}, what="both gauges behind the forwarder")
        assert "otelcol_exporter_sent_metric_points" in collector.metrics_text()


@pytest.mark.needs("collector")
def test_forward_yaml_passes_logs_and_traces_on(sink: Sink) -> None:
    with Collector(FORWARD, {"ANALYZER_OTLP_ENDPOINT": f"127.0.0.1:{sink.grpc_port}"}) as collector:
        record = {"timeUnixNano": "1", "body": {"stringValue": "a log"}, "eventName": "otel_memory.threshold.crossed"}
        span = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "a span"}
        payloads: dict[str, Any] = {
            "logs": {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]},
            "traces": {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]},
        }
        for signal_name, payload in payloads.items():
            url = f"{collector.http_endpoint}/v1/{signal_name}"
            fetch(url, data=json.dumps(payload).encode(), headers={"Content-Type": "application/json"})

        def both_arrived() -> bool:
            text = sink.out.read_text()
            return "otel_memory.threshold.crossed" in text and "a span" in text

        wait_until(both_arrived, what="the event and the span in the sink's file")


@pytest.mark.needs("collector")
def test_forward_yaml_holds_what_comes_while_the_analyzer_is_away(sink: Sink) -> None:
    with Collector(FORWARD, {"ANALYZER_OTLP_ENDPOINT": f"127.0.0.1:{sink.grpc_port}"}) as collector:
        sink.kill()
        send(GrpcMetricExporter(collector.grpc_endpoint, insecure=True), "while.away", 31)
        wait_until(lambda: "Will retry the request" in collector.output(), what="the forwarder's first retry")
        sink.start()
        wait_until(lambda: sink.metrics() == {"while.away": 31}, timeout_seconds=20, what="the held gauge")


@pytest.mark.needs("collector")
def test_forward_yaml_without_an_analyzer_named_is_refused_at_start() -> None:
    with pytest.raises(AssertionError, match="requires a non-empty"):
        validate(FORWARD, {})


@pytest.mark.needs("collector")
def test_a_part_that_cannot_start_fails_with_its_own_log() -> None:
    collector = Collector("receivers: {nonsense: {}}\n")
    with pytest.raises(PartFailed, match=r"(?s)ended with status 1.*nonsense"):
        collector.__enter__()
    assert not collector.folder.exists()


@pytest.mark.needs("collector")
def test_nothing_of_a_part_is_left_when_its_block_ends(tmp_path: Path) -> None:
    with Sink(tmp_path / "out.jsonl") as part:
        pid, port, folder = part.pid, part.grpc_port, part.folder
        assert listens(port)
    assert not listens(port)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.needs("chromium")
def test_a_real_browser_runs_script_and_renders(chromium: Chromium, tmp_path: Path) -> None:
    with chromium.page(theme="dark") as page:
        page.set_content("<h1>empty</h1><script>document.querySelector('h1').textContent = 6 * 7</script>")
        assert page.locator("h1").inner_text() == "42"
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert page.evaluate("navigator.language") == "en-US"
        page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.needs("chromium")
def test_an_error_in_the_page_fails_the_test_that_opened_it(chromium: Chromium) -> None:
    with pytest.raises(AssertionError, match="a planted error"), chromium.page() as page:
        page.set_content("<script>throw new Error('a planted error')</script>")


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); \
print('child is up', flush=True); time.sleep(60)"])
print("pid of the child:", child.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended: it is not there, or a zombie that waits for its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_process_that_ignores_sigterm_ends_with_all_its_children() -> None:
    argv = [sys.executable, "-c", STUBBORN]
    with Program(argv, until=lambda it: "child is up" in it.output() and "pid of" in it.output()) as program:
        child = int(program.output().split("pid of the child:")[1].split()[0])
        assert not gone(child)
        assert program.stop(grace_seconds=0.2) == -signal.SIGKILL
        wait_until(lambda: gone(child), what="the end of the child")


LEAVES_A_CHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit())
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""


def test_children_of_a_process_that_ended_by_itself_end_too() -> None:
    with Program([sys.executable, "-c", LEAVES_A_CHILD], until=lambda it: "\n" in it.output()) as program:
        child = int(program.output())
        program.send_signal(signal.SIGUSR1)
        assert program.wait(10)
        assert not gone(child)
    wait_until(lambda: gone(child), what="the end of the orphan")


class Listener(Program):
    """Listens on the first of the given ports; on the next at each new attempt."""

    SCRIPT = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"

    def __init__(self, *ports: int) -> None:
        self.ports = list(ports)
        super().__init__([], until=lambda _: listens(self.port), name="listener")

    def launch(self) -> Launch:
        self.port = self.ports.pop(0)
        return Launch([sys.executable, "-c", self.SCRIPT, str(self.port)])


def test_a_port_that_another_takes_first_is_replaced() -> None:
    """Between `free_port` and the part's own bind another process may take the port: the part tries the next one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Listener(taken.getsockname()[1], free_port()) as listener:
            assert listener.ports == []
            assert "Address already in use" in listener.output()


@pytest.mark.needs("kafka")
def test_a_real_kafka_takes_connections_and_keeps_its_port_over_a_restart() -> None:
    with Kafka() as kafka:
        port = kafka.port
        assert listens(port)
        kafka.stop()  # after a kill it waits out its own old registration: about ten seconds
        kafka.start()
        assert kafka.port == port
        assert listens(port)


@pytest.mark.needs("alertmanager")
def test_a_real_alertmanager_takes_an_alert() -> None:
    with Alertmanager() as alertmanager:
        alert = [{"labels": {"alertname": "harness"}, "annotations": {"summary": "from a test"}}]
        url = f"{alertmanager.url}/api/v2/alerts"
        fetch(url, data=json.dumps(alert).encode(), headers={"Content-Type": "application/json"})
        held = wait_until(alertmanager.alerts, what="the alert")
        assert held[0]["labels"] == {"alertname": "harness"}


@pytest.mark.needs("prometheus")
def test_a_real_prometheus_scrapes_and_promtool_checks() -> None:
    with Prometheus() as prometheus:
        assert prometheus.query("vector(42)")[0]["value"][1] == "42"
    assert promtool("check", "metrics", stdin="# HELP a_total A.\n# TYPE a_total counter\na_total 1\n") == ""
    with pytest.raises(AssertionError, match="invalid label name"):
        promtool("check", "metrics", stdin="broken{ 1")
