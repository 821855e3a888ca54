"""A decorated function, coroutine or generator behaves as the plain one, whatever its caller does."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import gc
import inspect
import pickle
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_memory.probe.operations import TABLE, MemoryTracker, monitor_memory

Maker = Callable[[Callable[..., Any]], Callable[..., Any]]


@pytest.fixture(autouse=True)
def fresh_table() -> Iterator[None]:
    TABLE.reset_after_fork()
    yield
    assert TABLE.running == {}
    assert TABLE.failed == 0


# --- protocols, by random programs and random callers -----------------------------------------------------------

ERRORS: tuple[type[BaseException], ...] = (ValueError, KeyError, StopIteration, StopAsyncIteration, GeneratorExit)
Act = tuple[str, Any]
MOST_ACTS = 6

acts = st.lists(
    st.one_of(
        st.tuples(st.just("yield"), st.integers(0, 9)),
        st.tuples(st.just("await"), st.integers(0, 9)),
        st.tuples(st.just("raise"), st.sampled_from((ValueError, KeyError))),
        st.tuples(st.just("catch"), st.sampled_from((ValueError, GeneratorExit, BaseException))),
        st.tuples(st.just("return"), st.integers(0, 9)),
    ),
    max_size=MOST_ACTS,
)
"""What a generator does; ``catch`` takes that error at the pauses that follow, and goes on."""

calls = st.lists(
    st.one_of(
        st.tuples(st.just("next"), st.none()),
        st.tuples(st.just("send"), st.integers(10, 19)),
        st.tuples(st.just("throw"), st.sampled_from(ERRORS)),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=8,
)


@contextlib.contextmanager
def catching(kind: type[BaseException] | None, log: list[object]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        log.append(("thrown", type(error).__name__))
        if kind is None or not isinstance(error, kind):
            raise


def outcome(act: Callable[[], object]) -> object:
    """What came of a call: a value, the end with its value, or an error with those behind it."""
    try:
        return "value", act()
    except StopIteration as end:
        return "end", end.value
    except BaseException as error:
        cause = error.__cause__
        return type(error).__name__, str(error), type(cause).__name__


def generator_of(program: list[Act], log: list[object]) -> Callable[[], Generator[Any, Any, Any]]:
    def generate() -> Generator[Any, Any, Any]:
        taken: type[BaseException] | None = None
        for verb, what in program:
            match verb:
                case "yield" | "await":
                    with catching(taken, log):
                        log.append((yield what))
                case "raise":
                    raise what("own")
                case "catch":
                    taken = what
                case "return":
                    return what
        log.append("through")
        return "end"

    return generate


def drive(generator: Any, script: list[Act]) -> list[object]:
    seen: list[object] = []
    for verb, what in script:
        match verb:
            case "next":
                seen.append(outcome(lambda: next(generator)))
            case "send":
                seen.append(outcome(lambda value=what: generator.send(value)))  # type: ignore[misc]
            case "throw":
                seen.append(outcome(lambda error=what: generator.throw(error("in"))))  # type: ignore[misc]
            case "close":
                seen.append(outcome(generator.close))
    # However it was left: its end is part of what the caller sees. Who ignores it is asked again.
    seen.extend(outcome(generator.close) for _ in range(MOST_ACTS + 1))
    return seen


@settings(max_examples=400, deadline=None)
@given(acts, calls)
def test_a_generator_answers_every_caller_as_the_plain_one(program: list[Act], script: list[Act]) -> None:
    plain_log: list[object] = []
    measured_log: list[object] = []
    plain = drive(generator_of(program, plain_log)(), script)
    measured = drive(monitor_memory(generator_of(program, measured_log))(), script)
    assert measured == plain
    assert measured_log == plain_log


class Pause:
    """Awaited, it gives ``value`` to whoever drives the coroutine, and what that sends to the coroutine."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.value)


