"""Webhooks: signed messages that the receiver in docs/alerts.md verifies, in groups, tried again, kept over kill -9."""

from __future__ import annotations

import re
import sys
import time
import urllib.error
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from otel_memory.analyzer.outputs.webhook import MESSAGE_ID, SIGNATURE, TIMESTAMP, signature
from tests.analyzer.made_up import MadeUp
from tests.harness import Analyzer, Program, fetch, wait_until
from tests.integration.alerting_world import (
    PAST_SECONDS,
    Feeder,
    Hook,
    alerts,
    end_silence,
    firing,
    outputs,
    silence,
    silences,
)

pytestmark = pytest.mark.timeout(180)

SECRET = "a-secret-of-the-hook"
PATIENCE = 60.0
PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Program]:
    """The receiver that the documentation gives, as it stands there."""
    found = re.search(r'^```python title="receiver.py"\n(.*?)^```$', PAGE.read_text("utf-8"), re.S | re.M)
    assert found is not None, "docs/alerts.md shows no receiver.py"
    path = tmp_path / "receiver.py"
    path.write_text(found[1])
    with Program(
        [sys.executable, "-u", str(path), "0"],
        env={"WEBHOOK_SECRET": SECRET},
        until=lambda program: "listening on" in program.output(),
        name="receiver",
    ) as program:
        yield program


def address(receiver: Program) -> str:
    found = re.search(r"listening on (http://\S+)", receiver.output())
    assert found is not None
    return found[1]


def test_the_documented_receiver_takes_what_is_genuine_and_fresh_alone(receiver: Program) -> None:
    url = address(receiver)
    with Analyzer(
        *("--no-console", "--webhook-urls", f"{url}/memory", "--webhook-group-seconds", "0"),
        env={"OTEL_MEMORY_WEBHOOK_SECRET": SECRET},
    ) as analyzer:
        Feeder(analyzer).send_until(firing(analyzer))
        wait_until(lambda: "firing" in receiver.output(), timeout_seconds=PATIENCE, what="the message")
        wait_until(lambda: outputs(analyzer)["webhook"]["delivered"] == 1, timeout_seconds=PATIENCE)
        (alert,) = alerts(analyzer, "firing")
        assert f"firing {alert['severity']} memory_leak: {alert['summary']}" in receiver.output()

    body = b'{"id": "1", "alerts": []}'
    now = str(int(time.time()))

    def status(stamp: str, signed: str) -> int:
        headers = {TIMESTAMP: stamp, SIGNATURE: signed, MESSAGE_ID: "1", "content-type": "application/json"}
        try:
            fetch(f"{url}/memory", data=body, headers=headers)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    old = str(int(time.time()) - 3600)
    assert status(now, signature(SECRET, now, body)) == 200
    assert status(now, signature(SECRET, now, body)) == 200, "a repeat is taken, and does nothing"
    assert status(now, signature("another secret", now, body)) == 401
    assert status(now, "sha256=") == 401
    assert status(old, signature(SECRET, old, body)) == 401, "a message of an hour ago may be a replay"
    assert status(str(int(now) + 1), signature(SECRET, now, body)) == 401, "the timestamp is signed too"


def test_alerts_of_one_release_come_in_one_message_also_over_kill_9(tmp_path: Path) -> None:
    begin = float(int(time.time())) - PAST_SECONDS
    fleet = [MadeUp(instance=f"shop-{number}", begin=begin) for number in range(2)]
    with (
        Hook() as hook,
        Analyzer(
            *("--no-console", "--webhook-urls", hook.url, "--webhook-group-seconds", "6"), data_dir=tmp_path / "data"
        ) as analyzer,
    ):
        feeder = Feeder(analyzer, fleet)
        feeder.send_until(firing(analyzer, 2))
        # In the middle of the wait for others, as far as the machine is quick enough.
        analyzer.kill()
        analyzer.start()
        wait_until(lambda: hook.posts, timeout_seconds=PATIENCE, what="the message")
        wait_until(lambda: outputs(analyzer)["webhook"]["pending"] == 0, timeout_seconds=PATIENCE)
        feeder.send(10)
        assert hook.states() == [["firing"] * 2]
        (message,) = hook.messages
        assert message["group"] == {"service_name": "shop", "service_version": "1.0.0"}
        assert {alert["id"] for alert in message["alerts"]} == {alert["id"] for alert in alerts(analyzer, "firing")}
        assert len({alert["process"] for alert in message["alerts"]}) == 2
        ((headers, _),) = hook.posts
        assert headers[MESSAGE_ID.lower()] == message["id"]
        assert SIGNATURE.lower() not in headers, "without a secret nothing is signed"


