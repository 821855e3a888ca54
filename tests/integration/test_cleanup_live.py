"""Eviction and cleanup in real processes under ``opentelemetry-instrument``, seen through the console exporters."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names
from tests.harness.process import clean_environment

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures the heap of glibc")
MIB = 2**20


def documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON documents that the console exporters wrote among other lines."""
    decoder, position = json.JSONDecoder(), 0
    while (position := text.find("{", position)) >= 0:
        document, position = decoder.raw_decode(text, position)
        yield document


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    launcher = str(Path(sys.executable).parent / "opentelemetry-instrument")
    exporters = ("--traces_exporter", "none", "--metrics_exporter", "console", "--logs_exporter", "console")
    done = subprocess.run(
        [launcher, *exporters, sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=clean_environment({"OTEL_METRIC_EXPORT_INTERVAL": "60000", "OTEL_PYTHON_MEMORY_THRESHOLDS": "none", **env}),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def events(text: str, name: str) -> list[dict[str, Any]]:
    return [each["attributes"] for each in documents(text) if each.get("event_name") == name]


def points(text: str, metric: str) -> list[dict[str, Any]]:
    """The points of the last export that has the metric."""
    found: list[dict[str, Any]] = []
    for document in documents(text):
        for resource in document.get("resource_metrics", ()):
            for scope in resource["scope_metrics"]:
                found = next((m["data"]["data_points"] for m in scope["metrics"] if m["name"] == metric), found)
    return found


CROSSING = """
    import gc, time
    from functools import lru_cache
    from otel_memory import register_evictor
    from otel_memory.probe import cleanup

    @register_evictor("rows")
    @lru_cache(maxsize=None)
    def row(number):
        return bytearray(10_000)

    gc.disable()  # so that the cycles below are the cleanup's to find
    for _ in range(1000):
        cycle = [bytearray(10_000)]
        cycle.append(cycle)
    del cycle
    for number in range(4000):
        row(number)
    needed = bytearray(120_000_000)  # over the threshold now, with all that there is to be freed in place
    deadline = time.monotonic() + 60
    while cleanup.last_result() is None and time.monotonic() < deadline:
        time.sleep(0.02)
"""


def test_a_critical_threshold_cleans_up_aggressively_and_says_what_each_step_freed() -> None:
    done = run(
        CROSSING,
        OTEL_PYTHON_MEMORY_CLEANUP="critical",
        OTEL_PYTHON_MEMORY_THRESHOLDS="none;rss>170MiB:critical",
        OTEL_PYTHON_MEMORY_INTERVAL="100",
    )
    (crossed,) = events(done.stdout, names.EVENT_THRESHOLD_CROSSED)
    (cleaned,) = events(done.stdout, names.EVENT_CLEANUP)
    (evicted,) = events(done.stdout, names.EVENT_EVICTION)
    assert crossed[names.THRESHOLD_SEVERITY] == "critical"
    assert cleaned[names.CLEANUP_TRIGGER] == "critical"
    assert cleaned[names.CLEANUP_AGGRESSIVE] is True
    assert 38 * MIB < cleaned[names.CLEANUP_STEP_FREED_HEAP["evict"]] < 42 * MIB
    assert 9 * MIB < cleaned[names.CLEANUP_STEP_FREED_HEAP["gc"]] < 12 * MIB
    assert cleaned[names.CLEANUP_STEP_OUTCOME["gc"]] == "freed"
    assert evicted[names.EVICTION_REPORT][0].startswith("rows: freed, ")
    assert [each["attributes"] for each in points(done.stdout, names.CLEANUP_RUNS)] == [
        {names.CLEANUP_TRIGGER: "critical"}
    ]
    freed = {each["attributes"][names.EVICTOR_NAME]: each["value"] for each in points(done.stdout, names.EVICTOR_FREED)}
    assert 38 * MIB < freed["rows"] < 42 * MIB


def test_periodic_cleanups_run_beside_the_application() -> None:
    done = run(
        """
        import time
        from otel_memory import register_evictor
        from otel_memory.probe import cleanup

        expired = [bytearray(1_000_000) for _ in range(20)]
        register_evictor("expired", expired, harmless=True)
        deadline = time.monotonic() + 60
        while not cleanup._state.runs.get("periodic") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert expired == []
        """,
        OTEL_PYTHON_MEMORY_CLEANUP="periodic",
        OTEL_PYTHON_MEMORY_CLEANUP_INTERVAL="1s",
        OTEL_PYTHON_MEMORY_INTERVAL="100",
    )
    cleaned = events(done.stdout, names.EVENT_CLEANUP)[0]
    assert cleaned[names.CLEANUP_TRIGGER] == "periodic"
    assert cleaned[names.CLEANUP_AGGRESSIVE] is False
    assert 19 * MIB < cleaned[names.CLEANUP_STEP_FREED_HEAP["evict"]] < 21 * MIB


def test_without_the_setting_nothing_is_cleaned_and_nothing_of_it_is_loaded() -> None:
    done = run(
        """
        import sys, time
        held = bytearray(90_000_000)
        time.sleep(1)
        loaded = [name for name in sys.modules if name.startswith("otel_memory.probe")]
        print("LOADED", *sorted(name.rpartition(".")[2] for name in loaded))
        """,
        OTEL_PYTHON_MEMORY_THRESHOLDS="none;rss>80MiB:critical",
        OTEL_PYTHON_MEMORY_INTERVAL="100",
    )
    assert len(events(done.stdout, names.EVENT_THRESHOLD_CROSSED)) == 1
    assert events(done.stdout, names.EVENT_CLEANUP) == []
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert not {"cleanup", "cleanup_feature", "eviction", "evictors", "held", "isolation"} & set(line.split())


HOSTILE = """
    import asyncio, json, os, threading
    from functools import lru_cache

    import cachetools
    from otel_memory import evict_async, register_evictor
    from otel_memory.probe import cleanup, eviction

    @register_evictor("thumbnails", priority=5)
    @lru_cache(maxsize=None)
    def thumbnail(number):
        return bytearray(10_000)

    pages = cachetools.LRUCache(maxsize=5000)
    lock = threading.Lock()
    register_evictor("pages", pages, lock=lock, priority=1)
    register_evictor("broken", lambda: 1 / 0)
    register_evictor("stuck", lambda: threading.Event().wait(), timeout_seconds=2)
    begun, beaten, threads = threading.Event(), threading.Event(), []

    @register_evictor("waits_for_the_loop", priority=3, timeout_seconds=60)
    def waits():
        threads.append(threading.get_ident())
        begun.set()
        beaten.wait()

    for number in range(2000):
        thumbnail(number)
        pages[number] = bytearray(10_000)

    async def main():
        async def beat():
            while not begun.is_set():
                await asyncio.sleep(0.01)
            beaten.set()
        beating = asyncio.create_task(beat())
        return await evict_async(25_000_000)

    result = asyncio.run(main())
    report = {
        "reached": result.reached,
        "freed": result.freed_heap_bytes,
        "outcomes": {each.name: each.outcome for each in result.evictors},
        "pages": len(pages),
        "thumbnails": thumbnail.cache_info().currsize,
        "on the loop": threading.get_ident() in threads,
    }
    pid = os.fork()
    if pid == 0:
        # Nothing of the parent's hanging call or of its counts is here, but its evictors are.
        child = eviction.run_evictors(None)
        runs = {each.attributes["otel_memory.evictor.name"]: each.value for each in eviction.observe_runs()}
        called = [each.name for each in child.evictors]
        good = called == ["broken", "stuck", "pages", "waits_for_the_loop", "thumbnails"] and runs["broken"] == 1
        cleanup.cleanup(aggressive=True)
        os._exit(0 if good else 1)
    report["child"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print("REPORT", json.dumps(report))
    print("END")
"""


@pytest.mark.parametrize("allocator", ["pymalloc", "malloc"])
def test_caches_beside_a_raising_and_a_hanging_evictor_on_an_event_loop_and_in_a_fork(allocator: str) -> None:
    done = run(HOSTILE, PYTHONMALLOC=allocator, PYTHONWARNINGS="ignore")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    report = json.loads(line.removeprefix("REPORT "))
    waited = report["outcomes"].pop("waits_for_the_loop")
    assert waited == "useless", "the loop has gone on while it waited, else it would have timed out"
    assert report["on the loop"] is False
    assert report["outcomes"] == {"broken": "failed", "stuck": "timed_out", "pages": "freed", "thumbnails": "freed"}
    assert report["reached"]
    # 4,000 buffers of 10,000 bytes were held; the pages went first, all of them, and then all thumbnails.
    assert 39_000_000 < report["freed"] < 43_000_000
    assert (report["pages"], report["thumbnails"]) == (0, 0)
    assert report["child"] == 0
    counted = {tuple(each["attributes"].values()): each["value"] for each in points(done.stdout, names.EVICTOR_RUNS)}
    assert counted[("stuck", "timed_out")] == 1
    assert sum(counted.values()) >= 4
