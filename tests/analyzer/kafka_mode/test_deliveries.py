"""What outputs have got, and what a worker that takes over owes them."""

from __future__ import annotations

from dataclasses import replace

from otel_memory.analyzer.kafka.deliveries import Deliveries, changes_of
from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.outputs.base import change_id

PENDING = Alert(
    id="a" * 16,
    name="memory_leak",
    severity="warning",
    state=AlertState.PENDING,
    process="p" * 16,
    starts_at=1000.25,
    ends_at=None,
    summary="",
    description="",
)
FIRING = replace(PENDING, state=AlertState.FIRING, fired_at=1010.5)
RESOLVED = replace(FIRING, state=AlertState.RESOLVED, ends_at=1100.125)
IDS = [change_id(PENDING, 1000.25), change_id(FIRING, 1010.5), change_id(RESOLVED, 1100.125)]
OUTPUTS = ("console", "webhook")


def owed(deliveries: Deliveries, alert: Alert, since: float = 0.0) -> list[tuple[str, tuple[str, ...]]]:
    return [(change.id, outputs) for change, outputs in deliveries.owed(alert, None, OUTPUTS, since)]


def test_an_alert_says_which_changes_it_went_through() -> None:
    for alert, count in ((PENDING, 1), (FIRING, 2), (RESOLVED, 3)):
        changes = changes_of(alert)
        assert [change.id for change in changes] == IDS[:count]
        assert changes[-1].alert == alert
    never_fired = replace(PENDING, state=AlertState.RESOLVED, ends_at=1005.0)
    assert [change.alert.state for change in changes_of(never_fired)] == [AlertState.PENDING, AlertState.RESOLVED]


def test_what_nobody_has_got_is_owed_to_all_in_order() -> None:
    deliveries = Deliveries()
    deliveries.resume(RESOLVED.process, {}, (RESOLVED,))
    assert owed(deliveries, RESOLVED) == [(each, OUTPUTS) for each in IDS]
    assert owed(deliveries, RESOLVED, since=1050.0) == [(IDS[2], OUTPUTS)]


def test_each_output_is_owed_what_came_after_its_last() -> None:
    deliveries = Deliveries()
    deliveries.note(RESOLVED.process, "memory_leak", "console", IDS[2])
    deliveries.note(RESOLVED.process, "memory_leak", "webhook", IDS[0])
    kept = deliveries.of(RESOLVED.process)
    after = Deliveries()
    after.resume(RESOLVED.process, kept, (RESOLVED,))
    assert owed(after, RESOLVED) == [(IDS[1], ("webhook",)), (IDS[2], ("webhook",))]
    after.forget(RESOLVED.process)
    assert after.of(RESOLVED.process) == {}


def test_what_was_told_of_an_earlier_episode_says_nothing_of_this_one() -> None:
    deliveries = Deliveries()
    for output in OUTPUTS:
        deliveries.note(FIRING.process, "memory_leak", output, change_id(RESOLVED, 900.0))
    assert owed(deliveries, FIRING) == [(IDS[0], OUTPUTS), (IDS[1], OUTPUTS)]


def test_what_was_kept_by_nobody_is_taken_for_told() -> None:
    deliveries = Deliveries()
    deliveries.resume(FIRING.process, None, (FIRING,))
    assert owed(deliveries, FIRING) == []
    after = Deliveries()
    after.resume(FIRING.process, deliveries.of(FIRING.process), (FIRING,))
    assert owed(after, FIRING) == []
    assert owed(after, RESOLVED) == [(IDS[2], OUTPUTS)]
    after.note(FIRING.process, "memory_limit_near", "webhook", "another")
    assert owed(after, RESOLVED) == [(IDS[2], OUTPUTS)]
