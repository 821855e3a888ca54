"""The endpoints in real applications: mounted in FastAPI, Flask and Django, served by each of gunicorn's workers."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from otel_memory import names
from tests.harness.event_schema import check_events
from tests.harness.net import LOOPBACK, fetch, free_port, listens
from tests.harness.process import Child, clean_environment
from tests.harness.waiting import wait_until

BIN = Path(sys.executable).parent
TOKEN = {"Authorization": "Bearer s3cret"}
EXPORTERS = {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")


@contextmanager
def running(folder: Path, *argv: str, **env: str) -> Iterator[Child]:
    environ = clean_environment({**EXPORTERS, "HOME": str(folder), "PYTHONPATH": "", **env})
    child = Child(argv, env=environ, cwd=folder, log=folder / "log")
    try:
        yield child
    except BaseException:
        print((folder / "log").read_text(errors="replace")[-5000:])
        raise
    finally:
        child.stop()


def get(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, Any]:
    try:
        return 200, json.loads(fetch(url, method=method, headers=headers, timeout_seconds=60))
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def answered(url: str) -> bool:
    fetch(url, timeout_seconds=60)
    return True


SHAPES: dict[str, set[str]] = {
    "GET /internal/memory/status": {
        *("timestamp", "pid", "process_memory_bytes", "virtual_bytes", "limit_bytes", "limit_kind", "utilization"),
        *("pressure", "heap_objects", "probe_running", "trend", "thresholds", "history", "health", "features"),
        "last_cleanup",
    },
    "GET /internal/memory/metrics": {
        *("timestamp", "pid", "process_memory_bytes", "virtual_bytes", "limit_bytes", "limit_kind", "utilization"),
        *("pressure", "heap_objects", "system_memory_percent", "gc_collections", "eviction_count", "evicted_bytes"),
        *("live_objects", "custom_metrics"),
    },
    "POST /internal/memory/cleanup": {"result", "metrics"},
    "POST /api/packages/memory/update-metrics": {"message", "update_time"},
    "GET /api/packages/memory/summary": {
        *("total_current_memory", "total_peak_memory", "total_memory_footprint", "packages_with_leaks"),
        *("memory_trends", "memory_pressure_levels", "system_memory_pressure", "total_packages", "loaded_packages"),
    },
    "GET /api/packages/memory/wave": {"package_name", "memory_metrics", "is_loaded", "status"},
    "GET /api/packages/memory/leaks?threshold=0.2": {"leaks", "total_leaks", "threshold", "detection_time"},
    "GET /api/packages/memory/optimization-suggestions": {
        *("suggestions", "total_suggestions", "high_severity", "medium_severity", "low_severity"),
        "generation_time",
    },
    "POST /api/packages/memory/garbage-collection": {
        *("memory_before", "memory_after", "memory_freed", "objects_collected", "garbage_collection_time"),
    },
}
"""Every path that the two documents describe, and what it answers."""
PACKAGE_METRICS = {
    *("current_memory_usage", "peak_memory_usage", "memory_footprint", "memory_leak_score", "memory_trend"),
    *("memory_pressure_level", "memory_growth_rate", "average_memory_usage", "memory_variance", "memory_check_count"),
    *("last_memory_check", "memory_history_length"),
}
WATCHED = """
from otel_memory import get_lazy_loader, register_gauge

