"""What the demo prints."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_memory.demo.console import Console, progress_line, verdict_line

PROCESS: dict[str, Any] = {
    "id": "a1",
    "service_name": "shop",
    "memory_bytes": 96_000_000,
    "limit_bytes": 512 * 1024 * 1024,
    "verdict": "leaking",
    "growth_bytes_per_second": 453_000.0,
    "time_to_limit_seconds": {"estimate": 960.0, "low": 840.0, "high": 1140.0},
    "suspects": [{"kind": "route", "name": "GET /cart/{customer}", "share": 0.93}],
}


def test_the_verdict_says_who_how_fast_when_and_which_route() -> None:
    assert verdict_line(PROCESS) == (
        "shop leaks 27.2 MB/min and hits its limit of 512 MiB in about 16 min (14 min to 19 min); "
        "first suspect: route GET /cart/{customer} (93 % of the growth)"
    )


def test_what_is_not_known_is_left_out_of_the_verdict() -> None:
    bare = {**PROCESS, "time_to_limit_seconds": None, "suspects": []}
    assert verdict_line(bare) == "shop leaks 27.2 MB/min"
    open_ended = {**PROCESS, "time_to_limit_seconds": {"estimate": 960.0, "low": 840.0, "high": None}, "suspects": []}
    assert verdict_line(open_ended).endswith("in about 16 min (at least 14 min)")


def test_progress_names_each_process_with_memory_and_verdict() -> None:
    assert progress_line([PROCESS, {**PROCESS, "service_name": "new", "memory_bytes": None, "verdict": "unknown"}]) == (
        "shop 96.0 MB leaking, new ? unknown"
    )


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_json_is_one_object_a_line_and_tells_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    console = Console(as_json=True, clock=clock)
    clock.now += 2.5
    console.say("  page      http://127.0.0.1:1", page="http://127.0.0.1:1")
    console.progress("so far")
    console.say("two\nlines")
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == {"at": 2.5, "message": "page      http://127.0.0.1:1", "page": "http://127.0.0.1:1"}
    assert second["message"] == "two\nlines"


def test_in_a_pipe_progress_is_seldom_and_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    console = Console(as_json=False, clock=clock)
    for _ in range(41):
        console.progress("shop")
        clock.now += 0.5
    out = capsys.readouterr().out
    assert out == "     0 s  shop\n    10 s  shop\n    20 s  shop\n"


def test_on_a_terminal_progress_is_one_line_that_fits_and_is_wiped_before_the_next_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    console = Console(as_json=False, clock=Clock())
    console.progress("x" * 100)
    console.say("VERDICT")
    out = capsys.readouterr().out
    assert out == "\r\033[K     0 s  " + "x" * 29 + "\r\033[KVERDICT\n"
