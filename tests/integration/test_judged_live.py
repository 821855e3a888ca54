"""Two services that leak and two that only look like it, live with load: what the running analyzer says of them.

All of them, and what was said: docs/judged.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.programs.judged.recording import recordings, replay
from tests.programs.judged.run import judge
from tests.programs.judged.seen import Seen

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

LEAKING = ("leaky_user_cache", "leaky_native")
HEALTHY = ("calm_pool", "calm_cold_start")


def found(seen: Sequence[Seen]) -> bool:
    return all(one.verdict == "leaking" and one.culprit_is_first for one in seen if one.program.leaks)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what the programs send is kept."""
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def seen(recorded: Path) -> dict[str, Seen]:
    """What was seen of each, until the leaks are found; on a machine that is slow that takes longer."""
    judged = judge([*LEAKING, *HEALTHY], 300, together=4, settled=found, record=recorded)
    return {one.program.name: one for one in judged}


@pytest.mark.parametrize("name", LEAKING)
def test_a_leak_is_called_one_and_its_culprit_is_named_first(seen: dict[str, Seen], name: str) -> None:
    one = seen[name]
    said = json.dumps(one.timeline[-1:], indent=1)
    assert one.verdict == "leaking", said
    assert one.culprit_is_first, said


@pytest.mark.parametrize("name", HEALTHY)
def test_what_only_looks_like_a_leak_is_not_called_one(seen: dict[str, Seen], name: str) -> None:
    one = seen[name]
    assert one.timeline, "it was never seen"
    assert one.worst != "leaking", json.dumps([s for s in one.timeline if s["verdict"] == "leaking"][:1], indent=1)


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("name", [*LEAKING, *HEALTHY])
def test_what_was_recorded_is_judged_alike_again(recorded: Path, name: str) -> None:
    (path,) = recordings(recorded, [name])
    again = replay(path)
    assert again.timeline
    if again.program.leaks:
        assert any(one["verdict"] == "leaking" for one in again.timeline)
    else:
        assert again.worst != "leaking"
