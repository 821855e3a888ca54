"""All that the probe emits, seen on the console: the launcher, the console exporters, and an application."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names
from otel_memory.version import __version__

BIN = Path(sys.executable).parent
APPLICATION = Path(__file__).parents[1] / "programs" / "console_app.py"
MB = 1_000_000

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="some of the metrics are Linux's")

NOT_HERE = {
    # Kernels are built without it, and then there is no /proc/pressure.
    names.PSI_STALL_TIME: not os.path.exists("/proc/pressure/memory"),
    # Only where something was dropped or has failed.
    names.PROBE_DROPPED: True,
    names.PROBE_FAILURES: True,
    # Of the exporters to Kafka alone.
    names.EXPORTER_DROPPED: True,
    names.EXPORTER_QUEUE_USAGE: True,
    # Of programs with torch, a graphics processor or sessions of curl_cffi, or that tracemalloc traces: they have tests
    # of their own.
    **{name: True for name in names.METRICS if name.startswith(("hw.gpu.", "otel_memory.gpu.", "otel_memory.torch."))},
    **{name: True for name in names.METRICS if name.startswith("otel_memory.session.")},
    names.PACKAGE_LIVE_USAGE: True,
}
CONTRIBS = {
    names.PROCESS_MEMORY_USAGE,
    names.PROCESS_MEMORY_VIRTUAL,
    names.PROCESS_PAGING_FAULTS,
    names.PROCESS_THREAD_COUNT,
    names.PROCESS_FD_COUNT,
    names.GC_COLLECTIONS,
    names.GC_COLLECTED_OBJECTS,
    names.GC_UNCOLLECTABLE_OBJECTS,
    names.SYSTEM_MEMORY_UTILIZATION,
}
"""Conventional names that contrib's system-metrics may have claimed; then the probe leaves them to it."""


class Console:
    """What one run wrote, by signal."""

    def __init__(self, text: str, beside_contrib: bool) -> None:
        self.text = text
        self.beside_contrib = beside_contrib
        self.metrics: dict[str, dict[str, Any]] = {}
        self.scopes: dict[str, set[str]] = {}
        self.spans: dict[str, dict[str, Any]] = {}
        self.logs: list[dict[str, Any]] = []
        for document in self._documents():
            if "resource_metrics" in document:
                self._take_metrics(document)
            elif "context" in document:
                self.spans[document["name"]] = document
            else:
                self.logs.append(document)

    def _documents(self) -> Iterator[dict[str, Any]]:
        decoder, position = json.JSONDecoder(), 0
        while (position := self.text.find("{", position)) >= 0:
            document, position = decoder.raw_decode(self.text, position)
            yield document

    def _take_metrics(self, document: dict[str, Any]) -> None:
        for resource in document["resource_metrics"]:
            for scope in resource["scope_metrics"]:
                for metric in scope["metrics"]:
                    self.scopes.setdefault(metric["name"], set()).add(scope["scope"]["name"])
                    if scope["scope"]["name"] == names.SCOPE:
                        assert scope["scope"]["version"] == __version__
                        self.metrics[metric["name"]] = metric

    def points(self, name: str) -> list[dict[str, Any]]:
        points: list[dict[str, Any]] = self.metrics[name]["data"]["data_points"]
        return points

    def events(self, name: str) -> list[dict[str, Any]]:
        return [log["attributes"] for log in self.logs if log.get("event_name") == name]


@pytest.fixture(scope="module", params=["", "system_metrics"], ids=["beside contrib", "alone"])
def console(request: pytest.FixtureRequest) -> Console:
    done = subprocess.run(
        [
            str(BIN / "opentelemetry-instrument"),
            *("--metrics_exporter", "console", "--traces_exporter", "console", "--logs_exporter", "console"),
            *(sys.executable, str(APPLICATION)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))},
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_PYTHON_MEMORY_INTERVAL": "100",
            "OTEL_PYTHON_MEMORY_LIMIT": "1GiB",
            "OTEL_PYTHON_MEMORY_PACKAGES": "true",
            "OTEL_PYTHON_MEMORY_LIVE_OBJECTS": "fractions:Fraction",
            "OTEL_PYTHON_MEMORY_THRESHOLDS": "none; small=rss>80MiB:critical",
            # With contrib's logging there is a handler for OTLP, and Python's last resort has no turn.
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": f"{request.param},logging",
        },
    )
    assert done.returncode == 0, done.stderr
    # The one line of the operation that asked for it, on Python's last resort for logs.
    assert re.fullmatch(r"MEMORY \| __main__\.load_catalog \| SUCCESS \| .*\n", done.stderr), done.stderr
    return Console(done.stdout, beside_contrib=not request.param)


