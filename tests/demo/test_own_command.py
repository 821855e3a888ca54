"""The command that the demo tells people to type is one that works where they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otel_memory.demo import runner


def test_by_name_where_that_works_else_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    command = folder / "otel-memory"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert runner.own_command() == ".venv/bin/otel-memory"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert runner.own_command() == str(command)
    monkeypatch.setenv("PATH", str(folder))
    assert runner.own_command() == "otel-memory"