get_lazy_loader().load("wave")
register_gauge("chat.sessions", lambda: 3)
"""


def check_mounted(base: str, pid: int | None = None) -> None:
    """The endpoints below ``base`` answer as those of an application with ``WATCHED`` and a token do."""
    data: dict[str, Any] = {}
    for route, keys in SHAPES.items():
        method, path = route.split(" ")
        status, content = get(base + path, method, TOKEN)
        assert (status, content.keys()) == (200, {"status", "data"}), route
        assert content["status"] == "success"
        data[path] = content["data"]
        assert data[path].keys() == keys, route
        assert get(base + path, method, {"Authorization": "Bearer guessed"})[0] == 401, route
    status, metrics = data["/internal/memory/status"], data["/internal/memory/metrics"]
    assert status["probe_running"] is True
    assert status["trend"].keys() >= {"direction", "growth_bytes_per_second"}
    assert status["history"].keys() == {"count", "statistics"}
    assert {"name", "state", "severity"} <= status["thresholds"][0].keys()
    assert metrics["custom_metrics"] == {"chat.sessions": 3}
    assert metrics["pid"] == (pid or metrics["pid"])
    assert psutil.pid_exists(metrics["pid"])
    assert type(metrics["process_memory_bytes"]) is int
    assert metrics["process_memory_bytes"] > 5e6
    assert data["/internal/memory/cleanup"]["result"]["trigger"] == "manual"
    summary, package = data["/api/packages/memory/summary"], data["/api/packages/memory/wave"]
    assert summary["memory_trends"].keys() == {"increasing", "decreasing", "stable"}
    assert summary["memory_pressure_levels"].keys() == {"low", "medium", "high", "critical"}
    assert summary["total_packages"] >= summary["loaded_packages"] >= 1
    assert package["memory_metrics"].keys() >= PACKAGE_METRICS
    assert (package["is_loaded"], package["status"]) == (True, "loaded")
    assert data["/api/packages/memory/leaks?threshold=0.2"]["threshold"] == 0.2

    assert get(f"{base}/internal/memory/health")[1]["data"].keys() == {"status"}
    status, content = get(f"{base}/api/packages/memory/nothere", headers=TOKEN)
    assert (status, content["error"]["code"]) == (404, "unknown_package")
    assert get(f"{base}/api/packages/memory/leaks?threshold=x", headers=TOKEN)[0] == 422
    assert get(f"{base}/internal/nothing", headers=TOKEN)[1]["error"]["code"] == "unknown_path"
    long = {**TOKEN, "Content-Length": "20000"}
    assert get(f"{base}/internal/memory/cleanup", "POST", long)[0] == 413


ASGI = """
import threading
from otel_memory import memory_app, register_evictor

begun, release = threading.Event(), threading.Event()

@register_evictor("slow", timeout_seconds=30)
def slow():
    begun.set()
    release.wait(60)

async def shop(request):
    return JSONResponse({"shop": True})

async def is_begun(request):
    return JSONResponse(begun.is_set())

async def do_release(request):
    release.set()
    return JSONResponse(True)

paths = {"/shop": shop, "/begun": is_begun, "/release": do_release}
"""
FASTAPI = """
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

app = FastAPI()
for path, answer in paths.items():
    answer.__annotations__["request"] = Request
    app.get(path)(answer)
app.mount("/memory", memory_app(token="s3cret"))
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

app = Starlette(
    routes=[Mount("/memory", memory_app(token="s3cret")), *(Route(path, answer) for path, answer in paths.items())]
)
"""


@pytest.mark.parametrize("framework", [FASTAPI, STARLETTE], ids=["FastAPI", "Starlette"])
def test_mounted_under_uvicorn(tmp_path: Path, framework: str) -> None:
    (tmp_path / "shop.py").write_text(WATCHED + ASGI + framework)
    port = free_port()
    launcher = str(BIN / "opentelemetry-instrument")
    argv = (launcher, str(BIN / "uvicorn"), "shop:app", "--port", str(port), "--app-dir", str(tmp_path))
    with running(tmp_path, *argv) as child:
        base = f"http://{LOOPBACK}:{port}"
        wait_until(lambda: answered(f"{base}/shop"), timeout_seconds=60, what="the application")
        check_mounted(f"{base}/memory", child.pid)
        assert get(f"{base}/shop") == (200, {"shop": True})

        # While a cleanup is under way the event loop goes on: else nobody could release the evictor in time.
        found: list[Any] = []
        cleaning = threading.Thread(
            target=lambda: found.append(get(f"{base}/memory/internal/memory/cleanup?aggressive=true", "POST", TOKEN))
        )
        cleaning.start()
        wait_until(lambda: get(f"{base}/begun")[1], timeout_seconds=60, what="the evictor has begun")
        assert get(f"{base}/memory/internal/memory/cleanup", "POST", TOKEN)[0] == 409
        assert get(f"{base}/release") == (200, True)
        cleaning.join(60)
        ((status, content),) = found
        (evictor,) = content["data"]["result"]["evictors"]
        assert status == 200
        assert evictor["outcome"] in ("useless", "freed"), evictor


FLASK = """
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import run_simple
from otel_memory import memory_wsgi_app
import sys

