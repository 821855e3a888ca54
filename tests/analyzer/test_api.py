"""The HTTP face over ASGI: forms, parameters, health, access. Every answer is held against the OpenAPI document."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_memory.analyzer import stats as measures
from otel_memory.analyzer.api import Api, ApiSettings, build_api
from otel_memory.analyzer.api_schemas import ProcessDetail
from otel_memory.analyzer.model import AlertState, Assessment, Event, Trend, Verdict
from otel_memory.analyzer.stats import OutputHealth, Stats
from otel_memory.analyzer.store import Reader, Store
from otel_memory.analyzer.view import View
from otel_memory.version import __version__
from tests.analyzer.store_samples import MIB, T0, alert, assessment, process

ID = process().id
TOKEN = "correct horse"


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Client:
    """Asks the application without a network; keeps cookies as a browser does."""

    def __init__(self, app: Api) -> None:
        self._transport = httpx.ASGITransport(app=app)
        self.cookies = httpx.Cookies()

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url="http://localhost:8431", cookies=self.cookies
            ) as client:
                response = await client.request(method, url, **options)
                self.cookies = client.cookies
                return response

        return asyncio.run(ask())


class Bench:
    """The application with real parts and what feeds it."""

    def __init__(self, directory: Path) -> None:
        self.store = Store.open(directory / "analyzer.db")
        self.reader = Reader(self.store.path)
        self.view = View()
        self.stats = Stats()
        self.checks: dict[str, Callable[[], str | None]] = {}
        self.page = directory / "page"
        self.page.mkdir()

    def app(self, **settings: Any) -> Api:
        return build_api(
            self.view,
            self.reader,
            self.stats,
            ApiSettings(dashboard=self.page, **settings),
            checks=self.checks,
            gauges=lambda: {"store_series": ("Series in the store.", 7)},
        )

    def client(self, **settings: Any) -> Client:
        return Client(self.app(**settings))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.reader.close()
    made.store.close()


@pytest.fixture
def client(bench: Bench) -> Client:
    return bench.client()


# --- forms -------------------------------------------------------------------------------------------------

PROCESS_FIELDS = {
    "id", "service_name", "service_version", "service_instance_id", "host_name", "pid", "runtime", "first_seen",
    "last_seen", "memory_bytes", "limit_bytes", "utilization", "verdict", "leak_score", "trend",
    "growth_bytes_per_second", "time_to_limit_seconds", "reasons", "suspects",
}  # fmt: skip
ALERT_FIELDS = {
    "id", "name", "severity", "state", "process", "starts_at", "ends_at", "summary", "description", "suspects",
    "labels", "annotations", "fired_at", "silenced_by",
}  # fmt: skip


def test_a_process_has_the_fields_of_the_contract(bench: Bench, client: Client) -> None:
    bench.view.publish([assessment()])
    (item,) = client.get("/api/v1/processes").json()["items"]
    assert set(item) >= PROCESS_FIELDS
    assert item["memory_bytes"] == 100 * MIB
    assert isinstance(item["memory_bytes"], int)
    assert item["first_seen"] == "2027-01-15T08:00:00Z"
    assert item["time_to_limit_seconds"] == {"estimate": 6291.5, "low": 5000.0, "high": None}
    assert item["utilization"] == 0.25
    assert item["suspects"] == [
        {
            "kind": "route",
            "name": "GET /leak",
            "growth_bytes_per_second": 40_000.0,
            "share": 0.9,
            "confidence": 0.8,
            "evidence": "grows 40 kB/s with 10 requests/s",
        }
    ]


def test_what_is_not_known_is_null_and_never_left_out(bench: Bench, client: Client) -> None:
    bare = assessment(
        process=process(service_version=None, service_instance_id=None, host_name=None, pid=None, runtime=None),
        memory_bytes=None,
        limit_bytes=None,
        limit_kind=None,
        verdict=Verdict.UNKNOWN,
        leak_score=None,
        trend=Trend.STABLE,
        growth_bytes_per_second=None,
        time_to_limit=None,
        reasons=(),
        suspects=(),
        leaking_since=None,
    )
    bench.view.publish([bare])
    (item,) = client.get("/api/v1/processes").json()["items"]
    unknown = {name for name, value in item.items() if value is None}
    assert unknown == {
        "service_version", "service_instance_id", "host_name", "pid", "runtime", "memory_bytes", "limit_bytes",
        "limit_kind", "utilization", "leak_score", "growth_bytes_per_second", "time_to_limit_seconds", "leaking_since",
    }  # fmt: skip


def test_one_process_has_breakdown_evidence_and_events(bench: Bench, client: Client) -> None:
    event = Event("otel_memory.threshold.crossed", T0 + 5, 13, {"process.pid": 7, "tags": ("a", "b")}, "crossed")
    bench.view.publish([assessment()], events={ID: [event]})
    detail = client.get(f"/api/v1/processes/{ID}").json()
    assert set(detail) >= PROCESS_FIELDS
    assert (detail["breakdown"], detail["evidence"]) == (None, [])
    assert detail["events"] == [
        {
            "name": "otel_memory.threshold.crossed",
            "time": "2027-01-15T08:00:05Z",
            "severity_number": 13,
            "body": "crossed",
            "attributes": {"process.pid": 7, "tags": ["a", "b"]},
        }
    ]


def test_a_process_tells_what_it_consists_of_and_what_it_found() -> None:
    def found(seconds: float, text: str) -> Event:
        attributes = {
            "otel_memory.event.id": "1",
            "otel_memory.evidence.kind": "python",
            "otel_memory.evidence.site": ("shop/cart.py:41 add",),
            "otel_memory.evidence.site.growth": (1234.5,),
            "process.pid": 7,
        }
        return Event("otel_memory.evidence", T0 + seconds, 13, attributes, text)

    crossed = Event("otel_memory.threshold.crossed", T0 + 6, 13, {}, "crossed")
    consists = replace(assessment(), breakdown={"python_used": 30, "file": 4})
    detail = ProcessDetail.build(consists, [found(9, "again"), crossed, found(5, "first")]).model_dump(mode="json")
    assert detail["breakdown"] == {"python_used": 30, "file": 4}
    assert [one["summary"] for one in detail["evidence"]] == ["again", "first"]
    assert detail["evidence"][1] == {
        "time": "2027-01-15T08:00:05Z",
        "summary": "first",
        "kind": "python",
        "site": ["shop/cart.py:41 add"],
        "site_growth": [1234.5],
    }
    assert len(detail["events"]) == 3


def test_suggestions_are_ranked_and_those_of_one_service_are_one(bench: Bench, client: Client) -> None:
    cache = {
        "otel_memory.evidence.kind": "python",
        "otel_memory.evidence.confidence": 1.0,
        "otel_memory.evidence.holder": ("shop.users.profile (cache of a function)",),
        "otel_memory.evidence.holder.kind": ("cache",),
        "otel_memory.evidence.holder.growth": (900,),
    }
    leaking = replace(assessment(), verdict=Verdict.LEAKING, growth_bytes_per_second=1000.0, limit_kind="cgroup_v2")
    ids = [f"{number:016x}" for number in range(3)]
    instances = [replace(leaking, process=replace(leaking.process, id=id_)) for id_ in ids]
    other = replace(leaking, process=replace(leaking.process, id="f" * 16, service_name="billing"))
    events = {id_: [Event("otel_memory.evidence", T0, 13, cache, "grows")] for id_ in ids}
    bench.view.publish([*instances, other], events=events)
    items = client.get("/api/v1/suggestions").json()["items"]
    assert [(one["shape"], one["service_name"], len(one["processes"])) for one in items] == [
        ("unbounded_cache", leaking.process.service_name, 3),
        ("per_request", "billing", 1),
    ]
    assert items[0]["growth_bytes_per_second"] == 3000.0
    assert client.get(f"/api/v1/processes/{ids[0]}").json()["suggestions"][0]["subject"] == "shop.users.profile"
    assert client.get("/api/v1/suggestions", params={"service": "billing"}).json()["items"] == items[1:]
    assert client.get("/api/v1/suggestions", params={"process": "f" * 16}).json()["items"] == items[1:]
    assert client.get("/api/v1/suggestions", params={"limit": 1}).json()["items"] == items[:1]
    grave = client.get("/api/v1/suggestions", params={"severity": "high"}).json()["items"]
    assert {one["severity"] for one in grave} <= {"high"}
    assert client.get("/api/v1/suggestions", params={"severity": "grave"}).status_code == 422


def test_the_fleet_is_told_by_service(bench: Bench, client: Client) -> None:
    def instance(number: int, verdict: Verdict, version: str) -> Assessment:
        known = assessment(number, verdict=verdict)
        return replace(
            known,
            process=replace(known.process, id=f"{number:016x}", service_version=version),
            first_seen=T0 - 3600,
            last_seen=T0,
        )

    old = [instance(n, Verdict.HEALTHY, "1.0") for n in range(10)]
    new = [instance(n, Verdict.LEAKING, "1.1") for n in range(10, 20)]
    bench.view.publish([*old, *new])
    (item,) = client.get("/api/v1/fleet").json()["items"]
    assert (item["cause"], item["subject"], len(item["leaking"]), item["healthy"]) == ("version", "1.1", 10, 10)
    assert client.get("/api/v1/fleet", params={"service": "nobody"}).json() == {"items": []}
    assert client.get("/api/v1/fleet", params={"sort": "x"}).status_code == 422


def test_a_series_is_two_equally_long_lists_with_the_unit(bench: Bench, client: Client) -> None:
    bench.view.publish([assessment()])
    with bench.store.transaction():
        bench.store.add_samples(ID, "memory", [T0 + i for i in (0, 1, 2, 3, 60, 61)], [1, 2, 3, 4, 5, 6])
    body = client.get(f"/api/v1/processes/{ID}/series").json()
    assert (body["metric"], body["unit"]) == ("memory", "By")
    assert body["values"] == [1.0, 2.0, 3.0, 4.0, None, 5.0, 6.0]
    assert len(body["times"]) == 7
    assert body["times"][0] == "2027-01-15T08:00:00Z"
    part = client.get(
        f"/api/v1/processes/{ID}/series", params={"from": rfc3339(T0 + 1), "to": rfc3339(T0 + 2), "metric": "memory"}
    ).json()
    assert part["values"] == [2.0, 3.0]
    none = client.get(f"/api/v1/processes/{ID}/series", params={"metric": "requests:GET /x"}).json()
    assert (none["unit"], none["times"]) == ("{request}", [])


def test_an_alert_has_the_fields_of_the_contract(bench: Bench, client: Client) -> None:
    bench.view.publish(alerts=[alert(1), alert(2, AlertState.RESOLVED)])
    items = client.get("/api/v1/alerts").json()["items"]
    assert [set(item) == ALERT_FIELDS for item in items] == [True, True]
    assert [(item["state"], item["ends_at"]) for item in items] == [
        ("firing", None),
        ("resolved", "2027-01-15T08:10:00Z"),
    ]
    assert [item["id"] for item in client.get("/api/v1/alerts?state=resolved").json()["items"]] == ["alert-2"]


def test_leaks_are_bounded_by_the_threshold(bench: Bench, client: Client) -> None:
    bench.view.publish([assessment(1, leak_score=0.6), assessment(2, leak_score=0.2), assessment(3, leak_score=0.9)])
    assert [item["leak_score"] for item in client.get("/api/v1/leaks").json()["items"]] == [0.9, 0.6]
    assert len(client.get("/api/v1/leaks?threshold=0.1").json()["items"]) == 3


def test_the_summary_counts_and_tells_the_analyzers_own_health(bench: Bench) -> None:
    bench.view.publish([assessment(1), assessment(2, verdict=Verdict.HEALTHY)], [alert()])
    bench.stats.add(measures.REQUESTS, 2, receiver="http", outcome="ok")
    bench.stats.add(measures.POINTS, 10, outcome="accepted")
    bench.stats.add(measures.STORE_ERRORS, kind="full")
    bench.stats.output(OutputHealth("console", delivered=3, last_delivered=T0))
    bench.checks["store"] = lambda: "the disk is full"
    body = bench.client().get("/api/v1/summary").json()
    assert body["version"] == __version__
    assert body["processes"] == 2
    assert body["verdicts"] == {"unknown": 0, "healthy": 1, "watch": 0, "leaking": 1}
    assert body["alerts"]["firing"] == 1
    assert body["memory_bytes"] == 200 * MIB
    health = body["health"]
    assert (health["status"], health["problems"]) == ("degraded", {"store": "the disk is full"})
    assert (health["requests"], health["points_accepted"], health["store_errors"]) == (2, 10, 1)
    assert health["outputs"][0]["name"] == "console"
    assert health["outputs"][0]["last_delivered"] == "2027-01-15T08:00:00Z"


def test_pages_are_linked_by_cursors(bench: Bench, client: Client) -> None:
    bench.view.publish([assessment(number) for number in range(1, 6)])
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        parameters = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/v1/processes", params=parameters).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert sorted(seen) == [process(number).id for number in range(1, 6)]


# --- the OpenAPI document ----------------------------------------------------------------------------------


def conforms(value: Any, schema: dict[str, Any], document: dict[str, Any], where: str = "$") -> None:
    """Asserts that ``value`` is what ``schema`` says; covers what the document uses, and refuses the rest."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        kinds = {
            "null": type(None),
            "string": str,
            "integer": int,
            "number": (int, float),
            "array": list,
            "object": dict,
        }
        for choice in schema["anyOf"]:
            kind = choice.get("type", "object")
            if isinstance(value, kinds[kind]) and not (isinstance(value, bool) and kind != "boolean"):
                return conforms(value, choice, document, where)
        raise AssertionError(f"{where}: {value!r} is none of {schema['anyOf']}")
    if "enum" in schema:
        assert value in schema["enum"], where
        return None
    if "const" in schema:
        assert value == schema["const"], where
        return None
    kind = schema.get("type")
    if kind == "object":
        assert isinstance(value, dict), where
        assert set(schema.get("required", ())) <= set(value), where
        if "properties" in schema:
            assert set(value) <= set(schema["properties"]), where
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            conforms(item, inner, document, f"{where}.{name}")
    elif kind == "array":
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            conforms(item, schema["items"], document, f"{where}[{index}]")
    elif kind == "string":
        assert isinstance(value, str), where
        if schema.get("format") == "date-time":
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value), where
    elif kind == "integer":
        assert isinstance(value, int), where
        assert not isinstance(value, bool), where
    elif kind == "number":
        assert isinstance(value, int | float), where
    elif kind == "null":
        assert value is None, where
    else:
        assert schema in ({}, True), f"{where}: {schema} is not covered"
    return None


