"""What the demo's subprocesses find around them does not depend on who starts the demo, and where."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_memory.demo import surroundings
from otel_memory.demo.surroundings import DemoError, check_installed, environment, folder, free_ports, launcher


def test_nothing_of_the_callers_that_could_steer_a_subprocess_is_handed_on() -> None:
    hostile = {
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_SDK_DISABLED": "true",
        "OTEL_MEMORY_HTTP_PORT": "1",
        "OTEL_PYTHON_MEMORY_INTERVAL": "1000000",
        "HTTP_PROXY": "http://proxy.example:3128",
        "https_proxy": "http://proxy.example:3128",
        "PYTHONWARNINGS": "error",
        "PYTHONTRACEMALLOC": "25",
        "WEB_CONCURRENCY": "4",
        "MALLOC_ARENA_MAX": "1",
        "PORT": "80",
    }
    assert set(environment({**hostile, "PATH": "/bin"})) - {"PYTHONPATH"} == {"PATH", "PYTHONUNBUFFERED", "NO_PROXY"}


def test_what_python_needs_is_kept_and_what_is_given_wins() -> None:
    env = environment({"HOME": "/home/me", "LC_ALL": "C.UTF-8", "PATH": "/bin"}, {"PORT": "1", "PATH": "/usr/bin"})
    assert (env["HOME"], env["LC_ALL"], env["PORT"], env["PATH"]) == ("/home/me", "C.UTF-8", "1", "/usr/bin")


def test_the_python_path_holds_in_another_folder_and_without_another_launcher(tmp_path: Path) -> None:
    launchers = str(tmp_path / "opentelemetry" / "instrumentation" / "auto_instrumentation")
    env = environment({"PYTHONPATH": os.pathsep.join((launchers, "relative", "", "/absolute"))})
    paths = env["PYTHONPATH"].split(os.pathsep)
    assert paths[:2] == [os.path.abspath("relative"), "/absolute"]
    assert launchers not in paths


def test_a_subprocess_in_another_folder_finds_this_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import otel_memory; print(otel_memory.__file__)"],
        env=environment(os.environ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert Path(done.stdout.strip()).resolve() == Path(surroundings.__file__).parents[1] / "__init__.py"


def test_the_launcher_is_that_of_this_interpreter_also_where_it_has_no_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = [sys.executable, "-c", "import sys; print('opentelemetry.sdk' in sys.modules or sys.path)"]
    env = environment(os.environ, {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"})
    first = launcher()
    assert Path(first[0]).parent == Path(sys.executable).parent
    monkeypatch.setattr(surroundings.sysconfig, "get_path", lambda name: str(tmp_path))
    second = launcher()
    assert second[0] == sys.executable
    for words in (first, second):
        done = subprocess.run([*words, *program], env=env, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "True"


def test_ports_are_free_and_different_and_a_taken_one_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        ports = free_ports(number, 0, 0, 0)
        assert number not in ports
        assert len(set(ports)) == 4
    assert free_ports(number) == [number]


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr(surroundings, "NEEDED", ("uvicorn", "no_such_framework", "no_such.package.below"))
    with pytest.raises(DemoError, match=r"no_such_framework and no_such\.package\.below") as caught:
        check_installed()
    assert "pip install 'otel-memory[all]'" in str(caught.value)
    assert "uvicorn" not in str(caught.value)


# --- the folder ---------------------------------------------------------------------------------------------------


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_is_removed_however_the_demo_ends(base: Path) -> None:
    with pytest.raises(KeyError), folder() as where:
        (where / "data").mkdir()
        (where / "data" / "file").write_text("x")
        raise KeyError
    assert list(base.iterdir()) == []


def test_the_folder_of_a_demo_that_was_killed_is_removed_and_that_of_a_living_one_is_not(base: Path) -> None:
    killed, living, foreign = (base / f"{surroundings.FOLDER_PREFIX}{name}" for name in ("a", "b", "c"))
    for path in (killed, living, foreign):
        path.mkdir()
    for path in (killed, living):
        (path / surroundings.LOCK_NAME).touch()
    with (living / surroundings.LOCK_NAME).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with folder() as where:
            assert set(base.iterdir()) == {living, foreign, where}


def test_two_demos_leave_each_other_alone(base: Path) -> None:
    with folder() as first, folder() as second:
        assert first != second
        assert first.is_dir()