app = Flask(__name__)

@app.get("/shop")
def shop():
    return {"shop": True}

app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/memory": memory_wsgi_app(token="s3cret")})
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


def test_mounted_in_flask(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WATCHED + FLASK)
    port = free_port()
    argv = (str(BIN / "opentelemetry-instrument"), sys.executable, "shop.py", str(port))
    with running(tmp_path, *argv) as child:
        base = f"http://{LOOPBACK}:{port}"
        wait_until(lambda: answered(f"{base}/shop"), timeout_seconds=60, what="the application")
        check_mounted(f"{base}/memory", child.pid)
        assert get(f"{base}/shop") == (200, {"shop": True})


DJANGO = """
import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount
from otel_memory import memory_app, memory_wsgi_app

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="not one")
django.setup()
urlpatterns = [path("shop", lambda request: JsonResponse({"shop": True}))]
application = memory_wsgi_app(token="s3cret", app=get_wsgi_application(), at="/memory")
asgi = Starlette(routes=[Mount("/memory", memory_app(token="s3cret")), Mount("/", get_asgi_application())])
"""


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_mounted_in_django(tmp_path: Path, interface: str) -> None:
    (tmp_path / "shop.py").write_text(WATCHED + DJANGO)
    port = free_port()
    argv = (
        (str(BIN / "gunicorn"), "--bind", f"{LOOPBACK}:{port}", "--threads", "4", "--no-control-socket")
        if interface == "wsgi"
        else (str(BIN / "uvicorn"), "--port", str(port), "--app-dir", str(tmp_path))
    )
    name = "shop:application" if interface == "wsgi" else "shop:asgi"
    with running(tmp_path, str(BIN / "opentelemetry-instrument"), *argv, name):
        base = f"http://{LOOPBACK}:{port}"
        wait_until(lambda: answered(f"{base}/shop"), timeout_seconds=60, what="the application")
        check_mounted(f"{base}/memory")
        assert get(f"{base}/shop") == (200, {"shop": True})


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_on_an_address_of_its_own(tmp_path: Path, host: str) -> None:
    (tmp_path / "shop.py").write_text(WATCHED + "import time; time.sleep(300)")
    argv = (str(BIN / "opentelemetry-instrument"), sys.executable, "shop.py")
    env = {
        "OTEL_PYTHON_MEMORY_HTTP": "true",
        "OTEL_PYTHON_MEMORY_HTTP_HOST": host,
        "OTEL_PYTHON_MEMORY_HTTP_PORT": "0",
        "OTEL_PYTHON_MEMORY_EVENTS": "file",
    }
    with running(tmp_path, *argv, OTEL_PYTHON_MEMORY_HTTP_TOKEN="s3cret", **env) as child:
        file = tmp_path / "otel-memory-events.jsonl"
        wait_until(lambda: file.exists() and check_events(file), timeout_seconds=60, what="the event")
        (event,) = [each for each in check_events(file) if each["event_name"] == names.EVENT_HTTP_LISTENING]
        assert event["attributes"][names.SERVER_ADDRESS] == host
        assert event["attributes"][names.PROCESS_PID] == child.pid
        port = event["attributes"][names.SERVER_PORT]
        wait_until(
            lambda: get(f"http://{LOOPBACK}:{port}/internal/memory/status", headers=TOKEN)[1]["data"]["thresholds"],
            timeout_seconds=60,
            what="the sampler's first beat",
        )
        check_mounted(f"http://{LOOPBACK}:{port}", child.pid)


