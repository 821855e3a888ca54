"""The probe in real processes: under ``opentelemetry-instrument``, gunicorn and multiprocessing, sending real OTLP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_memory import names

BIN = Path(sys.executable).parent
CONTRIB = "opentelemetry.instrumentation.system_metrics"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")

pytestmark = LINUX


def environment(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    return {**clean, "OTEL_METRIC_EXPORT_INTERVAL": "300", "OTEL_TRACES_EXPORTER": "none", **more}


# --- the console ----------------------------------------------------------------------------------------------


def documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON documents that the console exporters wrote one after the other."""
    decoder, position = json.JSONDecoder(), 0
    while (position := _next_brace(text, position)) >= 0:
        document, position = decoder.raw_decode(text, position)
        yield document


def _next_brace(text: str, position: int) -> int:
    return text.find("{", position)


def under_launcher(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(BIN / "opentelemetry-instrument"),
            *("--traces_exporter", "none", "--metrics_exporter", "console", "--logs_exporter", "console"),
            sys.executable,
            "-c",
            textwrap.dedent(program),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(**env),
    )


GROWING = """
import gc, time
held = []
for _ in range(10):
    held.append(b"x" * 4_000_000)
    gc.collect()
    time.sleep(0.1)
"""


def metrics_by_scope(text: str) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = {}
    for document in documents(text):
        for resource in document.get("resource_metrics", ()):
            for scope in resource["scope_metrics"]:
                for metric in scope["metrics"]:
                    found.setdefault(scope["scope"]["name"], {})[metric["name"]] = metric["data"]["data_points"]
    return found


def test_the_launcher_alone_gives_metrics_and_threshold_events_with_no_code_change() -> None:
    done = under_launcher(
        GROWING, OTEL_PYTHON_MEMORY_INTERVAL="100", OTEL_PYTHON_MEMORY_THRESHOLDS="none; mine=rss>30MiB:critical"
    )
    assert done.returncode == 0
    assert done.stderr == ""
    scopes = metrics_by_scope(done.stdout)
    ours = scopes[names.SCOPE]
    assert set(ours) <= set(names.METRICS)
    assert set(ours) >= {
        names.MEMORY_PEAK,
        names.MEMORY_LIMIT,
        names.PROCESS_MEMORY_UTILIZATION,
        names.HEAP_USAGE,
        names.PYTHON_BLOCK_COUNT,
        names.GC_PAUSE_DURATION,
        names.GC_FLOOR_USAGE,
        names.PROCESS_INFO,
    }
    assert not set(ours) & set(scopes[CONTRIB]), "no name twice"
    assert ours[names.MEMORY_PEAK][0]["value"] > 40_000_000
    (event,) = [document for document in documents(done.stdout) if "event_name" in document]
    assert event["event_name"] == names.EVENT_THRESHOLD_CROSSED
    assert event["attributes"][names.THRESHOLD_NAME] == "mine"
    assert event["attributes"][names.THRESHOLD_SEVERITY] == "critical"


def test_without_contrib_the_conventional_names_are_the_probes() -> None:
    done = under_launcher(GROWING, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="system_metrics")
    scopes = metrics_by_scope(done.stdout)
    assert CONTRIB not in scopes
    assert {names.PROCESS_MEMORY_USAGE, names.GC_COLLECTIONS} <= set(scopes[names.SCOPE])


OTHERS = """
import flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
print("others:", FlaskInstrumentor().is_instrumented_by_opentelemetry,
      SystemMetricsInstrumentor().is_instrumented_by_opentelemetry)
"""


@pytest.mark.parametrize(
    ("setting", "value"), [("INTERVAL", "soon"), ("THRESHOLDS", "rss>>1"), ("EVENTS", "syslog"), ("LIMIT", "much")]
)
def test_invalid_settings_leave_the_application_and_the_other_instrumentors_alone(setting: str, value: str) -> None:
    name = f"OTEL_PYTHON_MEMORY_{setting}"
    done = under_launcher(OTHERS, **{name: value})
    assert done.returncode == 0
    assert "others: True True" in done.stdout
    assert names.SCOPE not in metrics_by_scope(done.stdout)
    assert done.stderr.count(f"otel-memory: {name}={value!r}") == 1
    assert "Traceback" not in done.stderr


