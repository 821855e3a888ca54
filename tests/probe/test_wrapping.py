"""Operations named in the setting: what a name reaches, and that everything is as it was afterwards."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import inspect
import logging
import pickle
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from otel_memory.probe import events
from otel_memory.probe.background import Background
from otel_memory.probe.config import Settings, SettingsError
from otel_memory.probe.feature import Surroundings
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.operations import TABLE
from otel_memory.probe.parts import Parts
from otel_memory.probe.wrapping import PATIENCE_SECONDS, Wrapping

SHOP = """
import collections, functools
from otel_memory import monitor_memory

def checkout(n: int = 1) -> int:
    "Buys."
    return n

async def later():
    return 5

def numbers():
    got = yield 1
    yield got

async def stream():
    yield 1

def _private():
    return 0

@monitor_memory(name="mine")
def decorated():
    return 2

@functools.lru_cache
def cached(n):
    return n

count = len
price = 5

class Cart:
    items = ()
    def add(self):
        return self
    @classmethod
    def make(cls):
        return cls()
    @staticmethod
    def rate():
        return 7
    @property
    def total(self):
        return 3
    def __call__(self):
        return "called"
    def __len__(self):
        return 4
    def _hidden(self):
        return 6
    class Line:
        def cost(self):
            return 8

class Big(Cart):
    def add(self):
        return super().add()

def make_ordered():
    return collections.OrderedDict()