def test_every_metric_that_can_appear_here_does_under_one_scope(console: Console) -> None:
    missing = {name for name in names.METRICS if name not in console.scopes}
    assert missing <= {name for name, absent in NOT_HERE.items() if absent}
    twice = {name for name, scopes in console.scopes.items() if len(scopes) > 1}
    assert twice == set()
    others = {name for name in names.METRICS if name in console.scopes and name not in console.metrics}
    assert others <= (CONTRIBS if console.beside_contrib else set())


def test_each_metric_is_as_the_contract_says(console: Console) -> None:
    kinds = {"histogram": "bucket_counts", "gauge": "value", "counter": "value", "updowncounter": "value"}
    for name, metric in console.metrics.items():
        contract = names.METRICS[name]
        assert (metric["unit"], metric["description"]) == (contract.unit, contract.description), name
        data = metric["data"]
        assert data.get("is_monotonic", contract.kind == "counter") is (contract.kind == "counter"), name
        for point in data["data_points"]:
            assert kinds[contract.kind] in point, name
            assert set(point["attributes"]) <= set(contract.attributes), name


def test_the_figures_are_those_of_the_application(console: Console) -> None:
    assert console.points(names.MEMORY_PEAK)[0]["value"] > 64 * MB
    (limit,) = console.points(names.MEMORY_LIMIT)
    assert (limit["value"], limit["attributes"]) == (1024**3, {names.LIMIT_KIND: "configured"})
    calls = {
        (point["attributes"][names.OPERATION_NAME], point["attributes"][names.OPERATION_STATUS]): point["value"]
        for point in console.points(names.OPERATION_CALLS)
    }
    assert {(name, status): count for (name, status), count in calls.items() if count} == {
        ("__main__.load_catalog", "success"): 1,
        ("__main__.fails", "error"): 1,
        ("clean_up", "success"): 1,
    }
    growth = {
        point["attributes"][names.OPERATION_NAME]: point["value"] for point in console.points(names.OPERATION_GROWTH)
    }
    assert growth["__main__.load_catalog"] > 55 * MB
    assert growth["clean_up"] < -45 * MB


def test_the_span_says_what_the_operation_did_to_the_memory(console: Console) -> None:
    attributes = console.spans["request"]["attributes"]
    assert attributes[names.OPERATION_NAME] == "__main__.load_catalog"
    assert attributes[names.OPERATION_OVERLAP] is False
    before, after, delta = (
        attributes[name]
        for name in (names.OPERATION_MEMORY_BEFORE, names.OPERATION_MEMORY_AFTER, names.OPERATION_MEMORY_DELTA)
    )
    assert after - before == delta
    assert 55 * MB < delta < 90 * MB
    assert attributes[names.OPERATION_TRACED] == pytest.approx(64 * MB, rel=0.02)
    assert attributes[names.OPERATION_TRACED_PEAK] == pytest.approx(80 * MB, rel=0.02)
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert 70 * MB < attributes[names.OPERATION_MEMORY_PEAK_DELTA] < 110 * MB
    assert console.spans["clean up"]["attributes"][names.OPERATION_MEMORY_DELTA] < -45 * MB
    assert console.spans["failing"]["attributes"][names.OPERATION_NAME] == "__main__.fails"


def test_the_threshold_is_crossed_and_recovered_under_one_id(console: Console) -> None:
    (crossed,) = console.events(names.EVENT_THRESHOLD_CROSSED)
    (recovered,) = console.events(names.EVENT_THRESHOLD_RECOVERED)
    for event, name in ((crossed, names.EVENT_THRESHOLD_CROSSED), (recovered, names.EVENT_THRESHOLD_RECOVERED)):
        assert set(event) <= set(names.EVENTS[name].attributes)
        assert event[names.THRESHOLD_NAME] == "small"
        assert event[names.THRESHOLD_METRIC] == names.PROCESS_MEMORY_USAGE
        assert event[names.THRESHOLD_SEVERITY] == "critical"
        assert event[names.THRESHOLD_BOUND] == 80 * 1024**2
        assert event[names.THRESHOLD_UNIT] == "By"
    assert crossed[names.EVENT_ID]
    assert crossed[names.EVENT_ID] == recovered[names.EVENT_ID]
    assert crossed[names.THRESHOLD_VALUE] > 80 * 1024**2 > recovered[names.THRESHOLD_VALUE]
    assert recovered[names.THRESHOLD_PEAK] >= crossed[names.THRESHOLD_VALUE]
    assert 0.3 < recovered[names.THRESHOLD_DURATION] < 10