def test_a_receiver_that_fails_is_tried_again_with_the_same_message(tmp_path: Path) -> None:
    with (
        Hook(answer=lambda count: 200 if count > 2 else 503) as hook,
        Analyzer(
            *("--no-console", "--webhook-urls", hook.url, "--webhook-group-seconds", "0"), data_dir=tmp_path / "data"
        ) as analyzer,
    ):
        Feeder(analyzer).send_until(firing(analyzer))
        wait_until(lambda: outputs(analyzer)["webhook"]["delivered"] == 1, timeout_seconds=PATIENCE)
        assert len(hook.posts) == 3
        assert len({message["id"] for message in hook.messages}) == 1
        health = outputs(analyzer)["webhook"]
        assert (health["failed"], health["pending"]) == (2, 0)
        told = fetch(f"{analyzer.url}/metrics").decode()
        assert f'otel_memory_analyzer_deliveries_total{{outcome="delivered",output="{health["name"]}"}} 1.0' in told
        assert f'otel_memory_analyzer_deliveries_total{{outcome="failed",output="{health["name"]}"}} 2.0' in told
        assert "/hook" not in told, "a webhook's path may be a secret"


def test_a_silence_is_kept_over_kill_9_and_what_it_held_is_told_once_it_ends(tmp_path: Path) -> None:
    with (
        Hook() as hook,
        Analyzer(
            *("--no-console", "--webhook-urls", hook.url, "--webhook-group-seconds", "0"), data_dir=tmp_path / "data"
        ) as analyzer,
    ):
        mark = silence(analyzer, service_name="shop")
        feeder = Feeder(analyzer)
        feeder.send_until(firing(analyzer))
        wait_until(lambda: outputs(analyzer)["webhook"]["held"] == 1, timeout_seconds=PATIENCE)
        analyzer.kill()
        analyzer.start()
        feeder.send(20)
        assert [one["id"] for one in silences(analyzer)] == [mark]
        (alert,) = alerts(analyzer, "firing")
        assert alert["silenced_by"] == [mark]
        wait_until(lambda: outputs(analyzer)["webhook"]["held"] == 1, timeout_seconds=PATIENCE)
        assert hook.posts == []
        end_silence(analyzer, mark)
        wait_until(lambda: hook.posts, timeout_seconds=PATIENCE, what="what was held")
        wait_until(lambda: outputs(analyzer)["webhook"]["delivered"] == 1, timeout_seconds=PATIENCE)
        assert hook.states() == [["firing"]]
        assert hook.messages[0]["alerts"][0]["id"] == alert["id"]
        analyzer.kill()
        analyzer.start()
        feeder.send(5)
        assert outputs(analyzer)["webhook"]["pending"] == 0
        assert len(hook.posts) == 1


def test_the_cooldown_is_kept_over_kill_9(tmp_path: Path) -> None:
    """The process falls silent in mid-leak and comes back: the same leak is not alerted again before the cooldown."""
    cooldown = 60
    with (
        Hook() as hook,
        Analyzer(
            *("--no-console", "--webhook-urls", hook.url, "--webhook-group-seconds", "0", "--idle-seconds", "3"),
            *("--alert-cooldown-seconds", str(cooldown)),
            data_dir=tmp_path / "data",
        ) as analyzer,
    ):
        feeder = Feeder(analyzer, past=200)
        feeder.send_until(firing(analyzer))
        wait_until(lambda: alerts(analyzer, "resolved"), timeout_seconds=PATIENCE, what="taken for gone")
        (over,) = alerts(analyzer)
        analyzer.kill()
        analyzer.start()
        first = feeder.next

        def leaks_again() -> bool:
            return bool(analyzer.get("/api/v1/processes?verdict=leaking")["items"])

        feeder.send_until(leaks_again)
        feeder.send(10)
        assert alerts(analyzer) == [over], "within the cooldown there is no new alert"
        feeder.send_until(lambda: alerts(analyzer)[0]["state"] != "resolved")
        assert feeder.next > first + 10
        (again,) = alerts(analyzer)
        assert again["id"] == over["id"]
        waited = time_of(again["starts_at"]) - time_of(over["ends_at"])
        assert cooldown <= waited < cooldown + 60
        feeder.send_until(firing(analyzer))
        wait_until(lambda: len(hook.posts) == 3, timeout_seconds=PATIENCE, what="the third message")
        assert hook.states() == [["firing"], ["resolved"], ["firing"]]


def time_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