"""


def around(operations: str, ledger: Ledger | None = None) -> Surroundings:
    settings, ledger = Settings.load({}, operations=operations), ledger or Ledger()
    return Surroundings(settings, Parts(settings, ledger), events.emit, Background(ledger), ledger)


Start = Callable[[str], Wrapping]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Wrapping] = []

    def one(operations: str) -> Wrapping:
        running.append(Wrapping(around(operations)))
        return running[-1]

    yield one
    for wrapping in running:
        wrapping.close()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ModuleType]]:
    (tmp_path / "wrapped_shop.py").write_text(textwrap.dedent(SHOP))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield lambda: importlib.import_module("wrapped_shop")
    sys.modules.pop("wrapped_shop", None)


def calls(name: str) -> int:
    return TABLE.aggregate(name).calls


def measured(name: str, call: Callable[[], Any]) -> int:
    """How many calls of operation ``name`` were counted while ``call`` ran."""
    before = calls(name)
    call()
    return calls(name) - before


def drain(asynchronous: Any) -> list[Any]:
    async def run() -> list[Any]:
        return [item async for item in asynchronous]

    return asyncio.run(run())


def test_each_kind_of_function_is_measured_once_its_module_is_imported(
    start: Start, shop: Callable[[], ModuleType]
) -> None:
    start("wrapped_shop:*, wrapped_shop:Cart.*, wrapped_shop:Cart.Line.cost")
    module = shop()
    for name, call in {
        "checkout": lambda: module.checkout(3) == 3,
        "later": lambda: asyncio.run(module.later()) == 5,
        "numbers": lambda: list(module.numbers()) == [1, None],
        "stream": lambda: drain(module.stream()) == [1],
        "Cart.add": lambda: module.Cart().add(),
        "Cart.make": lambda: type(module.Cart.make()) is module.Cart,
        "Cart.rate": lambda: module.Cart.rate() == module.Cart().rate() == 7,
        "Cart.__call__": lambda: module.Cart()() == "called",
        "Cart.Line.cost": lambda: module.Cart.Line().cost() == 8,
    }.items():
        assert measured(f"wrapped_shop.{name}", call) == (2 if name == "Cart.rate" else 1), name
    # Left alone: what begins with an underscore, properties, what isn't a function, what comes from elsewhere.
    for name, call in {
        "_private": lambda: module._private(),
        "Cart._hidden": lambda: module.Cart()._hidden(),
        "Cart.__len__": lambda: len(module.Cart()),
        "Cart.total": lambda: module.Cart().total,
    }.items():
        assert measured(f"wrapped_shop.{name}", call) == 0, name
    assert module.cached.cache_info().misses == 0
    assert module.count is len
    # An inherited method counts for the class that defines it; an overriding one wasn't asked for.
    assert measured("wrapped_shop.Cart.add", lambda: module.Big().add()) == 1
    assert calls("wrapped_shop.Big.add") == 0


def test_what_is_decorated_in_the_code_is_not_measured_twice(start: Start, shop: Callable[[], ModuleType]) -> None:
    start("wrapped_shop:decorated")
    module = shop()
    assert measured("mine", module.decorated) == 1
    assert calls("wrapped_shop.decorated") == 0


def test_named_ones_are_reached_too_where_a_pattern_leaves_them_out(
    start: Start, shop: Callable[[], ModuleType]
) -> None:
    start("wrapped_shop:_private, wrapped_shop:Cart.__len__, wrapped_shop:Cart._*, wrapped_shop:check*")
    module = shop()
    assert measured("wrapped_shop._private", module._private) == 1
    assert measured("wrapped_shop.Cart.__len__", lambda: len(module.Cart())) == 1
    assert measured("wrapped_shop.Cart._hidden", module.Cart()._hidden) == 1
    assert measured("wrapped_shop.checkout", module.checkout) == 1


def test_a_wrapped_function_still_looks_pickles_and_subclasses_as_before(
    start: Start, shop: Callable[[], ModuleType]
) -> None:
    start("wrapped_shop:*, wrapped_shop:Cart.*, wrapped_shop:Big.*")
    module = shop()
    assert str(inspect.signature(module.checkout)) == "(n: int = 1) -> int"
    assert (module.checkout.__name__, module.checkout.__doc__) == ("checkout", "Buys.")
    assert inspect.getsource(module.checkout).startswith("def checkout")
    assert inspect.iscoroutinefunction(module.later)
    assert inspect.isasyncgenfunction(module.stream)
    assert inspect.isgeneratorfunction(module.numbers)
    for thing in (module.checkout, module.Cart.make, module.Cart.rate):
        assert pickle.loads(pickle.dumps(thing)) == thing
    assert isinstance(pickle.loads(pickle.dumps(module.Big())), module.Cart)
    sub = type("Sub", (module.Big,), {})
    assert isinstance(sub().add(), module.Cart)
    assert sub.make().__class__ is sub


def test_closing_puts_the_very_originals_back(start: Start, shop: Callable[[], ModuleType]) -> None:
    module = shop()
    before = dict(vars(module)), dict(vars(module.Cart))
    wrapping = start("wrapped_shop:*, wrapped_shop:Cart.*")
    assert vars(module)["checkout"] is not before[0]["checkout"]
    assert vars(module.Cart)["make"] is not before[1]["make"]
    wrapping.close()
    wrapping.close()
    assert all(vars(module)[name] is value for name, value in before[0].items())
    assert all(vars(module.Cart)[name] is value for name, value in before[1].items())


def test_one_that_somebody_holds_or_wrapped_measures_no_more_and_does_so_again_with_the_next_probe(
    start: Start, shop: Callable[[], ModuleType]
) -> None:
    first = start("wrapped_shop:checkout, wrapped_shop:later")
    module = shop()
    held = module.checkout

    @functools.wraps(module.later)
    async def outer() -> Any:
        return await outer.__wrapped__()  # type: ignore[attr-defined]

    module.later = outer  # type: ignore[attr-defined]
    first.close()
    assert module.later is outer, "it isn't ours to take away"
    assert measured("wrapped_shop.checkout", lambda: held(2)) == 0
    assert measured("wrapped_shop.later", lambda: asyncio.run(module.later())) == 0
    assert asyncio.run(module.later()) == 5

    start("wrapped_shop:checkout, wrapped_shop:later")
    assert module.checkout is held
    assert measured("wrapped_shop.checkout", lambda: held(2)) == 1
    assert measured("wrapped_shop.later", lambda: asyncio.run(module.later())) == 1


def test_a_generator_that_runs_while_the_probe_stops_goes_on(start: Start, shop: Callable[[], ModuleType]) -> None:
    wrapping = start("wrapped_shop:numbers")
    running = shop().numbers()
    assert next(running) == 1
    wrapping.close()
    assert running.send("sent") == "sent"
    assert list(running) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("wrapped_shop:chekout", "module wrapped_shop has no chekout (did you mean checkout"),
        ("wrapped_shop:Kart.add", "has no Kart (did you mean Cart"),
        ("wrapped_shop:Cart.ad", "class Cart has no ad (did you mean add"),
        ("wrapped_shop:Cart", "is a class; write wrapped_shop:Cart.*"),
        ("wrapped_shop:Cart.total", "is a property; put @monitor_memory below @property"),
        ("wrapped_shop:Big.make", "inherits it; write wrapped_shop:Cart.make"),
        ("wrapped_shop:cached", "no function of Python code but _lru_cache_wrapper"),
        ("wrapped_shop:count", "no function of Python code but builtin_function_or_method"),
        ("wrapped_shop:price", "is no function but int"),
        ("wrapped_shop:checkout.n", "checkout is no class but function"),
        ("wrapped_shop:zzz*", "defines no function that zzz* stands for"),
    ],
)
def test_what_can_not_be_measured_is_told_once_and_nothing_else_suffers(
    name: str, problem: str, start: Start, shop: Callable[[], ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    wrapping = start(f"{name}, wrapped_shop:numbers")
    with caplog.at_level(logging.WARNING):
        module = shop()
        importlib.reload(module)
        wrapping.tick(0.0)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"OTEL_PYTHON_MEMORY_OPERATIONS: {name}: " in message
    assert problem in message
    assert wrapping.status()["problems"].keys() == {name}
    assert measured("wrapped_shop.numbers", lambda: list(module.numbers())) == 1, "also after a reload"


def test_a_class_of_the_interpreter_that_lets_nothing_be_set_is_told(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        start("collections:OrderedDict.move_to_end")
    (record,) = caplog.records
    assert "no function of Python code but method_descriptor" in record.getMessage()


def test_names_in_the_script_have_a_minute_to_come(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)
    wrapping = start("__main__:work, __main__:never")
    wrapping.tick(100.0)
    exec("def work():\n    return 1", vars(script))
    wrapping.tick(101.0)
    assert measured("__main__.work", script.work) == 1
    assert not caplog.records
    wrapping.tick(101.0 + PATIENCE_SECONDS)
    wrapping.tick(102.0 + PATIENCE_SECONDS)
    (record,) = caplog.records
    assert "__main__:never" in record.getMessage()


def test_a_module_that_is_unloaded_goes_with_all_it_held(start: Start, shop: Callable[[], ModuleType]) -> None:
    wrapping = start("wrapped_shop:*, wrapped_shop:Cart.*")
    module = shop()
    gone = weakref.ref(module), weakref.ref(module.Cart), weakref.ref(module.checkout)
    del sys.modules["wrapped_shop"], module
    gc.collect()
    assert [each() for each in gone] == [None, None, None]
    assert wrapping.status() == {
        "operations": [],
        "not_imported": ["wrapped_shop:*", "wrapped_shop:Cart.*"],
        "problems": {},
    }


def test_the_status_says_what_is_measured_and_what_has_not_come(start: Start, shop: Callable[[], ModuleType]) -> None:
    wrapping = start("wrapped_shop:checkout, wrapped_shop:Cart.add, not_there_at_all:f")
    shop()
    status = wrapping.status()
    assert status["operations"] == ["wrapped_shop.Cart.add", "wrapped_shop.checkout"]
    assert status["not_imported"] == ["not_there_at_all:f"]


@pytest.mark.parametrize("value", ["shop", "shop.f", "shop:", ":f", "shop:f()", "shop: b", "*:f", "shop:*.f", "a..b:f"])
def test_a_name_of_another_form_is_an_error_that_says_what_was_expected(value: str) -> None:
    with pytest.raises(SettingsError, match=r"operations=.*expected names of the form package\.module:function"):
        Settings.load({}, operations=value)