def test_elsewhere_than_on_loopback_nothing_is_served_without_a_token(tmp_path: Path) -> None:
    """It would be everybody's. The application runs on without the probe, and the log says what is missing."""
    argv = (str(BIN / "opentelemetry-instrument"), sys.executable, "-c", "print('goes on')")
    env = {"OTEL_PYTHON_MEMORY_HTTP": "true", "OTEL_PYTHON_MEMORY_HTTP_HOST": "0.0.0.0"}
    with running(tmp_path, *argv, **env, OTEL_PYTHON_MEMORY_EVENTS="file") as child:
        assert child.wait(60)
        assert child.stop() == 0
    text = (tmp_path / "log").read_text()
    assert "goes on" in text
    assert "OTEL_PYTHON_MEMORY_HTTP_TOKEN" in text
    assert not (tmp_path / "otel-memory-events.jsonl").exists()


WORKERS = """
import os
held = []

def application(environ, start_response):
    if environ["PATH_INFO"] == "/grow" and not held:
        held.append(bytearray(60_000_000))
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


@LINUX
@pytest.mark.parametrize("preload", [False, True], ids=["each-loads", "preload"])
def test_each_prefork_worker_has_its_own_address_and_tells_it(tmp_path: Path, preload: bool) -> None:
    (tmp_path / "shop.py").write_text(WORKERS)
    port, first = free_port(), free_port()
    log = tmp_path / "log"
    argv = (
        *(str(BIN / "opentelemetry-instrument"), str(BIN / "gunicorn"), "--workers", "3", "--no-control-socket"),
        *("--bind", f"{LOOPBACK}:{port}", *(["--preload"] if preload else []), "shop:application"),
    )
    env = {
        "OTEL_PYTHON_MEMORY_HTTP": "true",
        "OTEL_PYTHON_MEMORY_HTTP_PORT": str(first),
        "OTEL_PYTHON_MEMORY_EVENTS": "file",
        "OTEL_PYTHON_MEMORY_FILE_PATH": "events-{pid}.jsonl",
        "OTEL_PYTHON_MEMORY_EVIDENCE": "none",
    }
    with running(tmp_path, *argv, **env) as child:
        wait_until(lambda: answered(f"http://{LOOPBACK}:{port}/grow"), timeout_seconds=60, what="gunicorn")

        def told() -> dict[int, int]:
            """Port by process id, as the events say."""
            found: dict[int, int] = {}
            for file in tmp_path.glob("events-*.jsonl"):
                for event in check_events(file):
                    if event["event_name"] == names.EVENT_HTTP_LISTENING:
                        found[event["attributes"]["process.pid"]] = event["attributes"]["server.port"]
            return found

        wait_until(lambda: len(told()) == 4, timeout_seconds=60, what="the events of the master and three workers")
        ports = told()
        workers = {each.pid for each in psutil.Process(child.pid).children()}
        assert ports.keys() == {child.pid, *workers}
        assert len(set(ports.values())) == 4
        assert ports[child.pid] == first
        for pid, own in ports.items():
            data = get(f"http://{LOOPBACK}:{own}/internal/memory/metrics")[1]["data"]
            assert data["pid"] == pid
            assert abs(data["process_memory_bytes"] - psutil.Process(pid).memory_info().rss) < 20e6
            connections = psutil.Process(pid).net_connections("tcp")
            listening = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
            assert listening - {port} == {own}, "a worker has its own socket and nobody else's"

        ill = sorted(workers)[0]
        psutil.Process(ill).kill()
        wait_until(lambda: not listens(ports[ill]), timeout_seconds=60, what="its port is free")
        wait_until(lambda: len(told()) == 5, timeout_seconds=60, what="the event of the worker in its place")
        (new,) = told().keys() - ports.keys()
        assert get(f"http://{LOOPBACK}:{told()[new]}/internal/memory/metrics")[1]["data"]["pid"] == new
        began = time.monotonic()
        child.send_signal(signal.SIGTERM, group=False)
        assert child.wait(30)
        assert time.monotonic() - began < 20
    text = log.read_text()
    assert "Traceback" not in text
    assert "Started server process" not in text


FORKING = """
import os, socket, sys, time, urllib.request
from otel_memory import MemoryInstrumentor
from otel_memory.probe.lifecycle import running_probe

