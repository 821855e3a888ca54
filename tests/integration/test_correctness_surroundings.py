"""A process where something is missing, scarce, closed or ending: the program does as without the probe."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.correctness import (
    ALL_ON,
    LAUNCHER,
    NOT_OURS,
    PROGRAMS,
    TO_FILES,
    Done,
    apart,
    environment,
    exported,
    run,
    under_launcher,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

MIB = 1024 * 1024
NO_NAMESPACES = "this machine lets nobody make a mount namespace"


def by_hand(folder: Path, before: list[str], *program: str, **env: str) -> Done:
    """A program that starts the probe itself, ``before`` being what is put before the interpreter."""
    return run(folder, [*before, sys.executable, str(PROGRAMS / program[0]), *program[1:]], environment(**env))


# --- missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["psutil", "nothing"])
def test_without_proc_what_can_be_read_is_and_the_rest_is_a_gap(tmp_path: Path, left: str) -> None:
    """psutil, which here reads a ``/proc`` that is mounted elsewhere, stands for macOS and Windows."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = apart(f"mount --rbind /proc {elsewhere}", "mount -t tmpfs none /proc")
    if before is None:
        pytest.skip(NO_NAMESPACES)
    done = by_hand(tmp_path, before, "no_proc.py", left, str(elsewhere), **ALL_ON, **TO_FILES)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    told = done.lines()
    on_file = exported(tmp_path)
    assert [one["where"] for one in told] == ["parent", "child"]
    for one in told:
        assert one["told_pid"] == one["pid"]
        assert one["failures"] == {}, one
        seen = on_file[one["pid"]]
        assert seen["instance"] == one["instance"]
        assert seen["otel_memory.operation.calls"] > 0
        if left == "psutil":
            assert abs(one["told"] - one["psutils"]) < 0.1 * one["psutils"]
            assert one["delta"] > 15 * MIB
            assert seen["process.memory.usage"] > 20 * MIB
            assert seen["otel_memory.operation.growth"] > 15 * MIB
        else:
            assert (one["told"], one["delta"], one["limit"]) == (None, None, None)
            assert not [name for name in seen if name.startswith(("process.memory", "system.memory"))], seen
            assert "otel_memory.operation.growth" not in seen
    assert told[0]["instance"] != told[1]["instance"]


def test_a_file_system_that_takes_nothing(tmp_path: Path) -> None:
    """Events, metrics and records of collections are meant to go to files, and none can be written."""
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    before = apart(f"mount -t tmpfs -o ro none {nothing}", "mount -t tmpfs -o ro none /tmp || :", f"cd {nothing}")
    if before is None:
        pytest.skip(NO_NAMESPACES)
    if tmp_path.is_relative_to("/tmp"):  # it can't be taken away with what the test itself needs in it
        before = apart(f"mount -t tmpfs -o ro none {nothing}", f"cd {nothing}")
        assert before
    env = {**ALL_ON, **TO_FILES, "OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC_FILE": "gc.jsonl", "TMPDIR": str(nothing)}
    command = [*before, LAUNCHER, sys.executable, str(PROGRAMS / "many_at_once.py")]
    done = run(tmp_path, command, environment(**env))
    assert done.status == 0, done.stderr
    assert "Traceback" not in done.stderr
    (told,) = done.lines()
    assert told["right"]
    assert told["failures"]["events.file"] > 0


