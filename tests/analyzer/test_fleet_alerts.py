"""One alert for a group of instances, and who is told of in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from otel_memory.analyzer.alerting import MEMORY_LEAK, AlertingSettings
from otel_memory.analyzer.fleet_alerts import MAX_LISTED, MEMORY_LEAK_GROUP, FleetAlerting, Groups, Held
from otel_memory.analyzer.matching import Matcher
from otel_memory.analyzer.model import Alert, AlertState, Assessment, Verdict
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.silences import Silences
from tests.analyzer.test_fleet import HOUR, instance

SETTINGS = AlertingSettings(for_seconds=10.0, healthy_seconds=30.0, cooldown_seconds=300.0)


def fleet(at: float, leaking: int = 15, verdict: Verdict = Verdict.LEAKING) -> list[Assessment]:
    """Fifteen instances of 2.4.0 and as many of 2.4.1, of which ``leaking`` do."""
    old = [instance(n, version="2.4.0", last_seen=at) for n in range(15)]
    new = [
        instance(n, verdict if n < 15 + leaking else Verdict.HEALTHY, version="2.4.1", started=HOUR, last_seen=at)
        for n in range(15, 30)
    ]
    return [*old, *new]


def told(changes: list[AlertChange]) -> list[tuple[str, AlertState]]:
    return [(change.alert.name, change.alert.state) for change in changes]


def leak_of(assessment: Assessment) -> Alert:
    return Alert(
        id="a" * 16,
        name=MEMORY_LEAK,
        severity="warning",
        state=AlertState.FIRING,
        process=assessment.process.id,
        starts_at=0.0,
        ends_at=None,
        summary="",
        description="",
        labels={"service_name": assessment.process.service_name},
    )


def test_a_group_is_pending_fires_and_ends_as_one_alert() -> None:
    groups = Groups()
    alerting = FleetAlerting(SETTINGS, groups)
    at = 10 * HOUR
    (begun,) = alerting.step(fleet(at))
    assert told([begun]) == [(MEMORY_LEAK_GROUP, AlertState.PENDING)]
    assert alerting.step(fleet(at + 5)) == []
    (fired,) = alerting.step(fleet(at + 10))
    assert (fired.alert.state, fired.alert.id, fired.alert.fired_at) == (AlertState.FIRING, begun.alert.id, at + 10)
    assert "all 15 instances of version 2.4.1 leak and none of the 15 others" in fired.alert.summary
    assert fired.alert.labels == {
        "alertname": MEMORY_LEAK_GROUP,
        "severity": "warning",
        "service_name": "shop",
        "service_version": "2.4.1",
    }
    assert fired.alert.annotations["instance_count"] == "15"
    assert alerting.step(fleet(at + 20, leaking=0)) == []
    assert alerting.step(fleet(at + 40, leaking=0)) == []
    (ended,) = alerting.step(fleet(at + 50, leaking=0))
    assert (ended.alert.state, ended.alert.ends_at, ended.alert.id) == (AlertState.RESOLVED, at + 50, begun.alert.id)
    assert alerting.active == ()
    assert alerting.step(fleet(at + 60)) == []
    assert told(alerting.step(fleet(at + 50 + 300))) == [(MEMORY_LEAK_GROUP, AlertState.PENDING)]


def test_its_instances_are_told_of_in_it_while_it_lasts() -> None:
    groups = Groups()
    heard: list[int] = []
    groups.listen(lambda: heard.append(groups.version))
    alerting = FleetAlerting(SETTINGS, groups)
    at = 10 * HOUR
    (begun,) = alerting.step(fleet(at))
    inside, outside = leak_of(fleet(at)[20]), leak_of(fleet(at)[3])
    assert groups.covering(inside) == (begun.alert.id,)
    assert groups.covering(outside) == ()
    assert groups.covering(replace(inside, name="memory_limit_near")) == ()
    alerting.step(fleet(at + 1))
    assert heard == [1]
    alerting.step(fleet(at + 2, leaking=0))
    assert groups.covering(inside) == (begun.alert.id,)
    alerting.step(fleet(at + 40, leaking=0))
    assert groups.covering(inside) == ()
    assert heard == [1, 2]


def test_a_short_doubt_ends_nothing() -> None:
    alerting = FleetAlerting(SETTINGS)
    at = 10 * HOUR
    alerting.step(fleet(at))
    assert alerting.step(fleet(at + 5, leaking=0)) == []
    assert told(alerting.step(fleet(at + 30))) == [(MEMORY_LEAK_GROUP, AlertState.FIRING)]
    assert alerting.step(fleet(at + 40, leaking=0)) == []
    assert alerting.step(fleet(at + 45)) == []
    assert alerting.step(fleet(at + 80, leaking=0)) == []


def test_its_identity_stays_and_its_figures_go_on() -> None:
    alerting = FleetAlerting(SETTINGS)
    at = 10 * HOUR
    alerting.step(fleet(at, leaking=13))
    before = alerting.active[0]
    alerting.step(fleet(at + 20, leaking=15))
    (after,) = alerting.active
    assert (after.id, after.labels, after.process, after.starts_at) == (
        before.id,
        before.labels,
        before.process,
        before.starts_at,
    )
    assert (before.annotations["instance_count"], after.annotations["instance_count"]) == ("13", "15")


def test_it_ends_when_nothing_is_known_of_the_service_any_more() -> None:
    alerting = FleetAlerting(SETTINGS)
    alerting.step(fleet(10 * HOUR))
    assert told(alerting.step([])) == [(MEMORY_LEAK_GROUP, AlertState.RESOLVED)]


def test_one_of_many_and_few_of_few_are_no_group() -> None:
    alerting = FleetAlerting(SETTINGS)
    at = 10 * HOUR
    assert alerting.step(fleet(at, leaking=1)) == []
    assert alerting.step([instance(0, Verdict.LEAKING), instance(1, Verdict.LEAKING)]) == []


def test_after_a_restart_it_goes_on() -> None:
    alerting = FleetAlerting(SETTINGS)
    at = 10 * HOUR
    alerting.step(fleet(at))
    alerting.step(fleet(at + 10))
    kept = [*alerting.active, leak_of(fleet(at)[20])]
    groups = Groups()
    again = FleetAlerting(SETTINGS, groups)
    again.resume(kept)
    assert groups.covering(leak_of(fleet(at)[20])) == (kept[0].id,)
    assert again.step(fleet(at + 20)) == []
    assert again.active[0].starts_at == at
    assert told(again.step([])) == [(MEMORY_LEAK_GROUP, AlertState.RESOLVED)]


def test_the_instances_are_listed_up_to_a_bound() -> None:
    many = [instance(n, Verdict.LEAKING, started=n * 60.0) for n in range(300)]
    alerting = FleetAlerting(SETTINGS)
    (begun,) = alerting.step(many)
    assert f"and {300 - MAX_LISTED} more" in begun.alert.description
    assert begun.alert.annotations["instance_count"] == "300"
    assert len(begun.alert.annotations["instances"].split(",")) == 200


def test_the_order_in_which_instances_come_changes_nothing() -> None:
    at = 10 * HOUR
    one, other = FleetAlerting(SETTINGS), FleetAlerting(SETTINGS)
    assert one.step(fleet(at)) == other.step(fleet(at)[::-1])


@pytest.mark.parametrize("silenced", [False, True])
def test_silences_and_groups_hold_back_together(tmp_path: Path, silenced: bool) -> None:
    silences, groups = Silences(clock=lambda: 100.0), Groups()
    held = Held(silences, groups)
    alert = leak_of(instance(20))
    before = held.version
    groups.assign({alert.process: "b" * 16})
    ids = ["b" * 16]
    if silenced:
        ids.insert(0, silences.add([Matcher("service_name", "shop")], ends_at=200.0).id)
    assert held.silencing(alert) == tuple(ids)
    assert held.version > before
