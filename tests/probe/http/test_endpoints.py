"""What the endpoints answer, over both bridges: ASGI and WSGI give the same."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import psutil
import pytest

from otel_memory import MemoryInstrumentor, get_lazy_loader, memory_app, memory_wsgi_app, register_gauge
from otel_memory.probe.http import endpoints as module
from otel_memory.probe.http import reports
from otel_memory.probe.http.access import Access, Refusal
from otel_memory.probe.http.endpoints import ROUTES, Asked, Endpoints
from tests.harness import wait_until

TOKEN = "s3cret-tök"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        content = json.loads(self.body)
        assert content["status"] == "success", content
        return content["data"]

    @property
    def error(self) -> dict[str, str]:
        content = json.loads(self.body)
        assert content["status"] == "error"
        assert content["data"] is None
        error: dict[str, str] = content["error"]
        return error


class Client:
    """Asks an application directly. ``target`` is what would stand in the request line, below where it is mounted."""

    def __init__(self, bridge: str, token: str | None = TOKEN, **options: Any) -> None:
        self.bridge = bridge
        self.app: Any = (memory_app if bridge == "asgi" else memory_wsgi_app)(token, **options)
        self.token = token

    def __call__(
        self, method: str, target: str, headers: dict[str, str] | None = None, client: str = "127.0.0.1"
    ) -> Answer:
        path, _, query = target.partition("?")
        headers = {"host": "127.0.0.1", **(headers or {})}
        if self.token is not None:
            headers.setdefault("authorization", f"Bearer {self.token}")
        raw = unquote_to_bytes(path)
        ask = self._asgi if self.bridge == "asgi" else self._wsgi
        return ask(method, raw, query.encode("latin-1"), headers, client)

    def _asgi(self, method: str, path: bytes, query: bytes, headers: dict[str, str], client: str) -> Answer:
        scope = {
            "type": "http",
            "method": method,
            "root_path": "/memory",
            "path": "/memory" + path.decode("utf-8", "replace"),
            "query_string": query,
            "headers": [(name.encode(), value.encode("utf-8")) for name, value in headers.items()],
            "client": (client, 5000),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("bodies are not read")

        async def send(message: Any) -> None:
            sent.append(dict(message))

        asyncio.run(self.app(scope, receive, send))
        start, body = sent
        told = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], told, body["body"])

    def _wsgi(self, method: str, path: bytes, query: bytes, headers: dict[str, str], client: str) -> Answer:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "/memory",
            "PATH_INFO": path.decode("latin-1"),
            "QUERY_STRING": query.decode("latin-1"),
            "REMOTE_ADDR": client,
            "CONTENT_LENGTH": headers.get("content-length", ""),
            "wsgi.input": io.BytesIO(),
        }
        for name, value in headers.items():
            if name != "content-length":
                environ["HTTP_" + name.upper().replace("-", "_")] = value.encode("utf-8").decode("latin-1")
        told: list[Any] = []
        body = b"".join(self.app(environ, lambda status, given: told.extend((status, given))))
        return Answer(int(told[0].split()[0]), dict(told[1]), body)


@pytest.fixture(params=["asgi", "wsgi"])
def bridge(request: pytest.FixtureRequest) -> Literal["asgi", "wsgi"]:
    bridge: Literal["asgi", "wsgi"] = request.param
    return bridge


@pytest.fixture
def ask(bridge: str) -> Client:
    return Client(bridge)


@pytest.fixture
def probe() -> Iterator[None]:
    instrumentor = MemoryInstrumentor()
    instrumentor.instrument(interval="100ms", snapshot_interval="100ms", evidence="none")
    yield
    instrumentor.uninstrument()


PACKAGE = {"package_name", "memory_metrics", "is_loaded", "status"}
METRICS = {
    *("current_memory_usage", "peak_memory_usage", "memory_footprint", "memory_leak_score", "memory_trend"),
    *("memory_pressure_level", "memory_growth_rate", "average_memory_usage", "memory_variance", "memory_check_count"),
    *("last_memory_check", "memory_history_length"),
}


def test_packages_have_the_documented_shapes(ask: Client) -> None:
    loader = get_lazy_loader()
    loader.register("wave")
    try:
        loader.load("wave")
        assert ask("POST", "/api/packages/memory/update-metrics").data.keys() == {"message", "update_time"}
        summary = ask("GET", "/api/packages/memory/summary").data
        assert summary.keys() == {
            *("total_current_memory", "total_peak_memory", "total_memory_footprint", "packages_with_leaks"),
            *("memory_trends", "memory_pressure_levels", "system_memory_pressure", "total_packages", "loaded_packages"),
        }
        assert summary["loaded_packages"] >= 1
        for name in ("total_current_memory", "total_peak_memory", "total_memory_footprint"):
            assert summary[name] is None or type(summary[name]) is int
        package = ask("GET", "/api/packages/memory/wave").data
        assert package.keys() == PACKAGE
        assert package["memory_metrics"].keys() >= METRICS
        assert package["is_loaded"] is True
        found = ask("GET", "/api/packages/memory/leaks?threshold=0.1").data
        assert found.keys() == {"leaks", "total_leaks", "threshold", "detection_time"}
        assert found["threshold"] == 0.1
        suggestions = ask("GET", "/api/packages/memory/optimization-suggestions").data
        assert suggestions.keys() == {
            *("suggestions", "total_suggestions", "high_severity", "medium_severity", "low_severity"),
            "generation_time",
        }
        collected = ask("POST", "/api/packages/memory/garbage-collection").data
        assert collected.keys() == {
            *("memory_before", "memory_after", "memory_freed", "objects_collected", "garbage_collection_time"),
        }
    finally:
        loader.unregister("wave")


def test_a_leaking_package_is_listed_with_whole_bytes(ask: Client) -> None:
    loader = get_lazy_loader()
    info = loader.register("leaking_example")
    try:
        now = loader.monitor.now()
        metrics = info.memory_metrics
        metrics.memory_history = [(now - 60 + step, 1e6 * step + 0.4) for step in range(60)]
        metrics.current_memory_usage, metrics.memory_leak_score, metrics.memory_trend = 59e6 + 0.4, 0.9, "increasing"
        metrics.memory_growth_rate = float("nan")  # must not reach JSON
        found = ask("GET", "/api/packages/memory/leaks").data
        (leak,) = [each for each in found["leaks"] if each["package_name"] == "leaking_example"]
        assert leak.keys() == {
            *("package_name", "leak_score", "memory_trend", "memory_growth_rate", "current_memory_usage"),
            *("peak_memory_usage", "memory_footprint", "memory_check_count", "last_memory_check"),
        }
        assert leak["current_memory_usage"] == 59_000_000
        assert type(leak["current_memory_usage"]) is int
        assert leak["memory_growth_rate"] is None
        suggestions = ask("GET", "/api/packages/memory/optimization-suggestions").data
        assert suggestions["high_severity"] >= 1
        summary = ask("GET", "/api/packages/memory/summary").data
        assert "leaking_example" in [each["package_name"] for each in summary["packages_with_leaks"]]
    finally:
        loader.unregister("leaking_example")


@pytest.mark.parametrize("threshold", ["0", "-1", "1.5", "nan", "inf", "abc", "", "0.5abc", "%ff", "1e999"])
def test_a_threshold_that_is_none_is_named(ask: Client, threshold: str) -> None:
    answer = ask("GET", f"/api/packages/memory/leaks?threshold={threshold}")
    assert answer.status == 422
    assert answer.error["code"] == "invalid_parameter"
    assert answer.error["message"].startswith("threshold=")
    assert "above 0 and at most 1" in answer.error["message"]


@pytest.mark.parametrize(
    "name", ["nothere", "..", "%2e%2e", "a%20b", "%F0%9F%90%8D", "%ff%fe", "'><script>", "x" * 5000, "a\\..\\b"]
)
def test_an_unknown_package_is_404_in_the_envelope(ask: Client, name: str) -> None:
    answer = ask("GET", f"/api/packages/memory/{name}")
    assert answer.status == 404
    assert answer.error["code"] == "unknown_package"
    assert len(answer.error["message"]) < 400
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/", "", "/api/packages/memory/", "/api/packages/memory/a%2Fb", "/api/packages/memory/../../etc/passwd"]
)
def test_an_unknown_path_is_404_in_the_envelope(ask: Client, path: str) -> None:
    answer = ask("GET", path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_path")


@pytest.mark.usefixtures("probe")
def test_status_reports_use_limit_trend_thresholds_history_and_health(ask: Client) -> None:
    wait_until(lambda: ask("GET", "/internal/memory/status").data["thresholds"], what="the sampler's first beat")
    data = ask("GET", "/internal/memory/status").data
    assert data["pid"] == os.getpid()
    rss = psutil.Process().memory_info().rss
    assert abs(data["process_memory_bytes"] - rss) < 50e6
    assert data["limit_bytes"] > rss
    assert 0 < data["utilization"] < 1
    assert data["probe_running"] is True
    assert data["trend"].keys() >= {"direction", "growth_bytes_per_second"}
    rules = {each["name"]: each for each in data["thresholds"]}
    assert rules["process_memory_high"]["state"] in ("ok", "crossed", "unknown")
    assert data["history"]["count"] >= 0
    assert data["health"]["status"] in ("healthy", "caution", "warning", "critical", "unknown")
    assert "snapshots" in data["features"]


def test_status_answers_without_a_probe(ask: Client) -> None:
    data = ask("GET", "/internal/memory/status").data
    assert data["probe_running"] is False
    assert data["thresholds"] == []
    assert data["process_memory_bytes"] > 0


def test_metrics_have_the_gauges_of_the_application(ask: Client) -> None:
    undo = register_gauge("chat.sessions", lambda: 7)
    try:
        data = ask("GET", "/internal/memory/metrics").data
        assert data["custom_metrics"] == {"chat.sessions": 7}
        assert 0 <= data["system_memory_percent"] <= 100
        assert data["heap_objects"] > 1000
    finally:
        undo()


def test_cleanup_gives_its_result_and_the_metrics_afterwards(ask: Client) -> None:
    data = ask("POST", "/internal/memory/cleanup?aggressive=true").data
    assert data["result"]["aggressive"] is True
    assert [step["step"] for step in data["result"]["steps"]] == ["evict", "gc", "trim"]
    assert data["metrics"]["process_memory_bytes"] > 0
    wrong = ask("POST", "/internal/memory/cleanup?aggressive=perhaps")
    assert (wrong.status, wrong.error["message"]) == (422, "aggressive='perhaps': expected true or false")


@pytest.mark.usefixtures("probe")
def test_snapshots_breakdown_diagnostics_and_evidence_are_served(ask: Client) -> None:
    assert ask("GET", "/internal/memory/snapshots?max=1").data["statistics"]["max_snapshots"] > 0
    assert ask("GET", "/internal/memory/snapshots?max=-1").status == 422
    assert ask("GET", "/internal/memory/snapshots?max=%C2%B2").status == 422
    assert ask("POST", "/internal/memory/diagnostic-gc").data["pid"] == os.getpid()
    assert "types" in ask("POST", "/internal/memory/evidence?seconds=0.1").data
    parts = ask("GET", "/internal/memory/breakdown")
    assert parts.status == (200 if os.path.exists("/proc/self/smaps") else 501)


def test_health_is_503_when_it_is_critical(ask: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("GET", "/internal/memory/health").data["checks"]
    ill = {"status": "critical", "checks": {}, "reasons": ["much"]}
    monkeypatch.setattr("otel_memory.probe.health.health_check_sync", lambda: ill)
    answer = ask("GET", "/internal/memory/health")
    assert answer.status == 503
    assert json.loads(answer.body) == {"status": "success", "data": ill}


def test_health_tells_those_without_the_token_its_status_alone(ask: Client) -> None:
    answer = ask("GET", "/internal/memory/health", {"authorization": "", "host": "pod.example"}, client="10.0.0.7")
    assert answer.status == 200
    assert answer.data.keys() == {"status"}


def test_all_else_needs_the_token(ask: Client) -> None:
    for route in ROUTES:
        if route.path != "/internal/memory/health":
            answer = ask(route.method, route.path, {"authorization": "Bearer wrong"})
            assert (answer.status, answer.error["code"]) == (401, "token_needed")
            assert answer.headers["www-authenticate"] == "Bearer"
    # Who has no token doesn't learn which paths there are.
    assert ask("GET", "/nothing", {"authorization": "Bearer wrong"}).status == 401
    assert ask("POST", "/internal/memory/health", {"authorization": "Bearer wrong"}).status == 401


def test_mounted_without_a_token_nothing_can_be_changed(bridge: str) -> None:
    ask = Client(bridge, None)
    assert ask("GET", "/internal/memory/metrics").status == 200
    answer = ask("POST", "/internal/memory/cleanup")
    assert (answer.status, answer.error["code"]) == (403, "token_needed")
    assert "memory_app(token=...)" in answer.error["message"]
    assert ask("GET", "/internal/memory/metrics", client="10.0.0.7").status == 403
    assert Client(bridge, None, protected=True)("POST", "/internal/memory/cleanup", client="10.0.0.7").status == 200


def test_methods_and_bodies(ask: Client) -> None:
    assert ask("GET", "/internal/memory/cleanup").status == 405
    answer = ask("DELETE", "/api/packages/memory/leaks")
    assert (answer.status, answer.error["message"]) == (405, "expected GET, not DELETE")
    assert ask("POST", "/internal/memory/cleanup", {"content-length": "2"}).status == 200
    for length, status in (("16385", 413), ("9" * 30, 400), ("-1", 400), ("abc", 400), ("\xb2", 400)):
        assert ask("POST", "/internal/memory/cleanup", {"content-length": length}).status == status, length
    head = ask("HEAD", "/internal/memory/metrics")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 100


@pytest.mark.parametrize("query", ["%ff%fe=%80", "\xff\xfe", "a" * 3000, "&&&===;;;", "%", "aggressive"])
def test_a_query_that_is_junk_is_passed_over(ask: Client, query: str) -> None:
    assert ask("GET", f"/internal/memory/metrics?{query}").status == 200


def test_too_many_parameters_are_refused(ask: Client) -> None:
    answer = ask("GET", "/internal/memory/metrics?" + "&".join(f"a{number}=1" for number in range(100)))
    assert (answer.status, answer.error["code"]) == (400, "invalid_query")


def test_an_empty_token_is_no_token(bridge: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        Client(bridge, " ")


@pytest.mark.parametrize("token", [b"s3cret", 5])
def test_a_token_that_no_request_could_carry_is_refused(token: Any) -> None:
    with pytest.raises(TypeError, match="is a text"):
        memory_app(token=token)


# --- bounds ---------------------------------------------------------------------------------------------------


class Held:
    """A report that is under way until ``release`` is set."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Semaphore(0), threading.Event()

    def __call__(self, _query: Any) -> dict[str, Any]:
        self.begun.release()
        assert self.release.wait(60)
        return {}


