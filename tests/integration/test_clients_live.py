"""`leaks`, `explain` and `doctor` as processes of their own, against a real analyzer that gets real OTLP."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Analyzer, fetch, wait_until
from tests.harness.process import clean_environment

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
HOSTILE = "ma[red]il\x1b]0;owned\x07\u202e"
SAMPLES = 120
SPACING_SECONDS = 5
KEPT_BYTES = 40_000
LIMIT_KIND = {"otel_memory.limit.kind": "cgroup_v2"}
LEAKING, OTHERS = "/cart/{customer}", ("/", "/items", "/items/{item}")


def command(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`otel-memory` as a user runs it."""
    argv = [sys.executable, "-m", "otel_memory", *arguments]
    return subprocess.run(
        argv, env=clean_environment(env), capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


# --- what an SDK would send -----------------------------------------------------------------------------------


def attributes(**values: str) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def payload(service: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    resource = attributes(**{"service.name": service, "service.instance.id": f"{service}-1", "host.name": "web-1"})
    scope = {"scope": {"name": "otel_memory"}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": {"attributes": resource}, "scopeMetrics": [scope]}]}


def level(name: str, unit: str, nanoseconds: int, value: int, **more: str) -> dict[str, Any]:
    point = {"timeUnixNano": str(nanoseconds), "asInt": str(value), "attributes": attributes(**more)}
    return {"name": name, "unit": unit, "gauge": {"dataPoints": [point]}}


def requests(began: int, nanoseconds: int, counts: Mapping[str, int]) -> dict[str, Any]:
    points = [
        {
            "startTimeUnixNano": str(began),
            "timeUnixNano": str(nanoseconds),
            "count": str(count),
            "sum": count * 0.01,
            "bucketCounts": [str(count)],
            "explicitBounds": [],
            "attributes": attributes(**{"http.route": route, "http.request.method": "GET"}),
        }
        for route, count in counts.items()
    ]
    histogram = {"aggregationTemporality": 2, "dataPoints": points}
    return {"name": "http.server.request.duration", "unit": "s", "histogram": histogram}


def post(analyzer: Analyzer, document: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    fetch(f"{analyzer.http_endpoint}/v1/metrics", data=json.dumps(document).encode(), headers=headers)


def tell_a_leak(analyzer: Analyzer) -> None:
    """Ten minutes of two services, up to now: one route of the first keeps 40 kB a call, the second is well."""
    chance = random.Random(7)
    now = time.time_ns()
    began = now - SAMPLES * SPACING_SECONDS * 10**9
    counts = dict.fromkeys((LEAKING, *OTHERS), 0)
    for number in range(1, SAMPLES + 1):
        at = began + number * SPACING_SECONDS * 10**9
        for route in counts:
            counts[route] += chance.randrange(10, 90)
        memory = 80_000_000 + counts[LEAKING] * KEPT_BYTES + chance.randrange(400_000)
        post(
            analyzer,
            payload(
                "shop",
                [
                    level("process.memory.usage", "By", at, memory),
                    level(
                        "otel_memory.process.memory.limit", "By", at, 2**30, **{"otel_memory.limit.kind": "cgroup_v2"}
                    ),
                    requests(began, at, counts),
                ],
            ),
        )
        well = 60_000_000 + chance.randrange(400_000)
        post(analyzer, payload(HOSTILE, [level("process.memory.usage", "By", at, well)]))


class Guarded(Analyzer):
    """An analyzer that answers nobody without the token."""

    def __init__(self) -> None:
        super().__init__("--token", TOKEN)

    def ready(self) -> bool:
        fetch(f"{self.url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}, timeout_seconds=1.0)
        self._was_ready = True
        return True


@pytest.fixture(scope="module")
def judged() -> Iterator[Analyzer]:
    """An analyzer with a token that has come to its verdicts."""
    with Guarded() as analyzer:
        tell_a_leak(analyzer)
        wait_until(lambda: is_leaking(analyzer), timeout_seconds=20, what="the verdict", every=0.2)
        yield analyzer


def is_leaking(analyzer: Analyzer) -> bool:
    done = command("leaks", "--all", env=access(analyzer))
    assert "leaking" in done.stdout, done.stdout + done.stderr
    return True


def access(analyzer: Analyzer) -> dict[str, str]:
    return {"OTEL_MEMORY_URL": analyzer.url, "OTEL_MEMORY_TOKEN": TOKEN}


# --- leaks and explain ----------------------------------------------------------------------------------------


def test_leaks_names_the_service_the_route_and_the_time_to_the_limit(judged: Analyzer) -> None:
    done = command("leaks", env=access(judged))
    assert done.returncode == 1, done.stderr
    heading, first, *_ = done.stdout.splitlines()
    assert heading.split()[:3] == ["service", "id", "verdict"]
    assert first.startswith("shop ")
    assert "leaking" in first
    assert "1 GiB" in first
    assert first.endswith("GET /cart/{customer}")
    assert "\x1b" not in done.stdout


def test_leaks_json_is_the_contracts_process(judged: Analyzer) -> None:
    done = command("leaks", "--json", env=access(judged))
    assert done.returncode == 1
    (item,) = json.loads(done.stdout)["items"]
    assert (item["service_name"], item["verdict"], item["limit_kind"]) == ("shop", "leaking", "cgroup_v2")
    assert item["suspects"][0]["name"] == "GET /cart/{customer}"
    assert item["time_to_limit_seconds"]["estimate"] > 0
    calls_per_second = 49.5 / SPACING_SECONDS
    assert item["growth_bytes_per_second"] == pytest.approx(calls_per_second * KEPT_BYTES, rel=0.15)


def test_leaks_all_lists_the_healthy_one_too_and_its_name_does_nothing(judged: Analyzer) -> None:
    done = command("leaks", "--all", env=access(judged))
    assert done.returncode == 1
    assert "ma[red]il\\x1b]0;owned\\x07\\u202e" in done.stdout
    assert not set(done.stdout) & {"\x1b", "\x07", "\u202e"}


def test_leaks_above_every_score_finds_nothing(judged: Analyzer) -> None:
    assert command("leaks", "--threshold", "1", env=access(judged)).returncode == 0


def test_explain_tells_the_story_by_the_services_name(judged: Analyzer) -> None:
    done = command("explain", "shop", env=access(judged))
    assert done.returncode == 1, done.stderr
    assert "It leaks" in done.stdout
    assert "of its limit of 1 GiB (set by its container)" in done.stdout
    assert "reaches the limit in about" in done.stdout
    assert "1. route GET /cart/{customer}" in done.stdout
    assert "█" in done.stdout
    by_id = json.loads(command("leaks", "--json", env=access(judged)).stdout)["items"][0]["id"]
    assert command("explain", by_id, "--json", env=access(judged)).returncode == 1


def test_explain_of_a_process_that_does_not_leak_is_well(judged: Analyzer) -> None:
    done = command("explain", HOSTILE, env=access(judged))
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout) & {"\x1b", "\x07", "\u202e"}


def test_what_can_not_be_asked_could_not_run_and_names_the_next_step(judged: Analyzer) -> None:
    for arguments in (["leaks"], ["explain", "shop"]):
        without = command(*arguments, "--url", judged.url)
        wrong = command(*arguments, "--url", judged.url, "--token", "another-token")
        other_port = command(*arguments, "--url", judged.http_endpoint)
        grpc_port = command(*arguments, "--url", judged.grpc_endpoint)
        assert [d.returncode for d in (without, wrong, other_port, grpc_port)] == [2, 2, 2, 2]
        assert "wants a token" in without.stderr
        assert "does not accept this token" in wrong.stderr
        assert "port of the page" in other_port.stderr
        assert "port of the page" in grpc_port.stderr
    nobody = command("explain", "nobody", env=access(judged))
    assert nobody.returncode == 2
    assert "otel-memory leaks --all" in nobody.stderr


# --- doctor ---------------------------------------------------------------------------------------------------


def exporter(analyzer: Analyzer, protocol: str, **more: str) -> dict[str, str]:
    endpoint = analyzer.grpc_endpoint if protocol == "grpc" else analyzer.http_endpoint
    return {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        **more,
    }


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_doctor_finds_nothing_wrong_where_nothing_is(judged: Analyzer, protocol: str) -> None:
    before = judged_processes(judged)
    done = command("doctor", "--json", env=exporter(judged, protocol))
    assert done.returncode == 0, done.stdout
    found = {finding["check"]: finding["status"] for finding in json.loads(done.stdout)["findings"]}
    assert (found["endpoint (metrics)"], found["endpoint (logs)"]) == ("ok", "ok")
    assert not {"failure", "warning"} & set(found.values())
    assert judged_processes(judged) == before, "the question leaves nothing behind"


def judged_processes(analyzer: Analyzer) -> int:
    return len(json.loads(command("leaks", "--all", "--json", env=access(analyzer)).stdout)["items"])


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_doctor_finds_a_token_that_is_missing_and_a_port_that_is_another(judged: Analyzer, protocol: str) -> None:
    without = command("doctor", env=exporter(judged, protocol, OTEL_EXPORTER_OTLP_HEADERS=""))
    assert without.returncode == 1
    assert "wants a token" in without.stdout
    other = judged.http_endpoint if protocol == "grpc" else judged.grpc_endpoint
    swapped = command("doctor", env=exporter(judged, protocol, OTEL_EXPORTER_OTLP_ENDPOINT=other))
    assert swapped.returncode == 1
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=" in swapped.stdout
    assert TOKEN not in without.stdout + swapped.stdout
