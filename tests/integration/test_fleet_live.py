"""Thirty instances of one service, two versions, one of which leaks: one alert that names the version."""

from __future__ import annotations

import time
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.analyzer.made_up import MadeUp
from tests.harness import Alertmanager, Analyzer, fetch, wait_until

INSTANCES = 15
"""Of each version."""
SAMPLES = 130
SPACING_SECONDS = 2.0


def instances(begin: float) -> list[MadeUp]:
    return [
        MadeUp(
            instance=f"shop-{version}-{number}",
            version=version,
            begin=begin,
            spacing=SPACING_SECONDS,
            leak_per_call=kept,
        )
        for version, kept in (("2.4.0", 0), ("2.4.1", 40_000))
        for number in range(INSTANCES)
    ]


def send(analyzer: Analyzer, fleet: list[MadeUp], index: int) -> None:
    request = ExportMetricsServiceRequest()
    for one in fleet:
        one.add_to(request, index)
    fetch(
        f"{analyzer.http_endpoint}/v1/metrics",
        data=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
        timeout_seconds=60.0,
    )


@pytest.mark.needs("alertmanager")
@pytest.mark.timeout(180)
def test_a_version_that_leaks_is_one_alert_and_names_the_version() -> None:
    with Alertmanager() as alertmanager, Analyzer("--alertmanager-urls", alertmanager.url, "--no-console") as analyzer:
        fleet = instances(time.time() - SAMPLES * SPACING_SECONDS)
        for index in range(SAMPLES):
            send(analyzer, fleet, index)

        def own(name: str) -> list[dict[str, Any]]:
            return [alert for alert in analyzer.get("/api/v1/alerts?state=firing")["items"] if alert["name"] == name]

        wait_until(alertmanager.alerts, what="an alert at Alertmanager", timeout_seconds=60)
        wait_until(lambda: len(own("memory_leak")) == INSTANCES, what="an alert for each instance", timeout_seconds=30)
        (group,) = own("memory_leak_group")
        assert group["labels"]["service_version"] == "2.4.1"
        assert f"all {INSTANCES} instances of version 2.4.1 leak and none of the {INSTANCES} others" in group["summary"]
        assert all(group["id"] in alert["silenced_by"] for alert in own("memory_leak"))
        (finding,) = analyzer.get("/api/v1/fleet")["items"]
        assert (finding["cause"], finding["subject"], len(finding["leaking"])) == ("version", "2.4.1", INSTANCES)
        (told,) = alertmanager.alerts()
        assert told["labels"]["alertname"] == "memory_leak_group"
        assert told["labels"]["service_version"] == "2.4.1"