def test_the_launcher_takes_the_settings_as_flags(tmp_path: Path) -> None:
    """A name that another package defines too would end the launcher before the application begins."""
    group = "opentelemetry_environment_variables"
    if not any(found.value.startswith("otel_memory") for found in entry_points(group=group)):
        distribution = tmp_path / "otel_memory_flags-1.dist-info"
        distribution.mkdir()
        (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: otel-memory-flags\nVersion: 1\n")
        (distribution / "entry_points.txt").write_text(
            f"[{group}]\notel_memory = otel_memory.probe.environment_variables\n"
        )
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(PYTHONPATH=str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "--memory_interval" in done.stdout


# --- OTLP -----------------------------------------------------------------------------------------------------


class Receiver:
    """A real OTLP/HTTP endpoint: the last value of each metric by (instance id, metric), and what it came with."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last: dict[str, dict[str, tuple[str, Any]]] = {}
        self.doubled: list[str] = []
        self.events: list[tuple[str, str, int]] = []
        self.malformed: list[str] = []
        self.users: dict[Any, set[str]] = {}
        """Connection -> instance ids that sent metrics through it."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections, which forked workers must not share

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                try:
                    if self.path.endswith("/metrics"):
                        receiver.take_metrics(ExportMetricsServiceRequest.FromString(body), self.client_address)
                    else:
                        receiver.take_logs(ExportLogsServiceRequest.FromString(body))
                    self.send_response(200)
                except Exception as error:
                    receiver.malformed.append(repr(error))
                    self.send_response(400)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(10)
        self.server.server_close()

    def take_metrics(self, request: Any, connection: object) -> None:
        with self.lock:
            for resource in request.resource_metrics:
                instance = _instance(resource.resource)
                self.users.setdefault(connection, set()).add(instance)
                seen: set[str] = set()
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        points = getattr(metric, metric.WhichOneof("data")).data_points
                        if metric.name in seen:
                            self.doubled.append(metric.name)
                        seen.add(metric.name)
                        self.last.setdefault(instance, {})[metric.name] = (scope.scope.name, points[-1])

    def take_logs(self, request: Any) -> None:
        with self.lock:
            for resource in request.resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        if record.event_name:
                            pid = next(a.value.int_value for a in record.attributes if a.key == names.PROCESS_PID)
                            self.events.append((_instance(resource.resource), record.event_name, pid))

    def by_pid(self) -> dict[int, tuple[str, dict[str, tuple[str, Any]]]]:
        """pid -> (service.instance.id, metrics)."""
        with self.lock:
            found = {}
            for instance, metrics in self.last.items():
                if names.PROCESS_INFO in metrics:
                    attributes = metrics[names.PROCESS_INFO][1].attributes
                    pid = next(a.value.int_value for a in attributes if a.key == names.PROCESS_PID)
                    found[pid] = (instance, dict(metrics))
            return found

    def env(self) -> dict[str, str]:
        return {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "OTEL_BLRP_SCHEDULE_DELAY": "200",
        }


def _instance(resource: Any) -> str:
    return str(next(a.value.string_value for a in resource.attributes if a.key == names.SERVICE_INSTANCE_ID))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.05)


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children_of(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
"""

CONFIGURATION = """
def post_worker_init(worker):
    worker.ballast = b"x" * (worker.age * 30_000_000)
"""


@pytest.mark.parametrize(("preload", "with_contrib"), [(False, True), (True, False)])
def test_each_of_four_gunicorn_workers_reports_its_own_memory(
    tmp_path: Path, receiver: Receiver, preload: bool, with_contrib: bool
) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION)
    env = environment(
        **receiver.env(),
        OTEL_PYTHON_MEMORY_INTERVAL="200",
        # The SDK gives a collection as long as the interval; five processes on a busy machine need more than 0.3 s.
        OTEL_METRIC_EXPORT_INTERVAL="1500",
        OTEL_PYTHON_MEMORY_THRESHOLDS="none; rss>130MB",
        HOME=str(tmp_path),  # gunicorn leaves a control socket there
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="" if with_contrib else "system_metrics",
        # A user's own instance id must not make the workers look like one.
        OTEL_RESOURCE_ATTRIBUTES="service.name=shop,service.instance.id=mine",
    )
    log = tmp_path / "log"
    with log.open("w") as output:
        master = subprocess.Popen(
            [
                *(str(BIN / "opentelemetry-instrument"), str(BIN / "gunicorn")),
                *("-w", "4", "-b", "127.0.0.1:0", "--graceful-timeout", "5", "application:app"),
                *(["--preload"] if preload else []),
            ],
            cwd=tmp_path,
            env=env,
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: len(children_of(master.pid)) == 4)
        workers = children_of(master.pid)
        scope = CONTRIB if with_contrib else names.SCOPE

        def all_reported() -> bool:
            told = receiver.by_pid()
            return all(
                pid in told
                and abs(told[pid][1][names.PROCESS_MEMORY_USAGE][1].as_int - rss_of(pid)) < 0.1 * rss_of(pid)
                for pid in workers
            )

        until(all_reported)
        told = receiver.by_pid()
        assert len({told[pid][0] for pid in workers}) == 4, "each has an instance id of its own"
        assert {told[pid][1][names.PROCESS_MEMORY_USAGE][0] for pid in workers} == {scope}
        sizes = sorted(told[pid][1][names.PROCESS_MEMORY_USAGE][1].as_int for pid in workers)
        assert all(larger - smaller > 20_000_000 for smaller, larger in pairwise(sizes))
        until(lambda: len(receiver.events) >= 1)
        assert all(told[pid][0] == instance for instance, _, pid in receiver.events if pid in told)
        assert receiver.doubled == []
        assert receiver.malformed == []
    finally:
        master.send_signal(signal.SIGTERM)
        try:
            master.wait(20)
        finally:
            if master.poll() is None:
                master.kill()
                master.wait()
    text = log.read_text()
    assert master.returncode == 0, text
    assert "Traceback" not in text, text


FORKING = """
import os, time
time.sleep(0.5)  # the parent exports, and keeps its connection
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        time.sleep(1)
        os._exit(0)
    children.append(child)
time.sleep(0.5)
for child in children:
    os.waitpid(child, 0)
"""


def test_no_connection_is_shared_between_a_process_and_its_forks(receiver: Receiver) -> None:
    """Two processes that write requests into one connection mix them."""
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), sys.executable, "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(**receiver.env(), OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="system_metrics"),
    )
    assert done.returncode == 0, done.stderr
    assert len(receiver.last) == 4
    assert [users for users in receiver.users.values() if len(users) > 1] == []
    assert receiver.malformed == []


POOL = """
import multiprocessing, os, time

def work(megabytes):
    held = b"x" * (megabytes * 1_000_000)
    time.sleep(1.2)
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        print(sorted(set(pool.map(work, [50, 100], chunksize=1))), flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_pool_report_themselves(tmp_path: Path, receiver: Receiver, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(POOL.format(method=method))
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(**receiver.env(), OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="system_metrics"),
    )
    assert done.returncode == 0, done.stderr
    told = receiver.by_pid()
    workers = json.loads(done.stdout)
    if method == "fork":
        assert len(workers) == 2
        assert set(workers) < set(told)
        assert len({instance for instance, _ in told.values()}) == len(told)
        sizes = [told[pid][1][names.PROCESS_MEMORY_USAGE][1].as_int for pid in workers]
        assert abs(sizes[0] - sizes[1]) > 30_000_000
    else:
        # The launcher prepares the process that it starts, and a spawned interpreter is not that one.
        assert told
    assert receiver.doubled == []
    assert receiver.malformed == []
