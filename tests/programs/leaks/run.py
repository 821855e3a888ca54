"""Runs the programs under ``opentelemetry-instrument`` and collects the evidence events that they emit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.process import clean_environment

FOLDER = Path(__file__).parent
BIN = Path(sys.executable).parent

LEAKING = (
    *("python_objects", "cycles", "c_buffer", "unbounded_cache", "threads"),
    *("closed_over_frames", "global_list", "native_malloc", "fragmentation", "file_descriptors"),
)
HEALTHY = ("warm_up", "bounded_cache", "batches", "garbage", "requests", "mapped_file")
PROGRAMS = (*LEAKING, *(f"healthy_{name}" for name in HEALTHY))

# Ten readings a second and a window of five seconds, where a service has one a second and 45 s: the same, in less time.
QUICK = {
    "OTEL_PYTHON_MEMORY_INTERVAL": "100",
    "OTEL_PYTHON_MEMORY_EVIDENCE_WINDOW": "5s",
    "OTEL_PYTHON_MEMORY_EVIDENCE_BURST": "1s",
    "OTEL_PYTHON_MEMORY_THRESHOLDS": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "console",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics,threading,sqlite3",
}


@dataclass(frozen=True)
class Outcome:
    program: str
    status: int
    events: tuple[dict[str, Any], ...]
    errors: str

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the first evidence event, without the prefix."""
        found = self.events[0]["attributes"]
        return {name.removeprefix("otel_memory.evidence."): value for name, value in found.items()}


def run(programs: Iterable[str], seconds: float = 22.0, together: int = 6, **env: str) -> Iterator[Outcome]:
    """Run them, ``together`` at a time, and yield what each came to."""
    waiting = list(programs)
    while waiting:
        group, waiting = waiting[:together], waiting[together:]
        started = [(name, _start(name, seconds, env)) for name in group]
        try:
            for name, process in started:
                output, errors = process.communicate(timeout=seconds + 60)
                yield Outcome(name, process.returncode, tuple(evidence_events(output)), errors)
        finally:
            for _, process in started:
                if process.poll() is None:
                    process.kill()
                    process.communicate()


def _start(name: str, seconds: float, env: dict[str, str]) -> subprocess.Popen[str]:
    argv = [str(BIN / "opentelemetry-instrument"), sys.executable, str(FOLDER / f"{name}.py")]
    return subprocess.Popen(
        [*argv, "--seconds", str(seconds)],
        env=clean_environment({**QUICK, **env}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def evidence_events(output: str) -> Iterator[dict[str, Any]]:
    """The evidence events among what the console exporter printed."""
    decoder, position = json.JSONDecoder(), output.find("{")
    while position >= 0:
        document, end = decoder.raw_decode(output, position)
        if document.get("event_name") == "otel_memory.evidence":
            yield document
        position = output.find("{", end)
