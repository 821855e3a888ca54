"""The cache of real parts: whole or absent, also under races and interruptions. No network, no real part."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.parts import __main__ as command
from tests.parts.cache import cache_root, install, locked
from tests.parts.collector import CollectorRecipe, module_file
from tests.parts.recipes import CachedRecipe, all_recipes
from tests.parts.steps import PartUnavailable, Steps, require_tool


class Example(CachedRecipe):
    """A part that is built at once, and counts how often."""

    name = "example"
    title = "Example"
    cost = "nothing"
    program = "bin/example"
    key = "example-1"

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.built = 0
        self.gate = threading.Event()
        self.gate.set()

    def build(self, folder: Path, steps: Steps) -> None:
        self.built += 1
        (folder / "half").touch()
        self.gate.wait(10)
        if self.fails:
            raise PartUnavailable("no luck", "try harder")
        (folder / "bin").mkdir()
        (folder / "bin" / "example").touch()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "otel-memory" / "parts"


def test_the_cache_is_below_xdg_cache_home_else_below_home() -> None:
    assert cache_root({"XDG_CACHE_HOME": "/x"}) == Path("/x/otel-memory/parts")
    assert cache_root({"HOME": "/h", "XDG_CACHE_HOME": ""}) == Path("/h/.cache/otel-memory/parts")


def test_a_fetched_part_is_found_and_not_built_again(cache: Path) -> None:
    recipe = Example()
    assert recipe.locate() is None
    assert recipe.fetch(print) == cache / "example-1" == recipe.locate()
    recipe.fetch(print)
    assert recipe.built == 1


def test_a_failed_build_leaves_no_folder_that_looks_whole(cache: Path) -> None:
    recipe = Example(fails=True)
    with pytest.raises(PartUnavailable, match="try harder"):
        recipe.fetch(print)
    assert recipe.locate() is None
    assert not list(cache.glob("*example-1*"))


def test_what_an_interrupted_run_left_is_removed(cache: Path) -> None:
    stale = cache / ".building-example-1-999999"
    stale.mkdir(parents=True)
    Example().fetch(print)
    assert not stale.exists()


def test_of_two_racing_runs_one_builds_and_the_other_waits_for_it() -> None:
    recipe = Example()
    recipe.gate.clear()
    said: list[str] = []
    waits = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    threads = [threading.Thread(target=recipe.fetch, args=(say,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert waits.wait(10), "the second says that it waits"
    recipe.gate.set()
    for thread in threads:
        thread.join(10)
    assert recipe.built == 1
    assert "another run is fetching it" in said[0]


def test_a_lock_ends_with_its_holder(cache: Path) -> None:
    said: list[str] = []
    with pytest.raises(RuntimeError), locked(cache, "example", said.append):
        raise RuntimeError
    with locked(cache, "example", said.append):
        pass
    assert said == []


def test_install_renames_only_what_is_whole(cache: Path) -> None:
    seen: list[bool] = []
    final = install(cache, "k-1", lambda folder: seen.append((cache / "k-1").exists() or folder.name == "k-1"))
    assert seen == [False]
    assert final == cache / "k-1"
    assert final.is_dir()


def test_a_step_that_fails_shows_the_end_of_its_own_log(tmp_path: Path) -> None:
    steps = Steps("example", tmp_path / "logs" / "example.log", lambda line: None)
    script = "print('what went wrong'); raise SystemExit(3)"
    with pytest.raises(PartUnavailable, match=r"(?s)status 3.*what went wrong.*mend: read"):
        steps.run("do it", [sys.executable, "-c", script])


def test_a_step_tells_progress_and_is_ended_when_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.parts.steps.PROGRESS_SECONDS", 0.05)
    said: list[str] = []
    steps = Steps("example", tmp_path / "example.log", said.append)
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(PartUnavailable, match="took more than"):
        steps.run("wait", [sys.executable, "-c", script], timeout_seconds=0.5)
    assert said[:2] == ["example: wait", "example: wait … 0 s"]
    pid = int(steps.log.read_text().splitlines()[-1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_missing_tool_is_named_with_its_mend() -> None:
    with pytest.raises(PartUnavailable, match=r"(?s)`no-such-tool`.*mend: install it"):
        require_tool("no-such-tool", "install it")


def test_the_command_says_which_tests_do_not_run_without_a_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "all_recipes", lambda: {"example": Example(fails=True)})
    assert command.main(["example"]) == 1
    out = capsys.readouterr().out
    assert "NOT HAD: no luck" in out
    assert "mend: try harder" in out
    assert "needs('example')" in out


def test_an_unknown_part_is_refused_with_the_list_of_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert "collector" in capsys.readouterr().err


def test_the_collector_is_keyed_by_its_manifest_and_requires_each_of_its_modules() -> None:
    manifest = "receivers:\n  - gomod: example.org/a/receiver v1.2.3\nproviders:\n  - gomod: example.org/b v0.1.0\n"
    text = module_file(manifest, "9.9.9")
    assert "\texample.org/a/receiver v1.2.3\n" in text
    assert "\texample.org/b v0.1.0\n" in text
    assert "\tgo.opentelemetry.io/collector/otelcol v9.9.9\n" in text
    assert CollectorRecipe().key != Example.key
    assert all(name == recipe.name for name, recipe in all_recipes().items())