def test_every_answer_is_what_the_openapi_document_says(bench: Bench, client: Client) -> None:
    """Walks every path with valid and with broken parameters; no answer may be undocumented."""
    bench.view.publish(
        [assessment(1), replace(assessment(2), leak_score=None, time_to_limit=None, limit_bytes=None)],
        [alert(1), alert(2, AlertState.RESOLVED)],
        events={ID: [Event("e", T0, 9, {"a": 1, "b": 0.5, "c": True, "d": "x", "e": ("y",)}, None)]},
    )
    bench.stats.output(OutputHealth("console"))
    with bench.store.transaction():
        bench.store.add_samples(ID, "memory", [T0, T0 + 1, T0 + 2, T0 + 90], [1.0, 2.0, 3.0, 4.0])
    document = client.get("/openapi.json").json()
    walked = 0
    for path, methods in document["paths"].items():
        if path == "/api/v1/stream":
            continue
        # What changes something is walked in test_silences.
        assert set(methods) <= ({"get"} if "silences" not in path else {"get", "post", "delete"})
        if "get" not in methods:
            continue
        operation = methods["get"]
        for url in (path.replace("{process_id}", ID), path.replace("{process_id}", "nobody")):
            for parameters in ({}, {"unheard": "of"}, *broken(operation)):
                response = client.get(url, params=parameters)
                described = operation["responses"].get(str(response.status_code))
                assert described is not None, f"{response.url}: {response.status_code} is not documented"
                kind, _, _ = response.headers["content-type"].partition(";")
                assert kind in described["content"], str(response.url)
                if kind == "application/json":
                    conforms(response.json(), described["content"][kind]["schema"], document)
                walked += 1
    assert walked > 40


