"""A real Collector between application and analyzer changes nothing: identity, metrics, verdict and culprit."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from otel_memory.analyzer.identity import identify
from tests.analyzer.made_up import LEAKING_ROUTE, MadeUp
from tests.harness import Analyzer, Collector, Program, free_port, wait_until

FORWARD = Path(__file__).resolve().parents[2] / "collector-config" / "forward.yaml"
DATA = Path(__file__).resolve().parents[1] / "data" / "otlp"
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
SERIES = ("memory", "heap", "blocks", "floor", "gc_gen2", "requests")


def forwarder(analyzer: Analyzer) -> Collector:
    """The Collector with the configuration that users are given."""
    return Collector(FORWARD, {"ANALYZER_OTLP_ENDPOINT": f"127.0.0.1:{analyzer.grpc_port}"})


# --- the same bytes by both ways -----------------------------------------------------------------------------


class BothWays:
    """Sends each request to one analyzer directly and to another through the Collector, over HTTP or gRPC."""

    def __init__(self, direct: Analyzer, collector: Collector, behind: Analyzer) -> None:
        self.direct, self.behind = direct, behind
        self._collector = collector
        self._http = httpx.Client(trust_env=False, timeout=10)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}")
        self._export = self._channel.unary_unary(EXPORT)

    def send(self, body: bytes, signal: str = "metrics", *, over_grpc: bool = False) -> None:
        self._post(self.direct.http_endpoint, body, signal)
        if over_grpc:
            self._export(body, timeout=10)
        else:
            self._post(self._collector.http_endpoint, body, signal)
        if signal != "traces":
            # The Collector answers before it has delivered, and delivers several requests at a time.
            wait_until(lambda: taken(self.behind) == taken(self.direct), what="the request behind it", every=0.005)

    def _post(self, endpoint: str, body: bytes, signal: str) -> None:
        reply = self._http.post(
            f"{endpoint}/v1/{signal}", content=body, headers={"content-type": "application/x-protobuf"}
        )
        assert reply.status_code == 200, reply.text

    def close(self) -> None:
        self._http.close()
        self._channel.close()


def taken(analyzer: Analyzer) -> int:
    return int(analyzer.get("/api/v1/summary")["health"]["points_accepted"])


@pytest.fixture
def both() -> Iterator[BothWays]:
    with Analyzer() as direct, Analyzer() as behind, forwarder(behind) as collector:
        ways = BothWays(direct, collector, behind)
        try:
            yield ways
        finally:
            ways.close()


def everything(analyzer: Analyzer) -> dict[str, Any]:
    """All that REST says of processes, alerts and history."""
    found: dict[str, Any] = {"alerts": analyzer.get("/api/v1/alerts")["items"]}
    for item in analyzer.get("/api/v1/processes?sort=service_name")["items"]:
        process_id = item["id"]
        found[process_id] = analyzer.get(f"/api/v1/processes/{process_id}")
        for name in SERIES:
            found[f"{process_id} {name}"] = analyzer.get(
                f"/api/v1/processes/{process_id}/series?{httpx.QueryParams(metric=name, points=5000)}"
            )
    return found


@pytest.mark.needs("collector")
def test_the_same_bytes_give_the_same_answers_field_by_field(both: BothWays) -> None:
    begin = float(int(time.time())) - 900
    by_http = MadeUp(instance="by-http", begin=begin)
    by_grpc = MadeUp(instance="by-grpc", begin=begin, leak_per_call=0, operations=2)
    for index in range(95):
        both.send(by_http.body(index))
        both.send(by_grpc.body(index), over_grpc=True)
    for signal in ("metrics", "logs", "traces"):
        both.send((DATA / f"python_sdk_{signal}.pb").read_bytes(), signal)
    expected, found = everything(both.direct), everything(both.behind)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == value, key
    by_instance = {one["service_instance_id"]: one for one in both.behind.get("/api/v1/processes")["items"]}
    assert by_instance["by-http"]["verdict"] == "leaking"
    assert by_instance["by-http"]["suspects"][0]["name"] == f"GET {LEAKING_ROUTE}"
    assert by_instance["by-grpc"]["verdict"] == "healthy"
    assert [alert["state"] for alert in found["alerts"]] == ["firing"]


@pytest.mark.needs("collector")
def test_what_is_sent_while_the_analyzer_is_away_comes_when_it_is_back() -> None:
    with Analyzer() as analyzer, forwarder(analyzer) as collector, httpx.Client(trust_env=False) as client:
        process = MadeUp(begin=float(int(time.time())) - 900)

        def send(index: int) -> None:
            client.post(
                f"{collector.http_endpoint}/v1/metrics",
                content=process.body(index),
                headers={"content-type": "application/x-protobuf"},
            ).raise_for_status()

        def samples() -> int:
            (item,) = analyzer.get("/api/v1/processes")["items"]
            return len(analyzer.get(f"/api/v1/processes/{item['id']}/series?metric=memory")["times"])

        send(0)
        wait_until(lambda: samples() == 1)
        analyzer.kill()
        send(1)
        analyzer.start()
        wait_until(lambda: samples() == 2, timeout_seconds=20, what="the sample that waited in the Collector")


# --- a real program ------------------------------------------------------------------------------------------

SHOP = {"/": 3.0, "/products/{n}": 4.0, "/search?q={n}": 2.0, "/cart/{n}": 10.0, "/orders": 2.0}
BREATH = 0.5
"""How far a rate goes above and below its mean: each route has times of its own."""
LIVE_SECONDS = 90.0


class Load:
    """Requests to each shop, the rate of each route breathing at a pace of its own; the same for all shops."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(15)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            routes = enumerate(SHOP.items())
            tasks = [
                asyncio.create_task(self._drive(client, url + path, rate, 11.0 + 7.0 * number))
                for number, (path, rate) in routes
                for url in self._urls
            ]
            while not self._stop.is_set():  # noqa: ASYNC110 it is set on another thread
                await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, client: httpx.AsyncClient, url: str, rate: float, breath: float) -> None:
        """By a timetable, so that a slow answer puts off no later request."""
        began = time.monotonic()
        at = 0.0
        for number in itertools.count():
            at += 1 / (rate * (1 + BREATH * math.sin(2 * math.pi * at / breath)))
            await asyncio.sleep(max(began + at - time.monotonic(), 0.0))
            try:
                await client.get(url.replace("{n}", str(number % 1000)))
            except httpx.HTTPError:
                await asyncio.sleep(0.2)


