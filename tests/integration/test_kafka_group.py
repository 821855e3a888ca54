"""Analyzers in a consumer group, on a real broker: records in, alerts and assessments out, each once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.model import AlertState
from tests.harness import Kafka, Program, fetch_json, wait_until
from tests.integration import kafka_world as world

pytestmark = [pytest.mark.needs("kafka"), pytest.mark.slow, pytest.mark.timeout(400)]

APPLICATION = """\
import time

kept = []
print("begins", flush=True)
while True:
    kept.append(b"x" * 4_000_000)
    time.sleep(0.1)
"""


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    with Kafka() as broker:
        yield broker


def test_from_an_application_to_the_topic_of_alerts(kafka: Kafka, tmp_path: Path) -> None:
    """The probe's own exporter writes, the analyzer reads, a third reads the alert."""
    (tmp_path / "app.py").write_text(APPLICATION)
    env = {
        "OTEL_SERVICE_NAME": "leaker",
        "OTEL_METRICS_EXPORTER": "otlp_kafka",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_PYTHON_MEMORY_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "OTEL_PYTHON_MEMORY_INTERVAL": "500",
        "OTEL_PYTHON_MEMORY_LIMIT": "64GiB",
        "OTEL_PYTHON_MEMORY_EVENTS": "kafka",
        "OTEL_PYTHON_MEMORY_THRESHOLDS": "big = rss > 200MB : warning",
    }
    flags = ("--kafka-create-topics", "--alert-for-seconds", "1")
    instrument = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    with (
        world.analyzer(kafka, "only", *flags) as one,
        Program([instrument, sys.executable, "app.py"], env=env, cwd=tmp_path),
        world.committed_reader(kafka) as reader,
    ):

        def fired() -> bool:
            return any(alert.data.alert.state is AlertState.FIRING for alert in world.told(reader).alerts)

        wait_until(fired, timeout_seconds=240, what="the alert in the topic", every=0.5)
        told = world.told(reader)
        (process,) = one.get("/api/v1/processes")["items"]
        assert process["service_name"] == "leaker"
        assert process["verdict"] == "leaking"
        assert {alert.subject for alert in told.alerts} == {process["id"]}
        (alert,) = one.get("/api/v1/alerts?state=firing")["items"]
        assert alert["id"] == told.alerts[0].data.alert.id
        assert told.latest[process["id"]].owner.instance == "only"
        assert told.latest[process["id"]].owner.url == one.url
        times = one.get(f"/api/v1/processes/{process['id']}/series?metric=memory")["times"]
        assert len(times) > 5
        # The events went over the topic of logs.
        events = wait_until(lambda: one.get(f"/api/v1/processes/{process['id']}")["events"], what="an event")
        assert events[0]["name"].startswith("otel_memory.")


def test_two_share_the_work_and_each_shows_all_of_it(kafka: Kafka) -> None:
    """A chart opens from the worker that has no part in it, until its owner is gone."""
    partitions = 4
    world.make_topics(kafka, partitions)
    processes = world.fleet_of(8, world.now_less(200))
    with (
        world.analyzer(kafka, "a") as first,
        world.analyzer(kafka, "b") as second,
        world.Fleet(kafka, processes, partitions) as fleet,
    ):
        for one in (first, second):
            wait_until(lambda one=one: world.has_partitions(one, 2), timeout_seconds=60, what="its part")  # type: ignore[misc]
        for index in range(40):
            fleet.send(index)
        everybody = {info.id for process in processes if (info := identify(process.payload(0).resource)) is not None}
        for one in (first, second):
            wait_until(
                lambda one=one: (  # type: ignore[misc]
                    {item["id"] for item in one.get("/api/v1/processes")["items"]} == everybody
                ),
                timeout_seconds=60,
                what="the whole fleet",
            )
        with world.committed_reader(kafka) as reader:
            wait_until(lambda: world.caught_up(reader, processes, 39), timeout_seconds=60, what="all judged")
            owners = {key: record.owner.instance for key, record in world.told(reader).latest.items()}
        assert set(owners.values()) == {"a", "b"}
        its = next(key for key, owner in owners.items() if owner == "b")
        chart = wait_until(
            lambda: _whole_chart(first, its), timeout_seconds=30, what="the chart of the other's process"
        )
        assert len(chart) == 40
        assert world.metrics_of(first)['kafka_forwarded_reads_total{outcome="answered"}'] >= 1
        second.kill()
        with pytest.raises(OSError, match="503"):
            fetch_json(f"{first.url}/api/v1/processes/{its}/series?metric=memory")
        # What the assessment says is known here, too.
        assert first.get(f"/api/v1/processes/{its}")["id"] == its


def _whole_chart(one: world.Analyzer, process_id: str) -> list[str] | None:
    times: list[str] = one.get(f"/api/v1/processes/{process_id}/series?metric=memory")["times"]
    return times if len(times) >= 40 else None


def test_what_is_killed_is_taken_over_without_a_trace(kafka: Kafka) -> None:
    """A kill -9, a takeover by replay, and the killed one's return: as if there had been one, undisturbed."""
    partitions = 4
    world.make_topics(kafka, partitions)
    processes = world.fleet_of(8, world.now_less(400))
    with (
        world.analyzer(kafka, "a") as first,
        world.analyzer(kafka, "b") as second,
        world.Fleet(kafka, processes, partitions) as fleet,
        world.committed_reader(kafka) as reader,
    ):
        wait_until(lambda: world.has_partitions(first, 2), timeout_seconds=60, what="a's part")
        for index in range(70):
            fleet.send(index)
            if index == 30:

                def both_have_judged() -> bool:
                    return {record.owner.instance for record in world.told(reader).latest.values()} == {"a", "b"}

                wait_until(both_have_judged, timeout_seconds=60, what="judgements of both")
                second.kill()
        wait_until(lambda: world.has_partitions(first, 4), timeout_seconds=60, what="the takeover")
        wait_until(lambda: world.caught_up(reader, processes, 69), timeout_seconds=90, what="all judged by one")
        assert world.metrics_of(first)["kafka_replays_total"] >= 1
        second.start()
        wait_until(lambda: world.has_partitions(second, 2), timeout_seconds=60, what="the return")
        for index in range(70, 110):
            fleet.send(index)
        wait_until(lambda: world.caught_up(reader, processes, 109), timeout_seconds=90, what="all judged by two")
        told = world.told_in_all(kafka)
        assert {record.owner.instance for record in told.latest.values()} == {"a", "b"}
    reference = world.referee(kafka, processes, 109)
    assert any(alert.data.alert.state is AlertState.FIRING for alert in reference.alerts)
    world.assert_same(told, reference)