def broken(operation: dict[str, Any]) -> Iterator[dict[str, str]]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            for value in ("", "-1", "no such thing", "9" * 30, "\x00", "x" * 5000):
                yield {parameter["name"]: value}


def test_the_document_names_every_path_of_this_version(client: Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/api/v1/summary",
        "/api/v1/processes",
        "/api/v1/processes/{process_id}",
        "/api/v1/processes/{process_id}/series",
        "/api/v1/leaks",
        "/api/v1/alerts",
        "/api/v1/silences",
        "/api/v1/silences/{silence_id}",
        "/api/v1/suggestions",
        "/api/v1/fleet",
        "/api/v1/stream",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert document["info"]["version"] == __version__


def test_there_is_no_page_that_loads_from_elsewhere(client: Client) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404


# --- bad questions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "status", "text"),
    [
        ("/api/v1/processes?limit=0", 422, "limit: Input should be greater than or equal to 1"),
        ("/api/v1/processes?limit=many", 422, "limit: Input should be a valid integer"),
        ("/api/v1/processes?verdict=bad", 422, "verdict: Input should be 'unknown', 'healthy', 'watch' or 'leaking'"),
        ("/api/v1/processes?servce=shop", 422, "servce: no such parameter"),
        ("/api/v1/processes?sort=age", 422, "sort: Input should be 'leak_score'"),
        ("/api/v1/processes?cursor=x", 400, "cursor: not one that this analyzer made"),
        ("/api/v1/processes/nobody", 404, "no process 'nobody'"),
        ("/api/v1/processes/nobody/series", 404, "no process 'nobody'"),
        (f"/api/v1/processes/{ID}/series?metric=age", 422, "metric: 'age' is none of memory, floor"),
        (f"/api/v1/processes/{ID}/series?from=yesterday", 422, "from: "),
        (f"/api/v1/processes/{ID}/series?from=2027-01-01T00:00:00", 422, "from: Input should have timezone info"),
        (f"/api/v1/processes/{ID}/series?from=2027-01-02T00:00:00Z&to=2027-01-01T00:00:00Z", 400, "from is later"),
        (f"/api/v1/processes/{ID}/series?points=3", 422, "points: "),
        ("/api/v1/leaks?threshold=2", 422, "threshold: Input should be less than or equal to 1"),
        ("/api/v1/alerts?state=loud", 422, "state: Input should be 'pending', 'firing' or 'resolved'"),
        ("/api/v1/silences?state=loud", 422, "state: Input should be 'coming', 'active' or 'over'"),
    ],
)
def test_a_bad_question_is_answered_with_what_is_wrong(
    bench: Bench, client: Client, url: str, status: int, text: str
) -> None:
    bench.view.publish([assessment()])
    response = client.get(url)
    assert response.status_code == status
    assert text in response.json()["detail"]


