"""Live objects and client sessions in a real program under the launcher: counted with no change of its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names

pytest.importorskip("curl_cffi", reason="the development environment brings curl_cffi")

BIN = Path(sys.executable).parent

CHAT = """
from curl_cffi import requests

class Session:
    __slots__ = ("user",)
    def __init__(self, user):
        self.user = user

class Guest(Session):
    __slots__ = ()
"""
APP = """
import os, time
import chat
from opentelemetry import metrics

def phase(sessions):
    # Until the count is right; then it is exported.
    from otel_memory.probe import live_objects
    deadline = time.monotonic() + 60
    while live_objects.live_counts().get("chat.Session") != sessions:
        assert time.monotonic() < deadline, live_objects.live_counts()
        time.sleep(0.02)
    metrics.get_meter_provider().force_flush()

held = [chat.Session("a") for _ in range(20)] + [chat.Guest("b") for _ in range(5)]
clients = [chat.requests.Session() for _ in range(3)]
clients[0].close()
del clients[2]
phase(25)
held += [chat.Session("c") for _ in range(100)]
phase(125)
if os.fork() == 0:
    os.dup2(os.open("child.txt", os.O_CREAT | os.O_WRONLY, 0o600), 1)  # two that write would mix their lines
    held.clear()
    phase(0)
    os._exit(0)
os.wait()
"""


def points(text: str) -> Iterator[tuple[int, str, dict[str, Any], float]]:
    """(pid, metric, attributes, value) of what the console exporter wrote."""
    decoder, position = json.JSONDecoder(), 0
    while (position := text.find('{\n    "resource_metrics"', position)) >= 0:
        document, position = decoder.raw_decode(text, position)
        for scope in (scope for resource in document["resource_metrics"] for scope in resource["scope_metrics"]):
            pids = [
                point["attributes"][names.PROCESS_PID]
                for metric in scope["metrics"]
                if metric["name"] == names.PROCESS_INFO
                for point in metric["data"]["data_points"]
            ]
            for metric in scope["metrics"] if pids else ():
                for point in metric["data"]["data_points"]:
                    if "value" in point:
                        yield pids[0], metric["name"], point["attributes"], point["value"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_classes_and_sessions_are_counted_and_a_forked_process_counts_its_own(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(CHAT)
    (tmp_path / "app.py").write_text(APP)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    done = subprocess.run(
        [BIN / "opentelemetry-instrument", sys.executable, "app.py"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=tmp_path,
        env={
            **clean,
            "OTEL_METRICS_EXPORTER": "console",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_PYTHON_MEMORY_INTERVAL": "100",
            "OTEL_PYTHON_MEMORY_LIVE_OBJECTS": "chat:Session,chat:Guest",
        },
    )
    assert done.returncode == 0, done.stderr
    found = list(points(done.stdout + (tmp_path / "child.txt").read_text()))
    parent = found[0][0]

    def counts(of: str) -> list[tuple[int, float]]:
        return [(pid, value) for pid, name, attributes, value in found if of in attributes.values() and "count" in name]

    assert [value for pid, value in counts("chat.Session") if pid == parent][-1] == 125
    assert 25 in [value for _, value in counts("chat.Session")]
    assert counts("chat.Guest")[-1][1] in (0, 5)
    child = [value for pid, value in counts("chat.Session") if pid != parent]
    assert child, "the child emits, too"
    assert child[-1] == 0
    sessions = {
        (attributes.get(names.SESSION_TYPE), attributes.get(names.SESSION_STATE)): value
        for pid, name, attributes, value in found
        if pid == parent and name in (names.SESSION_COUNT, names.SESSION_LEAKED)
    }
    assert sessions["curl_cffi.Session", "open"] == 1
    assert sessions["curl_cffi.Session", "closed"] == 1
    assert sessions["curl_cffi.Session", None] == 1
    assert {value for pid, name, _, value in found if pid != parent and name == names.SESSION_LEAKED} == {0}, (
        "what the parent lost is the parent's to tell"
    )
