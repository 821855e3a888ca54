"""The built wheel, installed in clean environments as a user would. `./dev check` runs it, `./dev test` does not.

It needs a package index (or uv's cache of one).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.harness import Analyzer, fetch
from tests.harness.process import clean_environment
from tests.parts.cache import cache_root

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.timeout(600)


def find_uv() -> str:
    """uv as `./dev` found it, from PATH, or the one that `./dev` keeps in its cache."""
    private = cache_root().parent / "uv" / "uv"
    found = os.environ.get("UV") or shutil.which("uv") or (str(private) if private.exists() else None)
    assert found, "uv is not here; mend: run this by ./dev check"
    return found


def run(*argv: object, env: Mapping[str, str] | None = None, cwd: Path | None = None, status: int = 0) -> str:
    """Standard output of a command that must end with ``status``; its standard error is shown where it does not."""
    words = [str(word) for word in argv]
    environment = clean_environment({"UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "1", **(env or {})})
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(words, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, f"{' '.join(words)}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if status == 0 else done.stdout + done.stderr


class Installed:
    """A fresh virtual environment with the wheel in it. It runs away from the checkout, so that none of it is seen."""

    def __init__(self, folder: Path, requirement: str) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        folder.mkdir()
        # The base interpreter: a virtual environment made from one in use would see it.
        run(find_uv(), "venv", "--quiet", "--python", Path(sys.base_prefix) / "bin" / "python3", folder / "venv")
        run(find_uv(), "pip", "install", "--quiet", "--python", self.bin / "python", requirement)

    def python(self, script: str) -> str:
        return run(self.bin / "python", "-W", "error::ImportWarning", "-c", script, cwd=self.folder)

    def command(self, *argv: str, status: int = 0, env: Mapping[str, str] | None = None) -> str:
        path = f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return run(self.bin / argv[0], *argv[1:], cwd=self.folder, status=status, env={"PATH": path, **(env or {})})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(find_uv(), "build", "--quiet", "--wheel", "--out-dir", out, cwd=ROOT)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Without any extra: what an application gets that only wants the probe."""
    return Installed(tmp_path_factory.mktemp("bare") / "it", str(wheel))


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("full") / "it", f"{wheel}[all]")


def test_the_wheel_has_the_page_the_types_the_licence_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = run("git", "ls-files", "otel_memory", cwd=ROOT).split()
    assert not set(tracked) - names, "every tracked file of the package is in the wheel"
    assert "otel_memory/py.typed" in names
    assert "otel_memory/analyzer/dashboard/index.html" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert any("dashboard/vendor/" in name and "LICENSE" in name for name in names), "what is vendored has its licence"
    assert not [name for name in names if name.startswith(("tests/", "docs/")) or "__pycache__" in name]


def test_bare_it_imports_instruments_and_loads_nothing_heavy(bare: Installed) -> None:
    script = """
import json, sys
from importlib.metadata import entry_points
(entry,) = entry_points(group="opentelemetry_instrumentor", name="otel_memory")
instrumentor = entry.load()()
instrumentor.instrument()
instrumentor.uninstrument()
import otel_memory
print(json.dumps([otel_memory.__version__, sorted({name.split(".")[0] for name in sys.modules})]))
"""
    version, modules = json.loads(bare.python(script).splitlines()[-1])
    assert version in bare.command("otel-memory", "--version")
    assert not {"numpy", "fastapi", "grpc", "httpx"} & set(modules)


def test_bare_the_command_tells_what_is_there_and_which_extra_is_missing(bare: Installed) -> None:
    assert "serve" in bare.command("otel-memory", "--help")
    words = bare.command("otel-memory", "serve", status=2)
    assert "otel-memory[analyzer]" in words
    assert "Traceback" not in words


def test_every_entry_point_and_every_verb_resolves(full: Installed) -> None:
    script = """
import json
from importlib import import_module
from importlib.metadata import distribution
from otel_memory.__main__ import VERBS
found = [f"{entry.group}:{entry.name}" for entry in distribution("otel-memory").entry_points if entry.load()]
for verb in VERBS.values():
    module, _, attribute = verb.target.partition(":")
    assert callable(getattr(import_module(module), attribute)), verb.target
print(json.dumps(found))
"""
    found = json.loads(full.python(script).splitlines()[-1])
    assert {"console_scripts:otel-memory", "opentelemetry_instrumentor:otel_memory"} <= set(found)


def test_the_floors_keep_a_resolver_from_ancient_betas(full: Installed) -> None:
    """Beta packages that pin each other with == make a resolver fall back as far as it is let."""
    script = "from importlib.metadata import version; print(version('opentelemetry-distro'))"
    major, minor = full.python(script).split(".")[:2]
    assert (int(major), int(minor.partition("b")[0])) >= (0, 61)


def test_under_the_launcher_an_application_exports_its_memory(full: Installed) -> None:
    exporters = ["--metrics_exporter", "console", "--traces_exporter", "none", "--logs_exporter", "none"]
    script = "import time; time.sleep(1.2); print('the application has run')"
    out = full.command("opentelemetry-instrument", *exporters, str(full.bin / "python"), "-c", script)
    assert "the application has run" in out
    assert "process.memory.usage" in out


class InstalledAnalyzer(Analyzer):
    """The analyzer of the wheel instead of the checkout's."""

    def __init__(self, python: Path) -> None:
        super().__init__()
        self.python = str(python)


def test_the_analyzer_of_the_wheel_serves_its_page_and_its_rest(full: Installed) -> None:
    with InstalledAnalyzer(full.bin / "python") as analyzer:
        assert b"<html" in fetch(analyzer.url + "/").lower()
        assert analyzer.get("/api/v1/processes")["items"] == []