def test_a_history_that_can_not_be_read_is_told_and_the_rest_works(bench: Bench, client: Client) -> None:
    bench.view.publish([assessment()])
    bench.reader.close()
    response = client.get(f"/api/v1/processes/{ID}/series")
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert client.get(f"/api/v1/processes/{ID}").status_code == 200


# --- health and metrics ------------------------------------------------------------------------------------


def test_alive_is_not_ready(bench: Bench, client: Client) -> None:
    def broken_check() -> str | None:
        raise OSError("gone")

    assert client.get("/readyz").json() == {"status": "ready", "problems": {}}
    bench.checks |= {"worker": lambda: None, "store": lambda: "the disk is full", "receivers": broken_check}
    client = bench.client()
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["problems"] == {"store": "the disk is full", "receivers": "the check failed: gone"}
    assert client.get("/healthz").json() == {"status": "ok"}


def test_metrics_are_read_by_prometheus_own_parser(bench: Bench, client: Client) -> None:
    bench.view.publish([assessment()], [alert()])
    bench.stats.add(measures.REQUESTS, receiver="grpc", outcome="ok")
    bench.stats.add(measures.REQUESTS, 2, receiver="http", outcome='odd "name"\n')
    bench.stats.set(measures.QUEUE_DEPTH, 4)
    bench.stats.observe(measures.SCORING, 0.25)
    bench.stats.observe(measures.SCORING, 0.5)
    bench.stats.output(OutputHealth("otlp", delivered=5, failed=2, abandoned=1, pending=3))
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name.removeprefix("otel_memory_analyzer_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["requests_total", "grpc", "ok"] == 1
    assert samples["requests_total", "http", 'odd "name"\n'] == 2
    assert samples["queue_depth",] == 4
    assert (samples["scoring_seconds_count",], samples["scoring_seconds_sum",]) == (2, 0.75)
    assert samples["deliveries_total", "delivered", "otlp"] == 5
    assert samples["deliveries_total", "abandoned", "otlp"] == 1
    assert samples["deliveries_pending", "otlp"] == 3
    assert samples["processes", "leaking"] == 1
    assert samples["alerts", "firing"] == 1
    assert samples["worker_errors_total",] == 0
    assert samples["store_series",] == 7
    assert samples["stream_subscribers",] == 0
    assert not [name for name, *_ in samples if name.startswith(("python_", "process_"))]


def test_a_number_under_the_wrong_name_is_a_programming_error() -> None:
    stats = Stats()
    with pytest.raises(ValueError, match="labels"):
        stats.add(measures.REQUESTS, receiver="http")
    with pytest.raises(ValueError, match="labels"):
        stats.add(measures.POINTS, result="ok")
    with pytest.raises(ValueError, match="queue_depth is a gauge"):
        stats.add(measures.QUEUE_DEPTH)


# --- the page ----------------------------------------------------------------------------------------------


def test_the_page_is_served_with_types_etags_and_a_policy_for_self_alone(bench: Bench) -> None:
    (bench.page / "index.html").write_text("<!doctype html><title>x</title>")
    (bench.page / "app.mjs").write_text("export {}")
    (bench.page / "odd.bin").write_bytes(b"\x00")
    client = bench.client()
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/app.mjs").headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/odd.bin").headers["content-type"] == "application/octet-stream"
    again = client.get("/app.mjs", headers={"If-None-Match": client.get("/app.mjs").headers["etag"]})
    assert again.status_code == 304
    assert client.get("/../analyzer.db").status_code == 404
    assert client.get("/%2e%2e/analyzer.db").status_code == 404


