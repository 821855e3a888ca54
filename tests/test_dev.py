"""``./dev`` itself, as far as it needs no network: what it says when something is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("sh", "dirname", "cat", "chmod", "cksum", "cp", "mkdir", "mktemp", "mv", "rm", "sleep")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script reads, without an environment."""
    folder = tmp_path / "checkout with a space"
    folder.mkdir()
    for name in ("dev", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with the plain tools of a system and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def dev(checkout: Path, path: str, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit status and all output of ``./dev`` in a bare environment."""
    done = subprocess.run(
        [checkout / "dev", *arguments],
        env={"PATH": path, "HOME": str(checkout.parent), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def fake(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_help_names_every_command(checkout: Path, tools: Path) -> None:
    status, out = dev(checkout, str(tools), "help")
    assert status == 0
    for command in ("demo", "test", "check", "parts", "bench", "fmt"):
        assert f"\n  {command} " in out


def test_an_unknown_command_is_named_and_those_there_are_listed(checkout: Path, tools: Path) -> None:
    status, out = dev(checkout, str(tools), "nonsense")
    assert status == 1
    assert "there is no command 'nonsense'" in out
    assert "usage: ./dev" in out


def test_a_python_without_venv_is_told_with_the_mend(checkout: Path, tools: Path) -> None:
    """Debian's python3 comes without ensurepip until python3-venv is installed."""
    python = fake(tools, "python3", 'case "$2" in *ensurepip*) exit 1 ;; *executable*) echo "$0" ;; esac')
    status, out = dev(checkout, str(tools), "test")
    assert status == 1
    assert f"{python} can't make the environment" in out
    assert "mend: apt-get install python3-venv" in out


def test_a_python_that_is_too_old_or_an_empty_shim_is_passed_over(checkout: Path, tools: Path) -> None:
    fake(tools, "python3", "exit 1")
    fake(tools, "python3.13", 'case "$2" in *executable*) echo the newer one ;; esac')
    fake(tools, "uv", 'echo "uv got: $*"; exit 1')
    status, out = dev(checkout, str(tools), "test")
    assert status == 1
    assert "sync --quiet --locked --python the newer one" in out


def test_a_lock_that_is_out_of_step_is_told_with_the_mend(checkout: Path, tools: Path) -> None:
    fake(tools, "python3", 'case "$2" in *executable*) echo "$0" ;; esac')
    fake(tools, "uv", "echo 'the lock needs to be updated' >&2; exit 2")
    status, out = dev(checkout, str(tools), "test")
    assert status == 1
    assert "the lock needs to be updated" in out
    assert "mend: if the lock is out of step with pyproject.toml: uv lock" in out


def test_the_environment_is_made_once_and_again_when_the_lock_changes(checkout: Path, tools: Path) -> None:
    """The stand-in for uv makes an environment whose programs only say that they ran."""
    fake(tools, "python3", 'case "$2" in *executable*) echo "$0" ;; esac')
    make = "mkdir -p .venv/bin; printf '#!/bin/sh\\necho ran it \"$*\"\\n' >.venv/bin/otel-memory"
    make += "; cp .venv/bin/otel-memory .venv/bin/python; chmod +x .venv/bin/*"
    fake(tools, "uv", f'echo "uv got: $*"; {make}')
    _, first = dev(checkout, str(tools), "demo", "--port", "0")
    assert "making .venv from uv.lock" in first
    assert "ran it demo --port 0" in first
    _, second = dev(checkout, str(tools), "demo")
    assert "uv got" not in second
    assert "ran it demo" in second
    with (checkout / "uv.lock").open("a") as lock:
        lock.write("# a change\n")
    _, third = dev(checkout, str(tools), "demo")
    assert "bringing .venv in step" in third
    assert "uv got" in third
