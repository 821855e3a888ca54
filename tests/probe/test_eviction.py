"""Evictors: real caches give memory back, measured; what raises, hangs or blocks harms nobody."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cachetools
import diskcache
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_memory import (
    EvictionError,
    MonitoringError,
    evict,
    evict_async,
    names,
    register_evictor,
    registered_evictors,
    unregister_evictor,
)
from otel_memory.probe import events, eviction, held
from otel_memory.probe.evictors import adapt
from otel_memory.probe.held import Held, difference
from tests.harness import wait_until

MIB = 2**20
KIB = 2**10
MEASURED = pytest.mark.skipif(held.read_heap() is None, reason="the heap can't be measured here")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    before, eviction._state = eviction._state, eviction._State()
    gc.collect()
    yield
    eviction._state = before


def values(count: int, size: int = 10 * KIB) -> Iterator[tuple[int, bytearray]]:
    return ((number, bytearray(size)) for number in range(count))


class Hoard:
    """An object with a ``clear``."""

    def __init__(self, size: int) -> None:
        self.held = bytearray(size)

    def clear(self) -> None:
        self.held = bytearray()


# --- measuring ------------------------------------------------------------------------------------------------


@MEASURED
def test_the_heap_is_measured_whichever_allocator_has_it() -> None:
    first = held.read_held()
    small = [[number] for number in range(100_000)]  # pymalloc: an int of 32, a list of 56+8 with its gc head of 16
    second = held.read_held()
    large = bytearray(5 * MIB)  # the C allocator
    third = held.read_held()
    assert 8 * MIB < -(difference(first, second).heap_bytes or 0) < 13 * MIB
    assert 5 * MIB <= -(difference(second, third).heap_bytes or 0) < 5.5 * MIB
    del small, large
    freed = difference(third, held.read_held())
    assert (freed.heap_bytes or 0) > 13 * MIB


def test_what_could_not_be_read_is_no_zero() -> None:
    assert difference(Held(None, 5), Held(7, 3)) == held.Freed(heap_bytes=2, rss_bytes=None)
    assert difference(Held(None, 5), Held(7, 3)).known_bytes == 2
    assert difference(Held(None, None), Held(7, 3)).known_bytes is None


# --- adapters, on the real caches -----------------------------------------------------------------------------


@MEASURED
def test_a_target_takes_from_a_cachetools_cache_only_what_it_needs_and_by_its_policy() -> None:
    cache: Any = cachetools.LRUCache(10_000)
    cache.update(values(4000))
    assert cache[0] is not None  # the first is now the most recently used
    register_evictor("pages", cache)
    result = evict(10 * MIB)
    assert result.reached
    assert result.ended == "reached"
    assert 10 * MIB <= (result.freed_heap_bytes or 0) < 12 * MIB
    assert 2700 < len(cache) < 3000
    assert 0 in cache
    assert 1 not in cache


@MEASURED
def test_a_dict_gives_up_its_oldest_entries() -> None:
    plain, ordered = dict(values(2000)), OrderedDict(values(2000))
    for name, mapping in (("plain", plain), ("ordered", ordered)):
        with register_evictor(name, mapping):
            assert evict(5 * MIB).reached
            assert 0 not in mapping
            assert 1999 in mapping
    assert registered_evictors() == []


@MEASURED
def test_lru_cache_and_cachetools_functions_are_cleared() -> None:
    @register_evictor("thumbnails")
    @functools.cache
    def thumbnail(number: int) -> bytearray:
        return bytearray(10 * KIB)

    @register_evictor("pages")
    @cachetools.cached(cachetools.LRUCache(5000), lock=threading.Lock())
    def page(number: int) -> bytearray:
        return bytearray(10 * KIB)

    for number in range(1000):
        thumbnail(number)
        page(number)
    result = evict()
    assert [(each.name, each.outcome) for each in result.evictors] == [("thumbnails", "freed"), ("pages", "freed")]
    assert all(9 * MIB < (each.freed_heap_bytes or 0) < 11 * MIB for each in result.evictors)
    assert thumbnail.cache_info().currsize == 0
    assert len(page.cache) == 0


def test_what_has_expired_goes_before_anything_else() -> None:
    now = [0.0]
    cache: Any = cachetools.TTLCache(10_000, ttl=10, timer=lambda: now[0])
    cache.update(values(500, 20 * KIB))
    now[0] = 5.0
    cache.update((number + 1000, value) for number, value in values(10))
    now[0] = 12.0
    register_evictor("sessions", cache)
    assert eviction.run_evictors(None, only_harmless=True).evictors[0].outcome == "freed"
    assert len(cache) == 10


def test_a_disk_cache_expires_culls_and_clears(tmp_path: Path) -> None:
    with diskcache.Cache(tmp_path) as cache:
        cache.set("old", 1, expire=-1)
        cache.set("new", 2)
        adapter = adapt(cache)
        assert adapter.kind == "methods"
        adapter.expire()
        assert list(cache) == ["new"]
        adapter.evict(1, lambda: 1)  # the target is reached after the first step: nothing else is lost
        assert list(cache) == ["new"]
        adapter.evict(None, lambda: None)
        assert list(cache) == []


def test_steps_go_by_harm_and_stop_when_enough_is_free() -> None:
    class Store:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def clear(self) -> None:
            self.calls.append("clear")

        def evict(self, tag: str) -> None:  # needs an argument: not for us
            raise AssertionError

        def cull(self) -> None:
            self.calls.append("cull")

        def expire(self) -> None:
            self.calls.append("expire")

    store = Store()
    adapt(store).evict(100, lambda: 100 if "cull" in store.calls else 0)
    assert store.calls == ["expire", "cull"]
    adapt(store).evict(None, lambda: 100)
    assert store.calls[2:] == ["expire", "cull", "clear"]


def test_a_function_gets_the_bytes_asked_for_if_it_takes_them() -> None:
    asked: list[object] = []
    register_evictor("with", lambda target: asked.append(target))
    register_evictor("optional", lambda something=5: asked.append(something))
    register_evictor("without", lambda: asked.append("nothing"))
    evict()
    assert asked == [None, 5, "nothing"]
    unregister_evictor("optional")
    unregister_evictor("without")
    evict(3000)
    assert asked[3:] == [3000]


def test_a_mapping_whose_entries_are_held_elsewhere_is_left_alone() -> None:
    kept = dict(values(1000))
    cache = dict(kept)
    register_evictor("shared", cache)
    result = evict(5 * MIB)
    assert [each.outcome for each in result.evictors] == ["useless"]
    assert len(cache) >= 700


def test_a_lock_is_held_while_a_cache_is_emptied() -> None:
    lock = threading.Lock()
    seen: list[bool] = []

    class Watched(dict[int, bytearray]):
        def __delitem__(self, key: int) -> None:
            seen.append(lock.locked())
            super().__delitem__(key)

    cache = Watched(values(100))
    register_evictor("guarded", cache, lock=lock)
    evict(MIB)
    assert seen
    assert all(seen)
    assert not lock.locked()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_meanwhile_leaves_the_child_no_taken_lock() -> None:
    lock = threading.Lock()
    cache = dict(values(4000))
    register_evictor("guarded", cache, lock=lock)
    stop = threading.Event()

    def keep_evicting() -> None:
        while not stop.is_set():
            cache.update(values(400, 1 * KIB))
            evict(50 * KIB)

    thread = threading.Thread(target=keep_evicting)
    thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                free = lock.acquire(timeout=5) and eviction._state.turn.acquire(timeout=5)
                os._exit(0 if free else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


# --- the registry ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "called"), [(1000, [("evict", 1000)]), (None, ["clear"])])
def test_an_object_that_evicts_by_bytes_is_told_how_many_and_is_not_emptied_for_it(
    target: int | None, called: list[Any]
) -> None:
    found: list[Any] = []

    class Store:
        def evict(self, target_bytes: int) -> None:
            found.append(("evict", target_bytes + 0))

        def clear(self) -> None:
            found.append("clear")

    store = Store()
    adapt(store).evict(target, lambda: 1000 if found else 0)
    assert found == called


def test_an_object_that_can_only_evict_by_bytes_is_asked_for_all_by_none() -> None:
    found: list[int | None] = []

    class Store:
        def evict(self, target_bytes: int | None) -> None:
            found.append(target_bytes)

    store = Store()
    for target in (5, None):
        adapt(store).evict(target, lambda: 0)
    assert found == [5, None]


def test_objects_and_methods_are_held_weakly_and_functions_are_kept() -> None:
    hoard, other = Hoard(1), Hoard(1)
    register_evictor("object", hoard)
    register_evictor("method", other.clear)
    register_evictor("lambda", lambda: None)
    assert [each["name"] for each in registered_evictors()] == ["object", "method", "lambda"]
    del hoard, other
    assert [each["name"] for each in registered_evictors()] == ["lambda"]


def test_a_method_goes_with_its_object_and_is_kept_where_that_cannot_be_seen() -> None:
    """``entries.clear`` is made anew each time it is looked up: the method itself is gone at once."""
    seen: deque[int] = deque([1, 2])
    tags = {1, 2}
    rows, lines = [1, 2], {1: 2}

    class Slotted:
        __slots__ = ("held",)

        def drop(self) -> None:
            self.held = 0

    slotted = Slotted()
    slotted.held = 1
    for name, method in {"seen": seen.clear, "tags": tags.clear, "rows": rows.clear, "lines": lines.clear}.items():
        register_evictor(name, method)
    register_evictor("slotted", slotted.drop)
    register_evictor("partial", functools.partial(rows.append, 7))
    del method
    gc.collect()
    result = evict()
    assert {each.name: each.outcome for each in result.evictors}.keys() == {
        *("seen", "tags", "rows", "lines", "slotted", "partial")
    }
    assert (len(seen), tags, rows, lines, slotted.held) == (0, set(), [7], {}, 0)
    del seen, tags, rows, lines, slotted
    assert [each["name"] for each in registered_evictors()] == ["rows", "lines", "slotted", "partial"]


def test_a_name_is_taken_once_but_may_be_replaced_and_given_back() -> None:
    first = register_evictor("sessions", lambda: None)
    with pytest.raises(MonitoringError, match="replace=True"):
        register_evictor("sessions", lambda: None)
    second = register_evictor("sessions", lambda: None, replace=True)
    assert not first.unregister()
    assert second.unregister()
    assert not unregister_evictor("sessions")


def test_what_has_nothing_to_evict_is_refused_with_what_was_expected() -> None:
    with pytest.raises(MonitoringError, match="expected a function"):
        register_evictor("number", 5)
    with pytest.raises(MonitoringError, match="register an instance"):
        register_evictor("class", Hoard)
    with pytest.raises(MonitoringError, match="this one needs more"):
        register_evictor("greedy", lambda one, two: None)
    with pytest.raises(ValueError, match="weight 0"):
        register_evictor("x", lambda: None, weight=0)
    with pytest.raises(ValueError, match="name ''"):
        register_evictor("", lambda: None)
    with pytest.raises(ValueError, match="target_bytes 0"):
        evict(0)
    assert registered_evictors() == []


def test_the_registry_is_bounded() -> None:
    for number in range(eviction.MAX_EVICTORS):
        register_evictor(f"cache {number}", lambda: None)
    with pytest.raises(MonitoringError, match="64 evictors"):
        register_evictor("one more", lambda: None)
    for number in range(eviction.MAX_EVICTORS):
        unregister_evictor(f"cache {number}")
    register_evictor("later", lambda: None)
    eviction._count(
        [eviction.EvictorResult(f"other {n}", "freed", None, 10, 0, 0.0) for n in range(eviction.MAX_EVICTORS)]
    )
    evict()
    counted = {(o.attributes or {})[names.EVICTOR_NAME]: o.value for o in eviction.observe_runs()}
    assert len(counted) == eviction.MAX_EVICTORS + 1
    assert counted[eviction.OTHER] == 1


# --- order ----------------------------------------------------------------------------------------------------


@MEASURED
def test_the_lowest_priority_goes_first_and_the_dear_one_stays() -> None:
    dear, cheap = Hoard(8 * MIB), Hoard(8 * MIB)
    register_evictor("dear", dear, priority=10)
    register_evictor("cheap", cheap, priority=1)
    assert [each.name for each in evict(4 * MIB).evictors] == ["cheap"]
    assert len(dear.held) == 8 * MIB


@MEASURED
def test_weights_share_out_the_target() -> None:
    one, three = dict(values(4000)), dict(values(4000))
    register_evictor("one", one, weight=1)
    register_evictor("three", three, weight=3)
    result = evict(8 * MIB)
    assert result.reached
    asked = [each.asked_bytes or 0 for each in result.evictors]
    assert asked[0] == pytest.approx(2 * MIB, rel=0.05)
    assert asked[1] == pytest.approx(6 * MIB, rel=0.05)
    assert 2.5 < (4000 - len(three)) / (4000 - len(one)) < 3.5


@MEASURED
def test_who_still_gives_is_asked_again_for_what_others_could_not_give() -> None:
    large, small = dict(values(2000)), dict(values(20))
    register_evictor("large", large)
    register_evictor("small", small)
    result = evict(8 * MIB)
    assert [each.name for each in result.evictors] == ["large", "small", "large"]
    assert result.reached


@MEASURED
def test_a_run_ends_when_several_in_a_row_are_useless_but_empty_ones_say_nothing() -> None:
    last = Hoard(8 * MIB)
    for number in range(3):
        register_evictor(f"useless {number}", lambda: None)
    register_evictor("last", last)
    result = evict(4 * MIB)
    assert result.ended == "useless"
    assert not result.reached
    assert len(result.evictors) == 3
    with pytest.raises(EvictionError) as caught:
        evict(4 * MIB, strict=True)
    assert caught.value.target_bytes == 4 * MIB
    for number in range(3):
        register_evictor(f"useless {number}", {}, replace=True)
    result = evict(4 * MIB)
    assert result.reached
    assert [each.detail for each in result.evictors] == ["was empty", "was empty", "was empty", ""]


# --- isolation ------------------------------------------------------------------------------------------------


@MEASURED
def test_one_that_raises_and_one_that_hangs_harm_nobody() -> None:
    release = threading.Event()
    calls: list[str] = []

    def hangs() -> None:
        calls.append("hangs")
        release.wait(60)

    def fails() -> None:
        raise OSError("disk full")

    hoard = Hoard(8 * MIB)
    register_evictor("fails", fails)
    register_evictor("exits", lambda: exit(3))
    register_evictor("hangs", hangs, timeout_seconds=0.2)
    register_evictor("hoard", hoard)
    result = evict(4 * MIB)
    assert [each.outcome for each in result.evictors] == ["failed", "failed", "timed_out", "freed"]
    assert result.reached
    assert result.errors[0] == "fails failed: OSError: disk full"
    hoard.held = bytearray(8 * MIB)
    again = evict()
    assert [each.outcome for each in again.evictors] == ["failed", "failed", "skipped", "freed"]
    assert calls == ["hangs"]
    release.set()
    wait_until(lambda: not any(each["running"] for each in registered_evictors()))
    assert [each.outcome for each in evict().evictors][2] == "useless"
    assert calls == ["hangs", "hangs"]


def test_the_error_of_an_evictor_keeps_nothing_alive() -> None:
    class Big:
        pass

    alive: list[Any] = []

    def fails() -> None:
        import weakref

        big = Big()
        alive.append(weakref.ref(big))
        raise ValueError(big)

    register_evictor("fails", fails)
    evict()
    assert alive[0]() is None


def test_an_evictor_may_not_start_an_eviction() -> None:
    register_evictor("recursive", lambda: evict())
    assert "called by an evictor" in evict().errors[0]


def test_an_event_loop_is_never_blocked() -> None:
    release = threading.Event()

    async def main() -> None:
        register_evictor("slow", lambda: release.wait(30))
        with pytest.raises(MonitoringError, match=r"await evict_async\(…\)"):
            evict()
        running = asyncio.create_task(evict_async())
        beats = 0
        while beats < 20:  # the loop goes on meanwhile
            await asyncio.sleep(0.001)
            beats += 1
        assert not running.done()
        release.set()
        assert [each.outcome for each in (await running).evictors] == ["useless"]

    asyncio.run(main())


@MEASURED
def test_asynchronous_evictors_run_on_their_own_loop() -> None:
    loops: list[object] = []

    class Pool:
        def __init__(self) -> None:
            self.held = bytearray(8 * MIB)

        async def clear(self) -> None:
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())
            self.held = bytearray()

    async def main() -> None:
        pool = Pool()
        register_evictor("pool", pool)

        @register_evictor("slow", timeout_seconds=0.1)
        async def slow() -> None:
            await asyncio.sleep(60)

        result = await evict_async()
        assert loops == [asyncio.get_running_loop()]
        assert [each.outcome for each in result.evictors] == ["freed", "timed_out"]
        del slow

    asyncio.run(main())
    assert registered_evictors() == []  # their loop is closed

    async def later() -> None: ...

    with pytest.raises(MonitoringError, match="register it from a coroutine"):
        register_evictor("later", later)


# --- telling --------------------------------------------------------------------------------------------------


def test_a_run_is_an_event_and_counted() -> None:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    sink = events.Events(provider)
    events.attach(sink)
    try:
        hoard = Hoard(8 * MIB)
        register_evictor("hoard", hoard)
        register_evictor("fails", lambda: 1 / 0)
        result = evict(100 * MIB)
    finally:
        events.detach(sink)
        provider.shutdown()
    (record,) = [each.log_record for each in exporter.get_finished_logs()]
    assert record.event_name == names.EVENT_EVICTION
    attributes = dict(record.attributes or {})
    assert attributes[names.EVICTION_TARGET] == 100 * MIB
    assert attributes[names.EVICTION_ENDED] == "no_evictor_left"
    assert attributes[names.EVICTION_FREED_RSS] == result.freed_rss_bytes
    assert len(attributes[names.EVICTION_REPORT]) == 2
    assert set(attributes) <= set(names.EVENTS[names.EVENT_EVICTION].attributes)
    assert record.severity_text == "WARN"
    assert "fails failed: ZeroDivisionError" in str(record.body)
    counts = {tuple((each.attributes or {}).values()): each.value for each in eviction.observe_runs()}
    assert counts == {("hoard", "freed"): 1, ("fails", "failed"): 1}
    freed = {tuple((each.attributes or {}).values()): each.value for each in eviction.observe_freed()}
    assert freed[("hoard",)] >= 7 * MIB