def coroutine_of(program: list[Act], log: list[object]) -> Callable[[], Coroutine[Any, Any, Any]]:
    async def run() -> Any:
        taken: type[BaseException] | None = None
        for verb, what in program:
            match verb:
                case "yield" | "await":
                    with catching(taken, log):
                        log.append(await Pause(what))
                case "raise":
                    raise what("own")
                case "catch":
                    taken = what
                case "return":
                    return what
        return "end"

    return run


@settings(max_examples=300, deadline=None)
@given(acts, calls)
def test_a_coroutine_answers_every_driver_as_the_plain_one(program: list[Act], script: list[Act]) -> None:
    script = [("send", None) if verb == "next" else (verb, what) for verb, what in script]
    plain_log: list[object] = []
    measured_log: list[object] = []
    plain = drive(coroutine_of(program, plain_log)(), script)
    measured = drive(monitor_memory(coroutine_of(program, measured_log))(), script)
    assert measured == plain
    assert measured_log == plain_log


def async_generator_of(program: list[Act], log: list[object]) -> Callable[[], AsyncGenerator[Any, Any]]:
    async def generate() -> AsyncGenerator[Any, Any]:
        taken: type[BaseException] | None = None
        for verb, what in program:
            match verb:
                case "yield":
                    with catching(taken, log):
                        log.append((yield what))
                case "await":
                    with catching(taken, log):
                        log.append(await Pause(what))
                case "raise":
                    raise what("own")
                case "catch":
                    taken = what
                case "return":
                    return
        log.append("through")

    return generate


@contextlib.contextmanager
def without_last_words() -> Iterator[None]:
    """Some programs refuse every end that they are offered; the interpreter then complains of the plain one too."""
    before, sys.unraisablehook = sys.unraisablehook, lambda told: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def drive_async(generator: Any, script: list[Act]) -> list[object]:
    """Each call's awaitable is driven to its end; what it pauses with is seen too."""

    def through(awaitable: Any) -> object:
        pauses: list[object] = []
        while True:
            result = outcome(lambda: awaitable.send(None))
            if not isinstance(result, tuple) or result[0] != "value":
                return pauses, result
            pauses.append(result[1])

    seen: list[object] = []
    for verb, what in script:
        match verb:
            case "next":
                seen.append(through(generator.__anext__()))
            case "send":
                seen.append(through(generator.asend(what)))
            case "throw":
                seen.append(through(generator.athrow(what("in"))))
            case "close":
                seen.append(through(generator.aclose()))
    seen.extend(through(generator.aclose()) for _ in range(MOST_ACTS + 1))
    return seen


@settings(max_examples=300, deadline=None)
@given(acts, calls)
def async_generators_answer_alike(program: list[Act], script: list[Act]) -> None:
    plain_log: list[object] = []
    measured_log: list[object] = []
    plain_one = async_generator_of(program, plain_log)()
    measured_one = monitor_memory(async_generator_of(program, measured_log))()
    # One that refuses its end hears of it again when it is freed, as often as there are generators around it. No caller
    # sees that: what they log after their callers are through isn't compared, and both live until then.
    plain = drive_async(plain_one, script), list(plain_log)
    measured = drive_async(measured_one, script), list(measured_log)
    assert measured == plain


def test_an_async_generator_answers_every_caller_as_the_plain_one() -> None:
    with without_last_words():
        async_generators_answer_alike()
        gc.collect()  # some hang in a ring with the error that they raised


def test_an_open_async_generator_is_closed_once_when_the_loop_ends() -> None:
    closed: list[str] = []
    complaints: list[object] = []
    kept: list[object] = []

    @monitor_memory
    async def numbers() -> AsyncGenerator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        opened = numbers()
        kept.append(opened)
        async for _ in opened:
            break

    hooks = sys.get_asyncgen_hooks()
    asyncio.run(run())
    assert closed == ["closed"]
    assert complaints == []
    assert sys.get_asyncgen_hooks() == hooks


# --- nothing is held on to --------------------------------------------------------------------------------------


class Large:
    """Something whose end a test can see."""