# --- access ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8431", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8431", 200),
        ("[::1]:8431", 200),
        ("analyzer.lan", 200),
        ("evil.example:8431", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
def test_on_loopback_only_its_own_names_are_answered(bench: Bench, host: str, status: int) -> None:
    client = bench.client(allowed_hosts=("analyzer.lan",))
    assert client.get("/api/v1/summary", headers={"Host": host}).status_code == status


def test_bound_elsewhere_any_name_is_answered_unless_names_are_given(bench: Bench) -> None:
    open_client = bench.client(host="0.0.0.0")
    assert open_client.get("/healthz", headers={"Host": "10.1.2.3:8431"}).status_code == 200
    named = bench.client(host="0.0.0.0", allowed_hosts=("analyzer.lan",))
    assert named.get("/healthz", headers={"Host": "10.1.2.3:8431"}).status_code == 421
    assert named.get("/healthz", headers={"Host": "analyzer.lan"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/v1/summary", "/api/v1/stream", "/openapi.json", "/metrics"])
def test_with_a_token_everything_but_healthz_needs_it(bench: Bench, path: str) -> None:
    client = bench.client(token=TOKEN)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": "otel_memory="},
    ):
        response = client.get(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").status_code == 200


def test_the_right_token_opens(bench: Bench) -> None:
    client = bench.client(token=TOKEN)
    assert client.get("/api/v1/summary", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/api/v1/summary", headers={"Authorization": f"bearer  {TOKEN}"}).status_code == 200


def test_a_browser_opens_the_page_once_with_the_token_and_keeps_a_cookie_without_it(bench: Bench) -> None:
    (bench.page / "index.html").write_text("page")
    client = bench.client(token=TOKEN)
    first = client.get("/", params={"token": TOKEN, "x": "1"})
    assert (first.status_code, first.headers["location"]) == (303, "/?x=1")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert "horse" not in cookie
    assert client.get("/").text == "page"
    assert client.get("/api/v1/summary").status_code == 200
    assert bench.client(token=TOKEN).get("/", params={"token": "wrong"}).status_code == 401
    other = bench.client(token="another")
    other.cookies = client.cookies
    assert other.get("/api/v1/summary").status_code == 401, "the cookie of another token"


def test_the_token_is_not_shown_with_the_settings() -> None:
    assert TOKEN not in repr(ApiSettings(token=TOKEN))


# --- speed -------------------------------------------------------------------------------------------------


def test_the_first_page_of_ten_thousand_processes_costs_little_more_than_of_a_hundred(
    bench: Bench, client: Client
) -> None:
    """A bound in multiples of the same work in the same run, since machines differ."""

    def best(url: str) -> float:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            assert client.get(url).status_code == 200
            times.append(time.perf_counter() - begin)
        return min(times)

    bench.view.publish([assessment(number, leak_score=number % 100 / 100) for number in range(100)])
    small = best("/api/v1/processes")
    bench.view.publish([assessment(number, leak_score=number % 100 / 100) for number in range(10_000)])
    large = best("/api/v1/processes")
    assert large < 20 * small


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_can_be_asked_for_without_a_body(client: Client, path: str) -> None:
    assert client.request("HEAD", path).status_code == 200
