"""A real Alertmanager is told: fired, told again, resolved, silenced here and there; all seen in its own API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.harness import Alertmanager, Analyzer, fetch, wait_until
from tests.integration.alerting_world import Feeder, alerts, end_silence, firing, outputs, silence

pytestmark = [pytest.mark.needs("alertmanager"), pytest.mark.timeout(180)]

PATIENCE = 60.0


def only(items: list[Any]) -> Any:
    (item,) = items
    return item


def told(manager: Alertmanager, *, end: datetime | None = None) -> dict[str, Any] | None:
    """The one alert that it holds, once its end is later than ``end``."""
    held = manager.alerts()
    if not held:
        return None
    alert: dict[str, Any] = only(held)
    return alert if end is None or moment(alert["endsAt"]) > end else None


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def silence_there(manager: Alertmanager, **labels: str) -> str:
    now = datetime.now(UTC)
    form = {
        "matchers": [
            {"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in labels.items()
        ],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "ann",
        "comment": "deploy",
    }
    answer = fetch(
        f"{manager.url}/api/v2/silences",
        data=json.dumps(form).encode(),
        headers={"content-type": "application/json"},
    )
    made: str = json.loads(answer)["silenceID"]
    return made


def test_an_alert_fires_goes_on_is_silenced_and_ends_in_a_real_alertmanager() -> None:
    with (
        Alertmanager() as manager,
        Analyzer(
            *("--no-console", "--alertmanager-urls", manager.url, "--alertmanager-repeat-seconds", "1"),
            *("--idle-seconds", "20", "--page-url", "https://memory.example.org"),
        ) as analyzer,
    ):
        feeder = Feeder(analyzer)
        feeder.send_until(firing(analyzer))
        ours = only(alerts(analyzer, "firing"))

        # Fired.
        there = wait_until(lambda: told(manager), timeout_seconds=PATIENCE, what="the alert at Alertmanager")
        assert there["labels"] == {
            "alertname": "memory_leak",
            "severity": ours["severity"],
            "service_name": "shop",
            "service_version": "1.0.0",
            "service_instance_id": "made-up-1",
            "host_name": "box",
        } | {name: value for name, value in ours["labels"].items() if name.startswith("process")}
        assert there["annotations"]["alert_id"] == ours["id"]
        assert there["annotations"]["summary"].startswith("shop")
        assert moment(there["startsAt"]) == moment(ours["fired_at"])
        assert there["generatorURL"] == f"https://memory.example.org/#/process/{ours['process']}"
        assert there["status"]["state"] == "active"

        # Told again, with new figures: it goes on, and it stays the same alert.
        end = moment(there["endsAt"])
        feeder.send(30)
        later = wait_until(lambda: told(manager, end=end), timeout_seconds=PATIENCE, what="a later end")
        again = wait_until(
            lambda: told(manager, end=moment(later["endsAt"])), timeout_seconds=PATIENCE, what="an end later still"
        )
        assert again["fingerprint"] == there["fingerprint"]
        assert again["startsAt"] == there["startsAt"]

        # Killed and started again: the same alert goes on.
        analyzer.kill()
        analyzer.start()
        after = wait_until(
            lambda: told(manager, end=moment(again["endsAt"])), timeout_seconds=PATIENCE, what="an end after a kill"
        )
        assert after["fingerprint"] == there["fingerprint"]

        # Silenced there, by labels of ours: telling it again does not wake it.
        mark = silence_there(manager, service_name="shop", alertname="memory_leak")
        quiet = wait_until(
            lambda: told(manager, end=moment(after["endsAt"]) + timedelta(seconds=2)), timeout_seconds=PATIENCE
        )
        assert quiet["status"]["state"] == "suppressed"
        assert quiet["status"]["silencedBy"] == [mark]

        # The process is silent, and taken for gone: resolved, long before the end that was told last.
        wait_until(lambda: alerts(analyzer, "resolved"), timeout_seconds=PATIENCE, what="the end of the alert")
        wait_until(lambda: not manager.alerts(), timeout_seconds=PATIENCE, what="the end at Alertmanager")
        assert datetime.now(UTC) < moment(quiet["endsAt"]) - timedelta(seconds=60)
        health = wait_until(
            lambda: (found := outputs(analyzer)["alertmanager"])["delivered"] and found, timeout_seconds=PATIENCE
        )
        assert (health["failed"], health["abandoned"], health["pending"]) == (0, 0, 0)


def test_a_silence_of_the_analyzer_keeps_an_alert_from_alertmanager_until_it_ends() -> None:
    with (
        Alertmanager() as manager,
        Analyzer("--no-console", "--alertmanager-urls", manager.url, "--alertmanager-repeat-seconds", "1") as analyzer,
    ):
        mark = silence(analyzer, service_name="shop")
        feeder = Feeder(analyzer)
        feeder.send_until(firing(analyzer))
        assert only(alerts(analyzer, "firing"))["silenced_by"] == [mark]
        wait_until(lambda: outputs(analyzer)["alertmanager"]["held"] == 1, timeout_seconds=PATIENCE, what="held back")
        feeder.send(20)
        assert manager.alerts() == []
        end_silence(analyzer, mark)
        there = wait_until(lambda: told(manager), timeout_seconds=PATIENCE, what="the alert at Alertmanager")
        assert there["status"]["state"] == "active"
        # The resend of what fires may come before the change that was held.
        wait_until(
            lambda: outputs(analyzer)["alertmanager"]["held"] == 0, timeout_seconds=PATIENCE, what="nothing held"
        )


def test_what_alertmanager_refuses_is_told_and_given_up_while_others_go_on() -> None:
    """An address with another service behind it, beside the right one."""
    with Alertmanager() as manager:
        wrong = f"{manager.url}/elsewhere"
        with Analyzer("--no-console", "--alertmanager-urls", f"{wrong},{manager.url}") as analyzer:
            Feeder(analyzer).send_until(firing(analyzer))
            wait_until(lambda: told(manager), timeout_seconds=PATIENCE, what="the alert at Alertmanager")

            def refused() -> dict[str, Any] | None:
                found = {one["name"]: one for one in analyzer.get("/api/v1/summary")["health"]["outputs"]}
                broken = found[f"alertmanager 127.0.0.1:{manager.port}/elsewhere"]
                return broken if broken["abandoned"] else None

            broken = wait_until(refused, timeout_seconds=PATIENCE, what="the refusal")
            assert "HTTP status 404" in broken["last_error"]
            assert broken["delivered"] == 0