# --- scarce ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["start", "later"])
@pytest.mark.parametrize("what", ["address_space", "descriptors", "threads"])
def test_where_there_is_no_more_of_it_the_application_gets_by_and_the_probe_recovers(
    tmp_path: Path, what: str, when: str
) -> None:
    before: list[str] = []
    if what == "threads" and os.geteuid() == 0:  # the kernel refuses root none, nor who may exceed limits
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("there is no setpriv")
        before = [setpriv, "--bounding-set", "-sys_resource,-sys_admin"]
    # What is left of the address space may be too little for the program itself, wherever it just is: then once more.
    for _ in range(3 if what == "address_space" else 1):
        if when == "later":
            command = [*before, LAUNCHER, sys.executable, str(PROGRAMS / "scarce.py"), what, when]
            done = run(tmp_path, command, environment(**ALL_ON))
        else:
            done = by_hand(tmp_path, before, "scarce.py", what, when)
        if done.status == 0:
            break
    assert done.status == 0, done.stderr
    (told,) = done.lines()
    assert told["told_pid"] == told["pid"]
    if when == "start":
        assert told["failures"] == {}, "of the one that was started when there was enough again"
        assert not (told["started"] and what == "threads")
    else:
        assert told["failures"] == told["settled"], "nothing fails any more"


# --- closed ---------------------------------------------------------------------------------------------------


def test_closed_standard_streams_under_console_exporters(tmp_path: Path) -> None:
    console = {"OTEL_METRICS_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "console"}
    env = {**ALL_ON, **console, "OTEL_PYTHON_MEMORY_EVENTS": "otlp,console"}
    program = (
        "import os, threading, time; from otel_memory.probe import lifecycle; time.sleep(1)\n"
        "kept = lifecycle.running_probe()._parts.process._reader._statm.descriptor\n"
        "assert kept > 2, 'a kept descriptor stands in the place of a standard stream'\n"
        "open('done', 'w').write(str(set(lifecycle.running_probe().ledger.failures)))"
    )
    command = ["sh", "-c", f'exec "{LAUNCHER}" "{sys.executable}" -c "$0" <&- >&- 2>&-', program]
    done = run(tmp_path, command, environment(**env))
    assert (tmp_path / "done").read_text() in ("set()", "{'events.console'}")
    assert (done.status, done.stdout, done.stderr) == (0, "", "")


# --- ending ---------------------------------------------------------------------------------------------------


def test_every_way_to_end_is_as_without_the_probe(tmp_path: Path) -> None:
    with_probe, without = (
        under_launcher(tmp_path, "ends.py", **env, **TO_FILES)
        for env in (ALL_ON, {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": f"otel_memory,{NOT_OURS}"})
    )
    assert with_probe.status == without.status == 0, with_probe.stderr
    assert "otel_memory" not in with_probe.stderr, with_probe.stderr
    ended = with_probe.lines()
    assert ended[0] == {"probe": True}
    assert without.lines()[0] == {"probe": False}
    assert ended[1:] == without.lines()[1:]
    assert len(ended) == 14


# --- many at once, and optimised away ---------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["-OO"]], ids=["plain", "optimized"])
def test_thousands_of_operations_at_once(tmp_path: Path, flags: list[str]) -> None:
    done = under_launcher(tmp_path, "many_at_once.py", python=flags, **ALL_ON, **TO_FILES)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    (told,) = done.lines()
    assert told["optimized"] == (2 if flags else 0)
    assert told["results"] == {"list": 2400, "CancelledError": 300, "KeyError": 300}
    assert told["right"]
    calls: dict[str, Any] = told["calls"]
    assert calls["task"] == calls["block"] == [3000, 600]
    assert calls["threaded"] == calls["abandoned"] == [2000, 0]
    assert calls["stream"][0] == 2401
    assert told["running"] == 0
    assert told["failures"] == {}
    assert exported(tmp_path)[told["pid"]]["instance"] == told["instance"]


def test_subinterpreters_are_refused_politely_and_the_main_ones_probe_goes_on(tmp_path: Path) -> None:
    done = by_hand(tmp_path, [], "subinterpreter.py", OTEL_PYTHON_MEMORY_INTERVAL="100")
    assert done.status == 0, done.stderr
    first, second, told = done.lines()
    assert first == second
    assert told["same"]
    assert told["failures"] == {}
    assert done.stderr.count("this is a subinterpreter") == 2, done.stderr
    assert "Traceback" not in done.stderr
