"""The analyzer at a broker that wants TLS and a login, or TLS and a certificate; what it says where that is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_memory.analyzer.model import AlertState
from tests.analyzer.made_up import MIB
from tests.harness import wait_until
from tests.harness.process import clean_environment
from tests.harness.secured_kafka import PASSWORD, USER, SecuredKafka
from tests.integration import kafka_world as world

pytestmark = [pytest.mark.needs("kafka"), pytest.mark.slow, pytest.mark.timeout(400)]

SECRET = "OTEL_MEMORY_KAFKA_SASL_PASSWORD"


@pytest.fixture(scope="module")
def kafka() -> Iterator[SecuredKafka]:
    with SecuredKafka() as broker:
        world.make_topics(broker, 1)
        yield broker


def login(kafka: SecuredKafka) -> tuple[str, ...]:
    return (
        *("--kafka-bootstrap", kafka.secured, "--kafka-security-protocol", "SASL_SSL"),
        *("--kafka-sasl-mechanism", "PLAIN", "--kafka-sasl-username", USER),
        *("--kafka-ssl-cafile", str(kafka.certificate)),
    )


def certificate(kafka: SecuredKafka) -> tuple[str, ...]:
    return (
        *("--kafka-bootstrap", kafka.mutual, "--kafka-security-protocol", "SSL"),
        *("--kafka-ssl-cafile", str(kafka.certificate)),
        *("--kafka-ssl-certfile", str(kafka.certificate), "--kafka-ssl-keyfile", str(kafka.key)),
    )


def run(*arguments: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "otel_memory", *arguments]
    env = clean_environment({SECRET: password})
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_it_judges_and_writes_over_tls_with_a_login_and_with_a_certificate(kafka: SecuredKafka) -> None:
    """One takes over from the other, so that every kind of client of the analyzer has been at both listeners."""
    process = world.Plain("secured", begin=world.now_less(3000), leak_per_call=300_000, limit=8192 * MIB)
    common = ("--kafka-session-seconds", str(world.SESSION_SECONDS), "--no-console")
    with world.Fleet(kafka, [process], 1) as fleet, world.committed_reader(kafka) as reader:
        with world.Analyzer(*login(kafka), *common, "--kafka-instance", "a", env={SECRET: PASSWORD}) as first:
            for index in range(90):
                fleet.send(index)
            wait_until(lambda: world.caught_up(reader, [process], 89), timeout_seconds=120, what="all judged")
            assert first.get("/api/v1/processes")["items"]
            body = {"matchers": [{"name": "service_name", "value": "other"}], "duration_seconds": 60}
            world.fetch(
                f"{first.url}/api/v1/silences",
                data=json.dumps(body).encode(),
                headers={"content-type": "application/json"},
                timeout_seconds=30,
            )
            assert PASSWORD not in first.output()
        with world.Analyzer(*certificate(kafka), *common, "--kafka-instance", "b") as second:
            fleet.send(90)
            wait_until(lambda: world.caught_up(reader, [process], 90), timeout_seconds=120, what="the takeover")
            assert len(second.get("/api/v1/silences")["items"]) == 1
        assert any(alert.data.alert.state is AlertState.FIRING for alert in world.told_in_all(kafka).alerts)
    told = run("alerts", *login(kafka), "--json")
    assert told.returncode == 1, told.stderr
    assert "memory_leak" in told.stdout


def test_the_topics_are_checked_with_both(kafka: SecuredKafka) -> None:
    for flags in (login(kafka), certificate(kafka)):
        done = run("topics", "check", *flags)
        assert (done.returncode, done.stdout) == (0, "the topics are as they should be\n"), done.stderr


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        # The broker hangs up, perhaps before what it says is read.
        ("password", "Authentication failed|refuses a login"),
        ("authority", "certificate verify failed"),
        ("certificate", "SSL"),
    ],
)
def test_what_is_refused_ends_the_start_with_its_reason(
    kafka: SecuredKafka, wrong: str, reason: str, tmp_path: Path
) -> None:
    flags, password = login(kafka), PASSWORD
    if wrong == "password":
        password = "another-one"
    elif wrong == "authority":
        flags = flags[:-2]
    else:
        flags = certificate(kafka)[:-4]
    serve, topics = ("serve", "--data-dir", str(tmp_path), "--http-port", "0"), ("topics", "check")
    for verb in (serve, topics) if wrong == "authority" else (serve,):
        done = run(*verb, *flags, password=password)
        assert done.returncode == 2, done.stdout + done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert re.search(reason, last), last
        assert password not in done.stderr
