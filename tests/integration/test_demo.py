"""The demo, whole and real: from one command to a verdict, and nothing left behind however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import expect

from tests.harness import Chromium, Program, fetch_json, wait_until

HOSTILE = {
    # The harness's own environment has none of these: what a person's shell may have.
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_SDK_DISABLED": "true",
    "OTEL_SERVICE_NAME": "mine",
    "OTEL_MEMORY_HTTP_PORT": "1",
    "OTEL_PYTHON_MEMORY_THRESHOLDS": "nonsense",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "http://127.0.0.1:9",
    "PYTHONWARNINGS": "error",
    "WEB_CONCURRENCY": "4",
    "PORT": "1",
}


class RunningDemo:
    """One real demo whose temporary files lie in ``folder``; remembers every process that it had."""

    def __init__(
        self, folder: Path, *options: str, env: dict[str, str] | None = None, words: tuple[str, ...] | None = None
    ) -> None:
        self.folder = folder
        folder.mkdir()
        argv = [sys.executable, *(words or ("-m", "otel_memory", "demo")), *options]
        self.program = Program(argv, env={"TMPDIR": str(folder), **(env or {})}, cwd=folder.parent, name="demo")
        self.had: dict[int, psutil.Process] = {}
        self.ports: set[int] = set()

    def look(self) -> set[str]:
        """Note the processes and listening ports of now; the names of the demo's logs, which say who was started."""
        try:
            own = psutil.Process(self.program.pid)
            for process in [own, *own.children(recursive=True)]:
                self.had[process.pid] = process
                self.ports |= {c.laddr.port for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
        except psutil.Error:
            pass
        return {path.stem for path in self.folder.glob("*/*.log")}

    def one_with(self, word: str) -> psutil.Process | None:
        """The process that was started with ``word``."""
        for process in self.had.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if word in process.cmdline():
                    return process
        return None

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        def looking() -> Any:
            self.look()
            assert self.program.running or condition(), "the demo has ended"
            return condition()

        return wait_until(looking, timeout_seconds=seconds, what=what, every=0.1)

    def lines(self) -> list[dict[str, Any]]:
        """What it has said as JSON so far."""
        return [json.loads(line) for line in self.program.output().splitlines() if line.startswith("{")]

    def left_over(self) -> list[int]:
        """Pids of ours that still run, and ports of ours that are still bound by one of ours.

        A process that was killed counts as ended when its first thread has; its sockets are closed by its last one,
        some moments later. Somebody else may have taken one of the ports meanwhile.
        """
        listening = {c.laddr.port: c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        running = [pid for pid, process in self.had.items() if _alive(process)]
        return running + [port for port in self.ports if listening.get(port, 0) in {None, *self.had}]

    def leaves_nothing(self, files: bool = True) -> None:
        """No process, no port, no file: within moments, because the demo itself has ended."""
        wait_until(lambda: not self.left_over(), what="every process and port is gone", timeout_seconds=10)
        if files:
            assert list(self.folder.iterdir()) == []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningDemo]]:
    demos: list[RunningDemo] = []

    def begin(*options: str, **how: Any) -> RunningDemo:
        demo = RunningDemo(tmp_path / f"tmp{len(demos)}", *options, **how)
        demos.append(demo)
        demo.program.start()
        return demo

    yield begin
    for demo in demos:
        demo.look()
        demo.program.close()
        for process in demo.had.values():
            if _alive(process):
                process.kill()


@pytest.mark.slow
@pytest.mark.needs("chromium")
@pytest.mark.timeout(180)
def test_from_one_command_to_the_verdict(start: Callable[..., RunningDemo], chromium: Chromium) -> None:
    """First row on the page within 5 s, the verdict with the right route within 60 s, both counted from the moment
    the servers listen; the healthy sample is never suspected; a Ctrl-C leaves nothing."""
    demo = start("--json", env=HOSTILE)
    page_line = demo.until(lambda: [line for line in demo.lines() if "page" in line], 60, "the servers listen")[0]
    listening = time.monotonic()
    verdicts: dict[str, set[str]] = {}

    def leaking_with_suspects() -> dict[str, Any] | None:
        items = fetch_json(f"{page_line['page']}/api/v1/processes")["items"]
        for process in items:
            verdicts.setdefault(process["service_name"], set()).add(process["verdict"])
        return next((found for found in items if found["verdict"] == "leaking" and found["suspects"]), None)

    with chromium.page() as page:
        page.goto(page_line["page"])
        expect(page.locator("tr.row").first).to_be_visible(timeout=5_000)
        assert time.monotonic() - listening < 5
        process = demo.until(leaking_with_suspects, 60 - (time.monotonic() - listening), "the verdict falls")
        row = page.locator("tr.row", has_text="shop")
        expect(row.locator(".verdict")).to_have_text("Leaking")
        expect(row.locator(".c-suspect")).to_contain_text("/cart/{customer}")
    assert process["service_name"] == "shop"
    assert process["suspects"][0]["kind"] == "route"
    assert process["suspects"][0]["name"] == "GET /cart/{customer}"
    assert 200_000 < process["growth_bytes_per_second"] < 2_000_000
    told = demo.until(lambda: [line for line in demo.lines() if "VERDICT" in line["message"]], 15, "it is told")[0]
    assert re.search(r"shop leaks .* limit of 512 MiB in about .* route GET /cart/\{customer\}", told["message"])
    assert told["process"]["id"] == process["id"]
    assert demo.look() == {"analyzer", "shop", "catalog", "load"}
    assert len(demo.ports) == 5
    assert verdicts["catalog"] <= {"unknown", "healthy"}

    demo.program.send_signal(signal.SIGINT)
    assert demo.program.wait(20)
    assert demo.program.stop() == 0
    demo.leaves_nothing()
    assert "Traceback" not in demo.program.output()


