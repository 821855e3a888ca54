"""Runs the programs under ``opentelemetry-instrument`` and collects the evidence events that they emit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
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


def run(
    programs: Iterable[str], seconds: float = 22.0, together: int = 6, patience: float = 100.0, **env: str
) -> Iterator[Outcome]:
    """Run them, ``together`` at a time, each until it has told its evidence, and yield what each came to.

    One that tells nothing runs for ``seconds`` if it is a healthy one, else for ``patience``.
    """
    waiting = list(programs)
    while waiting:
        group, waiting = waiting[:together], waiting[together:]
        started = [Program(FOLDER / f"{name}.py", patience if name in LEAKING else seconds, env) for name in group]
        try:
            for program in started:
                yield program.outcome(patience + 120)
        finally:
            for program in started:
                program.end()


class Program:
    """One process under ``opentelemetry-instrument``, ended once it has told its evidence."""

    def __init__(self, path: Path, seconds: float, env: dict[str, str]) -> None:
        self._name = path.stem
        self.process = subprocess.Popen(
            [str(BIN / "opentelemetry-instrument"), sys.executable, str(path), "--seconds", str(seconds)],
            env=clean_environment({**QUICK, **env}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._told = False
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said(line)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors += self.process.stderr

    def said(self, line: str) -> None:
        """It has printed this."""
        self._lines.append(line)
        self._told |= "otel_memory.evidence.kind" in line
        if self._told and line.startswith("}"):
            self.process.terminate()

    def outcome(self, timeout: float) -> Outcome:
        """Wait for its end. Status 0 also where it was ended because it had told its evidence."""
        status = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(30)
        ended = self._told and status == -signal.SIGTERM
        events = tuple(evidence_events("".join(self._lines)))
        return Outcome(self._name, 0 if ended else status, events, "".join(self._errors))

    def end(self) -> None:
        """Be sure that it has ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(30)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def evidence_events(output: str) -> Iterator[dict[str, Any]]:
    """The evidence events among what the console exporter printed."""
    decoder, position = json.JSONDecoder(), output.find("{")
    while position >= 0:
        document, end = decoder.raw_decode(output, position)
        if document.get("event_name") == "otel_memory.evidence":
            yield document
        position = output.find("{", end)
