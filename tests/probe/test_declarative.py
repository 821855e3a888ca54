"""OpenTelemetry's declarative file, as the launcher reads it: what it says of the probe, the probe does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import clean_environment

pytest.importorskip("opentelemetry.configuration")

FILE = """
file_format: "1.0"
meter_provider:
  readers:
    - periodic:
        interval: 60000
        exporter: {{console: {{}}}}
instrumentation/development:
  python:
    otel_memory:
{keys}
"""
PROGRAM = """
import threading
from otel_memory.probe.lifecycle import running_probe

probe = running_probe()
if probe is None:
    print("no probe")
else:
    settings = probe._settings
    print("interval", settings.interval_seconds, "limit", settings.limit_bytes, [rule.name for rule in settings.rules])
print("the application ran")
"""


def launched(keys: str, folder: Path, whole: str = FILE, **extra: str) -> str:
    """What the program prints under the launcher with ``keys`` in its file, the probe's log among it."""
    (folder / "otel.yaml").write_text(whole.format(keys="".join(f"      {line}\n" for line in keys.splitlines())))
    (folder / "app.py").write_text(PROGRAM)
    launcher = Path(sys.executable).parent / "opentelemetry-instrument"
    environment = clean_environment({"OTEL_CONFIG_FILE": str(folder / "otel.yaml"), **extra})
    done = subprocess.run(
        [launcher, sys.executable, "app.py"],
        cwd=folder,
        env={**environment, "PATH": f"{launcher.parent}{os.pathsep}{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the application ran" in done.stdout
    return done.stdout + done.stderr


def test_each_key_reaches_the_probe(tmp_path: Path) -> None:
    said = launched('interval: 250\nlimit: 512MiB\nthresholds: [none, "rss>1GiB:critical", "fds>900"]', tmp_path)
    assert "interval 0.25 limit 536870912 ['rss>1GiB', 'fds>900']" in said
    assert '"otel_memory.process.memory.limit"' in said, "it emits through the meter provider of the file"
    assert "already instrumented" not in said


def test_a_key_left_empty_falls_back_to_its_variable(tmp_path: Path) -> None:
    said = launched("interval:\nlimit: 1GiB", tmp_path, OTEL_PYTHON_MEMORY_INTERVAL="500")
    assert "interval 0.5 limit 1073741824" in said


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("interval: soon", "interval='soon': expected milliseconds"),
        ('thresholds: ["rss>lots"]', "in 'rss>lots': expected a size"),
        ("intervall: 500", "intervall=500: is not a setting of the probe (did you mean interval?)"),
    ],
)
def test_what_is_not_valid_names_itself_and_the_application_runs_without_the_probe(
    keys: str, expected: str, tmp_path: Path
) -> None:
    said = launched(keys, tmp_path)
    assert expected in said
    assert "no probe" in said
    assert said.count("runs on without otel-memory's probe") == 1


@pytest.mark.parametrize(
    "whole", [FILE, FILE.replace("meter_provider", "disabled: true\nmeter_provider")], ids=["enabled", "disabled"]
)
def test_the_switches_of_the_file_are_obeyed(whole: str, tmp_path: Path) -> None:
    keys = "enabled: false\ninterval: 250" if "disabled" not in whole else "interval: 250"
    assert "no probe" in launched(keys, tmp_path, whole)


def test_a_file_without_the_probe_leaves_it_to_the_environment(tmp_path: Path) -> None:
    whole = FILE.partition("instrumentation/")[0]
    assert "interval 0.3 " in launched("", tmp_path, whole, OTEL_PYTHON_MEMORY_INTERVAL="300")
