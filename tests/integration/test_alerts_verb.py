"""`otel-memory alerts` as a process of its own: live over server-sent events and over a real Kafka topic."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer  # type: ignore[import-untyped]
from kafka.admin import KafkaAdminClient, NewTopic  # type: ignore[import-untyped]

from otel_memory.analyzer.kafka.records import MemoryAlert
from otel_memory.analyzer.model import AlertState
from otel_memory.analyzer.outputs.base import AlertChange, change_id
from tests.analyzer.store_samples import T0, alert, assessment
from tests.harness import Analyzer, Kafka, Program, wait_until
from tests.integration.alerting_world import Feeder, alerts, firing, silence
from tests.integration.test_clients_live import command

pytestmark = pytest.mark.timeout(240)

PATIENCE = 60.0


def follower(*arguments: str) -> Program:
    argv = [sys.executable, "-m", "otel_memory", "alerts", "--follow", "--json", *arguments]
    return Program(argv, cwd=Path(__file__).parents[2], name="alerts")


def told(program: Program) -> list[tuple[str, str]]:
    """(id, state) of each change that it has printed."""
    lines = [json.loads(line) for line in program.output().splitlines() if line.startswith("{")]
    return [(line["id"], line["state"]) for line in lines]


def states(program: Program) -> Callable[[], list[str]]:
    return lambda: [state for _, state in told(program)]


def test_changes_come_live_once_and_over_a_kill_of_the_analyzer(tmp_path: Path) -> None:
    with Analyzer("--no-console", "--idle-seconds", "20", data_dir=tmp_path / "data") as analyzer:
        assert command("alerts", "--url", analyzer.url).stdout == "No alert is firing.\n"
        with follower("--url", analyzer.url) as all_of_it, follower("--url", analyzer.url, "--service", "x*") as none:
            feeder = Feeder(analyzer)
            feeder.send_until(firing(analyzer))
            wait_until(lambda: states(all_of_it)() == ["pending", "firing"], timeout_seconds=PATIENCE)
            (one,) = alerts(analyzer)
            feeder.send(20)
            listed = command("alerts", "--url", analyzer.url, "--severity", one["severity"])
            assert listed.returncode == 1
            assert f"FIRING {one['severity']} memory_leak: {one['summary'].split(' leaks')[0]}" in listed.stdout
            silence(analyzer, service_name="shop")
            assert "| silenced" in command("alerts", "--url", analyzer.url).stdout

            analyzer.kill()
            wait_until(lambda: "trying again" in all_of_it.output(), timeout_seconds=PATIENCE)
            analyzer.start()
            wait_until(lambda: alerts(analyzer, "resolved"), timeout_seconds=PATIENCE, what="taken for gone")
            wait_until(lambda: "resolved" in states(all_of_it)(), timeout_seconds=PATIENCE, what="its end")
            assert told(all_of_it) == [(one["id"], state) for state in ("pending", "firing", "resolved")]
            assert told(none) == []
        gone = command("alerts", "--url", analyzer.url)
        assert (gone.returncode, gone.stdout) == (0, "No alert is firing.\n")
        over = command("alerts", "--url", analyzer.url, "--all", "--json")
        assert [item["state"] for item in json.loads(over.stdout)["items"]] == ["resolved"]


def test_without_an_analyzer_or_a_broker_it_says_how_to_mend_that() -> None:
    nobody = command("alerts", "--follow", "--url", "http://127.0.0.1:9")
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "otel-memory serve" in nobody.stderr
    broker = command("alerts", "--kafka-bootstrap", "127.0.0.1:9")
    assert (broker.returncode, broker.stdout) == (2, "")
    assert "--kafka-bootstrap names a broker" in broker.stderr
    assert "Traceback" not in broker.stderr


def record(number: int, state: AlertState, at: float) -> dict[str, Any]:
    one = alert(number, state)
    change = AlertChange(change_id(one, at), at, one, assessment())
    return {"key": one.id.encode(), "value": MemoryAlert.of(change, "otel-memory").to_bytes()}


@pytest.mark.needs("kafka")
def test_committed_changes_come_from_the_topic_once() -> None:
    with Kafka() as kafka:
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        missing = command("alerts", "--kafka-bootstrap", kafka.bootstrap)
        assert missing.returncode == 2
        assert "no topic 'memory-alerts'" in missing.stderr
        admin.create_topics([NewTopic("memory-alerts", num_partitions=2, replication_factor=1)])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="test", acks="all")
        producer.init_transactions()

        def write(*records: dict[str, Any], commit: bool = True) -> None:
            producer.begin_transaction()
            for one in records:
                producer.send("memory-alerts", **one)
            if commit:
                producer.commit_transaction()
            else:
                producer.flush()
                producer.abort_transaction()

        write(record(1, AlertState.PENDING, T0), record(2, AlertState.FIRING, T0), {"key": b"x", "value": b"poison"})
        write(record(1, AlertState.FIRING, T0 + 10), record(2, AlertState.RESOLVED, T0 + 10))
        write(record(3, AlertState.FIRING, T0 + 20), commit=False)
        listed = command("alerts", "--kafka-bootstrap", kafka.bootstrap, "--json")
        assert listed.returncode == 1, listed.stderr
        assert [(item["id"], item["state"]) for item in json.loads(listed.stdout)["items"]] == [("alert-1", "firing")]

        with follower("--kafka-bootstrap", kafka.bootstrap) as program:
            wait_until(lambda: told(program) == [("alert-1", "firing")], timeout_seconds=PATIENCE)
            write(record(4, AlertState.FIRING, T0 + 30), {"key": b"x", "value": b"{}"})
            # The same change again, as after a crash of whoever wrote it.
            write(record(4, AlertState.FIRING, T0 + 30), record(1, AlertState.RESOLVED, T0 + 40))
            wait_until(lambda: len(told(program)) == 3, timeout_seconds=PATIENCE)
            assert sorted(told(program)[1:]) == [("alert-1", "resolved"), ("alert-4", "firing")]
            assert "is no alert and was passed" in program.output()
        producer.close()
