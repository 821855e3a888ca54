"""Who holds: every way in which a program keeps an object by a name."""

from __future__ import annotations

import functools
import gc
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, ClassVar

import pytest

from otel_memory.probe import holders
from otel_memory.probe.holder_names import Holder

CACHE: dict[str, Any] = {}
HERE = __name__


class Shop:
    shared: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.orders: list[int] = []


class Slotted:
    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[int] = []


SHOP = Shop()
SLOTTED = {"one": Slotted()}
NESTED: dict[str, Any] = {"a": [deque([{"deep": []}])]}


@functools.cache
def cached(number: int) -> list[int]:
    return [number]


def remembers(number: int, seen: list[int] = []) -> int:  # noqa: B006
    seen.append(number)
    return len(seen)


def make_closure() -> Callable[[], int]:
    log: list[int] = []
    return lambda: len(log)


CLOSURE = make_closure()


def who(target: Any) -> Holder:
    return holders.find([target], max_pause_seconds=10, sleep=lambda _: None).holders[0]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (lambda: CACHE, f"{HERE}.CACHE (module global)"),
        (lambda: Shop.shared, f"{HERE}.Shop.shared (class attribute)"),
        (lambda: SHOP.orders, f"{HERE}.Shop.orders (instance attribute), kept by {HERE}.SHOP"),
        (lambda: SLOTTED["one"].lines, f"{HERE}.Slotted.lines (instance attribute), kept by {HERE}.SLOTTED"),
        (lambda: NESTED["a"][0][0]["deep"], f"{HERE}.NESTED (module global)"),
        (lambda: cached(3), f"{HERE}.cached (cache of a function)"),
        (lambda: (remembers.__defaults__ or ())[0], f"{HERE}.remembers (default argument)"),
        (
            lambda: (CLOSURE.__closure__ or ())[0].cell_contents,  # type: ignore[attr-defined]
            f"{HERE}.make_closure.<locals>.<lambda>: log (closure)",
        ),
    ],
    ids=["global", "class", "instance", "slots", "nested", "cache", "default", "closure"],
)
def test_the_name_is_found(target: Callable[[], Any], expected: str) -> None:
    assert str(who(target())) == expected


def test_a_variable_of_a_running_function_is_found() -> None:
    ready, end = threading.Event(), threading.Event()
    found: list[Any] = []

    def serve() -> None:
        backlog = [object() for _ in range(3)]
        found.append(id(backlog))
        ready.set()
        end.wait(30)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(30)
        target = next(each for each in gc.get_objects() if id(each) == found[0])
        holder = who(target)
    finally:
        end.set()
        thread.join()
    assert holder.kind == "local"
    assert holder.name.endswith("serve: backlog")


def test_a_variable_of_a_generator_that_waits_is_found() -> None:
    def rows() -> Generator[int, None, None]:
        page: list[int] = [1, 2, 3]
        yield len(page)

    CACHE["rows"] = generator = rows()
    next(generator)
    page = next(each for each in gc.get_referents(generator) if isinstance(each, list))
    holder = who(page)
    CACHE.clear()
    assert holder.name.endswith("rows: page")
    assert holder.through == f"{HERE}.CACHE"


def test_garbage_is_told_from_what_is_held() -> None:
    gc.disable()
    try:

        def make() -> int:
            ring: list[Any] = []
            ring.append([ring])
            return id(ring)

        number = make()
        (ring,) = [each for each in gc.get_objects() if id(each) == number]
        targets = [ring]
        del ring
        found = holders.find(targets, max_pause_seconds=10, sleep=lambda _: None).holders[0]
    finally:
        gc.enable()
        targets.clear()
        gc.collect()
    assert found.kind == "cycle"


def test_it_stops_where_one_look_takes_too_long() -> None:
    found = holders.find([SHOP.orders], max_pause_seconds=-1.0, sleep=lambda _: None)
    assert found.gave_up is not None
    assert len(found.holders) == 1


def test_a_proxy_that_raises_when_it_is_asked_for_its_class_is_not_asked() -> None:
    class Proxy:
        def __init__(self) -> None:
            self.data: list[int] = []

        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise RuntimeError("outside of a request")

    CACHE["proxy"] = proxy = Proxy()
    holder = who(proxy.__dict__["data"])
    CACHE.clear()
    assert holder.through == f"{HERE}.CACHE"
