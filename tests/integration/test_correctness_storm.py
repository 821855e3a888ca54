"""Many processes at once: storms of forks, pools by every start method, daemons. None hangs, each has its own numbers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.correctness import ALL_ON, TO_FILES, exported, under_launcher

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")

CHILDREN = 200


def whole(told: list[dict[str, Any]]) -> None:
    """Every process speaks of itself, under a name of its own."""
    for one in told:
        assert one["told_pid"] == one["pid"]
        assert one["failures"] == {}, one
    assert len({one["instance"] for one in told}) == len({one["pid"] for one in told}) == len(told)


def test_two_hundred_short_lived_children_while_everything_works(tmp_path: Path) -> None:
    done = under_launcher(tmp_path, "fork_storm.py", str(CHILDREN), **ALL_ON, **TO_FILES)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    told = done.lines()
    assert len(told) == CHILDREN // 20 + 1
    whole(told)


@pytest.mark.parametrize(
    ("method", "by_hand"), [("fork", False), ("spawn", False), ("spawn", True), ("forkserver", True)]
)
def test_workers_of_pools_have_their_own_numbers(tmp_path: Path, method: str, by_hand: bool) -> None:
    settings = {"OTEL_PYTHON_MEMORY_FILE_PATH": "otel-memory-{signal}-{pid}.jsonl"}
    how = "by hand" if by_hand else "as it is"
    done = under_launcher(tmp_path, "pools.py", method, how, **settings, **TO_FILES)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    told = done.lines()
    workers = told[:-1]
    assert [one["probe"] for one in workers] == [method == "fork" or by_hand] * 4
    with_probe = [one for one in told if one["probe"]]
    whole(with_probe)
    for less, more in ((workers[0], workers[1]), (workers[2], workers[3])):
        assert less["pid"] != more["pid"]
        assert not more["probe"] or more["rss"] - less["rss"] > 80_000_000
    on_file = exported(tmp_path)
    for one in with_probe:
        assert on_file[one["pid"]]["instance"] == one["instance"]
        assert (tmp_path / f"otel-memory-metrics-{one['pid']}.jsonl").exists()
    for one in workers:
        if one["probe"]:
            seen = on_file[one["pid"]]["process.memory.usage"]
            assert abs(seen - one["rss"]) < 0.25 * one["rss"], "exported at about the time it looked"


def test_a_daemon_that_forked_twice_has_numbers_of_its_own(tmp_path: Path) -> None:
    pipe = tmp_path / "report"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = under_launcher(tmp_path, "daemon.py", str(pipe))
        assert done.status == 0, done.stderr
    finally:
        os.close(reader)
