"""Runs a program of ``tests/programs/correctness`` under the launcher, and never waits for ever.

A program that hangs is told to say where each of its threads is (in all its processes), and then killed. So is one that
leaves a process behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import wait_until

BIN = Path(sys.executable).parent
PROGRAMS = Path(__file__).parents[1] / "programs" / "correctness"
LAUNCHER = str(BIN / "opentelemetry-instrument")
SECONDS = 90.0
LEFT_SECONDS = 15.0

ALL_ON = {
    "OTEL_PYTHON_MEMORY_INTERVAL": "100",
    "OTEL_PYTHON_MEMORY_SLOW_INTERVAL": "300",
    "OTEL_PYTHON_MEMORY_EVENTS": "otlp,file",
    "OTEL_PYTHON_MEMORY_CLEANUP": "periodic,critical",
    "OTEL_PYTHON_MEMORY_CLEANUP_INTERVAL": "1000",
    "OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC": "1s",
    "OTEL_PYTHON_MEMORY_OPERATIONS": "json:loads",
    "OTEL_PYTHON_MEMORY_LIVE_OBJECTS": "fractions:Fraction",
    "OTEL_PYTHON_MEMORY_SNAPSHOT_INTERVAL": "200",
    "OTEL_PYTHON_MEMORY_SNAPSHOT_EVENTS": "true",
    "OTEL_PYTHON_MEMORY_LOG_ENRICHMENT": "true",
    "OTEL_PYTHON_MEMORY_PACKAGES": "true",
    "OTEL_PYTHON_MEMORY_PACKAGES_INTERVAL": "500",
    "OTEL_PYTHON_MEMORY_EVIDENCE_WINDOW": "1000",
    "OTEL_PYTHON_MEMORY_EVIDENCE_SHARE": "100%",
    "OTEL_PYTHON_MEMORY_EVIDENCE_BURST": "300",
    "OTEL_PYTHON_MEMORY_THRESHOLDS": "none; rss>20MiB:critical",
}
"""Every feature, working far more often than anybody would have it."""

NOT_OURS = "system_metrics,logging"
"""Contrib's: the one emits what the probe does, the other one's end is a traceback on Python 3.12 and later."""

TO_FILES = {"OTEL_METRICS_EXPORTER": "otlp_file", "OTEL_LOGS_EXPORTER": "otlp_file"}


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what steers Python or OpenTelemetry; metrics and logs go nowhere."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    return {
        **clean,
        "OTEL_SERVICE_NAME": "correct",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": NOT_OURS,
        "PYTHONFAULTHANDLER": "1",
        **more,
    }


@dataclass(frozen=True)
class Done:
    """How a program ended and what it wrote."""

    status: int
    stdout: str
    stderr: str

    def lines(self) -> list[dict[str, Any]]:
        """The JSON documents of standard output, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def run(folder: Path, command: Sequence[str], env: Mapping[str, str], *, seconds: float = SECONDS, **more: Any) -> Done:
    """Run ``command`` in ``folder`` until it and all that it started have ended.

    AssertionError with the stacks of all its processes if it hangs, and if one outlives it.
    """
    mark = f"OTEL_MEMORY_TEST={uuid.uuid4()}"
    out, err = folder / "stdout", folder / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        arguments = {"stdout": stdout, "stderr": stderr, **more}
        program = subprocess.Popen(
            [*command],
            cwd=folder,
            env={**env, **dict([mark.split("=")])},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **arguments,
        )
        try:
            try:
                program.wait(seconds)
                wait_until(lambda: not marked(mark), timeout_seconds=LEFT_SECONDS, what="all its processes have ended")
            except (subprocess.TimeoutExpired, TimeoutError) as error:
                for pid in marked(mark):
                    _send(pid, signal.SIGABRT)  # faulthandler writes the stacks
                time.sleep(1)
                raise AssertionError(f"{command}: {error}:\n{out.read_text()}\n{err.read_text()}") from None
        finally:
            for pid in marked(mark):
                _send(pid, signal.SIGKILL)
            program.wait()
    return Done(program.returncode, out.read_text(), err.read_text())


def marked(mark: str) -> list[int]:
    """The processes whose environment has ``mark``: what a test started, its children, and theirs, adopted or not."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def under_launcher(folder: Path, program: str, *arguments: str, python: Sequence[str] = (), **env: str) -> Done:
    """``program.py`` of the folder of programs, or source text, under ``opentelemetry-instrument``."""
    source = [str(PROGRAMS / program)] if program.endswith(".py") else ["-c", program]
    command = [LAUNCHER, sys.executable, *python, *source, *arguments]
    return run(folder, command, environment(**env))


def exported(folder: Path) -> dict[int, dict[str, Any]]:
    """What the ``otlp_file`` metrics exporters in ``folder`` wrote: the last value of each metric, by process id.

    ``instance`` is the ``service.instance.id`` it came with; a metric's value is that of its last point.
    """
    found: dict[int, dict[str, Any]] = {}
    for file in folder.glob("otel-memory-metrics*.jsonl"):
        for line in file.read_bytes().splitlines():
            for resource in json.loads(line)["resourceMetrics"]:
                of = {each["key"]: each["value"] for each in resource["resource"]["attributes"]}
                values: dict[str, Any] = {"instance": of["service.instance.id"]["stringValue"]}
                pid = None
                for metric in (metric for scope in resource["scopeMetrics"] for metric in scope["metrics"]):
                    (data,) = (metric[kind] for kind in ("gauge", "sum", "histogram") if kind in metric)
                    for point in data["dataPoints"]:
                        values[metric["name"]] = float(point.get("asInt", point.get("asDouble", point.get("count", 0))))
                        if metric["name"] == "otel_memory.process.info":
                            (pid,) = (one["value"] for one in point["attributes"] if one["key"] == "process.pid")
                if pid is not None:
                    found.setdefault(int(pid["intValue"]), {}).update(values)
    return found


def apart(*commands: str) -> list[str] | None:
    """What to put before a command so that it runs where these ``mount`` commands were run, in a mount namespace.

    None where this machine lets nobody make one.
    """
    for namespace in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        try:
            mount = [*namespace, "mount", "-t", "tmpfs", "none", "/mnt"]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                continue
        except OSError:
            return None
        return [*namespace, "sh", "-ec", "\n".join((*commands, 'exec "$@"')), "sh"]
    return None
