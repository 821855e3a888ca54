"""Servers and celery that replace their workers all the time: each worker's numbers its own, a clean end, no orphan."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.correctness import BIN, LAUNCHER, PROGRAMS, TO_FILES, Done, environment, exported, run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")

MIB = 1024 * 1024
SERVERS = {
    "gthread": ("gunicorn", "-k", "gthread", "--threads", "4", "-w", "3", "--max-requests", "12", "--bind", "unix:s"),
    "uvicorn_worker": (
        *("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", "3", "--max-requests", "30", "--bind", "unix:s"),
    ),
    # Without the last option uvicorn kills a worker that takes more than 5 s to start, on a machine under load too.
    "uvicorn": ("uvicorn", "--workers", "2", "--uds", "s", "--timeout-worker-healthcheck", "60"),
}


def driven(folder: Path, driver: str, *arguments: str, **env: str) -> tuple[Done, dict[str, Any]]:
    """What a program that starts a server says: the status the server ended with, and its workers' answers."""
    settings = {"OTEL_PYTHON_MEMORY_INTERVAL": "200", "PYTHONPATH": str(PROGRAMS), "HOME": str(folder), **TO_FILES}
    command = [sys.executable, str(PROGRAMS / driver), *arguments]
    done = run(folder, command, environment(**settings, **env))
    assert done.status == 0, done.stderr
    return done, json.loads(done.stdout.splitlines()[-1])


def each_speaks_of_itself(answers: list[dict[str, Any]]) -> dict[int, str]:
    """Checks what the workers answered; gives each one's instance id by its process id."""
    for one in answers:
        assert one["probe"], one
        assert one["told_pid"] == one["pid"]
        # Between the two readings a thread may have worked on.
        assert abs(one["told"] - one["kernels"]) < 0.05 * one["kernels"] + 4 * MIB, one
        assert one["failures"] == {}, one
        assert one["works"], one
    instances = {(one["pid"], one["instance"]) for one in answers}
    assert len(instances) == len(dict(instances)) == len({instance for _, instance in instances}), instances
    return dict(instances)


def wire_agrees(folder: Path, instances: dict[int, str], at_least: int) -> None:
    """What was exported bears the same identities, and each worker's memory is what such a worker has."""
    seen = exported(folder)
    told = {pid: seen[pid] for pid in instances if pid in seen}  # one that was killed at once has exported nothing
    assert len(told) >= at_least, (sorted(seen), instances)
    for pid, values in told.items():
        assert values["instance"] == instances[pid]
        assert values["process.memory.usage"] > 20 * MIB
    assert len({values["instance"] for values in seen.values()}) == len(seen)


@pytest.mark.parametrize("server", SERVERS)
def test_the_workers_of_a_server(tmp_path: Path, server: str) -> None:
    program, *options = SERVERS[server]
    application = f"server_app:{'wsgi' if server == 'gthread' else 'asgi'}"
    command = [LAUNCHER, str(BIN / program), *options, application]
    done, told = driven(tmp_path, "hammer.py", "s", "160", *command, OTEL_METRIC_EXPORT_INTERVAL="200")
    assert told["status"] == 0, "as without the probe"
    assert "Traceback" not in done.stderr
    assert len(told["answers"]) == 161
    instances = each_speaks_of_itself(told["answers"])
    # Which worker of an event loop takes a connection is the kernel's choice: on an idle machine one may take all.
    several = 3 if server == "gthread" else 1
    assert len(instances) >= several
    wire_agrees(tmp_path, instances, at_least=several)


@pytest.mark.skipif(importlib.util.find_spec("celery") is None, reason="celery is not installed")
def test_a_celery_worker_whose_children_come_and_go(tmp_path: Path) -> None:
    worker = ["celery", "-A", "celery_tasks", "worker", "--pool", "prefork", "-c", "3", "--max-tasks-per-child", "3"]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    command = [LAUNCHER, str(BIN / worker[0]), *worker[1:], *quiet]
    _, told = driven(tmp_path, "celery_drive.py", "18", *command, OTEL_METRIC_EXPORT_INTERVAL="100")
    assert told["status"] == 0, "as without the probe"
    assert told["died"] == "lost", "a child that was killed is missed as ever"
    assert len(told["answers"]) == 18
    instances = each_speaks_of_itself(told["answers"])
    assert len(instances) >= 6
    wire_agrees(tmp_path, instances, at_least=3)
