"""What a file exporter reads from the environment, the same way as the probe's settings do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_memory.exporters import file_options
from otel_memory.exporters.file_options import KEEP, MAX_BYTES, PATH, FileOptions, file_template
from otel_memory.probe import environment_variables
from otel_memory.probe.config import Settings, SettingsError, in_variables


def test_names_and_defaults_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {PATH, MAX_BYTES, KEEP} <= set(vars(environment_variables))
    by_default = FileOptions.read({}, "metrics")
    assert by_default == FileOptions.read(in_variables(Settings()), "metrics")
    assert by_default.path(1) == tmp_path / "otel-memory-metrics.jsonl"
    assert (by_default.max_bytes, by_default.keep, by_default.problems) == (10 * 2**20, 5, ())


@pytest.mark.parametrize(
    ("template", "file"),
    [
        ("x/{signal}-{pid}.jsonl", "x/logs-7.jsonl"),
        ("x/events.jsonl", "x/events-logs.jsonl"),
        ("x/plain", "x/plain-logs"),
        ("there", "there/otel-memory-logs.jsonl"),
        ("new/", "new/otel-memory-logs.jsonl"),
        ("{pid}/", "7/otel-memory-logs.jsonl"),
    ],
)
def test_a_path_is_a_template_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    options = FileOptions.read({PATH: template}, "logs")
    os.chdir("/")  # a daemon's folder changes; its file does not
    assert options.path(7) == tmp_path / file
    assert file_template(f"{tmp_path}/{template}", "logs") == options.template


@pytest.mark.parametrize(
    "text", ["1000", "64kb", "64KiB", "64Ki", "1.5MB", "10 MiB", "1gib", "10M", "0", "x", "-5", "5XB"]
)
def test_a_size_is_read_as_the_settings_read_it(text: str) -> None:
    options = FileOptions.read({MAX_BYTES: text}, "logs")
    try:
        expected = Settings.load({MAX_BYTES: text}).file_max_bytes
    except SettingsError:
        assert options.max_bytes == file_options.DEFAULT_MAX_BYTES
        assert len(options.problems) == 1
        assert options.problems[0].startswith(f"{MAX_BYTES}='{text}': expected a size")
    else:
        assert (options.max_bytes, options.problems) == (expected, ())


@pytest.mark.parametrize("text", ["0", "5", "1000", "1001", "-1", "many", "1.5", "²"])
def test_a_count_is_read_as_the_settings_read_it(text: str) -> None:
    options = FileOptions.read({KEEP: text}, "logs")
    try:
        expected = Settings.load({KEEP: text}).file_keep
    except SettingsError:
        assert (options.keep, len(options.problems)) == (file_options.DEFAULT_KEEP, 1)
    else:
        assert (options.keep, options.problems) == (expected, ())


def test_an_unknown_placeholder_is_told_by_both() -> None:
    options = FileOptions.read({PATH: "x-{host}.jsonl"}, "logs")
    assert "not {host}" in options.problems[0]
    assert options.path(1).name == "otel-memory-logs.jsonl"
    with pytest.raises(SettingsError, match=r"OTEL_PYTHON_MEMORY_FILE_PATH='x-\{host\}.jsonl': .* not \{host\}"):
        Settings.load({PATH: "x-{host}.jsonl"})