@pytest.mark.slow
@pytest.mark.parametrize("started", [0, 1, 2, 3, 4])
def test_ctrl_c_while_the_children_start_leaves_nothing(start: Callable[..., RunningDemo], started: int) -> None:
    demo = start()
    demo.until(lambda: "starting" in demo.program.output() and len(demo.look()) >= started, 60, f"{started} started")
    demo.program.send_signal(signal.SIGINT)
    assert demo.program.wait(20)
    assert demo.program.stop() == 0
    demo.leaves_nothing()
    assert "Traceback" not in demo.program.output()


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals", [(signal.SIGINT, signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGHUP, signal.SIGTERM)]
)
def test_other_signals_and_impatience_leave_nothing_either(
    start: Callable[..., RunningDemo], signals: tuple[int, ...]
) -> None:
    demo = start()
    demo.until(lambda: "load" in demo.look(), 60, "all has started")
    for number in signals:
        demo.program.send_signal(number)
        time.sleep(0.05)
    assert demo.program.wait(20)
    assert demo.program.stop() == 0
    demo.leaves_nothing()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word that a parent has died is Linux's")
def test_a_killed_demo_leaves_no_process_and_the_next_one_removes_its_files(start: Callable[..., RunningDemo]) -> None:
    demo = start()
    demo.until(lambda: "load" in demo.look(), 60, "all has started")
    demo.look()
    os.kill(demo.program.pid, signal.SIGKILL)
    assert demo.program.wait(10)
    demo.leaves_nothing(files=False)
    assert len(list(demo.folder.iterdir())) == 1
    following = Program(
        [sys.executable, "-m", "otel_memory", "demo", "--duration", "0.1"], env={"TMPDIR": str(demo.folder)}
    )
    with following:
        assert following.wait(60)
        assert following.stop() == 0, following.output()
    assert list(demo.folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["analyzer", "shop", "load"])
def test_a_child_that_ends_by_itself_ends_the_demo_with_the_reason(
    start: Callable[..., RunningDemo], name: str
) -> None:
    demo = start()
    demo.until(lambda: "load" in demo.look(), 60, "all has started")
    word = "serve" if name == "analyzer" else f"otel_memory.demo.{name}"
    victim = demo.until(lambda: demo.one_with(word), 10, f"{name} runs")
    victim.kill()
    assert demo.program.wait(20)
    assert demo.program.stop() == 2
    assert f"otel-memory demo: {name} ended by itself" in demo.program.output()
    demo.leaves_nothing()


SMALL_LIMIT = """
import sys
from otel_memory.demo import runner
runner.LIMIT_BYTES = 50_000_000
sys.exit(runner.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_shop_that_has_reached_its_limit_is_restarted_and_the_demo_goes_on(start: Callable[..., RunningDemo]) -> None:
    """With a limit that it has reached as soon as it serves: so it is restarted again and again."""
    demo = start(words=("-c", SMALL_LIMIT))
    demo.until(lambda: demo.program.output().count("shop has reached its limit") >= 2, 60, "two restarts")
    demo.program.send_signal(signal.SIGINT)
    assert demo.program.wait(20)
    assert demo.program.stop() == 0
    demo.leaves_nothing()


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_cleanly(tmp_path: Path) -> None:
    """As in ``otel-memory demo | head -1``."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "otel_memory", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as demo:
        try:
            assert demo.stdout is not None
            assert demo.stderr is not None
            assert b"starting" in demo.stdout.readline()
            demo.stdout.close()
            children = wait_until(psutil.Process(demo.pid).children, what="a child is started")
            assert demo.wait(90) == 141, demo.stderr.read().decode()
            assert demo.stderr.read() == b""
        finally:
            demo.kill()
    assert not [child for child in children if _alive(child)]
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_it_ends_by_itself_after_the_asked_time_beside_another_demo(start: Callable[..., RunningDemo]) -> None:
    """Two at once: the second finds the page's usual port taken, says so, and takes another."""
    with socket.socket() as holder:
        # Taken by somebody else, if not by this.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", 8431))
            holder.listen()
        except OSError:
            assert _listens(8431)
        demo = start("--duration", "2")
        demo.until(lambda: "page  " in demo.program.output(), 60, "the servers listen")
        assert demo.program.wait(30)
    assert demo.program.stop() == 0
    output = demo.program.output()
    assert "port 8431 is taken" in output
    assert "\033" not in output
    assert output.endswith("everything has ended\n")
    demo.leaves_nothing()


def test_a_wrong_duration_is_refused_before_anything_starts() -> None:
    for wrong in ("0", "-5", "nan", "inf", "soon"):
        done = subprocess.run(
            [sys.executable, "-m", "otel_memory", "demo", f"--duration={wrong}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "--duration" in done.stderr
