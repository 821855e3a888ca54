"""The demo's subprocesses end, whatever they and the demo do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from otel_memory.demo import children
from otel_memory.demo.children import Children
from tests.harness import wait_until

ROOT = Path(__file__).parents[2]
SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
{then}
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Children]:
    started = Children(tmp_path)
    yield started
    started.stop_all()


def start(started: Children, name: str, program: str, folder: Path) -> int:
    started.start(name, [sys.executable, "-c", program], dict(os.environ))
    wait_until(lambda: (folder / f"{name}.log").read_text(), what=f"{name} prints")
    return started.pid(name)


def test_a_stopped_child_is_gone_and_reaped(started: Children, tmp_path: Path) -> None:
    pid = start(started, "one", SLEEPS, tmp_path)
    assert started.dead() == []
    started.stop("one")
    started.stop("one")
    started.stop("never started")
    assert not psutil.pid_exists(pid)


def test_a_child_that_ignores_sigterm_is_killed(
    started: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STOP_SECONDS", 0.2)
    pid = start(started, "stubborn", STUBBORN, tmp_path)
    started.stop_all()
    assert not psutil.pid_exists(pid)


def test_who_is_in_a_hurry_waits_for_nobody(tmp_path: Path) -> None:
    started = Children(tmp_path, hurry=lambda: True)
    pids = [start(started, name, STUBBORN, tmp_path) for name in ("a", "b")]
    began = time.monotonic()
    started.stop("a", "b")
    assert time.monotonic() - began < children.STOP_SECONDS / 2
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.exit(3)"])
def test_what_a_child_started_ends_with_it_also_where_the_child_has_gone_before(
    started: Children, tmp_path: Path, then: str
) -> None:
    start(started, "parent", PARENT.format(then=then), tmp_path)
    grandchild = int((tmp_path / "parent.log").read_text())
    if "exit" in then:
        wait_until(lambda: started.dead() == ["parent"])
    assert psutil.pid_exists(grandchild)
    started.stop_all()
    wait_until(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie")


def test_a_child_that_ends_by_itself_is_named_with_its_last_words(started: Children, tmp_path: Path) -> None:
    start(started, "short", "for n in range(5000): print('line', n)", tmp_path)
    wait_until(lambda: started.dead() == ["short"])
    words = started.last_words("short", lines=2)
    assert words.split() == ["it", "printed:", "line", "4998", "line", "4999"]
    assert started.last_words("unknown") == "it printed nothing"


def test_a_child_is_out_of_reach_of_the_terminals_ctrl_c(started: Children, tmp_path: Path) -> None:
    pid = start(started, "one", SLEEPS, tmp_path)
    assert os.getpgid(pid) != os.getpgid(0)
    assert os.getsid(pid) != os.getsid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word that a parent has died is Linux's")
def test_children_end_when_the_demo_is_killed(tmp_path: Path) -> None:
    program = f"""
        import os, sys, time
        from pathlib import Path
        from otel_memory.demo.children import Children
        started = Children(Path({str(tmp_path)!r}))
        for name in ("a", "b"):
            started.start(name, [sys.executable, "-c", {STUBBORN!r}], dict(os.environ))
        print(started.pid("a"), started.pid("b"), flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, cwd=ROOT) as demo:
        assert demo.stdout is not None
        pids = [int(word) for word in demo.stdout.readline().split()]
        for name in ("a", "b"):
            wait_until(lambda path=tmp_path / f"{name}.log": path.read_text())  # type: ignore[misc]
        assert all(map(psutil.pid_exists, pids))
        demo.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(_alive, pids)), what="both end")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
