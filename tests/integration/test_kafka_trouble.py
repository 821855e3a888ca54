"""What goes wrong around the analyzer in Kafka mode: poison, missing topics, no broker, a second of the same name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from otel_memory.analyzer.identity import identify
from tests.analyzer.made_up import MadeUp
from tests.harness import Kafka, PartFailed, free_port, wait_until
from tests.harness.process import clean_environment
from tests.harness.topics import TopicReader, create_topics
from tests.integration import kafka_world as world

pytestmark = [pytest.mark.needs("kafka"), pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    with Kafka() as broker:
        yield broker


def topics(*arguments: str) -> tuple[int, str]:
    """``otel-memory topics``: exit status and output."""
    argv = [sys.executable, "-m", "otel_memory", "topics", *arguments]
    done = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_poison_is_passed_told_and_buried(kafka: Kafka) -> None:
    world.make_topics(kafka, 1)
    create_topics(kafka.bootstrap, "dead")
    process = MadeUp("alive", begin=world.now_less(100))
    flags = ("--kafka-dead-letter-topic", "dead")
    with (
        world.analyzer(kafka, "a", *flags) as one,
        world.Fleet(kafka, [process], 1) as fleet,
        world.committed_reader(kafka) as reader,
    ):
        fleet.send(0)
        fleet.send_value(b"\xff\xff no protobuf")
        fleet.send_value(None, key=b"nothing")
        fleet.send(1)
        wait_until(lambda: world.caught_up(reader, [process], 1), timeout_seconds=60, what="what came after the poison")
        wait_until(lambda: len(reader.read("dead")) == 2, timeout_seconds=30, what="the dead letters")
        broken, empty = reader.read("dead")
        assert broken.value == b"\xff\xff no protobuf"
        headers = dict(broken.headers)
        assert (headers["topic"], headers["partition"], headers["offset"]) == (b"otlp_metrics", b"0", b"1")
        assert headers["error"]
        assert dict(empty.headers)["offset"] == b"2"
        assert world.metrics_of(one)['kafka_records_total{outcome="poison",topic="otlp_metrics"}'] == 2
        assert "otlp_metrics/0 offset 1 can't be decoded" in one.output()
        # A worker that replays it neither tells nor buries it again.
        one.kill()
        one.start()
        fleet.send(2)
        wait_until(lambda: world.caught_up(reader, [process], 2), timeout_seconds=60, what="the one after the restart")
        assert len(reader.read("dead")) == 2
        assert "can't be decoded" not in one.fresh_output()


def test_a_process_that_is_gone_for_long_gets_its_tombstone(kafka: Kafka) -> None:
    """The log's own time decides, so another process's records move it on."""
    world.make_topics(kafka, 1)
    first, second = (MadeUp(name, begin=world.now_less(100)) for name in ("first", "second"))
    info = identify(first.payload(0).resource)
    assert info is not None
    with world.analyzer(kafka, "a", "--idle-seconds", "2") as one, world.committed_reader(kafka) as reader:
        with world.Fleet(kafka, [first], 1) as fleet:
            fleet.send(0)
        with world.Fleet(kafka, [second], 1) as fleet:

            def said_to_be_gone() -> bool:
                fleet.send(fleet.sent)
                latest = world.told(reader).latest
                return info.id in latest and latest[info.id].state.gone

            wait_until(said_to_be_gone, timeout_seconds=60, what="the end of the first", every=0.5)
        wait_until(
            lambda: "taken for gone" in one.get(f"/api/v1/processes/{info.id}")["reasons"][0], what="it on the page"
        )


def test_topics_are_made_checked_and_asked_for(kafka: Kafka) -> None:
    brokers = ("--kafka-bootstrap", kafka.bootstrap)
    status, text = topics("check", *brokers)
    assert status == 1
    assert "otlp_metrics, otlp_logs, memory-alerts, memory-assessments: not there" in text
    with pytest.raises(PartFailed, match="memory-assessments: not there"):
        world.analyzer(kafka, "a").start()
    status, text = topics("create", *brokers, "--partitions", "3")
    assert (status, "made memory-assessments" in text) == (0, True), text
    assert topics("check", *brokers) == (0, "the topics are as they should be\n")
    create_topics(kafka.bootstrap, "not-compacted")
    status, text = topics("check", *brokers, "--kafka-assessments-topic", "not-compacted")
    assert (status, "not-compacted: cleanup.policy=delete" in text) == (1, True), text
    create_topics(kafka.bootstrap, "wide-logs", partitions=5)
    status, text = topics("check", *brokers, "--kafka-logs-topic", "wide-logs")
    assert (status, "otlp_metrics has 3 and wide-logs has 5 partitions" in text) == (1, True), text


def test_without_a_broker_it_says_so() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    status, text = topics("check", "--kafka-bootstrap", nowhere)
    assert (status, nowhere in text) == (2, True), text


def test_of_two_with_one_name_the_first_gives_way(kafka: Kafka) -> None:
    world.make_topics(kafka, 2)
    with world.analyzer(kafka, "same") as first:
        wait_until(lambda: world.has_partitions(first, 2), timeout_seconds=60, what="its part")
        with world.analyzer(kafka, "same") as second:
            wait_until(lambda: world.has_partitions(second, 2), timeout_seconds=60, what="the second's part")
            wait_until(
                lambda: "--kafka-instance" in json.dumps(first.get("/api/v1/summary")["health"]["problems"]),
                timeout_seconds=60,
                what="the first to know",
            )


def test_the_broker_comes_back(kafka: Kafka) -> None:
    """While it is away the analyzer stays, and goes on where it was."""
    world.make_topics(kafka, 2)
    processes = world.fleet_of(2, world.now_less(100))
    with world.analyzer(kafka, "a") as one:
        with world.Fleet(kafka, processes, 2) as fleet:
            fleet.send(0)
        with world.committed_reader(kafka) as reader:
            wait_until(lambda: world.caught_up(reader, processes, 0), timeout_seconds=60, what="the first samples")
        kafka.kill()
        kafka.start()
        with world.Fleet(kafka, processes, 2) as fleet:
            fleet.send(1)
        with TopicReader(kafka.bootstrap, isolation_level="read_committed") as reader:
            wait_until(lambda: world.caught_up(reader, processes, 1), timeout_seconds=120, what="the samples after")
        assert one.running
