"""Start, stop, fork: as often as one likes, from any thread, and nothing is left behind."""

from __future__ import annotations

import atexit
import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory import names
from otel_memory.probe import lifecycle, operations, sdk_fork
from otel_memory.probe.background import THREAD_NAME as BACKGROUND
from otel_memory.probe.config import Settings
from otel_memory.probe.lifecycle import Probe
from otel_memory.probe.rules import parse_rules
from otel_memory.probe.sampler import THREAD_NAME

SETTINGS = Settings(interval_seconds=60, slow_interval_seconds=60)
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def values(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    """Metric -> (attributes, value) of each point that the probe emits; histograms give their count."""
    data: Any = reader.get_metrics_data()
    return {
        metric.name: [
            (dict(point.attributes), point.value if hasattr(point, "value") else point.count)
            for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        if scope.scope.name == names.SCOPE
        for metric in scope.metrics
    }


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_until(condition: Any, seconds: float = 5) -> bool:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        waiting.wait(0.01)
    return bool(condition())


@LINUX
def test_a_running_probe_emits_what_the_contract_names(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    probe = Probe(SETTINGS, provider)
    probe.start()
    try:
        assert wait_until(lambda: probe._sampler is not None and probe._sampler.ticks)
        gc.collect()
        assert probe._sampler is not None
        probe._sampler.tick(0.0)
        found = values(reader)
    finally:
        probe.stop()
    # the others need pressure-stall information, a cgroup, a decorated call, or a failure
    assert set(found) >= {
        names.PROCESS_MEMORY_USAGE,
        names.PROCESS_MEMORY_UTILIZATION,
        names.PROCESS_INFO,
        names.MEMORY_LIMIT,
        names.MEMORY_PRESSURE,
        names.HEAP_USAGE,
        names.GC_COLLECTIONS,
        names.GC_PAUSE_DURATION,
        names.GC_FLOOR_USAGE,
        names.PROBE_TIME,
    }
    assert set(found) <= set(names.METRICS)
    assert found[names.PROBE_TIME][0][1] > 0
    assert names.PROBE_FAILURES not in found, found


@LINUX
def test_twenty_starts_and_stops_leave_nothing_behind(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    probe = Probe(SETTINGS, provider)
    probe.start()
    assert probe.stop()
    before = (threads(), list(gc.callbacks), descriptors(), atexit._ncallbacks())
    for _ in range(20):
        probe.start()
        assert probe.running
        assert len(lifecycle._live) == 1
        assert THREAD_NAME in threads()
        assert len(gc.callbacks) == len(before[1]) + 1
        assert values(reader)[names.PROCESS_INFO], "metrics come back each time"
        assert probe.stop()
        assert not probe.running
        assert set(values(reader)) <= {names.GC_PAUSE_DURATION}, "of synchronous instruments the SDK keeps the sums"
    assert (threads(), list(gc.callbacks), descriptors(), atexit._ncallbacks()) == before
    assert len(lifecycle._live) == 0
    assert probe.ledger.failures == {}


def test_start_and_stop_are_idempotent(provider: MeterProvider) -> None:
    probe = Probe(SETTINGS, provider)
    assert probe.stop(), "stopping what never ran"
    probe.start()
    probe.start()
    assert threads().count(THREAD_NAME) == 1
    assert probe.stop()
    assert probe.stop()


def test_starts_and_stops_from_many_threads_end_in_one_clean_state(provider: MeterProvider) -> None:
    probe = Probe(SETTINGS, provider)
    before = (threads(), len(gc.callbacks))
    errors: list[BaseException] = []

    def churn() -> None:
        try:
            for _ in range(5):
                probe.start()
                probe.stop()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=churn) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    probe.stop()
    assert errors == []
    assert (threads(), len(gc.callbacks)) == before


def test_two_probes_do_not_take_each_others_hooks(provider: MeterProvider) -> None:
    one, other = Probe(SETTINGS, provider), Probe(SETTINGS)
    one.start()
    other.start()
    callbacks = len(gc.callbacks)
    other.stop()
    assert len(gc.callbacks) == callbacks - 1
    assert one.running
    assert threads().count(THREAD_NAME) == 1
    one.stop()


def test_a_start_that_fails_half_way_undoes_what_was_done(
    provider: MeterProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    before = (threads(), list(gc.callbacks))
    probe = Probe(SETTINGS, provider)
    with monkeypatch.context() as patch:
        patch.setattr("otel_memory.probe.sampler.Ticker.start", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            probe.start()
    assert not probe.running
    assert (threads(), list(gc.callbacks)) == before
    assert len(lifecycle._live) == 0
    probe.start()
    assert probe.stop()


def test_a_stop_step_that_fails_hides_no_other(provider: MeterProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(SETTINGS, provider)
    probe.start()
    before = len(gc.callbacks)

    def fails() -> None:
        raise OSError("stuck")

    probe._undo.append(("test", fails))
    assert probe.stop()
    assert len(gc.callbacks) == before - 1
    assert probe.ledger.failures == {"test": 1}


def test_a_threshold_event_goes_to_the_given_logger_provider(provider: MeterProvider) -> None:
    exporter = InMemoryLogRecordExporter()
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    probe = Probe(Settings(interval_seconds=60, rules=parse_rules("none;tiny=rss>1MB")), provider, logs)
    probe.start()
    assert wait_until(lambda: exporter.get_finished_logs())
    probe.stop()
    (log,) = exporter.get_finished_logs()
    assert log.log_record.event_name == names.EVENT_THRESHOLD_CROSSED
    logs.shutdown()


def test_events_none_means_no_event(provider: MeterProvider) -> None:
    exporter = InMemoryLogRecordExporter()
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    probe = Probe(Settings(interval_seconds=60, events=(), rules=parse_rules("rss>1MB")), provider, logs)
    probe.start()
    assert wait_until(lambda: probe._sampler is not None and probe._sampler.ticks)
    probe.stop()
    assert exporter.get_finished_logs() == ()
    logs.shutdown()


def test_settings_reach_the_sources(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    probe = Probe(Settings(interval_seconds=60, limit_bytes=2_000_000, pressure_levels=(0.1, 0.2, 0.3)), provider)
    probe.start()
    found = values(reader)
    probe.stop()
    assert found[names.MEMORY_LIMIT] == [({names.LIMIT_KIND: "configured"}, 2_000_000)]
    assert found[names.MEMORY_PRESSURE][0][1] == 3


def test_the_operation_log_is_on_while_the_probe_runs(
    provider: MeterProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "otel_memory.operations")
    operation = operations.monitor_memory(lambda: None)
    probe = Probe(Settings(interval_seconds=60, operation_log=True), provider)
    probe.start()
    operation()
    assert len(caplog.records) == 1
    probe.stop()
    operation()
    assert len(caplog.records) == 1


def test_fork_hooks_hold_the_sampler_out_of_the_sdk_and_let_it_in_again(provider: MeterProvider) -> None:
    probe = Probe(SETTINGS, provider)
    probe.start()
    assert wait_until(lambda: probe._sampler is not None and probe._sampler.ticks, 30), "its first tick is over"
    assert probe._sampler is not None
    lock = probe._sampler.calling_out
    lifecycle._before_fork()
    assert not _another_thread_gets(lock)
    lifecycle._after_fork_in_parent()
    assert _another_thread_gets(lock)
    probe.stop()


def test_a_fork_does_not_wait_for_a_tick_that_hangs_in_an_exporter(
    provider: MeterProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe(SETTINGS, provider)
    probe.start()
    assert probe._sampler is not None
    holding, leave = threading.Event(), threading.Event()

    def hang(lock: threading.RLock) -> None:
        with lock:
            holding.set()
            leave.wait(20)

    other = threading.Thread(target=hang, args=(probe._sampler.calling_out,))
    other.start()
    assert holding.wait(5)
    waits: list[float] = []
    acquire = sdk_fork.Hold.acquire

    def watched(self: sdk_fork.Hold, locks: Any, timeout: float) -> bool:
        waits.append(timeout)
        return acquire(self, locks, timeout)

    monkeypatch.setattr(sdk_fork.Hold, "acquire", watched)
    for _ in range(3):
        lifecycle._before_fork()  # returns, though the lock is held
        lifecycle._after_fork_in_parent()
    assert waits == [lifecycle.FORK_WAIT_SECONDS, 0.0, 0.0], "it waits a little once, then not for a minute"
    leave.set()
    other.join()
    probe.stop()


def _another_thread_gets(lock: threading.RLock) -> bool:
    got: list[bool] = []

    def look() -> None:
        got.append(lock.acquire(blocking=False))
        if got[0]:
            lock.release()

    other = threading.Thread(target=look)
    other.start()
    other.join()
    return got[0]


# --- fork and exit, in processes of their own -----------------------------------------------------------------

PRELUDE = """
import gc, json, os, sys, threading, time
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_memory import MemoryInstrumentor

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

def own_rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def collect():
    data = reader.get_metrics_data()
    return {m.name: m.data.data_points[0] for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics
            if m.data.data_points}

def report(**more):
    # One write, so that the lines of several processes do not mix.
    found = collect()
    line = json.dumps({
        "pid": os.getpid(),
        "told_pid": found["otel_memory.process.info"].attributes["process.pid"],
        "rss": found["process.memory.usage"].value,
        "own": own_rss(),
        "threads": sorted(t.name for t in threading.enumerate()),
        "resource": dict(reader.get_metrics_data().resource_metrics[0].resource.attributes),
        "collections": found["cpython.gc.collections"].value,
        **more,
    })
    os.write(1, (line + "\\n").encode())

MemoryInstrumentor().instrument(interval=100)
"""


def run(code: str, **env: str) -> list[dict[str, Any]]:
    """Run ``code`` after the prelude in a new process; the reports that it and its children wrote."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


FORK = """
    def in_child(work):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        return pid

    def wait(*pids):
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
"""


def _assert_one_set_of_threads(found: list[str]) -> None:
    """The background thread is there once a job has come, and nothing twice."""
    assert sorted(set(found) | {BACKGROUND}) == ["MainThread", BACKGROUND, THREAD_NAME]
    assert len(found) == len(set(found))


@LINUX
def test_forked_children_report_their_own_numbers_under_their_own_instance_id() -> None:
    reports = run(
        FORK
        + """
    for _ in range(5): gc.collect()
    def grow(megabytes):
        ballast = b"x" * (megabytes * 1_000_000)
        time.sleep(0.25)
        report()
    wait(in_child(lambda: grow(50)), in_child(lambda: grow(150)))
    report()
    """
    )
    assert len(reports) == 3
    for one in reports:
        assert one["told_pid"] == one["pid"]
        assert one["rss"] == pytest.approx(one["own"], rel=0.15)
        _assert_one_set_of_threads(one["threads"])
    assert len({one["resource"]["service.instance.id"] for one in reports}) == 3
    assert reports[-1]["collections"] >= 0


@LINUX
def test_an_instance_id_set_by_the_user_does_not_make_workers_look_like_one() -> None:
    reports = run(
        FORK + "    wait(in_child(report), in_child(report))\n    report()\n",
        OTEL_RESOURCE_ATTRIBUTES="service.instance.id=mine,service.name=shop",
    )
    ids = [one["resource"]["service.instance.id"] for one in reports]
    assert len(set(ids)) == 3
    assert ids[-1] == "mine", "the parent keeps it"
    assert {one["resource"]["service.name"] for one in reports} == {"shop"}


@LINUX
def test_a_childs_child_works_too_and_counts_from_zero() -> None:
    reports = run(
        FORK
        + """
    from otel_memory import monitor_memory
    monitor_memory(name="op")(lambda: None)()
    def child():
        wait(in_child(lambda: report(operations="otel_memory.operation.calls" in collect())))
        report(operations="otel_memory.operation.calls" in collect())
    wait(in_child(child))
    report(operations="otel_memory.operation.calls" in collect())
    """
    )
    assert [one["operations"] for one in reports] == [False, False, True]
    assert len({one["told_pid"] for one in reports}) == 3
    for one in reports:
        _assert_one_set_of_threads(one["threads"])


@LINUX
def test_many_forks_while_ticks_collections_and_threads_run_end_without_a_hang() -> None:
    """Ticks every 100 ms record pauses of collections that other threads cause; each child must still collect."""
    reports = run(
        FORK
        + """
    busy = threading.Event()
    def churn():
        while not busy.is_set():
            a = []; a.append(a); del a
            gc.collect(0)
            busy.wait(0.0005)
    workers = [threading.Thread(target=churn, daemon=True) for _ in range(2)]
    for worker in workers: worker.start()
    for _ in range(8):
        wait(*[in_child(report) for _ in range(3)])
    busy.set()
    for worker in workers: worker.join()
    report()
    """
    )
    assert len(reports) == 25
    assert all(one["told_pid"] == one["pid"] for one in reports)


STUCK = """
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
    from opentelemetry.metrics import Observation

    parent, stuck, leave = os.getpid(), threading.Event(), threading.Event()

    class Exporter(MetricExporter):
        def export(self, data, timeout_millis=0, **_):
            if os.getpid() == parent:
                if WHERE == "export": stuck.set(); leave.wait(20)
            else:
                os.write(1, b'{"exported": true}\\n')
            return MetricExportResult.SUCCESS
        def force_flush(self, timeout_millis=0): return True
        def shutdown(self, timeout_millis=0, **_): pass

    def observe(options):
        if WHERE == "collect" and os.getpid() == parent: stuck.set(); leave.wait(20)
        return [Observation(1)]

    provider = MeterProvider([PeriodicExportingMetricReader(Exporter(), export_interval_millis=50)],
                             shutdown_on_exit=False)
    provider.get_meter("app").create_observable_gauge("g", [observe])
    histogram = provider.get_meter("app").create_histogram("h")
    histogram.record(1)
    if WITH_PROBE:
        MemoryInstrumentor().uninstrument()
        MemoryInstrumentor().instrument(interval=60_000, meter_provider=provider)
    assert stuck.wait(10)
    def child():
        histogram.record(2)
        time.sleep(0.5)
    wait(in_child(child))
    leave.set()
"""


@LINUX
@pytest.mark.parametrize("where", ["export", "collect"])
def test_a_child_forked_while_the_sdk_collects_or_exports_still_reports(where: str) -> None:
    reports = run(FORK + f"    WHERE, WITH_PROBE = {where!r}, True\n" + STUCK)
    assert {"exported": True} in reports


@LINUX
@pytest.mark.parametrize("where", ["export", "collect"])
def test_the_sdk_alone_hangs_there_which_is_why_it_is_mended(where: str) -> None:
    """When this fails, the SDK has mended it itself, and ``sdk_fork`` can go."""
    reports = run(FORK + f"    WHERE, WITH_PROBE = {where!r}, False\n    MemoryInstrumentor().uninstrument()\n" + STUCK)
    assert reports == []


@LINUX
def test_after_a_stop_a_fork_starts_nothing() -> None:
    (child,) = run(
        FORK
        + """
    MemoryInstrumentor().uninstrument()
    def look():
        os.write(1, json.dumps([t.name for t in threading.enumerate()]).encode() + b"\\n")
    wait(in_child(look))
    """
    )
    assert child == ["MainThread"]


@LINUX
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_children_end_well(method: str) -> None:
    reports = run(
        f"""
    import multiprocessing
    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        if {method!r} == "fork":
            process = context.Process(target=report)
        else:
            process = context.Process(target=time.sleep, args=(0.01,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
        report()
    """
    )
    assert len(reports) == (2 if method == "fork" else 1)
    assert len({one["told_pid"] for one in reports}) == len(reports)


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "sys.exit(0)",
        "threading.Thread(target=lambda: time.sleep(0.2)).start()",
        "import atexit; atexit.register(lambda: [gc.collect() for _ in range(3)])",
        "MemoryInstrumentor().uninstrument()",
    ],
)
def test_the_interpreter_ends_promptly_and_silently(ending: str) -> None:
    assert run(f"    time.sleep(0.15)\n    {ending}\n") == []


def test_what_a_short_program_saw_is_handed_over_at_its_end() -> None:
    """The last pauses are drained before the SDK's own end collects; registered first, it runs after us."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import gc
                from opentelemetry import metrics
                from opentelemetry.sdk.metrics import MeterProvider
                from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
                from otel_memory import MemoryInstrumentor

                metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())]))
                MemoryInstrumentor().instrument(interval="1h", slow_interval="1h")
                gc.collect()
                """
            ),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert names.GC_PAUSE_DURATION in done.stdout
    assert names.PROCESS_MEMORY_USAGE in done.stdout
