"""The decorator and the tracker: what they measure, and that the operation never notices."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import pickle
import re
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_memory import names
from otel_memory.probe import operations
from otel_memory.probe.operation_table import UNDIVIDED, Aggregate, LockedAggregate
from otel_memory.probe.operations import TABLE, MemoryTracker, monitor_memory
from otel_memory.probe.reader import RESIDENT, read_rss
from tests.harness import wait_until
from tests.probe.fake_resident import pretend

MIB = 1024 * 1024
LINE = re.compile(
    r"^MEMORY \| [\w.<>]+ \| (SUCCESS|ERROR) \| \d+\.\d{3}s"
    r" \| Current: \d+\.\d\d[KMG]B \| Change: [+-]\d+(\.\d\d)?[KMG]?B"
    r"( \| Traced: -?\d+(\.\d\d)?[KMG]?B \(Peak: -?\d+(\.\d\d)?[KMG]?B\))?$"
)


class Memory:
    """A process whose resident memory changes only when the test says so."""

    def __init__(self) -> None:
        self.rss: int | None = 100 * MIB

    def grow(self, mib: float) -> None:
        assert self.rss is not None
        self.rss += int(mib * MIB)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    fake = Memory()
    pretend(monkeypatch, lambda: fake.rss)
    return fake


def tracing_ends() -> None:
    """At once, or a moment later where the interpreter can't stop it safely while other threads work."""
    wait_until(lambda: not tracemalloc.is_tracing(), what="tracemalloc is off")


@pytest.fixture(autouse=True)
def fresh_table() -> Iterator[None]:
    TABLE.aggregates.clear()
    TABLE.reset_after_fork()
    yield
    assert TABLE.running == {}, "every section that began has ended"
    assert TABLE.failed == 0, "nothing in the measuring went wrong"