class LargeError(Exception):
    """An error whose end a test can see."""


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is freed, is freed by reference counts: a ring would stay."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_thrown_error_is_freed_with_its_handling(no_collection: None) -> None:
    @monitor_memory
    def generate() -> Generator[int]:
        for n in range(3):
            with contextlib.suppress(LargeError):
                yield n

    running = generate()
    next(running)
    error = LargeError()
    seen = weakref.ref(error)
    running.throw(error)
    error.__traceback__ = None
    del error
    assert seen() is None


@pytest.mark.parametrize("kind", ["function", "generator", "coroutine", "async generator"])
def test_an_error_that_passes_through_leaves_no_ring(no_collection: None, kind: str) -> None:
    def function() -> None:
        raise LargeError

    def generator() -> Generator[int]:
        yield 1

    async def coroutine() -> None:
        await Pause(1)

    async def async_generator() -> AsyncGenerator[int]:
        yield 1

    def run() -> weakref.ref[BaseException]:
        try:
            match kind:
                case "function":
                    monitor_memory(function)()
                case "generator":
                    running = monitor_memory(generator)()
                    next(running)
                    running.throw(LargeError())
                case "coroutine":
                    driven = monitor_memory(coroutine)()
                    driven.send(None)
                    driven.throw(LargeError())
                case _:
                    stream = monitor_memory(async_generator)()
                    with contextlib.suppress(StopIteration):
                        stream.asend(None).send(None)
                    stream.athrow(LargeError()).send(None)
        except LargeError as error:
            return weakref.ref(error)
        raise AssertionError("the error did not pass")

    assert run()() is None


def test_what_was_yielded_is_not_held_during_the_pause(no_collection: None) -> None:
    @monitor_memory
    def generate() -> Generator[Large]:
        yield Large()
        yield Large()

    @monitor_memory
    async def stream() -> AsyncGenerator[Large]:
        yield Large()
        yield Large()

    running = generate()
    seen = weakref.ref(next(running))
    assert seen() is None
    opened = stream()
    with pytest.raises(StopIteration) as end:
        opened.asend(None).send(None)
    seen = weakref.ref(end.value.value)
    del end
    assert seen() is None


# --- kinds of callables -----------------------------------------------------------------------------------------


def names_called() -> set[str]:
    return {a.name for a in TABLE.aggregates.values() if a.calls}


def add(x: int, y: int) -> int:
    """Adds."""
    return x + y


