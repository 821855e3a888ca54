"""Which alerts wait for a comparison, and whom a group's record tells of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_memory.analyzer.fleet_alerts import MEMORY_LEAK_GROUP, Groups, Held, HeldBack
from otel_memory.analyzer.kafka.records import Owner
from otel_memory.analyzer.kafka.shared_groups import (
    FORM,
    LOOKED,
    SETTLE_SECONDS,
    WAIT_SECONDS,
    GroupRecord,
    Look,
    SharedGroups,
)
from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.silences import Silences
from tests.analyzer.kafka_mode.test_deliveries import FIRING, PENDING, RESOLVED

OWNER = Owner("a", "http://127.0.0.1:1")
GROUP = replace(FIRING, id="b" * 16, name=MEMORY_LEAK_GROUP)


class World:
    """``now`` is the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.groups = Groups()
        self.shared = SharedGroups(self.groups, clock=lambda: self.now)

    def look(self, *offsets: int) -> None:
        self.shared.take(LOOKED, Look(FORM, OWNER, offsets).to_bytes())

    def waits(self, alert: Alert = FIRING) -> bool:
        return self.groups.waits(alert)


@pytest.fixture
def world() -> World:
    return World()


def test_a_leak_waits_for_a_comparison_that_saw_it_after_others_could_be_known(world: World) -> None:
    assert world.waits(), "it is not even known to be committed"
    world.shared.judged(FIRING.process, 1, 7, (FIRING,))
    assert world.shared.leaking
    world.now = SETTLE_SECONDS - 1
    world.look(0, 20)
    assert world.waits(), "it was too early"
    world.now = SETTLE_SECONDS
    world.look(100, 7)
    assert world.waits(), "it did not reach there"
    before = world.groups.version
    world.look(0, 8)
    assert world.groups.version > before, "outputs ask again"
    assert not world.waits()


def test_other_alerts_and_ends_do_not_wait(world: World) -> None:
    assert not world.waits(RESOLVED)
    assert not world.waits(replace(FIRING, name="memory_limit_near"))
    assert not world.waits(GROUP)


def test_a_new_episode_waits_anew(world: World) -> None:
    world.shared.judged(FIRING.process, 0, 3, (FIRING,))
    world.now = SETTLE_SECONDS
    world.look(10)
    assert not world.waits()
    again = replace(PENDING, starts_at=2000.0)
    assert world.waits(again)
    world.shared.judged(FIRING.process, 0, 12, (again,))
    world.now += SETTLE_SECONDS
    world.look(13)
    assert not world.waits(again)
    world.shared.judged(FIRING.process, 0, 14, (RESOLVED,))
    assert not world.shared.leaking


def test_nobody_waits_for_ever(world: World) -> None:
    assert world.waits()
    before = world.groups.version
    world.now = WAIT_SECONDS - 1
    world.shared.tick()
    assert world.waits()
    assert world.groups.version == before
    world.now = WAIT_SECONDS
    world.shared.tick()
    assert world.groups.version > before
    assert not world.waits()


def test_a_record_tells_whom_it_tells_of(world: World) -> None:
    record = GroupRecord(FORM, OWNER, GROUP, (FIRING.process,), None, {})
    assert GroupRecord.from_bytes(record.to_bytes()) == record
    assert world.shared.take(record.key, record.to_bytes()) == GROUP
    assert world.groups.covering(FIRING) == (GROUP.id,)
    assert world.shared.owner(GROUP.id) == OWNER
    over = replace(record, alert=replace(GROUP, state=AlertState.RESOLVED, ends_at=1200.0), members=())
    world.shared.take(record.key, over.to_bytes())
    assert world.groups.covering(FIRING) == ()
    world.shared.take(record.key, None)
    assert world.shared.owner(GROUP.id) is None


def test_what_is_no_group_is_passed(world: World) -> None:
    for value in (b"nothing", GroupRecord(99, OWNER, GROUP, (), None, {}).to_bytes()):
        assert world.shared.take(b"group:" + GROUP.id.encode(), value) is None
    world.shared.take(LOOKED, b"nothing")
    assert world.shared.owner(GROUP.id) is None


def test_outputs_wait_and_readers_do_not_say_so(world: World) -> None:
    silences = Silences()
    assert Held(silences, world.groups).silencing(FIRING) == ()
    assert HeldBack(silences, world.groups).silencing(FIRING) == ("to be compared with other instances",)
