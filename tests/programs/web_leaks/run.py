"""Runs the services under ``opentelemetry-instrument``, sends them requests, and collects the evidence they emit."""

from __future__ import annotations

import http.client
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.harness.process import clean_environment
from tests.programs.leaks.run import BIN, QUICK, Outcome, evidence_events

FOLDER = Path(__file__).parent
LEAKING = ("user_cache", "listeners", "closures", "tracebacks", "log_handlers", "native_cache", "class_registry")
HEALTHY = ("healthy_warm_up", "healthy_bounded_cache", "healthy_batch")
PROGRAMS = (*LEAKING, *HEALTHY)
RATE = 24.0
"""Requests a second to the leaking route; half as many to the other."""


def run(programs: Iterable[str], seconds: float = 25.0, patience: float = 90.0, **env: str) -> Iterator[Outcome]:
    """Run them all at the same time, each until it has told its evidence, and yield what each came to.

    One that tells nothing runs for ``seconds`` if it is a healthy one, else for ``patience``.
    """
    started = [(name, Service(name, patience if name in LEAKING else seconds, env)) for name in programs]
    try:
        for name, service in started:
            yield service.outcome(name, patience + 60)
    finally:
        for _, service in started:
            service.end()


class Service:
    """One process, and a thread that sends it requests until it ends."""

    def __init__(self, name: str, seconds: float, env: dict[str, str]) -> None:
        program = [str(BIN / "opentelemetry-instrument"), sys.executable, str(FOLDER / f"{name}.py")]
        self._process = subprocess.Popen(
            [*program, "--seconds", str(seconds)],
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
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("port "):
                threading.Thread(target=self._load, args=(int(line.split()[1]),), daemon=True).start()
                continue
            self._lines.append(line)
            self._told |= "otel_memory.evidence.kind" in line
            if self._told and line.startswith("}"):
                self._process.terminate()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors += self._process.stderr

    def _load(self, port: int) -> None:
        chance = random.Random(11)
        while self._process.poll() is None:
            path = "/leak" if chance.random() < 2 / 3 else "/work"
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", path)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)  # not up yet, or ending
            finally:
                connection.close()
            time.sleep(chance.expovariate(RATE * 1.5))

    def outcome(self, name: str, timeout: float) -> Outcome:
        """Wait for its end. Status 0 also where it was ended because it had told its evidence."""
        status = self._process.wait(timeout)
        for thread in self._threads:
            thread.join(30)
        ended = self._told and status == -signal.SIGTERM
        return Outcome(
            name, 0 if ended else status, tuple(evidence_events("".join(self._lines))), "".join(self._errors)
        )

    def end(self) -> None:
        """Be sure that it has ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(30)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
