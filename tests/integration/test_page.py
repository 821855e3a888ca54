"""The page over the real analyzer: OTLP goes in, and what an on-call engineer needs to know stands on the screen."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable
from typing import Any

import pytest
from playwright.sync_api import expect

from otel_memory import names
from tests.harness import Analyzer, Chromium, fetch

MIB = 1024 * 1024
HISTORY_SECONDS = 600
STEP_SECONDS = 2
pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]


def attributes(**values: str | int) -> list[dict[str, Any]]:
    """OTLP/JSON attributes; two underscores in a name stand for a dot."""
    return [
        {
            "key": key.replace("__", "."),
            "value": {"stringValue": value} if isinstance(value, str) else {"intValue": value},
        }
        for key, value in values.items()
    ]


class Application:
    """What a web application with two routes sends; ``kept_bytes`` stay behind with each call of GET /cart."""

    def __init__(self, service: str, start: float, kept_bytes: int) -> None:
        self.service = service
        self.start = start
        self.kept_bytes = kept_bytes
        self.noise = random.Random(service)

    def request(self, times: Iterable[float]) -> bytes:
        memory: list[dict[str, Any]] = []
        limit: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        began = str(int(self.start * 1e9))
        for moment in times:
            at = str(int(moment * 1e9))
            age = moment - self.start
            # Each route breathes at a pace of its own, so that they can be told apart.
            counts = {"/cart": int(age * 3 + 12 * math.sin(age / 8) + 12), "/": int(age * 5 + 25 * math.cos(age / 23))}
            used = 80 * MIB + counts["/cart"] * self.kept_bytes + self.noise.uniform(0, MIB)
            memory.append({"timeUnixNano": at, "asInt": str(int(used))})
            limit.append({"timeUnixNano": at, "asInt": str(512 * MIB)})
            for route, count in counts.items():
                point = {"startTimeUnixNano": began, "timeUnixNano": at, "count": str(count), "sum": count / 100}
                keys = attributes(http__route=route, http__request__method="GET")
                calls.append({**point, "bucketCounts": [str(count)], "explicitBounds": [], "attributes": keys})
        level = {"aggregationTemporality": 2, "isMonotonic": False, "dataPoints": memory}
        metrics = [
            {"name": names.PROCESS_MEMORY_USAGE, "unit": "By", "sum": level},
            {"name": names.MEMORY_LIMIT, "unit": "By", "gauge": {"dataPoints": limit}},
            {
                "name": "http.server.request.duration",
                "unit": "s",
                "histogram": {"aggregationTemporality": 2, "dataPoints": calls},
            },
        ]
        resource = attributes(service__name=self.service, service__instance__id=f"{self.service}-1", process__pid=77)
        scope = {"scope": {"name": "test"}, "metrics": metrics}
        return json.dumps(
            {"resourceMetrics": [{"resource": {"attributes": resource}, "scopeMetrics": [scope]}]}
        ).encode()


def send(analyzer: Analyzer, application: Application, begin: float, end: float) -> None:
    moments = [begin + step for step in range(0, int(end - begin), STEP_SECONDS)]
    for first in range(0, len(moments), 10):
        body = application.request(moments[first : first + 10])
        fetch(f"{analyzer.http_endpoint}/v1/metrics", data=body, headers={"Content-Type": "application/json"})


def test_from_an_empty_page_to_the_verdict_and_over_a_kill_of_the_analyzer(
    analyzer: Analyzer, chromium: Chromium
) -> None:
    """Rows come without a reload; the leak is named with its route, limit and alert; the alert outlives a kill -9."""
    start = time.time() - HISTORY_SECONDS
    leaking = Application("shop", start, kept_bytes=20_000)
    healthy = Application("catalogue", start, kept_bytes=0)
    with chromium.page(strict=False) as page:
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(analyzer.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("No process has reported yet")
        page.evaluate("window.untouched = true")

        for application in (leaking, healthy):
            send(analyzer, application, start, start + 20)
        expect(page.locator("tr.row")).to_have_count(2, timeout=5_000)
        for application in (leaking, healthy):
            send(analyzer, application, start + 20, start + HISTORY_SECONDS)
        rows = page.locator("tr.row")
        expect(rows.first.locator(".verdict")).to_have_text("Leaking")
        expect(rows.first).to_contain_text("shop")
        expect(rows.first.locator(".c-suspect")).to_contain_text("GET /cart")
        expect(rows.first.locator(".c-memory")).to_contain_text("of 512\u00a0MiB")
        expect(rows.first.locator(".spark .curve")).to_be_attached()
        expect(rows.nth(1).locator(".verdict")).to_have_text("Healthy")
        expect(page.locator(".strip li")).to_contain_text("shop")

        rows.first.locator("a.service").click()
        headline = page.locator(".headline")
        expect(headline).to_contain_text("Leaking")
        expect(headline).to_contain_text("reaches its 512\u00a0MiB limit in about")
        expect(headline).to_contain_text("first suspect GET /cart")
        expect(page.get_by_role("region", name="Suspects").locator("tbody tr").first).to_contain_text("GET /cart")
        expect(page.locator(".plot.tall canvas")).to_be_visible()
        expect(page.get_by_role("region", name="Events")).to_contain_text("Alert")

        before = [alert["id"] for alert in analyzer.get("/api/v1/alerts?state=firing")["items"]]
        analyzer.kill()
        expect(page.get_by_role("alert")).to_contain_text("Connection lost.")
        analyzer.start()
        page.get_by_role("button", name="Try now").or_(page.locator(".connection.live")).first.click()
        expect(page.locator(".connection.live")).to_be_visible(timeout=20_000)
        page.get_by_role("link", name="Alerts").click()
        expect(page.locator(".alert.state-firing")).to_have_count(len(before))
        assert [alert["id"] for alert in analyzer.get("/api/v1/alerts?state=firing")["items"]] == before
        assert page.evaluate("window.untouched") is True
        assert failures == []
