"""Groups of instances in Kafka mode: one alert for all of them, whoever judges which of them and dies meanwhile."""

from __future__ import annotations

import time
from typing import Any

import pytest

from otel_memory.analyzer.kafka.shared_groups import LOOKED, GroupRecord
from otel_memory.analyzer.model import AlertState
from tests.analyzer.made_up import MIB
from tests.harness import Analyzer, Kafka, wait_until
from tests.harness.topics import TopicReader
from tests.integration import kafka_world as world
from tests.integration.alerting_world import Hook

pytestmark = [pytest.mark.needs("kafka"), pytest.mark.slow, pytest.mark.timeout(400)]

PARTITIONS = 6
INSTANCES = 15
"""Of each of two versions."""
SPACING_SECONDS = 2.0


def instances(begin: float) -> list[world.Plain]:
    """Both versions are in every partition."""
    return [
        world.Plain(
            instance=f"shop-{version}-{number}",
            version=version,
            begin=begin,
            spacing=SPACING_SECONDS,
            leak_per_call=kept,
            limit=8192 * MIB,
        )
        for version, kept in (("2.4.0", 0), ("2.4.1", 300_000))
        for number in range(INSTANCES)
    ]


def of_groups(reader: TopicReader) -> list[tuple[str, AlertState]]:
    """The changes of groups' alerts in the topic."""
    found = [alert.data.alert for alert in world.told(reader).alerts]
    return [(one.id, one.state) for one in found if one.name == "memory_leak_group"]


def told(hook: Hook) -> set[tuple[str, str, str]]:
    """Name, state and id of the changes that were posted."""
    return {
        (alert["name"], alert["state"], alert["change_id"]) for message in hook.messages for alert in message["alerts"]
    }


def who_decides(reader: TopicReader) -> str:
    """The name of the analyzer that wrote the group's alert last."""
    records = [each for each in reader.read(world.ASSESSMENTS) if (each.key or b"").startswith(b"group:")]
    return GroupRecord.from_bytes([each.value for each in records if each.key != LOOKED][-1]).owner.instance


def firing(one: Analyzer, name: str) -> list[dict[str, Any]]:
    return [alert for alert in one.get("/api/v1/alerts?state=firing")["items"] if alert["name"] == name]


def test_a_version_that_leaks_is_one_alert_though_who_decides_is_killed() -> None:
    with Kafka() as kafka, Hook() as hook:
        world.make_topics(kafka, PARTITIONS)
        flags = ("--webhook-urls", hook.url, "--webhook-group-seconds", "0")
        fleet_of = instances(world.now_less(3000))
        with (
            world.analyzer(kafka, "a", *flags) as first,
            world.analyzer(kafka, "b", *flags) as second,
            world.analyzer(kafka, "c", *flags) as third,
            world.Fleet(kafka, fleet_of, PARTITIONS) as fleet,
            world.committed_reader(kafka) as reader,
        ):
            everyone = {"a": first, "b": second, "c": third}
            for one in everyone.values():
                wait_until(lambda one=one: world.has_partitions(one, 2), timeout_seconds=90, what="its part")  # type: ignore[misc]
            index = 0

            def sent_until(seen: Any, what: str) -> None:
                nonlocal index
                deadline = time.monotonic() + 120
                while not seen():
                    assert time.monotonic() < deadline, what
                    fleet.send(index)
                    index += 1
                    time.sleep(0.1)

            sent_until(lambda: of_groups(reader), "the group's alert")
            name = who_decides(reader)
            killed = everyone.pop(name)
            killed.kill()
            sent_until(lambda: who_decides(reader) != name, "another one that decides")
            sent_until(lambda: told(hook), "the group's alert at the webhook")
            killed.start()
            sent_until(lambda: world.has_partitions(killed, 2), "the return")
            for _ in range(20):
                fleet.send(index)
                index += 1
            with world.committed_reader(kafka) as last:
                wait_until(lambda: world.caught_up(last, fleet_of, index - 1), timeout_seconds=90, what="all judged")
            for one in (killed, *everyone.values()):
                wait_until(
                    lambda one=one: len(firing(one, "memory_leak")) == INSTANCES,  # type: ignore[misc]
                    timeout_seconds=30,
                    what="an alert for each instance",
                )
                (group,) = firing(one, "memory_leak_group")
                assert all(leak["silenced_by"] == [group["id"]] for leak in firing(one, "memory_leak"))
        with world.committed_reader(kafka) as last:
            changes = of_groups(last)
            assert world.forms_in(last) == {"AssessmentRecord", "GroupRecord", "Look"}
            (fired,) = [
                alert.data.alert
                for alert in world.told(last).alerts
                if alert.data.alert.name == "memory_leak_group" and alert.data.alert.state is AlertState.FIRING
            ]
        assert [state for _, state in changes] == [AlertState.PENDING, AlertState.FIRING]
        assert {alert for alert, _ in changes} == {group["id"]}
        assert fired.labels["service_version"] == "2.4.1"
        assert f"all {INSTANCES} instances of version 2.4.1 leak" in fired.summary
        # Delivered again where it was not noted before the kill: with the same id.
        assert len(told(hook)) == 1


def test_what_an_output_has_not_got_is_told_by_the_next_owner() -> None:
    """One is killed between the commit and the delivery: the other one tells, and of what was delivered nothing."""
    status = 200
    taken: list[int] = []

    def answer(count: int) -> int:
        if status == 200:
            taken.append(count - 1)
        return status

    with Kafka() as kafka, Hook(answer) as hook:
        world.make_topics(kafka, 1)
        begin = world.now_less(3000)
        early, late = (
            world.Plain(name, service=name, begin=begin, leak_per_call=300_000, limit=8192 * MIB)
            for name in ("early", "late")
        )
        flags = ("--webhook-urls", hook.url, "--webhook-group-seconds", "0")
        with (
            world.analyzer(kafka, "a", *flags) as first,
            world.committed_reader(kafka) as reader,
        ):

            def fired(service: str) -> bool:
                return any(
                    alert.data.alert.state is AlertState.FIRING and alert.data.alert.labels["service_name"] == service
                    for alert in world.told(reader).alerts
                )

            def noted(service: str) -> bool:
                return any(
                    record.state.told and record.assessment.process.service_name == service
                    for record in world.told(reader).latest.values()
                )

            with world.Fleet(kafka, [early], 1) as fleet:
                _send_until(fleet, lambda: fired("early"))

            def delivered() -> list[tuple[str, str]]:
                messages = [hook.messages[number] for number in list(taken)]
                alerts = [alert for message in messages for alert in message["alerts"]]
                return [(alert["labels"]["service_name"], alert["state"]) for alert in alerts]

            wait_until(delivered, timeout_seconds=60, what="the delivery")
            wait_until(lambda: noted("early"), timeout_seconds=60, what="the note of it in the log")
            status = 503
            with world.Fleet(kafka, [late], 1) as fleet:
                _send_until(fleet, lambda: fired("late"))
            first.kill()
            status = 200
            with world.analyzer(kafka, "b", *flags) as second:
                wait_until(lambda: world.has_partitions(second), timeout_seconds=90, what="the takeover")
                wait_until(lambda: len(delivered()) > 1, timeout_seconds=60, what="what was owed")
                leaks = second.get("/api/v1/alerts?state=firing")["items"]
                assert {one["labels"]["service_name"] for one in leaks} == {"early", "late"}
            assert delivered() == [("early", "firing"), ("late", "firing")]


def _send_until(fleet: world.Fleet, seen: Any) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert time.monotonic() < deadline, "it did not come true in time"
        fleet.send(fleet.sent)
        time.sleep(0.05)
