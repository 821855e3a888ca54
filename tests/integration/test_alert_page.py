"""Silences on the page over the real analyzer: made by a click behind a token, in force at once, ended by another."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.analyzer.made_up import MadeUp
from tests.harness import Analyzer, Chromium, fetch, wait_until
from tests.integration.alerting_world import PAST_SECONDS, Hook

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(180)]

TOKEN = "a-token-of-the-page"
PATIENCE_MS = 30_000


def test_an_alert_is_silenced_on_the_page_and_told_once_the_silence_is_ended(chromium: Chromium) -> None:

    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with (
        Hook() as hook,
        Analyzer(
            *("--no-console", "--webhook-urls", hook.url, "--webhook-group-seconds", "0"),
            env={"OTEL_MEMORY_TOKEN": TOKEN},
        ) as analyzer,
        chromium.page(strict=False) as page,
    ):

        def asked(path: str) -> Any:
            return json.loads(fetch(analyzer.url + path, headers=bearer))

        page.goto(f"{analyzer.url}/?token={TOKEN}#/alerts")
        page.set_default_timeout(PATIENCE_MS)
        page.get_by_role("button", name="New silence").click()
        page.locator(".silence-form").get_by_label("Value").fill("shop")
        page.locator(".silence-form").get_by_label("Why").fill("deploy")
        page.locator(".silence-form").get_by_role("button", name="Silence").click()
        expect(page.locator(".hush")).to_contain_text('service_name="shop"', timeout=PATIENCE_MS)
        (silence,) = asked("/api/v1/silences")["items"]
        assert (silence["state"], silence["comment"]) == ("active", "deploy")

        process = MadeUp(begin=float(int(time.time())) - PAST_SECONDS)
        sent = 0
        while not asked("/api/v1/alerts?state=firing")["items"]:
            assert sent < 300, "it did not fire"
            kind = {"content-type": "application/x-protobuf"}
            fetch(f"{analyzer.http_endpoint}/v1/metrics", data=process.body(sent), headers={**kind, **bearer})
            sent += 1
        alert = page.locator(".alert.state-firing")
        expect(alert.locator(".mark")).to_have_text("Silenced", timeout=PATIENCE_MS)
        wait_until(
            lambda: asked("/api/v1/summary")["health"]["outputs"][0]["held"] == 1, timeout_seconds=30, what="held back"
        )
        assert hook.posts == []

        page.locator(".hush").get_by_role("button", name="End").click()
        expect(page.locator(".hush")).to_have_count(0, timeout=PATIENCE_MS)
        expect(alert.locator(".mark")).to_have_count(0, timeout=PATIENCE_MS)
        wait_until(lambda: hook.posts, timeout_seconds=30, what="what was held")
        expect(page.locator(".outputs tbody tr").locator("td.number").first).to_have_text("1", timeout=PATIENCE_MS)
        # And by the alert's own button.
        alert.get_by_role("button", name="Silence").click()
        page.locator(".silence-form").get_by_role("button", name="Silence").click()
        expect(alert.locator(".mark")).to_have_text("Silenced", timeout=PATIENCE_MS)
        (kept,) = asked("/api/v1/silences?state=active")["items"]
        assert [one["name"] for one in kept["matchers"]] == ["alertname", "service_name", "service_instance_id"]
