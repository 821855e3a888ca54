"""Many processes at once: storms of forks, pools by every start method, daemons. Each has its own numbers."""

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


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_pools_have_their_own_numbers(tmp_path: Path, method: str) -> None:
    settings = {"OTEL_PYTHON_MEMORY_FILE_PATH": "otel-memory-{signal}-{pid}.jsonl"}
    done = under_launcher(tmp_path, "pools.py", method, **settings, **TO_FILES)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    less, more, parent = told = done.lines()
    whole(told)
    assert more["rss"] - less["rss"] > 80_000_000
    on_file = exported(tmp_path)
    for one in (less, more):
        seen = on_file[one["pid"]]
        assert seen["instance"] == one["instance"]
        assert abs(seen["process.memory.usage"] - one["rss"]) < 0.1 * one["rss"]
        assert (tmp_path / f"otel-memory-metrics-{one['pid']}.jsonl").exists()
    assert on_file[parent["pid"]]["instance"] == parent["instance"]


def test_a_daemon_that_forked_twice_has_numbers_of_its_own(tmp_path: Path) -> None:
    pipe = tmp_path / "report"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = under_launcher(tmp_path, "daemon.py", str(pipe))
        assert done.status == 0, done.stderr
    finally:
        os.close(reader)