@pytest.fixture
def spans() -> Iterator[tuple[trace.Tracer, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter
    provider.shutdown()


@monitor_memory
def top_level(x: int, y: int = 2) -> int:
    """Adds."""
    return x + y


class Service:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    @monitor_memory
    def method(self, mib: int) -> str:
        self.memory.grow(mib)
        return "method"

    @classmethod
    @monitor_memory
    def of_class(cls) -> str:
        return cls.__name__

    @monitor_memory
    @classmethod
    def of_class_outside(cls) -> str:
        return cls.__name__

    @staticmethod
    @monitor_memory
    def static(x: int) -> int:
        return x

    @monitor_memory
    @staticmethod
    def static_outside(x: int) -> int:
        return x


def growth(name_ends_with: str) -> int:
    return next(a.growth_bytes for a in TABLE.aggregates.values() if a.name.endswith(name_ends_with))


def calls(name_ends_with: str) -> tuple[int, int]:
    found = next(a for a in TABLE.aggregates.values() if a.name.endswith(name_ends_with))
    return found.calls, found.errors


def test_signature_name_docstring_and_pickling_survive() -> None:
    assert top_level.__name__ == "top_level"
    assert top_level.__doc__ == "Adds."
    assert list(inspect.signature(top_level).parameters) == ["x", "y"]
    assert pickle.loads(pickle.dumps(top_level)) is top_level
    assert top_level(1) == 3


def test_a_function_reports_its_growth(memory: Memory) -> None:
    @monitor_memory(name="load")
    def load() -> None:
        memory.grow(3)

    load()
    load()
    assert growth("load") == 6 * MIB
    assert calls("load") == (2, 0)


def test_every_kind_of_method_works_with_the_decorator_on_either_side(memory: Memory) -> None:
    service = Service(memory)
    assert service.method(4) == "method"
    assert growth("Service.method") == 4 * MIB
    assert Service.of_class() == Service.of_class_outside() == service.of_class() == "Service"
    assert Service.static(1) == Service.static_outside(1) == service.static_outside(1) == 1
    assert isinstance(inspect.getattr_static(Service, "of_class_outside"), classmethod)
    assert isinstance(inspect.getattr_static(Service, "static_outside"), staticmethod)


def test_an_exception_passes_through_unchanged_and_counts_as_an_error(memory: Memory) -> None:
    error = KeyError("mine")

    @monitor_memory(name="fails")
    def fails() -> None:
        memory.grow(1)
        raise error

    with pytest.raises(KeyError) as caught:
        fails()
    assert caught.value is error
    assert calls("fails") == (1, 1)
    assert growth("fails") == MIB


def test_a_coroutine_is_not_blamed_for_what_other_tasks_allocate(memory: Memory) -> None:
    @monitor_memory(name="innocent")
    async def innocent() -> str:
        memory.grow(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        memory.grow(1)
        return "done"

    async def bystander() -> None:
        for _ in range(3):
            memory.grow(50)
            await asyncio.sleep(0)

    async def both() -> str:
        return (await asyncio.gather(innocent(), bystander()))[0]

    assert inspect.iscoroutinefunction(innocent)
    assert asyncio.run(both()) == "done"
    assert growth("innocent") == 2 * MIB


def test_a_coroutine_lasts_as_long_as_its_caller_waits(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    """`min_duration` is about slow calls, and an await is where a coroutine is slow."""

    @monitor_memory(name="slow", log_level="INFO", min_duration=0.02)
    async def slow() -> None:
        await asyncio.sleep(0.03)

    with caplog.at_level(logging.INFO, "otel_memory.operations"):
        asyncio.run(slow())
    assert len(caplog.records) == 1
    assert TABLE.aggregate("slow").seconds >= 0.03


def test_cancelling_a_coroutine_reaches_it_and_is_counted(memory: Memory) -> None:
    seen: list[str] = []

    @monitor_memory(name="waits")
    async def waits() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run() -> None:
        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert seen == ["cancelled"]
    assert calls("waits") == (1, 1)


def test_an_exception_of_an_awaited_future_can_be_caught_inside(memory: Memory) -> None:
    @monitor_memory(name="catches")
    async def catches(future: asyncio.Future[None]) -> str:
        try:
            await future
        except ValueError:
            return "caught"
        return "no error"

    async def run() -> str:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(catches(future))
        await asyncio.sleep(0)
        future.set_exception(ValueError("x"))
        return await task

    assert asyncio.run(run()) == "caught"
    assert calls("catches") == (1, 0)


def test_five_thousand_coroutines_at_once(memory: Memory) -> None:
    @monitor_memory(name="many")
    async def many(n: int) -> int:
        await asyncio.sleep(0)
        memory.grow(1 / 1024)
        return n

    async def run() -> list[int]:
        return await asyncio.gather(*(many(n) for n in range(5000)))

    assert asyncio.run(run()) == list(range(5000))
    assert growth("many") == 5000 * 1024


def test_a_generator_is_measured_only_while_it_runs_and_keeps_its_protocol(memory: Memory) -> None:
    @monitor_memory(name="generate")
    def generate() -> Generator[int, str, str]:
        memory.grow(1)
        try:
            got = yield 1
        except ValueError as error:
            got = f"thrown {error}"
        memory.grow(1)
        again = yield len(got)
        return got + again

    assert inspect.isgeneratorfunction(generate)
    running = generate()
    assert next(running) == 1
    memory.grow(500)
    assert running.throw(ValueError("in")) == 9
    with pytest.raises(StopIteration) as stop:
        running.send("!")
    assert stop.value.value == "thrown in!"
    assert growth("generate") == 2 * MIB
    assert calls("generate") == (1, 0)


def test_an_abandoned_generator_is_closed_and_counted(memory: Memory) -> None:
    closed: list[bool] = []

    @monitor_memory(name="abandoned")
    def generate() -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    running = generate()
    next(running)
    del running
    gc.collect()
    assert closed == [True]
    assert calls("abandoned") == (1, 0), "a caller that has had enough is no failure"


def test_a_generator_that_was_never_started_leaves_no_trace(memory: Memory) -> None:
    @monitor_memory(name="unstarted")
    def generate() -> Generator[int]:
        yield 1

    del generate
    gc.collect()
    assert not any(a.name == "unstarted" and a.calls for a in TABLE.aggregates.values())


def test_an_async_generator_keeps_its_protocol(memory: Memory) -> None:
    closed: list[bool] = []

    @monitor_memory(name="stream")
    async def stream() -> AsyncGenerator[int, int]:
        try:
            got = 0
            for _ in range(2):
                memory.grow(1)
                got = yield got + 1
            try:
                yield 100
            except ValueError:
                yield 200
        finally:
            closed.append(True)

    async def run() -> list[int]:
        memory.grow(70)
        generator = stream()
        first = await generator.asend(None)
        memory.grow(70)
        second = await generator.asend(10)
        third = await generator.asend(0)
        fourth = await generator.athrow(ValueError())
        await generator.aclose()
        return [first, second, third, fourth]

    assert inspect.isasyncgenfunction(stream)
    assert asyncio.run(run()) == [1, 11, 100, 200]
    assert closed == [True]
    assert growth("stream") == 2 * MIB


def test_async_for_over_a_decorated_async_generator(memory: Memory) -> None:
    @monitor_memory(name="numbers")
    async def numbers() -> AsyncIterator[int]:
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    async def run() -> list[int]:
        return [n async for n in numbers()]

    assert asyncio.run(run()) == [0, 1, 2]
    assert calls("numbers") == (1, 0)


def test_span_attributes_stand_on_the_current_recording_span(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans

    @monitor_memory(name="work")
    def work() -> None:
        memory.grow(2)

    with tracer.start_as_current_span("request"):
        work()
    attributes = dict(exporter.get_finished_spans()[0].attributes or {})
    assert attributes == {
        names.OPERATION_NAME: "work",
        names.OPERATION_OVERLAP: False,
        names.OPERATION_MEMORY_BEFORE: 100 * MIB,
        names.OPERATION_MEMORY_AFTER: 102 * MIB,
        names.OPERATION_MEMORY_DELTA: 2 * MIB,
    }


def test_an_unreadable_memory_is_a_gap_and_not_a_zero(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter], caplog: pytest.LogCaptureFixture
) -> None:
    tracer, exporter = spans
    memory.rss = None
    with (
        caplog.at_level(logging.INFO, "otel_memory.operations"),
        tracer.start_as_current_span("request"),
        MemoryTracker("blind", log_level="INFO") as tracker,
    ):
        pass
    attributes = dict(exporter.get_finished_spans()[0].attributes or {})
    assert attributes == {names.OPERATION_NAME: "blind", names.OPERATION_OVERLAP: False}
    assert tracker.delta_bytes is None
    assert "Current: unknown | Change: unknown" in caplog.text


def test_the_log_line_has_the_documented_form(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    @monitor_memory(name="shop.load", log_level="INFO", trace_malloc=True)
    def load() -> None:
        memory.grow(-1.5)

    @monitor_memory(name="shop.fail", log_level=logging.WARNING)
    def fail() -> None:
        raise RuntimeError

    with caplog.at_level(logging.INFO, "otel_memory.operations"):
        load()
        with pytest.raises(RuntimeError):
            fail()
    first, second = caplog.records
    assert LINE.match(first.getMessage()), first.getMessage()
    assert "| SUCCESS |" in first.getMessage()
    assert "Change: -1.50MB | Traced: " in first.getMessage()
    assert second.levelno == logging.WARNING
    assert LINE.match(second.getMessage()), second.getMessage()
    assert "| ERROR |" in second.getMessage()


def test_nothing_is_logged_below_the_minimum_duration_or_without_being_asked(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    @monitor_memory(min_duration=60, log_level="INFO")
    def quick() -> None: ...

    with caplog.at_level(logging.DEBUG, "otel_memory.operations"):
        quick()
        top_level(1)
    assert caplog.records == []


def test_the_default_level_makes_every_operation_log(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    operations.set_default_log_level(logging.INFO)
    try:
        with caplog.at_level(logging.INFO, "otel_memory.operations"):
            top_level(1)
    finally:
        operations.set_default_log_level(None)
    assert len(caplog.records) == 1


def test_an_operation_in_another_thread_marks_both_as_overlapping(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    inside, go_on = threading.Event(), threading.Event()

    @monitor_memory(name="long")
    def long() -> None:
        inside.set()
        assert go_on.wait(10)

    def other_thread() -> None:
        with tracer.start_as_current_span("long"):
            long()

    thread = threading.Thread(target=other_thread)
    thread.start()
    assert inside.wait(10)
    with tracer.start_as_current_span("short"):
        top_level(1)
    go_on.set()
    thread.join()
    overlaps = {s.name: (s.attributes or {})[names.OPERATION_OVERLAP] for s in exporter.get_finished_spans()}
    assert overlaps == {"long": True, "short": True}


def test_a_section_that_another_thread_joins_while_it_begins_is_marked(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    """Wherever in its beginning the other one comes: here just after it could be seen."""
    tracer, exporter = spans

    main = threading.get_ident()

    class Busy(dict[int, object]):
        """Somebody else begins and ends right after this thread has entered itself."""

        def __setitem__(self, thread: int, section: object) -> None:
            super().__setitem__(thread, section)
            if thread == main:
                other = threading.Thread(target=top_level, args=(1,))
                other.start()
                other.join()

    monkeypatch.setattr(TABLE, "running", Busy())
    with tracer.start_as_current_span("s"):
        monitor_memory(name="joined")(lambda: None)()
    assert (exporter.get_finished_spans()[0].attributes or {})[names.OPERATION_OVERLAP] is True


def test_a_nested_operation_is_marked_too_when_another_thread_is_busy(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    inside, go_on = threading.Event(), threading.Event()

    @monitor_memory(name="long")
    def long() -> None:
        inside.set()
        assert go_on.wait(10)

    thread = threading.Thread(target=long)
    thread.start()
    assert inside.wait(10)
    with MemoryTracker("outer"), tracer.start_as_current_span("inner"):
        top_level(1)
    go_on.set()
    thread.join()
    with MemoryTracker("outer"), tracer.start_as_current_span("inner alone"):
        top_level(1)
    overlaps = {s.name: (s.attributes or {})[names.OPERATION_OVERLAP] for s in exporter.get_finished_spans()}
    assert overlaps == {"inner": True, "inner alone": False}


def test_a_block_that_another_thread_ends_leaves_its_own_thread_free(memory: Memory) -> None:
    """A web framework may run the two halves of a generator that is a dependency on two threads."""
    tracker = MemoryTracker("block")
    first = threading.Thread(target=tracker.__enter__)
    first.start()
    first.join()
    assert len(TABLE.running) == 1
    memory.grow(2)
    tracker.__exit__(None, None, None)
    assert TABLE.running == {}
    assert tracker.delta_bytes == 2 * MIB


def test_two_threads_may_use_one_tracker_at_once(memory: Memory) -> None:
    tracker = MemoryTracker("shared")
    entered, leave = threading.Event(), threading.Event()
    results: list[int | None] = []

    def other() -> None:
        with tracker:
            memory.grow(1)
            entered.set()
            assert leave.wait(10)
        results.append(tracker.delta_bytes)

    thread = threading.Thread(target=other)
    with tracker:
        memory.grow(10)
        thread.start()
        assert entered.wait(10)
    results.append(tracker.delta_bytes)
    leave.set()
    thread.join()
    assert results == [11 * MIB, 1 * MIB]


def test_nested_operations_of_one_thread_do_not_overlap(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    with tracer.start_as_current_span("outer"), MemoryTracker("outer"), tracer.start_as_current_span("inner"):
        top_level(1)
    assert [(s.attributes or {})[names.OPERATION_OVERLAP] for s in exporter.get_finished_spans()] == [False, False]


def test_an_async_block_says_when_others_ran_meanwhile(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans

    async def other() -> None:
        top_level(1)

    async def run(disturbed: bool) -> None:
        with tracer.start_as_current_span("block"):
            async with MemoryTracker("block"):
                if disturbed:
                    await asyncio.ensure_future(other())

    asyncio.run(run(False))
    asyncio.run(run(True))
    blocks = [s for s in exporter.get_finished_spans() if s.name == "block"]
    assert [(s.attributes or {})[names.OPERATION_OVERLAP] for s in blocks] == [False, True]


def test_an_async_block_is_not_disturbed_by_its_own_task(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    """The decorated coroutine around the block, and those awaited inside it, are the same piece of work."""
    tracer, exporter = spans

    @monitor_memory
    async def inner() -> None:
        await asyncio.sleep(0)

    @monitor_memory
    async def outer() -> None:
        with tracer.start_as_current_span("block"):
            async with MemoryTracker("block"), MemoryTracker("nested"):
                await asyncio.sleep(0)
                await inner()
                top_level(1)

    asyncio.run(outer())
    (block,) = exporter.get_finished_spans()
    assert (block.attributes or {})[names.OPERATION_OVERLAP] is False
    assert TABLE.blocks == {}


def test_two_async_blocks_of_two_tasks_overlap_also_on_one_tracker(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    tracker = MemoryTracker("block")
    deltas: dict[str, int | None] = {}

    async def block(name: str, waits: int) -> None:
        with tracer.start_as_current_span(name):
            async with tracker:
                memory.grow(1)
                for _ in range(waits):
                    await asyncio.sleep(0)
            deltas[name] = tracker.delta_bytes

    async def both() -> None:
        await asyncio.gather(block("long", 3), block("short", 1))

    asyncio.run(both())
    assert deltas == {"long": 2 * MIB, "short": 1 * MIB}
    assert [(s.attributes or {})[names.OPERATION_OVERLAP] for s in exporter.get_finished_spans()] == [True, True]


def test_an_async_block_and_another_threads_operation_mark_each_other(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans

    def elsewhere() -> None:
        with tracer.start_as_current_span("thread"):
            top_level(1)

    async def run() -> None:
        with tracer.start_as_current_span("block"):
            async with MemoryTracker("block"):
                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join()

    asyncio.run(run())
    overlaps = {s.name: (s.attributes or {})[names.OPERATION_OVERLAP] for s in exporter.get_finished_spans()}
    assert overlaps == {"thread": True, "block": True}


def test_a_tracker_gives_its_result_and_may_be_used_again(memory: Memory) -> None:
    tracker = MemoryTracker("block")
    with tracker:
        memory.grow(1)
        with tracker:
            memory.grow(2)
        assert tracker.delta_bytes == 2 * MIB
    assert tracker.delta_bytes == 3 * MIB
    assert tracker.duration_seconds is not None
    assert calls("block") == (2, 0)


def test_overlapping_traced_operations_do_not_stop_each_others_tracing(memory: Memory) -> None:
    tracing_ends()
    first, second = MemoryTracker("a", trace_malloc=True), MemoryTracker("b", trace_malloc=True)
    with first:
        with second:
            pass
        assert tracemalloc.is_tracing()
    tracing_ends()


def test_tracing_that_somebody_else_started_goes_on(memory: Memory) -> None:
    tracing_ends()
    tracemalloc.start()
    try:
        with MemoryTracker("a", trace_malloc=True):
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_traced_sizes_are_those_of_the_operation(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    kept: list[bytes] = []

    @monitor_memory(trace_malloc=True)
    def allocate() -> None:
        temporary = bytes(8 * MIB)
        kept.append(bytes(2 * MIB))
        del temporary

    with tracer.start_as_current_span("s"):
        allocate()
    attributes: Any = exporter.get_finished_spans()[0].attributes
    assert attributes[names.OPERATION_TRACED] == pytest.approx(2 * MIB, rel=0.01)
    assert attributes[names.OPERATION_TRACED_PEAK] == pytest.approx(10 * MIB, rel=0.01)


def test_a_nested_traced_operation_has_a_peak_of_its_own(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    small = monitor_memory(trace_malloc=True)(lambda: len(bytes(MIB)))

    @monitor_memory(trace_malloc=True)
    def large() -> None:
        bytes(16 * MIB)
        with tracer.start_as_current_span("small"):
            small()

    with tracer.start_as_current_span("large"):
        large()
    peaks: dict[str, Any] = {
        s.name: (s.attributes or {})[names.OPERATION_TRACED_PEAK] for s in exporter.get_finished_spans()
    }
    assert peaks["small"] == pytest.approx(MIB, rel=0.05)
    assert peaks["large"] == pytest.approx(16 * MIB, rel=0.05)


def test_a_foreign_tracings_peak_is_not_reset_and_told_only_where_it_is_known(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    allocate = monitor_memory(trace_malloc=True)(lambda size: len(bytes(size)))
    tracing_ends()
    tracemalloc.start()
    try:
        bytes(8 * MIB)
        for name, size in (("below", MIB), ("above", 20 * MIB)):
            with tracer.start_as_current_span(name):
                allocate(size)
            assert tracemalloc.get_traced_memory()[1] >= 8 * MIB
    finally:
        tracemalloc.stop()
    below, above = exporter.get_finished_spans()
    assert names.OPERATION_TRACED in (below.attributes or {})
    assert names.OPERATION_TRACED_PEAK not in (below.attributes or {})
    assert (above.attributes or {})[names.OPERATION_TRACED_PEAK] == pytest.approx(20 * MIB, rel=0.05)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel has no resettable peak")
def test_the_peak_of_an_operation_is_the_kernels(spans: tuple[trace.Tracer, InMemorySpanExporter]) -> None:
    tracer, exporter = spans

    @monitor_memory(peak=True)
    def spike() -> int:
        return len(bytearray(b"x") * (64 * MIB))

    with (
        tracer.start_as_current_span("outer"),
        MemoryTracker("outer", peak=True),
        tracer.start_as_current_span("spike"),
    ):
        spike()
    inner, outer = exporter.get_finished_spans()
    for span in (inner, outer):
        attributes: Any = span.attributes
        assert 60 * MIB < attributes[names.OPERATION_MEMORY_PEAK_DELTA] < 100 * MIB
        assert attributes[names.OPERATION_MEMORY_DELTA] < 16 * MIB


@pytest.mark.parametrize("wrong", [42, property(lambda self: 1), int])
def test_a_thing_that_is_no_function_is_refused_with_the_mend(wrong: Any) -> None:
    with pytest.raises(TypeError, match="MemoryTracker"):
        monitor_memory(wrong)


def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        monitor_memory(log_level="LOUD")


def test_names_past_the_bound_are_summed_under_one(memory: Memory) -> None:
    table = operations.OperationTable(max_operations=3)
    for n in range(10):
        table.aggregate(f"op{n}").add(1, 0.0, failed=False)
    assert len(table.aggregates) == 4
    assert table.aggregate("otel_memory.other").growth_bytes == 7
    assert table.overflowed == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_counts_and_reads_for_itself() -> None:
    top_level(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = read_rss() or 0
            hoard = b"x" * (64 * MIB)
            top_level(1)
            after = read_rss() or 0
            own = after - before
            os.write(write, f"{calls('top_level')[0]} {own // MIB} {len(hoard)}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    counted, own, _ = os.read(read, 100).split() or (b"-1", b"-1", b"")
    _, status = os.waitpid(child, 0)
    os.close(read)
    assert status == 0
    assert int(counted) == 1
    assert 60 <= int(own) <= 80
    assert calls("top_level")[0] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_operation_in_which_the_process_forks_is_the_parents_alone(memory: Memory) -> None:
    """In the child the memory before is another process's: the change there would be made up."""

    @monitor_memory(name="forks")
    def forks() -> int:
        memory.grow(1)
        return os.fork()

    child = forks()
    if child == 0:
        fine = not any(a.calls for a in TABLE.aggregates.values()) and TABLE.running == {} and TABLE.failed == 0
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert calls("forks") == (1, 0)
    assert growth("forks") == MIB


def test_a_failing_reader_never_reaches_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise OSError("no /proc")

    pretend(monkeypatch, broken)
    assert top_level(1) == 3
    with MemoryTracker("block", trace_malloc=True, peak=True) as tracker:
        pass
    assert tracker.delta_bytes is None
    tracing_ends()
    assert TABLE.failed > 0
    TABLE.failed = 0


def test_decorated_recursion(memory: Memory) -> None:
    @monitor_memory(name="fib")
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(10) == 55
    assert calls("fib")[0] == 177
    assert sys.getrecursionlimit() > 100


# --- the quick way and the thorough one --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Aggregate, LockedAggregate])
def test_sums_are_exact_whatever_the_threads_do(kind: type[Aggregate]) -> None:
    """Also in a signal handler's or a finalizer's call: nothing waits there for a lock that it holds itself."""
    if kind is Aggregate and not UNDIVIDED:
        pytest.skip("threads really run side by side here")
    sums = kind("x")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [sums.add(2, 0.5, True) for _ in range(20_000)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (sums.calls, sums.errors, sums.growth_bytes, sums.seconds) == (120_000, 120_000, 240_000, 60_000.0)


def test_decorated_calls_of_many_threads_are_all_counted() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [top_level(1) for _ in range(2_000)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert calls("top_level") == (12_000, 0)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
@pytest.mark.parametrize("when", ["before", "while"])
@pytest.mark.parametrize("content", [None, b"3 4\n", b"hello, world\n"], ids=["closed", "numbers", "text"])
def test_a_descriptor_that_was_taken_away_is_a_gap_at_most_and_never_a_zero(
    when: str, content: bytes | None, tmp_path: Path, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    taken: list[int] = []

    def take() -> None:
        number = RESIDENT.descriptor
        if content is None:
            os.close(number)
            return
        path = tmp_path / "theirs"
        path.write_bytes(content)
        theirs = os.open(path, os.O_RDONLY)
        os.dup2(theirs, number)
        os.close(theirs)
        taken.append(number)

    if when == "before":
        take()
    with tracer.start_as_current_span("s"):
        monitor_memory(name="taken")(take if when == "while" else lambda: None)()
    with tracer.start_as_current_span("s"):
        monitor_memory(name="after")(lambda: None)()
    for number in taken:
        os.close(number)
    first, second = (dict(span.attributes or {}) for span in exporter.get_finished_spans())
    assert names.OPERATION_MEMORY_AFTER not in first or cast("int", first[names.OPERATION_MEMORY_AFTER]) > MIB
    assert cast("int", second[names.OPERATION_MEMORY_AFTER]) > MIB, "opened again"
    assert calls("taken") == (1, 0)


def test_before_and_after_are_told_though_nothing_changed(
    memory: Memory, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    with tracer.start_as_current_span("s"):
        top_level(1)
    attributes = exporter.get_finished_spans()[0].attributes or {}
    assert [attributes[name] for name in (names.OPERATION_MEMORY_BEFORE, names.OPERATION_MEMORY_AFTER)] == [
        100 * MIB,
        100 * MIB,
    ]
    assert attributes[names.OPERATION_MEMORY_DELTA] == 0


def test_the_time_of_an_operation_is_its_own(memory: Memory) -> None:
    top_level(1)
    monitor_memory(name="outer")(lambda: time.sleep(0.02))()
    quick, slow = (TABLE.aggregate(name).seconds for name in (f"{__name__}.top_level", "outer"))
    assert 0 < quick < slow
    assert slow >= 0.02
