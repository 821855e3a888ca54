"""Cleaning up: each step measured, left out while it is useless, never two at once, never on an event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_memory import MonitoringError, cleanup, cleanup_async, names, register_evictor
from otel_memory.probe import cleanup as module
from otel_memory.probe import events, eviction, held
from otel_memory.probe.background import Background
from otel_memory.probe.cleanup_feature import CleanupFeature
from otel_memory.probe.config import Settings
from otel_memory.probe.feature import Surroundings
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.thresholds import Crossing, Rule
from tests.harness import wait_until

MIB = 2**20
MEASURED = pytest.mark.skipif(
    held.read_heap() is None or not hasattr(psutil, "heap_trim"), reason="the heap can't be measured here"
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    before = module._state, eviction._state
    module._state, eviction._state = module._State(), eviction._State()
    gc.collect()
    yield
    module._state, eviction._state = before


def cycles(count: int) -> None:
    """Leave garbage behind that only the collector finds, in the oldest generation."""
    made: list[list[Any]] = []
    for _ in range(count):
        one: list[Any] = [0] * 20
        one.append(one)
        made.append(one)
    gc.collect()


def outcomes(result: module.CleanupResult) -> dict[str, str]:
    return {each.step: each.outcome for each in result.steps}


@MEASURED
def test_each_step_of_an_aggressive_cleanup_is_measured_on_its_own() -> None:
    cache = {number: bytearray(10_000) for number in range(2000)}
    register_evictor("cache", cache)
    gc.disable()
    try:
        cycles(20_000)
        result = cleanup(aggressive=True)
    finally:
        gc.enable()
    evict, collect, trim = result.steps
    assert (evict.step, collect.step, trim.step) == ("evict", "gc", "trim")
    assert cache == {}
    assert 19 * MIB < (evict.freed_heap_bytes or 0) < 22 * MIB
    assert 4 * MIB < (collect.freed_heap_bytes or 0) < 8 * MIB  # 20,000 lists of 21 places: 16 + 56 + 200 bytes each
    assert "generations 0 to 2" in collect.detail
    assert abs(trim.freed_heap_bytes or 0) < MIB  # it returns pages, and frees no block
    assert result.freed_heap_bytes == pytest.approx(sum(each.freed_heap_bytes or 0 for each in result.steps), abs=4096)
    assert result.eviction is not None
    assert result.eviction.evictors[0].name == "cache"


@MEASURED
def test_a_gentle_cleanup_takes_only_what_nobody_misses() -> None:
    dear, expired = [bytearray(MIB) for _ in range(8)], [bytearray(MIB) for _ in range(8)]
    register_evictor("dear", dear)
    register_evictor("expired", expired, harmless=True)
    result = cleanup()
    assert len(dear) == 8
    assert expired == []
    assert outcomes(result)["evict"] == "freed"
    assert [each.name for each in result.eviction.evictors] == ["expired"] if result.eviction else False


def test_a_useless_step_is_left_out_longer_each_time_but_not_by_an_aggressive_cleanup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    collected: list[int] = []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "read_held", lambda: held.Held(100 * MIB, 50 * MIB))
    monkeypatch.setattr(module.gc, "collect", lambda generation: collected.append(generation) or 0)
    monkeypatch.setattr(module, "_full_is_cheap", lambda: False)
    assert outcomes(cleanup()) == {"evict": "skipped", "gc": "useless", "trim": "useless"}
    assert outcomes(cleanup()) == {"evict": "skipped", "gc": "skipped", "trim": "skipped"}
    assert "tried again in 10 min" in cleanup().steps[1].detail
    pauses = []
    for _ in range(8):
        pause = module._state.pauses["gc"]
        pauses.append(pause.seconds)
        now[0] = pause.until
        assert outcomes(cleanup())["gc"] == "useless"
    assert pauses == [600, 1200, 2400, 4800, 9600, 14400, 14400, 14400]
    assert set(collected) == {1}
    assert outcomes(cleanup())["gc"] == "skipped"
    assert outcomes(cleanup(aggressive=True))["gc"] == "useless"
    assert collected[-1] == 2


def test_a_step_that_frees_again_is_no_longer_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = [500 * MIB]

    def read() -> held.Held:
        heap[0] -= shrink[0]
        return held.Held(900 * MIB, heap[0])

    shrink = [0]
    monkeypatch.setattr(module, "read_held", read)
    monkeypatch.setattr(module, "_trim", lambda: "")
    cleanup()
    assert module._state.pauses["trim"].seconds == 600
    shrink[0] = 2 * MIB
    assert outcomes(cleanup(aggressive=True))["trim"] == "freed"
    assert module._state.pauses["trim"].seconds == 0
    assert outcomes(cleanup())["trim"] == "freed"


def test_what_could_not_be_measured_is_not_called_useless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_held", lambda: held.Held(None, None))
    result = cleanup()
    assert result.freed_bytes is None
    assert [each.freed_heap_bytes for each in result.steps] == [None, None, None]
    assert module._state.pauses["gc"].seconds == 0


def test_a_step_that_cannot_be_done_says_so_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "heap_trim", raising=False)
    result = cleanup(aggressive=True)
    assert outcomes(result)["trim"] == "failed"
    assert "NotImplementedError" in result.steps[2].detail
    assert outcomes(result)["gc"] in ("freed", "useless")


def test_a_costly_full_collection_is_left_to_the_aggressive_cleanup() -> None:
    module._state.full_seconds = 0.2
    assert "generations 0 to 1" in cleanup().steps[1].detail
    assert "generations 0 to 2" in cleanup(aggressive=True).steps[1].detail
    module._state.full_seconds = 0.01
    module._state.pauses["gc"] = module._Pause()
    assert "generations 0 to 2" in cleanup().steps[1].detail


@pytest.mark.parametrize("second", [False, True], ids=["gentle", "aggressive"])
def test_two_never_run_at_once(second: bool) -> None:
    begun, release = threading.Event(), threading.Event()
    at_once, most = [0], [0]

    def slow() -> None:
        at_once[0] += 1
        most[0] = max(most)
        begun.set()
        release.wait(30)
        at_once[0] -= 1

    register_evictor("slow", slow, harmless=True, timeout_seconds=60)
    results: dict[str, module.CleanupResult] = {}

    def run(key: str, aggressive: bool) -> None:
        results[key] = cleanup(aggressive)

    first = threading.Thread(target=run, args=("first", False))
    first.start()
    assert begun.wait(30)
    other = threading.Thread(target=run, args=("other", second))
    other.start()
    other.join(0.2)
    assert other.is_alive()
    release.set()
    first.join(30)
    other.join(30)
    # One that does no more than the first takes its result; one that does more follows it.
    assert (results["other"] is results["first"]) == (not second)
    assert results["other"].aggressive is second


def test_an_event_loop_is_never_blocked() -> None:
    async def main() -> None:
        with pytest.raises(MonitoringError, match=r"await cleanup_async\(…\)"):
            cleanup()
        assert (await cleanup_async(aggressive=True)).aggressive

    asyncio.run(main())


def test_an_evictor_may_not_start_a_cleanup() -> None:
    register_evictor("recursive", lambda: cleanup(), harmless=True)
    assert "called by an evictor" in cleanup().steps[0].detail


def test_a_run_is_an_event_with_figures_of_each_step_and_counted() -> None:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    sink = events.Events(provider)
    events.attach(sink)
    try:
        result = cleanup(aggressive=True)
    finally:
        events.detach(sink)
        provider.shutdown()
    (record,) = [each.log_record for each in exporter.get_finished_logs()]
    attributes = dict(record.attributes or {})
    assert record.event_name == names.EVENT_CLEANUP
    assert attributes[names.CLEANUP_TRIGGER] == "manual"
    assert attributes[names.CLEANUP_AGGRESSIVE] is True
    for each in result.steps:
        assert attributes[names.CLEANUP_STEP_OUTCOME[each.step]] == each.outcome
        assert attributes.get(names.CLEANUP_STEP_FREED_RSS[each.step]) == each.freed_rss_bytes
    assert attributes[names.CLEANUP_STEP_DURATION["gc"]] > 0
    known = names.EVENTS[names.EVENT_CLEANUP]
    assert set(known.attributes) - set(known.optional) <= set(attributes) <= set(known.attributes)
    assert [each.value for each in module.observe_runs()] == [1]
    spent = {(each.attributes or {})[names.CLEANUP_STEP] for each in module.observe_time()}
    assert spent == {"gc", "trim"}  # no evictor was registered


# --- when it runs by itself -----------------------------------------------------------------------------------


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[CleanupFeature, list[tuple[str, bool]]]]]:
    backgrounds: list[Background] = []

    def made(**settings: Any) -> tuple[CleanupFeature, list[tuple[str, bool]]]:
        ledger = Ledger()
        background = Background(ledger)
        backgrounds.append(background)
        around: Any = Surroundings(Settings(**settings), None, lambda *_: True, background, ledger)  # type: ignore[arg-type]
        ran: list[tuple[str, bool]] = []
        feature = CleanupFeature(around)
        feature._run = lambda trigger, *, aggressive: ran.append((trigger, aggressive))  # type: ignore[method-assign]
        return feature, ran

    yield made
    for background in backgrounds:
        assert background.stop(10)


def crossing(kind: str = "crossed", **changes: Any) -> Crossing:
    rule = Rule("near", names.PROCESS_MEMORY_UTILIZATION, "share_of_limit", 0.9, severity="critical")
    return Crossing(replace(rule, **changes), kind, time=0.0, value=0.95, peak=0.95, serial=1)  # type: ignore[arg-type]


def test_periodic_comes_after_each_interval_and_gently(make: Any) -> None:
    feature, ran = make(cleanup=("periodic",), cleanup_interval_seconds=600.0)
    for now in (0.0, 100.0, 599.0):
        feature.tick(now)
    feature.tick(601.0)
    wait_until(lambda: ran == [("periodic", False)])
    feature.tick(1200.0)
    feature.crossing(crossing())
    # Refused while the first is still counted as running, and tried again at each beat.
    wait_until(lambda: feature.tick(1202.0) or ran == [("periodic", False)] * 2)
    feature.tick(1203.0)
    assert len(ran) == 2


def test_a_critical_crossing_about_memory_cleans_up_aggressively_and_once(make: Any) -> None:
    feature, ran = make(cleanup=("critical",))
    feature.tick(0.0)
    feature.tick(10_000.0)
    feature.crossing(crossing(severity="warning"))
    feature.crossing(crossing(kind="recovered"))
    feature.crossing(crossing(metric=names.PROCESS_THREAD_COUNT, comparison="greater_than", bound=100))
    assert ran == []
    feature.crossing(crossing())
    feature.crossing(crossing())
    wait_until(lambda: ran == [("critical", True)])
    feature.after_fork()
    feature.crossing(crossing(metric=names.PROCESS_MEMORY_USAGE, comparison="greater_than", bound=100))
    wait_until(lambda: feature.tick(10_001.0) or ran == [("critical", True)] * 2)


def test_settings() -> None:
    assert Settings.load({}).cleanup == ()
    both = {"OTEL_PYTHON_MEMORY_CLEANUP": "periodic,critical", "OTEL_PYTHON_MEMORY_CLEANUP_INTERVAL": "60000"}
    loaded = Settings.load(both)
    assert (loaded.cleanup, loaded.cleanup_interval_seconds) == (("periodic", "critical"), 60.0)
    with pytest.raises(ValueError, match="OTEL_PYTHON_MEMORY_CLEANUP='always': expected none, or"):
        Settings.load({"OTEL_PYTHON_MEMORY_CLEANUP": "always"})
