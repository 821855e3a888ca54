"""A feature that is built when it is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from otel_memory.probe.feature import Feature
from otel_memory.probe.late import Late


class Real(Feature):
    part = "real"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def register(self, meter: Any, gate: Any) -> Any:
        self.calls.append((meter, gate))
        return lambda: self.calls.append("unregistered")

    def tick(self, now: float) -> None:
        self.calls.append(now)

    def after_fork(self) -> None:
        self.calls.append("forked")

    def close(self) -> None:
        self.calls.append("closed")

    def status(self) -> dict[str, Any]:
        return {"calls": len(self.calls)}


@pytest.fixture
def world() -> SimpleNamespace:
    return SimpleNamespace(needed=False, built=[])


def late(world: SimpleNamespace) -> Late:
    def build() -> Feature:
        world.built.append(Real())
        return world.built[-1]

    return Late("real", lambda: world.needed, build)


def test_nothing_is_built_until_it_is_needed(world: SimpleNamespace) -> None:
    feature = late(world)
    undo = feature.register("meter", "gate")  # type: ignore[arg-type]
    feature.tick(1.0)
    feature.after_fork()
    assert feature.status() == {}
    undo()
    feature.close()
    assert world.built == []


def test_from_then_on_it_is_the_real_one(world: SimpleNamespace) -> None:
    feature = late(world)
    undo = feature.register("meter", "gate")  # type: ignore[arg-type]
    world.needed = True
    feature.tick(1.0)
    world.needed = False
    feature.tick(2.0)
    feature.after_fork()
    assert feature.part == "real"
    assert feature.status() == {"calls": 4}
    undo()
    undo()
    feature.close()
    assert len(world.built) == 1
    assert world.built[0].calls == [("meter", "gate"), 1.0, 2.0, "forked", "unregistered", "closed"]


def test_a_closed_one_is_not_built_any_more(world: SimpleNamespace) -> None:
    feature = late(world)
    feature.close()
    world.needed = True
    feature.tick(1.0)
    assert world.built == []


def test_what_cannot_be_built_is_not_tried_again() -> None:
    tries: list[int] = []

    def build() -> Feature:
        tries.append(1)
        raise RuntimeError("no driver")

    feature = Late("real", lambda: True, build)
    with pytest.raises(RuntimeError):
        feature.tick(1.0)
    feature.tick(2.0)
    assert len(tries) == 1
