"""A fork at every moment of the probe's work: child, grandchild and parent go on, each with what is its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.correctness import TO_FILES, under_launcher

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")

MOMENTS = {
    "the SDK collects": ["collecting"],
    "the probe's threads work": ["ticking", "calling_out", "job", "tracing", "save_all"],
    "something long runs": ["breakdown", "counting", "cleaning", "starting_and_stopping", "others_tracing"],
}


@pytest.mark.parametrize("when", MOMENTS)
def test_a_fork_at_this_moment_leaves_all_three_generations_whole(tmp_path: Path, when: str) -> None:
    moments = MOMENTS[when]
    done = under_launcher(tmp_path, "fork_moments.py", *moments, OTEL_PYTHON_MEMORY_INTERVAL="100", **TO_FILES)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    told = done.lines()
    assert {one["where"] for one in told} == {
        f"{moment} {where}" for moment in moments for where in ("child", "grandchild", "parent")
    }
    for one in told:
        assert one["told_pid"] == one["pid"]
        assert one["failures"] == {}, one
        assert one["tracing"] is one["where"].startswith("others_tracing"), one
        assert (one["gc_flags"], one["garbage"]) == (0, 0), one
    assert len({one["pid"] for one in told}) == len({one["instance"] for one in told}) == len(told)
