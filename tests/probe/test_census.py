"""The census: counts, growing containers, and when it gives up."""

from __future__ import annotations

import io
from collections import deque
from typing import Any

from otel_memory.probe import census, evidence_looks


class Marked:
    """Something to count."""


kept: dict[str, Any] = {}


def test_types_and_containers_that_grow_are_found() -> None:
    kept.update(
        numbers=list(range(100)),
        untracked={str(i): i for i in range(100)},
        queue=deque(range(50)),
        buffer=bytearray(100_000),
        log=io.BytesIO(b"x" * 100_000),
    )
    kept["log"].seek(0, 2)
    before = census.take(max_pause_seconds=10)
    kept["marked"] = [Marked() for _ in range(200)]
    kept["numbers"].extend(range(5_000))
    kept["untracked"].update({f"more {i}": i for i in range(5_000)})
    kept["queue"].extend(range(1_000))
    kept["buffer"] += b"x" * 1_000_000
    kept["log"].write(b"x" * 1_000_000)
    after = census.take(max_pause_seconds=10, previous=before)
    grown = {id(each.container): each for each in after.grown}
    assert grown[id(kept["numbers"])].entries == 5_000
    assert grown[id(kept["untracked"])].entries == 5_000
    assert grown[id(kept["queue"])].entries == 1_000
    assert grown[id(kept["buffer"])].entries == 1_000_000
    assert grown[id(kept["log"])].entries >= 900_000
    assert grown[id(kept["numbers"])].what == "list of int"
    types = evidence_looks.grown_types(before.counts, after.counts)
    assert (types[0].name.endswith(".Marked"), types[0].objects) == (True, 200)
    assert after.gave_up is None
    kept.clear()


def test_too_large_an_interpreter_is_not_counted_and_says_so() -> None:
    found = census.take(max_pause_seconds=1e-6)
    assert found.objects == 0
    assert found.gave_up is not None
    assert "would hold the interpreter" in found.gave_up


def test_it_ends_when_it_has_taken_too_long_or_is_stopped() -> None:
    for cut in (
        census.take(max_pause_seconds=10, max_seconds=0.0),
        census.take(max_pause_seconds=10, stopping=lambda: True),
    ):
        assert cut.gave_up is not None
        assert "cut off" in cut.gave_up


def test_no_code_of_the_program_runs() -> None:
    class Trap(list[int]):
        def __len__(self) -> int:
            raise AssertionError("called")

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("called")

        __sizeof__ = __iter__ = __getitem__ = __len__  # type: ignore[assignment]

    trap = Trap(range(100))
    before = census.take(max_pause_seconds=10)
    list.extend(trap, range(1_000))
    after = census.take(max_pause_seconds=10, previous=before)
    assert any(each.container is trap and each.entries == 1_000 for each in after.grown)


def test_it_keeps_nothing_alive() -> None:
    import weakref

    thing = Marked()
    gone = weakref.ref(thing)
    found = census.take(max_pause_seconds=10)
    del thing
    assert gone() is None
    assert found.objects