def asked(method: str, path: str) -> Asked:
    return Asked(method, path, headers={"host": "localhost"}, client="127.0.0.1")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held()
    routes = (module.Route("POST", "/change", held), module.Route("GET", "/look", held), *ROUTES)
    monkeypatch.setattr(module, "ROUTES", routes)
    yield held
    held.release.set()


def test_one_change_of_a_kind_at_a_time(held: Held) -> None:
    endpoints = Endpoints(Access(changes=True))
    first = threading.Thread(target=endpoints.answer, args=(asked("POST", "/change"),))
    first.start()
    assert held.begun.acquire(timeout=60)
    second = endpoints.answer(asked("POST", "/change"))
    assert second.status == 409
    assert b"under_way" in second.body
    assert endpoints.answer(asked("GET", "/internal/memory/metrics")).status == 200
    held.release.set()
    first.join(60)
    assert endpoints.answer(asked("POST", "/change")).status == 200


def test_so_many_at_once_and_no_more(held: Held) -> None:
    endpoints = Endpoints(Access())
    threads = [threading.Thread(target=endpoints.answer, args=(asked("GET", "/look"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert held.begun.acquire(timeout=60)
    busy = endpoints.answer(asked("GET", "/internal/memory/metrics"))
    assert (busy.status, ("retry-after", "1") in busy.headers) == (503, True)
    held.release.set()
    for thread in threads:
        thread.join(60)
    assert endpoints.answer(asked("GET", "/internal/memory/metrics")).status == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_holds_no_place_of_its_parent(held: Held) -> None:
    endpoints = Endpoints(Access(changes=True))
    first = threading.Thread(target=endpoints.answer, args=(asked("POST", "/change"),))
    first.start()
    assert held.begun.acquire(timeout=60)
    pid = os.fork()
    if pid == 0:
        held.release.set()
        os._exit(0 if endpoints.answer(asked("POST", "/change")).status == 200 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    held.release.set()
    first.join(60)


def test_what_fails_is_told_and_goes_no_further(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_query: Any) -> dict[str, Any]:
        raise RuntimeError("broken \udcff")

    def refused(_query: Any) -> dict[str, Any]:
        raise Refusal(501, "not_available", "not here")

    routes = (module.Route("GET", "/broken", broken), module.Route("GET", "/refused", refused))
    monkeypatch.setattr(module, "ROUTES", routes)
    endpoints = Endpoints(Access())
    reply = endpoints.answer(asked("GET", "/broken"))
    assert reply.status == 500
    assert json.loads(reply.body)["error"] == {"code": "failed", "message": "RuntimeError: broken ?"}
    assert "GET /broken failed" in caplog.text
    assert endpoints.answer(asked("GET", "/refused")).status == 501


def test_json_has_no_value_that_is_none() -> None:
    given = {"memory_footprint": 1.6, "rate": 1.5, "gap": float("nan"), "most": float("inf"), "flag": True, "t": (1,)}
    assert reports.for_json(given) == {
        "memory_footprint": 2,
        "rate": 1.5,
        "gap": None,
        "most": None,
        "flag": True,
        "t": [1],
    }


# --- in front of another application ----------------------------------------------------------------------------


def test_in_front_of_an_application_only_the_path_is_taken() -> None:
    seen: list[str] = []

    def inner(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"inner"]

    app: Any = memory_wsgi_app(TOKEN, app=inner, at="/memory/")
    told: list[str] = []

    def get(path: str) -> bytes:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_AUTHORIZATION": "Bearer s3cret-tÃ¶k"}
        return b"".join(app(environ, lambda status, _headers: told.append(status)))

    assert get("/shop") == b"inner"
    assert get("/memoryless") == b"inner"
    assert b'"pid"' in get("/memory/internal/memory/metrics")
    assert seen == ["/shop", "/memoryless"]
    assert told[-1] == "200 OK"
    with pytest.raises(ValueError, match="expected a path"):
        memory_wsgi_app(TOKEN, app=inner, at="memory")
