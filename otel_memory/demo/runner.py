"""``otel-memory demo``: the analyzer, a leaking and a healthy sample under load, and the verdict in one line.

Owns the order of things. Everything it starts is a subprocess that it ends again; nothing is left behind, neither
process nor port nor file.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from otel_memory.demo.children import Children
from otel_memory.demo.console import Console, progress_line, verdict_line
from otel_memory.demo.signals import Interrupted, Signals
from otel_memory.demo.surroundings import (
    HOST,
    DemoError,
    check_installed,
    environment,
    folder,
    free_ports,
    launcher,
)

LIMIT_BYTES: Final = 512 * 1024 * 1024
PAGE_PORT: Final = 8431
READY_SECONDS: Final = 60.0
YOUNG_SECONDS: Final = 30.0
"""Less than an analyzer has by itself: the samples are known, and the person waits."""
HEALTHY_SECONDS: Final = 30.0
"""How long a process must have been healthy until it is told: at first there is too little to go by."""
SUSPECT_SECONDS: Final = 10.0
"""How long a verdict is held back until it can say who it is."""
START_ATTEMPTS: Final = 3
SAMPLES: Final = ("shop", "catalog")
CLASHES: Final = ("address already in use", "Errno 98", "Errno 48")


def own_command() -> str:
    """How a person calls ``otel-memory`` here: by name where that works, else by its path (in a checkout)."""
    beside = Path(sys.executable).with_name("otel-memory")
    if shutil.which("otel-memory") or not beside.exists():
        return "otel-memory"
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)


class Demo:
    """One run of the demo."""

    def __init__(self, where: Path, console: Console, signals: Signals) -> None:
        # Who asks a second time doesn't want to wait for an orderly end.
        self._children = Children(where, hurry=lambda: signals.count > 1)
        self._folder = where
        self._console = console
        self._signals = signals
        self._ports: dict[str, int] = {}
        self._told: dict[str, str] = {}
        self._since: dict[str, tuple[str, float]] = {}
        self._http = httpx.Client(timeout=2.0, trust_env=False)  # loopback, whatever proxy is set
        self.page = ""

    def start(self) -> None:
        """Start everything, downstream first. A port that somebody else took in between is chosen anew."""
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start()
                break
            except DemoError as error:
                if attempt == START_ATTEMPTS or not any(clash in str(error) for clash in CLASHES):
                    raise
                self._children.stop_all()
        self._console.began += self._console.age
        say = self._console.say
        if self._ports["page"] != PAGE_PORT:
            say(f"  port {PAGE_PORT} is taken (by another demo?): the page is at another one")
        say(f"  page      {self.page}", page=self.page)
        say(f"  shop      {self._url('shop')}  one of its five routes leaks")
        say(f"  catalog   {self._url('catalog')}  healthy: it warms up, and makes garbage")
        say("  The verdict falls within a minute. Ctrl-C ends everything.")

    def _start(self) -> None:
        names = ("page", "grpc", "http", *SAMPLES)
        self._ports = dict(zip(names, free_ports(PAGE_PORT, 0, 0, 0, 0), strict=True))
        self.page = self._url("page")
        python = environment(os.environ)
        self._children.start(
            "analyzer",
            [
                sys.executable, "-m", "otel_memory", "serve", "--host", HOST,
                "--otlp-grpc-port", str(self._ports["grpc"]), "--otlp-http-port", str(self._ports["http"]),
                "--http-port", str(self._ports["page"]), "--data-dir", str(self._folder / "data"),
                "--alert-young-seconds", str(YOUNG_SECONDS),
            ],
            python,
        )  # fmt: skip
        self._wait("analyzer", f"{self.page}/readyz")
        for name in SAMPLES:
            self._start_sample(name)
        for name in SAMPLES:
            self._wait(name, f"{self._url(name)}/openapi.json")
        load = [sys.executable, "-m", "otel_memory.demo.load", *(self._url(name) for name in SAMPLES)]
        self._children.start("load", load, python)

    def _url(self, name: str) -> str:
        return f"http://{HOST}:{self._ports[name]}"

    def _start_sample(self, name: str) -> None:
        self._signals.check()
        settings = {
            "PORT": str(self._ports[name]),
            "OTEL_SERVICE_NAME": name,
            "OTEL_RESOURCE_ATTRIBUTES": "service.version=1.0.0",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._url("http"),
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
            # Costs more than everything else together and says nothing that the probe doesn't.
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics",
            "OTEL_PYTHON_MEMORY_LIMIT": str(LIMIT_BYTES),
        }
        self._children.start(
            name,
            [*launcher(), sys.executable, "-m", f"otel_memory.demo.{name}"],
            environment(os.environ, settings),
        )

    def _wait(self, name: str, url: str) -> None:
        began = self._console.age
        while self._console.age - began < READY_SECONDS:
            with contextlib.suppress(httpx.HTTPError):
                if self._http.get(url).status_code == httpx.codes.OK:
                    return
            self._check_alive()
            self._signals.pause(0.1)
        raise DemoError(f"{name} did not answer within {READY_SECONDS:.0f} s; {self._children.last_words(name)}")

    def _check_alive(self) -> None:
        for name in self._children.dead():
            raise DemoError(f"{name} ended by itself; {self._children.last_words(name)}")

    def watch(self, duration: float | None) -> None:
        """Follow the analyzer until ``duration`` seconds have passed, or for ever."""
        while duration is None or self._console.age < duration:
            self._signals.pause(0.5)
            self._check_alive()
            self._restart_if_full()
            try:
                reply = self._http.get(f"{self.page}/api/v1/processes")
                items: list[dict[str, Any]] = reply.raise_for_status().json()["items"]
            except httpx.HTTPError as error:
                self._console.progress(f"the analyzer does not answer: {error}")
                continue
            for process in items:
                self._tell(process)
            self._console.progress(progress_line(items))

    def _tell(self, process: dict[str, Any]) -> None:
        identity, name, verdict = process["id"], process["service_name"], process["verdict"]
        age = self._console.age
        before, since = self._since.get(identity, ("", age))
        if verdict != before:
            self._since[identity] = verdict, (since := age)
        held = age - since
        if self._told.get(identity) == verdict or (verdict == "healthy" and held < HEALTHY_SECONDS):
            return
        if verdict == "leaking" and not process["suspects"] and held < SUSPECT_SECONDS:
            return
        if verdict == "leaking":
            self._console.say(f"VERDICT after {age:.0f} s: {verdict_line(process)}", process=process)
            self._console.say(f"  the whole story: {own_command()} explain {identity} --url {self.page}")
        elif verdict == "healthy" or self._told.get(identity) == "leaking":
            self._console.say(f"  after {age:.0f} s: {name} is {verdict}", process=process)
        self._told[identity] = verdict

    def _restart_if_full(self) -> None:
        """Do to the leaking sample what a container's limit would do, so that the demo may run for hours."""
        with contextlib.suppress(psutil.Error):
            if psutil.Process(self._children.pid("shop")).memory_info().rss <= LIMIT_BYTES:
                return
            self._console.say(
                f"  shop has reached its limit of {LIMIT_BYTES >> 20} MiB: restarting it, as Kubernetes would"
            )
            self._children.stop("shop")
            self._start_sample("shop")
            self._wait("shop", f"{self._url('shop')}/openapi.json")

    def stop(self) -> None:
        """End everything that was started: upstream first."""
        self._children.stop("load")
        self._children.stop(*SAMPLES)
        self._children.stop_all()
        self._http.close()


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def main(argv: Sequence[str]) -> int:
    """Run the demo; 0 when it ended as asked, 2 when it could not run."""
    parser = argparse.ArgumentParser(
        prog="otel-memory demo",
        description="Start the analyzer, two samples under load, and wait for the verdict. Ctrl-C ends all.",
    )
    parser.add_argument("--duration", type=_seconds, metavar="SECONDS", help="end by itself after so long")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of text")
    options = parser.parse_args(argv)
    console = Console(options.json)
    try:
        check_installed()
        with Signals() as signals, folder() as where:
            demo = Demo(where, console, signals)
            try:
                console.say("otel-memory demo: starting the analyzer and two samples")
                demo.start()
                demo.watch(options.duration)
            except Interrupted:
                pass
            finally:
                # First of all: the reader of the output may be gone, and then to say anything is an error.
                demo.stop()
            console.say("everything has ended")
    except DemoError as error:
        print(f"otel-memory demo: {error}", file=sys.stderr)
        return 2
    return 0
