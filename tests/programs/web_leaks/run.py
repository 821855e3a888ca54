"""Runs the services under ``opentelemetry-instrument``, sends them requests, and collects the evidence they emit."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.programs.leaks.run import Outcome, Program

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
    started = [Service(FOLDER / f"{name}.py", patience if name in LEAKING else seconds, env) for name in programs]
    try:
        for service in started:
            yield service.outcome(patience + 120)
    finally:
        for service in started:
            service.end()


class Service(Program):
    """One that serves; a thread sends it requests until it ends."""

    def said(self, line: str) -> None:
        """It has printed this."""
        if line.startswith("port "):
            threading.Thread(target=self._load, args=(int(line.split()[1]),), daemon=True).start()
        else:
            super().said(line)

    def _load(self, port: int) -> None:
        chance = random.Random(11)
        while self.process.poll() is None:
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