def shop(name: str, port: int, protocol: str, endpoint: str) -> Program:
    """The demo's leaking shop under ``opentelemetry-instrument``, as a user starts it."""
    launcher = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    assert launcher is not None
    environ = {
        "PORT": str(port),
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": f"service.version=1.0.0,service.instance.id={name}",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics",
        "OTEL_PYTHON_MEMORY_LIMIT": "512MiB",
    }

    def answers(_: Program) -> bool:
        return httpx.get(f"http://127.0.0.1:{port}/orders", trust_env=False, timeout=1).status_code == 200

    def until(program: Program) -> bool:
        try:
            return answers(program)
        except httpx.HTTPError:
            return False

    return Program(
        [launcher, sys.executable, "-m", "otel_memory.demo.shop"], env=environ, until=until, name=f"shop-{name}"
    )


@pytest.mark.slow
@pytest.mark.needs("collector")
def test_a_real_program_gets_the_same_verdict_directly_and_through_the_collector() -> None:
    """The same program three times at once: directly, through the Collector by gRPC, and by HTTP."""
    ports = {name: free_port() for name in ("direct", "by-grpc", "by-http")}
    with Analyzer() as analyzer, forwarder(analyzer) as collector:
        ways = {
            "direct": ("http/protobuf", analyzer.http_endpoint),
            "by-grpc": ("grpc", collector.grpc_endpoint),
            "by-http": ("http/protobuf", collector.http_endpoint),
        }
        programs = {name: shop(name, ports[name], *ways[name]) for name in ways}
        try:
            for program in programs.values():
                program.start()
            with Load([f"http://127.0.0.1:{port}" for port in ports.values()]):
                found = wait_until(
                    lambda: _all_leak(analyzer), timeout_seconds=LIVE_SECONDS, every=0.5, what="verdicts"
                )
        finally:
            for program in programs.values():
                program.close()
        for name, process in found.items():
            _same_as_any_other(analyzer, name, process, programs[name].pid)
        # The Collector itself has lost nothing on the way.
        assert "otelcol_exporter_send_failed_metric_points" not in _nonzero(collector.metrics_text())


def _all_leak(analyzer: Analyzer) -> dict[str, dict[str, Any]]:
    """The processes by instance, once all three leak and the leaking route is first."""
    items = analyzer.get("/api/v1/processes")["items"]
    sure = {
        item["service_instance_id"]: item
        for item in items
        if item["verdict"] == "leaking" and [one["name"] for one in item["suspects"]][:1] == [f"GET {LEAKING_ROUTE}"]
    }
    shown = ("service_instance_id", "verdict", "leak_score", "memory_bytes", "suspects")
    assert len(sure) == 3, [[item[field] for field in shown] for item in items]
    return sure


def _same_as_any_other(analyzer: Analyzer, name: str, process: dict[str, Any], pid: int) -> None:
    resource = {"service.name": "shop", "service.instance.id": name}
    expected = identify(resource)
    assert expected is not None
    assert process["id"] == expected.id
    assert process["service_name"] == "shop"
    assert process["service_version"] == "1.0.0"
    assert process["pid"] == pid
    assert process["host_name"] == os.uname().nodename
    assert process["runtime"] is not None
    assert process["limit_bytes"] == 512 * 2**20
    assert process["trend"] == "increasing"
    assert process["time_to_limit_seconds"] is not None
    assert (process["suspects"][0]["kind"], process["suspects"][0]["name"]) == ("route", f"GET {LEAKING_ROUTE}")
    for metric in SERIES:
        query = httpx.QueryParams(metric=metric, points=5000)
        series = analyzer.get(f"/api/v1/processes/{process['id']}/series?{query}")
        assert series["times"], f"{name}: no {metric}"
        if metric == "memory":
            moments = [datetime.fromisoformat(time).timestamp() for time in series["times"]]
            gaps = sorted(later - earlier for earlier, later in itertools.pairwise(moments))
            assert gaps[len(gaps) // 2] == pytest.approx(1.0, abs=0.2), f"{name}: a sample a second is expected"


def _nonzero(text: str) -> str:
    """The lines of a Prometheus page whose number is not 0."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("#") and not line.endswith(" 0"))
