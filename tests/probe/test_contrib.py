"""Beside contrib's system-metrics, the real package: no name twice, and the child's numbers are the child's."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory import names
from otel_memory.probe import contrib
from otel_memory.probe.config import Settings
from otel_memory.probe.lifecycle import Probe

SETTINGS = Settings(interval_seconds=60, slow_interval_seconds=60)
SHARED = {
    names.PROCESS_MEMORY_USAGE,
    names.PROCESS_MEMORY_VIRTUAL,
    names.PROCESS_THREAD_COUNT,
    names.GC_COLLECTIONS,
    names.GC_COLLECTED_OBJECTS,
    names.GC_UNCOLLECTABLE_OBJECTS,
    names.SYSTEM_MEMORY_UTILIZATION,
}


@pytest.fixture(autouse=True)
def _fresh_contrib() -> Iterator[None]:
    """Contrib is a singleton that remembers being instrumented."""
    SystemMetricsInstrumentor._instance = None
    contrib.forget()
    yield
    SystemMetricsInstrumentor._instance = None
    contrib.forget()


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def emitted(reader: InMemoryMetricReader) -> dict[str, list[str]]:
    """Scope -> names of the metrics that have points."""
    data: Any = reader.get_metrics_data()
    return {
        scope.scope.name: [metric.name for metric in scope.metrics if metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
    }


@pytest.mark.parametrize("contrib_first", [True, False])
def test_no_name_is_emitted_twice_whoever_loads_first(
    reader: InMemoryMetricReader, provider: MeterProvider, contrib_first: bool
) -> None:
    probe = Probe(SETTINGS, provider)
    starts = [lambda: SystemMetricsInstrumentor().instrument(meter_provider=provider), probe.start]
    for start in starts if contrib_first else starts[::-1]:
        start()
    try:
        scopes = emitted(reader)
    finally:
        probe.stop()
    counts = Counter(name for found in scopes.values() for name in found)
    assert [name for name, count in counts.items() if count > 1] == []
    assert set(counts) >= SHARED
    assert names.MEMORY_PEAK in scopes[names.SCOPE]


def test_a_name_that_contrib_is_configured_without_stays_with_the_probe(
    reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    SystemMetricsInstrumentor(config={names.PROCESS_MEMORY_VIRTUAL: None}).instrument(meter_provider=provider)
    assert contrib.claimed(names.PROCESS_MEMORY_VIRTUAL)
    SystemMetricsInstrumentor()  # runs __init__ on the singleton again, and forgets its configuration
    probe = Probe(SETTINGS, provider)
    probe.start()
    try:
        scopes = emitted(reader)
    finally:
        probe.stop()
    assert names.PROCESS_MEMORY_USAGE in scopes[names.SCOPE]
    assert names.PROCESS_MEMORY_VIRTUAL not in scopes[names.SCOPE]


def test_nothing_is_claimed_by_a_contrib_that_was_only_imported_or_only_made() -> None:
    assert not contrib.claimed(names.PROCESS_MEMORY_USAGE)
    SystemMetricsInstrumentor()
    assert not contrib.claimed(names.PROCESS_MEMORY_USAGE)


def test_what_contrib_once_emitted_stays_claimed_because_it_goes_on_emitting(provider: MeterProvider) -> None:
    SystemMetricsInstrumentor().instrument(meter_provider=provider)
    assert contrib.claimed(names.PROCESS_MEMORY_USAGE)
    SystemMetricsInstrumentor().uninstrument()
    assert contrib.claimed(names.PROCESS_MEMORY_USAGE)


def test_a_contrib_of_another_shape_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        _instance: Any = None

    Other._instance = Other()
    Other._instance._meter = object()
    fake = type(sys)("fake")
    fake.SystemMetricsInstrumentor = Other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, contrib.MODULE, fake)
    assert not contrib.claimed(names.PROCESS_MEMORY_USAGE)
    assert not contrib.refresh_after_fork()


def test_there_is_nothing_to_mend_in_the_process_that_made_it(provider: MeterProvider) -> None:
    assert not contrib.refresh_after_fork()
    SystemMetricsInstrumentor().instrument(meter_provider=provider)
    assert not contrib.refresh_after_fork()


FORKING = """
import json, os, sys
from opentelemetry import metrics
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_memory import MemoryInstrumentor

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
SystemMetricsInstrumentor(config={"process.memory.usage": None}).instrument()
if sys.argv[1] == "with":
    MemoryInstrumentor().instrument(interval=3600_000)

pid = os.fork()
if pid == 0:
    ballast = b"x" * 80_000_000
    (scope,) = [s for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics
                if any(m.name == "process.memory.usage" for m in s.metrics)]
    (usage,) = [m.data.data_points[0].value for m in scope.metrics if m.name == "process.memory.usage"]
    with open("/proc/self/statm") as statm:
        own = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(json.dumps({"scope": scope.scope.name, "usage": usage, "own": own}), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


def _fork(with_probe: bool) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            textwrap.dedent(FORKING),
            "with" if with_probe else "without",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")
def test_contribs_numbers_in_a_forked_child_are_the_childs() -> None:
    answer = _fork(with_probe=True)
    assert answer["scope"] == contrib.MODULE
    assert answer["usage"] == pytest.approx(answer["own"], rel=0.1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")
def test_contrib_alone_reports_the_parent_which_is_why_it_is_mended() -> None:
    """When this fails, contrib has mended it itself, and ``refresh_after_fork`` can go."""
    answer = _fork(with_probe=False)
    assert answer["usage"] < answer["own"] - 60_000_000