async def add_later(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


def test_a_partial_goes_by_the_name_of_its_function() -> None:
    assert monitor_memory(functools.partial(add, 1))(2) == 3
    later = monitor_memory(functools.partial(add_later, 1))
    assert inspect.iscoroutinefunction(later)
    assert asyncio.run(later(2)) == 3
    assert {f"{__name__}.add", f"{__name__}.add_later"} <= names_called()


def test_a_callable_instance_goes_by_its_class_and_by_the_kind_of_its_call() -> None:
    class Job:
        def __init__(self) -> None:
            self.setting = 5

        def __call__(self, x: int) -> int:
            return x + self.setting

    class LaterJob:
        async def __call__(self, x: int) -> int:
            await asyncio.sleep(0)
            return x

    job = monitor_memory(Job())
    assert job(1) == 6
    later: Any = monitor_memory(LaterJob())
    assert inspect.iscoroutinefunction(later)
    assert asyncio.run(later(7)) == 7
    assert any(name.endswith("Job") for name in names_called())


def test_a_builtin_can_be_measured() -> None:
    assert monitor_memory(sorted)([2, 1]) == [1, 2]
    assert "builtins.sorted" in names_called()


def test_a_context_manager_made_of_a_generator() -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    @monitor_memory
    def opened(swallow: bool) -> Iterator[str]:
        seen.append("in")
        try:
            yield "resource"
        except ValueError:
            if not swallow:
                raise
        finally:
            seen.append("out")

    with opened(swallow=True) as resource:
        assert resource == "resource"
        raise ValueError("swallowed")
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, opened(swallow=False):
        raise error
    assert caught.value is error
    with pytest.raises(StopIteration), opened(swallow=False):
        raise StopIteration
    assert seen == ["in", "out"] * 3


def test_an_async_context_manager_made_of_a_generator() -> None:
    @contextlib.asynccontextmanager
    @monitor_memory
    async def opened() -> AsyncGenerator[str]:
        await asyncio.sleep(0)
        try:
            yield "resource"
        except KeyError:
            await asyncio.sleep(0)

    async def run() -> str:
        async with opened() as resource:
            raise KeyError
        return resource

    assert asyncio.run(run()) == "resource"


@pytest.mark.parametrize("outside", [True, False])
def test_single_dispatch_on_either_side(outside: bool) -> None:
    def describe(x: object) -> str:
        return "object"

    if outside:
        described: Any = monitor_memory(functools.singledispatch(describe))
    else:
        described = functools.singledispatch(monitor_memory(describe))

    @described.register
    def _(x: int) -> str:
        return "int"

    assert described(1) == "int"
    assert described("1") == "object"


class Base(abc.ABC):
    @monitor_memory
    def kept(self) -> str:
        return "base"

    @monitor_memory
    def overridden(self) -> str:
        return "base"

    @monitor_memory
    @abc.abstractmethod
    def required(self) -> str: ...

    @property
    @monitor_memory
    def value(self) -> int:
        return 1


class Derived(Base):
    @monitor_memory
    def overridden(self) -> str:
        return "derived over " + super().overridden()

    def required(self) -> str:
        return "given"


def test_methods_are_overridden_called_through_super_and_required_as_ever() -> None:
    with pytest.raises(TypeError, match="required"):
        Base()  # type: ignore[abstract]
    derived = Derived()
    assert (derived.kept(), derived.overridden(), derived.required(), derived.value) == (
        "base",
        "derived over base",
        "given",
        1,
    )
    assert {f"{__name__}.Base.overridden", f"{__name__}.Derived.overridden"} <= names_called()


def test_bound_methods_compare_bind_weakly_and_pickle_by_name() -> None:
    derived = Derived()
    assert derived.kept == derived.kept
    assert derived.kept.__self__ is derived  # type: ignore[attr-defined]
    weak = weakref.WeakMethod(derived.kept)
    assert weak() == derived.kept
    # By reference: the object's class, and the method's name.
    reduced = derived.kept.__reduce__()
    assert isinstance(reduced, tuple)
    assert reduced[1] == (derived, "kept")
    assert pickle.loads(pickle.dumps(functools.partial(add, 1)))(2) == 3
    assert weakref.ref(Derived.kept)() is Derived.kept


def test_signature_annotations_and_defaults_are_those_of_the_function() -> None:
    def plain(a: int, /, b: str = "x", *rest: int, c: float = 1.0, **more: object) -> list[int]:
        return [a]

    measured = monitor_memory(plain)
    assert inspect.signature(measured) == inspect.signature(plain)
    assert inspect.get_annotations(measured) == inspect.get_annotations(plain)
    assert inspect.unwrap(measured) is plain
    assert measured(1, "y", 2, c=3.0, d=4) == [1]


def test_the_context_of_a_coroutine_is_its_callers() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")

    @monitor_memory
    async def sets() -> str:
        before = variable.get()
        await asyncio.sleep(0)
        variable.set("inside")
        return before

    async def run() -> tuple[str, str]:
        variable.set("outside")
        return await sets(), variable.get()

    assert asyncio.run(run()) == ("outside", "inside")


def test_a_trace_function_sees_the_functions_own_lines() -> None:
    seen: list[str] = []

    def tracer(frame: Any, event: str, argument: object) -> Any:
        if event == "call":
            seen.append(frame.f_code.co_name)
        return tracer

    before = sys.gettrace()
    measured = monitor_memory(add)
    sys.settrace(tracer)
    try:
        result = measured(1, 2)
    finally:
        sys.settrace(before)
    assert result == 3
    assert "add" in seen


def test_the_tracker_lets_errors_through_and_returns_itself() -> None:
    tracker = MemoryTracker("block")
    with pytest.raises(KeyError), tracker as same:
        assert same is tracker
        raise KeyError
