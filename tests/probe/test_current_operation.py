"""Which tracked operation runs here: what log enrichment asks for."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Generator, Iterator

import pytest

from otel_memory import MemoryTracker, monitor_memory
from otel_memory.probe.operation import TABLE, Operation, Options, current_operation
from tests.probe.fake_resident import pretend


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert TABLE.running == {}
    assert TABLE.blocks == {}


def here() -> str | None:
    operation = current_operation()
    return None if operation is None else operation.options.name


def test_none_runs() -> None:
    assert here() is None


def test_the_innermost_one_is_named_and_the_outer_one_again_after_it() -> None:
    @monitor_memory(name="inner")
    def inner() -> str | None:
        return here()

    with MemoryTracker("outer"):
        assert here() == "outer"
        assert inner() == "inner"
        assert here() == "outer"
    assert here() is None


def test_after_one_that_failed_too() -> None:
    @monitor_memory(name="fails")
    def fails() -> None:
        raise KeyError

    with MemoryTracker("outer"):
        with pytest.raises(KeyError):
            fails()
        assert here() == "outer"


def test_each_thread_has_its_own() -> None:
    seen: list[str | None] = []
    with MemoryTracker("mine"):
        thread = threading.Thread(target=lambda: seen.append(here()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_blocks_that_end_out_of_order_leave_the_one_that_is_open() -> None:
    def block(name: str) -> Generator[None, None, None]:
        with MemoryTracker(name):
            yield

    first, second, third = block("first"), block("second"), block("third")
    next(first)
    next(second)
    next(third)
    assert here() == "third"
    second.close()
    assert here() == "third"
    third.close()
    assert here() == "first"
    first.close()
    assert here() is None


def test_overlapping_blocks_without_end_keep_nothing_alive() -> None:
    def block(name: str) -> Generator[None, None, None]:
        with MemoryTracker(name):
            yield

    old, ends = block("0"), []
    next(old)
    for number in range(1, 50):
        new = block(str(number))
        next(new)
        old.close()
        section = TABLE.running[threading.get_ident()]
        assert section.outer is None, "what has ended isn't kept by what follows"
        ends.append(section)
        old = new
    old.close()
    assert all(isinstance(section, Operation) and section.outer is None for section in ends)


def test_a_run_that_has_ended_is_not_kept() -> None:
    outer, inner = Operation(), Operation()
    outer.options = inner.options = Options("any", 0.0, None, False, False)
    outer.enter()
    inner.enter()
    inner.leave()
    outer.leave()
    kept = weakref.ref(inner)
    del inner
    gc.collect()
    assert kept() is None


def test_each_task_has_its_own() -> None:
    seen: dict[str, list[str | None]] = {"a": [], "b": []}

    @monitor_memory(name="a")
    async def a() -> None:
        for _ in range(3):
            seen["a"].append(here())
            await asyncio.sleep(0)

    async def b() -> None:
        async with MemoryTracker("b"):
            for _ in range(3):
                seen["b"].append(here())
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(a(), b())
        assert here() is None

    asyncio.run(both())
    assert seen == {"a": ["a"] * 3, "b": ["b"] * 3}


def test_a_block_in_a_measured_coroutine_is_the_inner_one() -> None:
    seen: list[str | None] = []

    @monitor_memory(name="inner")
    def inner() -> None:
        seen.append(here())

    @monitor_memory(name="outer")
    async def outer() -> None:
        seen.append(here())
        async with MemoryTracker("block"):
            seen.append(here())
            await asyncio.sleep(0)
            seen.append(here())
            inner()
            seen.append(here())
        seen.append(here())

    asyncio.run(outer())
    assert seen == ["outer", "block", "block", "inner", "block", "outer"]


def test_the_change_so_far_counts_from_the_beginning_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rss = [1000]
    pretend(monkeypatch, lambda: rss[0])
    seen: list[int | None] = []

    @monitor_memory(name="steps")
    def steps() -> Generator[None, None, None]:
        for _ in range(2):
            rss[0] += 10
            operation = current_operation()
            assert operation is not None
            seen.append(operation.change(rss[0]))
            seen.append(operation.change(None))
            yield

    running = steps()
    next(running)
    rss[0] += 500  # between its steps: not its own
    next(running)
    running.close()
    assert seen == [10, None, 20, None]