MemoryInstrumentor().instrument(http=True, http_port=0, evidence="none")

def address():
    return next(each.status()["address"] for each in running_probe().features if each.part == "http")

def get():
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address() + "/internal/memory/metrics") as reply:
        return reply.read()

mine = address()
port = int(mine.rpartition(":")[2])
# One that is open and silent while the process forks: the child must not keep it alive.
silent = socket.create_connection(("127.0.0.1", port))
time.sleep(0.2)
pid = os.fork()
if pid == 0:
    silent.close()
    for _ in range(600):
        if address() is not None:
            break
        time.sleep(0.05)
    assert address() != mine
    assert f'"pid":{os.getpid()}' in get().decode()
    MemoryInstrumentor().uninstrument()
    os._exit(0)
assert f'"pid":{os.getpid()}' in get().decode()
silent.sendall(b"GET / HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
while silent.recv(65536):
    pass  # the end comes although the child lives
assert os.waitpid(pid, os.WNOHANG) == (0, 0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert f'"pid":{os.getpid()}' in get().decode()
print("well")
"""


@LINUX
def test_a_fork_leaves_the_parents_connections_to_the_parent(tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    with running(tmp_path, sys.executable, "-W", "ignore", "forking.py") as child:
        assert child.wait(90)
        assert (tmp_path / "log").read_text().splitlines()[-1:] == ["well"]


EXITING = """
import sys, threading, time, urllib.request
from otel_memory import MemoryInstrumentor, register_evictor
from otel_memory.probe.lifecycle import running_probe

MemoryInstrumentor().instrument(http=True, http_port=0, evidence="none")
address = next(each.status()["address"] for each in running_probe().features if each.part == "http")
begun = threading.Event()

@register_evictor("slow")
def slow():
    begun.set()
    time.sleep(60)

def ask():
    request = urllib.request.Request(address + "/internal/memory/cleanup?aggressive=true", method="POST")
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()
    except OSError:
        pass

threading.Thread(target=ask, daemon=True).start()
assert begun.wait(60)
print(time.time(), flush=True)
"""


def test_the_end_of_the_application_waits_for_no_request(tmp_path: Path) -> None:
    (tmp_path / "exiting.py").write_text(EXITING)
    with running(tmp_path, sys.executable, "exiting.py") as child:
        assert child.wait(60)
        text = (tmp_path / "log").read_text()
        lines = text.splitlines()
        assert re.fullmatch(r"[0-9.]+", lines[0])
        assert len(lines) == 1, text
        assert time.time() - float(lines[0]) < 10  # a request under way would take a minute
        assert child.stop() == 0


WITHOUT = """
import sys
sys.modules["uvicorn"] = None
"""


def test_without_the_extra_the_application_runs_on_and_the_log_names_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(WITHOUT + "from otel_memory import MemoryInstrumentor\n"
        "MemoryInstrumentor().instrument(http=True, http_port=0)\nprint('goes on')\n")  # fmt: skip
    with running(tmp_path, sys.executable, "app.py") as child:
        assert child.wait(60)
        text = (tmp_path / "log").read_text()
    assert "goes on" in text
    assert "pip install 'otel-memory[http]'" in text
    assert "Traceback" not in text
