"""Who decides on groups of instances: when, what is written of it, and what the next one goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from otel_memory.analyzer.alerting import AlertingSettings
from otel_memory.analyzer.fleet_alerts import Groups
from otel_memory.analyzer.kafka.fleet import Fleet
from otel_memory.analyzer.kafka.leader import FORGET_SECONDS, Leader
from otel_memory.analyzer.kafka.owned import Owned
from otel_memory.analyzer.kafka.records import Owner
from otel_memory.analyzer.kafka.shared_groups import LOOK, LOOKED, GroupRecord, SharedGroups
from otel_memory.analyzer.model import AlertState, Assessment
from otel_memory.analyzer.view import View
from tests.analyzer.kafka_mode.test_deliveries import FIRING
from tests.analyzer.kafka_mode.world import new_partition
from tests.analyzer.test_fleet import HOUR
from tests.analyzer.test_fleet_alerts import fleet

AT = 10 * HOUR
SETTINGS = AlertingSettings(for_seconds=10.0, healthy_seconds=30.0)
PENDING, FIRES, RESOLVED = AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED


@dataclass
class Log:
    """What is committed: records of groups, changes of alerts, and how far instances were compared."""

    groups: dict[bytes, GroupRecord]
    states: list[AlertState]
    looked: tuple[int, ...] = ()
    buried: int = 0


class Member:
    """One that has the partition of the one who decides."""

    def __init__(self, name: str, log: Log) -> None:
        self.log = log
        self.view = View()
        self.fleet = SimpleNamespace(problem=None)
        self.shared = SharedGroups(Groups())
        owner = Owner(name, f"http://{name}:1")
        self.leader = Leader(cast(Fleet, self.fleet), self.shared, self.view, owner, SETTINGS)
        self.leader.take_over(log.groups.values())
        self.owned = Owned(new_partition(name), 0, 0, 0, None, None)
        self.clock = 0.0

    def see(self, assessments: list[Assessment]) -> None:
        """The fleet is as it says, and it is time to compare."""
        self.view.publish(assessments)
        self.clock += 60.0
        self.leader.lead(self.owned, self.clock)

    def commit(self) -> None:
        for key, value in self.owned.shared.items():
            if key == LOOKED:
                self.log.looked = LOOK.validate_json(cast(Any, value)).offsets
            elif value is None:
                del self.log.groups[key]
                self.log.buried += 1
            else:
                self.log.groups[key] = GroupRecord.from_bytes(value)
        self.log.states += [change.alert.state for change in self.owned.outcome.turn.changes]
        self.owned.shared = {}
        self.owned.outcome.turn.changes.clear()


@pytest.fixture
def log() -> Log:
    return Log({}, [])


def test_a_group_is_decided_once_by_whoever_is_there(log: Log) -> None:
    first = Member("a", log)
    first.see(fleet(AT))
    first.commit()
    (record,) = log.groups.values()
    assert (record.owner.instance, len(record.members), log.states) == ("a", 15, [PENDING])
    # Killed with what was not committed.
    first.see(fleet(AT + 11))
    second = Member("b", log)
    second.see(fleet(AT + 12))
    second.commit()
    assert log.states == [PENDING, FIRES]
    (after,) = log.groups.values()
    assert (after.owner.instance, after.alert.id, after.alert.fired_at) == ("b", record.alert.id, AT + 12)
    third = Member("c", log)
    third.see(fleet(AT + 20))
    third.commit()
    third.see(fleet(AT + 30, leaking=0))
    third.commit()
    assert log.states == [PENDING, FIRES]
    fourth = Member("d", log)
    fourth.see(fleet(AT + 61, leaking=0))
    fourth.commit()
    assert log.states == [PENDING, FIRES, RESOLVED]
    assert [record.members for record in log.groups.values()] == [()]


def test_the_cooldown_outlives_who_decided(log: Log) -> None:
    first = Member("a", log)
    for at, leaking in ((AT, 15), (AT + 11, 15), (AT + 20, 0), (AT + 60, 0)):
        first.see(fleet(at, leaking))
        first.commit()
    assert log.states == [PENDING, FIRES, RESOLVED]
    second = Member("b", log)
    second.see(fleet(AT + 100))
    second.commit()
    assert len(log.states) == 3
    second.see(fleet(AT + 61 + SETTINGS.cooldown_seconds))
    second.commit()
    assert log.states[3:] == [PENDING]


def test_what_is_long_over_gets_its_tombstone(log: Log) -> None:
    one = Member("a", log)
    for at, leaking in ((AT, 15), (AT + 11, 15), (AT + 20, 0), (AT + 60, 0), (AT + 100 + FORGET_SECONDS, 0)):
        one.see(fleet(at, leaking))
        one.commit()
    assert (log.groups, log.buried) == ({}, 1)


def test_nothing_is_decided_before_the_whole_fleet_is_known(log: Log) -> None:
    one = Member("a", log)
    one.fleet.problem = "has not read the assessments yet"
    one.see(fleet(AT))
    assert (one.owned.shared, one.owned.outcome.turn.changes) == ({}, [])


def test_it_says_how_far_it_looked_while_anything_leaks(log: Log) -> None:
    one = Member("a", log)
    one.shared.read_up_to(2, 7)
    one.see(fleet(AT, leaking=0))
    assert LOOKED not in one.owned.shared
    one.shared.judged(FIRING.process, 2, 6, (FIRING,))
    one.see(fleet(AT, leaking=0))
    one.commit()
    assert log.looked == (0, 0, 7)


def test_what_outputs_have_got_is_known_to_the_next_one(log: Log) -> None:
    first = Member("a", log)
    first.see(fleet(AT))
    (pending,) = first.owned.outcome.turn.changes
    first.commit()
    first.leader.told(pending.alert, "console", pending.id)
    first.see(fleet(AT + 11))
    first.commit()
    second = Member("b", log)
    second.see(fleet(AT + 12))
    owed = [(change.alert.state, outputs) for change, outputs in second.leader.owed(("console", "webhook"))]
    assert owed == [(PENDING, ("webhook",)), (FIRES, ("console", "webhook"))]
    assert second.leader.let_go() == {pending.alert.id}
    assert list(second.leader.owed(("console",))) == []
