"""The command `otel-memory`: light, lazy, and with one meaning for each exit status."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from otel_memory import __main__ as command
from otel_memory.version import __version__
from tests.clients.documents import Fake, healthy, process, serve

ROOT = Path(__file__).parents[1]


def run(
    *arguments: str, env: Mapping[str, str] | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-m", "otel_memory", *arguments],
        env={**environment, **(env or {})},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Sequence[str]], int]], None]:
    """Puts a function in place of the verb `leaks`."""

    def put(main: Callable[[Sequence[str]], int]) -> None:
        module = types.ModuleType("a_verb")
        module.main = main  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "a_verb", module)
        monkeypatch.setitem(command.VERBS, "leaks", command.Verb("a_verb:main", "analyzer", "for a test"))

    return put


# --- help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help", "help"])
def test_help_names_every_verb(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([flag]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text and verb.help in text for name, verb in command.VERBS.items())
    assert max(map(len, text.splitlines())) <= 100


def test_without_a_command_help_is_shown_and_nothing_ran(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([flag]) == 0
    assert capsys.readouterr().out == f"otel-memory {__version__}\n"


def test_a_command_that_does_not_exist_is_met_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["leak\x1b[31m"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\x1b" not in captured.err
    assert command.main(["docter"]) == 2
    assert "Did you mean `doctor`?" in capsys.readouterr().err


def test_help_loads_no_room_and_nobody_elses_package() -> None:
    script = (
        "import json, sys; before = set(sys.modules)\n"
        "from otel_memory.__main__ import main\n"
        "status = main(['--help'])\n"
        "print(json.dumps([status, sorted(set(sys.modules) - before)]))"
    )
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    foreign = [name for name in loaded if name.split(".")[0] not in {*sys.stdlib_module_names, "otel_memory"}]
    assert foreign == []
    ours = {name for name in loaded if name.startswith("otel_memory")}
    assert ours == {"otel_memory", "otel_memory.__main__", "otel_memory.version"}
    assert not {"asyncio", "argparse", "difflib", "email", "http", "logging", "socket", "ssl"} & set(loaded)


# --- verbs ----------------------------------------------------------------------------------------------------


def test_every_verb_resolves() -> None:
    for verb in command.VERBS.values():
        module, _, attribute = verb.target.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("name", sorted(command.VERBS))
def test_every_verb_has_help_and_refuses_what_it_does_not_know(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([name, "--help"]) == 0
    assert f"otel-memory {name}" in capsys.readouterr().out
    needed = {"explain": ["x"], "score": ["x"], "topics": ["check"]}
    assert command.main([name, *needed.get(name, []), "--no-such-flag"]) == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_a_verb_gets_its_arguments_and_gives_its_status(verb: Callable[..., None]) -> None:
    given: list[Sequence[str]] = []

    def main(argv: Sequence[str]) -> int:
        given.append(list(argv))
        return 1

    verb(main)
    assert command.main(["leaks", "--json", "x"]) == 1
    assert given == [["--json", "x"]]


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (SystemExit(0), 0),
        (SystemExit(2), 2),
        (SystemExit(None), 0),
        (SystemExit("why"), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (RuntimeError("on purpose"), 2),
        (KeyError("x"), 2),
    ],
    ids=repr,
)
def test_whatever_ends_a_verb_has_a_status_and_none_means_found(
    verb: Callable[..., None], raised: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 is kept for "found something": Python's own status for an error would be just that."""

    def main(argv: Sequence[str]) -> int:
        raise raised

    verb(main)
    assert command.main(["leaks"]) == status
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == (isinstance(raised, Exception) and not isinstance(raised, OSError))


# --- extras ---------------------------------------------------------------------------------------------------


WITHOUT = """
import importlib.abc, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
from otel_memory.__main__ import main
sys.exit(main([sys.argv[1]]))
"""


@pytest.mark.parametrize(("name", "missing"), [("leaks", "rich"), ("explain", "httpx"), ("serve", "pydantic_settings")])
def test_a_missing_extra_is_told_with_its_mend(name: str, missing: str) -> None:
    argv = [sys.executable, "-c", WITHOUT, name, missing]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == (
        f"otel-memory: `{name}` needs the package '{missing}', which is not installed.\n"
        "  mend: pip install 'otel-memory[analyzer]'\n"
    )


def test_an_extra_that_can_not_be_loaded_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> types.ModuleType:
        raise ImportError("libstdc++.so.6: cannot open shared object file", name="numpy")

    monkeypatch.setattr(command.importlib, "import_module", broken)
    assert command.main(["serve"]) == 2
    text = capsys.readouterr().err
    assert "libstdc++.so.6" in text
    assert "otel-memory[analyzer]" in text
    assert "Traceback" not in text


def test_a_fault_of_our_own_is_not_called_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.VERBS, "leaks", command.Verb("otel_memory.no_such_room:main", "analyzer", "x"))
    assert command.main(["leaks"]) == 2
    text = capsys.readouterr().err
    assert "pip install" not in text
    assert "fault of otel-memory" in text


# --- as a process: pipes and encodings ------------------------------------------------------------------------


def test_the_status_reaches_the_shell() -> None:
    with serve(Fake([process()])) as url:
        assert run("leaks", "--url", url).returncode == 1
        assert run("leaks", "--url", url, "--threshold", "1").returncode == 0
    assert run("leaks", "--url", "http://127.0.0.1:1").returncode == 2


def test_an_output_that_is_not_utf_8_gets_every_figure() -> None:
    documents = [process(service_name="büro→shop")]
    with serve(Fake(documents)) as url:
        for verb in (["leaks"], ["explain", "0123456789abcdef"]):
            done = run(*verb, "--url", url, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"})
            assert done.returncode == 1, done.stderr
            assert done.stderr == b""
            assert b"b\\xfcro\\u2192shop" in done.stdout
            assert b"512 MiB" in done.stdout


def test_no_colour_is_sent_into_a_pipe() -> None:
    with serve(Fake([process()])) as url:
        done = run("explain", "shop", "--url", url, env={"TERM": "xterm-256color", "COLUMNS": "20"})
    assert b"\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 80, "nothing is wrapped either"


@pytest.mark.parametrize("arguments", [["leaks", "--all"], ["leaks", "--all", "--json"], ["--help"], ["doctor"]])
def test_a_reader_that_went_away_is_no_error(arguments: list[str]) -> None:
    many = [healthy(id=f"{number:016x}") for number in range(400)]
    with serve(Fake(many)) as url:
        if "leaks" in arguments:
            arguments = [*arguments, "--url", url]
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = run(
                *arguments, stdout=writer, env={"OTEL_METRICS_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "none"}
            )
        finally:
            os.close(writer)
    assert done.stderr == b""
    assert done.returncode in (0, 141)
