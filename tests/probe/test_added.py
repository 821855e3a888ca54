"""Which lines made what came to a container, and how large entries are."""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_memory.probe import sizes
from otel_memory.probe.added import Watched
from tests.harness import wait_until

SHARED = {"text": "shared by all " * 1000}


class Order:
    def __init__(self, number: int) -> None:
        self.number = number
        self.note = f"order {number} " * 20


def make(number: int) -> list[Any]:
    return [Order(number), bytes(5_000), dict(SHARED)]


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    wait_until(lambda: not tracemalloc.is_tracing())
    tracemalloc.start(2)
    yield
    tracemalloc.stop()


def lines(found: Counter[Any]) -> Counter[int]:
    sums: Counter[int] = Counter()
    for frames, size in found.items():
        if frames[0][0] == __file__:
            sums[frames[0][1]] += size
    return sums


def add_to_set(things: set[Any], number: int) -> None:
    things.add(tuple(make(number)[1:2]))


@pytest.mark.parametrize(
    ("container", "add", "expected"),
    [
        ({}, lambda held, number: held.__setitem__(number, make(number)), 5_000),
        (OrderedDict(), lambda held, number: held.__setitem__(number, make(number)), 5_000),
        ([], lambda held, number: held.append(make(number)), 5_000),
        (deque(), lambda held, number: held.append(make(number)), 5_000),
        (set(), add_to_set, 5_000),
    ],
    ids=["dict", "OrderedDict", "list", "deque", "set"],
)
def test_the_line_that_made_the_entries_is_told(container: Any, add: Callable[[Any, int], None], expected: int) -> None:
    for number in range(20):
        add(container, number)
    watched = Watched([container])
    for number in range(20, 120):
        add(container, number)
    (found,) = watched.added()
    made = lines(found)
    line = make.__code__.co_firstlineno + 1
    assert made.most_common(1)[0][0] == line
    # In proportion to all that came: 100 of them, though fewer were looked at.
    assert made[line] == pytest.approx(100 * expected, rel=0.3) or type(container) is set


def test_what_was_there_before_counts_for_nothing() -> None:
    held = {number: make(number) for number in range(50)}
    watched = Watched([held, [1, 2, 3]])
    tracemalloc.clear_traces()
    assert [found.total() for found in watched.added()] == [0, 0]
    watched.let_go()
    assert len(watched) == 0


def test_no_code_of_the_program_runs() -> None:
    class Trap:
        def __hash__(self) -> int:
            if armed:
                raise AssertionError("called")
            return 1

        __eq__ = __len__ = __sizeof__ = lambda *_: 1 / 0  # type: ignore[assignment]

    armed: list[int] = []
    held: dict[Any, Any] = {Trap(): Trap()}
    watched = Watched([held, {Trap()}])
    armed.append(1)
    assert len(watched.added()) == 2
    assert sizes.mean_entry(sizes.newest(held, 5)) > 0


def test_an_entry_is_as_large_as_what_only_it_refers_to() -> None:
    held = [[bytearray(10_000), SHARED] for _ in range(10)]
    assert sizes.mean_entry(sizes.newest(held, 10)) == pytest.approx(10_100, abs=200)
    assert sizes.mean_entry([]) == 0.0


def test_a_large_entry_and_a_closure_are_as_large_as_what_they_hold() -> None:
    rows = [[f"row {number} of {entry} " * 5 for number in range(2_000)] for entry in range(5)]
    exact = sum(map(sys.getsizeof, [rows[0], *rows[0]]))
    assert sizes.mean_entry(sizes.newest(rows, 5)) == pytest.approx(exact, rel=0.15)

    def keep(text: bytes) -> Callable[[], int]:
        return lambda: len(text)

    kept = [keep(bytes(50_000)) for _ in range(5)]
    assert sizes.mean_entry(sizes.newest(kept, 5)) == pytest.approx(50_300, abs=400)


def test_what_only_a_cycle_holds_is_shared_out_among_its_objects() -> None:
    ring = [Order(number) for number in range(10)]
    for order, following in zip(ring, [*ring[1:], ring[0]], strict=True):
        order.following = following  # type: ignore[attr-defined]
    assert 200 < sizes.mean_in_cycles(ring[:3]) < 1_500
