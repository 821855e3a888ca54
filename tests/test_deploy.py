"""What ``deploy/`` starts is what the code can do."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from otel_memory.__main__ import VERBS
from otel_memory.analyzer.config import PREFIX, Settings, parse

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "deploy" / "systemd" / "otel-memory.service"


def test_the_unit_starts_a_verb_with_flags_that_it_knows() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.read(UNIT)
    _, verb, *flags = shlex.split(unit["Service"]["ExecStart"])
    assert verb in VERBS
    settings = parse(flags, {})
    assert settings.data_dir == Path("/var/lib") / unit["Service"]["StateDirectory"]
    assert settings.host == "127.0.0.1"


def test_the_variables_of_its_readme_are_settings() -> None:
    named = re.findall(rf"{PREFIX}([A-Z_]+)", (ROOT / "deploy" / "README.md").read_text("utf-8"))
    assert named
    assert {name.lower() for name in named if name.strip("_")} <= set(Settings.model_fields)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    # The one thing that is not there on a machine that only tests.
    copy.write_text(UNIT.read_text("utf-8").replace("/opt/otel-memory/bin/otel-memory", "/bin/true"), "utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert "Unknown" not in done.stderr
    assert "otel-memory.service:" not in done.stderr
