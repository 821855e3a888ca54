"""Scores go back as OTLP metrics: through a real Collector to Prometheus' form, and nowhere near the analyzer's own."""

from __future__ import annotations

import re
import time

import pytest

from otel_memory.analyzer.outputs.scores import NAME
from tests.analyzer.made_up import MadeUp
from tests.harness import Analyzer, Collector, fetch, free_port, wait_until
from tests.integration.alerting_world import PAST_SECONDS, Feeder, firing, outputs

pytestmark = pytest.mark.timeout(180)

PATIENCE = 60.0
CONFIG = """\
extensions: {health_check: {endpoint: "${env:HEALTH_LISTEN}"}}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "${env:OTLP_GRPC_LISTEN}"}
      http: {endpoint: "${env:OTLP_HTTP_LISTEN}"}
exporters:
  prometheus: {endpoint: "127.0.0.1:${env:PAGE_PORT}", resource_to_telemetry_conversion: {enabled: true}}
service:
  extensions: [health_check]
  telemetry:
    metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:TELEMETRY_PORT}"}}}}]}
  pipelines:
    metrics: {receivers: [otlp], exporters: [prometheus]}
"""


def samples(text: str) -> dict[tuple[str, str, str], float]:
    """(metric, instance, what tells its points apart) -> value."""
    found = {}
    for name, labels, value in re.findall(r"^(otel_memory_leak_\w+)\{(.*)\} (\S+)$", text, re.M):
        pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        apart = pairs.get("otel_memory_leak_verdict") or pairs.get("otel_memory_leak_suspect_name") or ""
        found[name, pairs["service_instance_id"], apart] = float(value)
    return found


@pytest.mark.needs("collector")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_real_collector_shows_them_to_prometheus(protocol: str) -> None:
    port = free_port()
    with Collector(CONFIG, {"PAGE_PORT": str(port)}) as collector:
        endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
        settings = ("--scores-otlp-endpoint", endpoint, "--scores-otlp-protocol", protocol, "--scores-seconds", "1")
        with Analyzer("--no-console", *settings) as analyzer:
            begin = float(int(time.time())) - PAST_SECONDS
            healthy = MadeUp(instance="calm", service="cart", begin=begin, leak_per_call=0)
            feeder = Feeder(analyzer, [MadeUp(begin=begin), healthy])
            feeder.send_until(firing(analyzer))
            # Nothing is judged any more: what was judged last comes to stand there.
            by_id = {item["service_instance_id"]: item for item in analyzer.get("/api/v1/processes")["items"]}
            leaking = by_id["made-up-1"]
            score = ("otel_memory_leak_score_ratio", "made-up-1", "")
            said = wait_until(
                lambda: (
                    said
                    if (said := samples(fetch(f"http://127.0.0.1:{port}/metrics").decode())).get(score)
                    == pytest.approx(leaking["leak_score"])
                    else None
                ),
                timeout_seconds=PATIENCE,
                what="the newest score on the Collector's page",
            )

            def value(metric: str, instance: str = "made-up-1", apart: str = "") -> float:
                return said[f"otel_memory_leak_{metric}", instance, apart]

            assert value("growth_bytes_per_second") == pytest.approx(leaking["growth_bytes_per_second"], rel=0.2)
            reaches = leaking["time_to_limit_seconds"]
            assert value("time_to_limit_seconds") == pytest.approx(reaches["estimate"], rel=0.2)
            assert value("time_to_limit_low_seconds") <= value("time_to_limit_seconds")
            assert value("suspect_growth_bytes_per_second", apart="GET /cart/{customer}") > 0
            for verdict in ("unknown", "healthy", "watch", "leaking"):
                assert value("status_ratio", apart=verdict) == float(verdict == "leaking")
            assert value("status_ratio", "calm", "leaking") == 0
            assert ("otel_memory_leak_time_to_limit_seconds", "calm", "") not in said, "not known: no point"
            health = outputs(analyzer)[NAME]
            assert (health["failed"], health["last_error"]) == (0, None)
            assert health["delivered"] >= 2


def test_an_analyzer_that_gets_the_scores_of_another_sees_no_process_in_them() -> None:
    """As happens where one Collector takes in everything."""
    with (
        Analyzer("--no-console") as second,
        Analyzer(*("--no-console", "--scores-otlp-endpoint", second.http_endpoint, "--scores-seconds", "1")) as first,
    ):
        feeder = Feeder(first)
        feeder.send_until(firing(first))
        wait_until(lambda: outputs(first)[NAME]["delivered"], timeout_seconds=PATIENCE)
        counted = fetch(f"{second.url}/metrics").decode()
        assert re.search(r'otel_memory_analyzer_points_total\{outcome="accepted"\} [1-9]', counted)
        assert second.get("/api/v1/processes")["items"] == []
        assert 'processes{verdict="unknown"} 0.0' in counted


def test_an_endpoint_that_is_down_is_told_and_the_newest_scores_come_once_it_is_up() -> None:
    port = free_port()
    settings = ("--scores-otlp-endpoint", f"http://127.0.0.1:{port}", "--scores-seconds", "1")
    with Analyzer("--no-console", *settings) as analyzer:
        Feeder(analyzer).send_until(firing(analyzer))
        broken = wait_until(
            lambda: found if (found := outputs(analyzer)[NAME])["failed"] else None, timeout_seconds=PATIENCE
        )
        assert "did not take the metrics" in broken["last_error"]
        assert f'deliveries_total{{outcome="failed",output="{NAME}"}}' in fetch(f"{analyzer.url}/metrics").decode()
        with Analyzer("--no-console", "--otlp-http-port", str(port)):
            wait_until(lambda: outputs(analyzer)[NAME]["delivered"] == 1, timeout_seconds=PATIENCE)
