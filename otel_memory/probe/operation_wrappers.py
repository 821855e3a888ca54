"""Wrapping of callables so that each run is measured: functions, coroutines, generators, async generators.

A coroutine or generator is measured **step by step**, only while it really runs, so that what other tasks allocate
between its steps isn't laid at its door. Owns the transparency: what the caller sends, throws and closes reaches the
wrapped one, and what that returns, yields and raises reaches the caller, unchanged. An exception is never kept in a
frame that its own traceback holds: such a ring would live until the next garbage collection.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from threading import get_ident
from time import perf_counter
from typing import Any, Final

from opentelemetry.context import get_current as current_context

from otel_memory.probe.operation import TABLE, Defaults, Operation, Options, operation_class
from otel_memory.probe.operation_table import UNDIVIDED
from otel_memory.probe.reader import RESIDENT
from otel_memory.probe.sources.process_readings import RAW_END, RAW_LENGTH

_RESIDENT = RESIDENT
_pread = RESIDENT.pread
_SPACE, _ZERO = RAW_END[:2]
_DEPTH: Final = 32
"""Wrappers on wrappers are followed so far."""
_MEND: Final = "put it on the method itself (below @property), or use MemoryTracker around the code"


class _Steps:
    """An awaitable that drives another one and measures only while that one runs.

    It has no ``close()`` on purpose: so the interpreter raises the ``GeneratorExit`` of a close where this is awaited,
    from where ``takes`` hands it on to the awaitable, and what that answers is seen. (A coroutine between the two would
    have a ``close()``, whose answer the interpreter drops.)
    """

    __slots__ = ("_inner", "_operation", "_pending")

    def __init__(self, awaitable: Awaitable[Any], operation: Operation) -> None:
        self._inner: Any = awaitable.__await__()
        self._operation = operation
        self._pending: BaseException | None = None

    def takes(self, error: GeneratorExit) -> bool:
        """Whether awaiting this again gives ``error`` to the awaitable; no if it has ended, by that very error."""
        if self._inner is None:
            return False
        self._pending = error
        return True

    def __await__(self) -> Any:
        return self

    __iter__ = __await__

    def __next__(self) -> Any:
        if self._pending is not None:
            error, self._pending = self._pending, None
            try:
                return self.throw(error)
            finally:
                del error
        operation = self._operation
        try:
            operation.enter_step()
            return next(self._inner)
        except BaseException:
            # An error that was thrown in may hang on it, and this frame on that error.
            self._inner = None
            raise
        finally:
            operation.leave()

    def send(self, value: Any) -> Any:
        operation = self._operation
        try:
            operation.enter_step()
            # An iterator that isn't a generator has no send(); `await` itself uses next() for None then.
            return next(self._inner) if value is None else self._inner.send(value)
        except BaseException:
            self._inner = None
            raise
        finally:
            operation.leave()

    def throw(self, *error: Any) -> Any:
        operation = self._operation
        try:
            operation.enter_step()
            return self._inner.throw(*error)
        except BaseException:
            self._inner = None
            raise
        finally:
            del error
            operation.leave()


def _wrap_function(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    new = operation_class(options)  # here: a finalizer may call this when the module's globals are gone

    @functools.wraps(fn)
    def measured(*args: Any, **kwargs: Any) -> Any:
        operation = new()
        operation.options = options
        try:
            operation.enter()
            result = fn(*args, **kwargs)
            operation.leave()
        except BaseException as error:
            try:
                operation.fail(error)
            finally:
                operation.leave()  # of use only if something (Ctrl-C) has come between
            raise
        operation.finish(None, False)
        return result

    return measured


def _wrap_function_quickly(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """The same for most functions: ``enter``, ``leave`` and ``finish`` spelled out for a call that nothing came of.

    What a decorated call costs is decided here: two readings, of which nobody need know how much they are as long as
    they are equal, and as little as can be around them. Whatever else there is to do goes the thorough way.
    """
    new: Any = Operation
    table, name, level = TABLE, options.name, options.level

    @functools.wraps(fn)
    def measured(*args: Any, **kwargs: Any) -> Any:
        if new is _Unmeasured:
            return fn(*args, **kwargs)
        operation: Operation = new()
        operation.options = options
        try:
            try:
                operation.thread = thread = get_ident()
                operation.mark = mark = table.mark
                operation.running = running = table.running
                outer = running.get(thread)
                if outer is not None:
                    operation.outer = outer
                running[thread] = operation
                if len(running) > 1 or table.blocks:
                    operation.meet()
                operation.reading = start = _pread(_RESIDENT.descriptor, RAW_LENGTH, 0)
                operation.started = started = perf_counter()
            except Exception:
                operation.enter()
                outer = operation  # so that it ends thoroughly too
            result = fn(*args, **kwargs)
            try:
                seconds = perf_counter() - started
                end = _pread(_RESIDENT.descriptor, RAW_LENGTH, 0)
                if (
                    end == start
                    and (end[-2] == _ZERO and end[-3] == _SPACE)  # RAW_END, seen as quickly as can be
                    and table.mark is mark  # neither an overlap nor a fork since
                    and outer is None
                    and running.get(thread) is operation
                ):
                    del running[thread]
                    operation.running = None
                    sums = table.aggregates.get(name) or table.aggregate(name)
                    context = current_context()
                    if context or level is not None or Defaults.log_level is not None:
                        operation.seconds, operation.end = seconds, end
                        operation.tell(None, context)
                    sums.calls += 1
                    sums.seconds += seconds
                    return result
            except Exception:
                pass
            operation.leave()
        except BaseException as error:
            try:
                operation.fail(error)
            finally:
                operation.leave()  # of use only if something (Ctrl-C) has come between
            raise
        operation.finish(None, False)
        return result

    return measured


def _wrap_coroutine(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    new, steps, clock = operation_class(options), _Steps, perf_counter

    @functools.wraps(fn)
    async def measured(*args: Any, **kwargs: Any) -> Any:
        operation = new()
        operation.options = options
        began = clock()
        try:
            running = steps(fn(*args, **kwargs), operation)
            while True:
                try:
                    result = await running
                    break
                except GeneratorExit as error:
                    if not running.takes(error):
                        raise
        except BaseException as error:
            # A call lasts as long as its caller waits; only its memory is measured step by step.
            operation.seconds = clock() - began
            operation.finish(error, True)
            raise
        operation.seconds = clock() - began
        operation.finish(None, False)
        return result

    return measured


def _step(operation: Operation, generator: Generator[Any, Any, Any], value: Any, error: BaseException | None) -> Any:
    try:
        operation.enter_step()
        return generator.send(value) if error is None else generator.throw(error)
    finally:
        del value, error
        operation.leave()


def _wrap_generator(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    new, step = operation_class(options), _step

    @functools.wraps(fn)
    def measured(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        operation = new()
        operation.options = options
        generator = fn(*args, **kwargs)
        value: Any = None
        # Emptied before each pause, so that neither an exception nor what was yielded is held on to meanwhile.
        thrown: list[BaseException] = []
        produced: list[Any] = []
        try:
            while True:
                try:
                    produced.append(step(operation, generator, value, thrown.pop() if thrown else None))
                except StopIteration as stop:
                    operation.finish(None, False)
                    return stop.value
                value = None
                try:
                    value = yield produced.pop()
                except BaseException as error:
                    # Also GeneratorExit: thrown in, it does to the wrapped one what close() would, and the
                    # interpreter does the rest of close() to this one.
                    thrown.append(error)
        except BaseException as error:
            # A caller that has had enough is no failure of the generator.
            operation.finish(error, not isinstance(error, GeneratorExit))
            raise

    return measured


def _first_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Begin ``generator`` unseen by the event loop.

    The loop closes at its end all that it has seen begin, side by side. It sees the wrapping one, which closes this
    one; told of both, it would close one while the other does so, which is an error.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _wrap_async_generator(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    new, steps, first = operation_class(options), _Steps, _first_step

    @functools.wraps(fn)
    async def measured(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        operation = new()
        operation.options = options
        generator = fn(*args, **kwargs)
        # Emptied before each use, as above: a step holds what is thrown with it.
        step = [first(generator)]
        thrown: list[BaseException] = []
        produced: list[Any] = []
        try:
            while True:
                try:
                    running = steps(step.pop(), operation)
                    while not produced:
                        try:
                            produced.append(await running)
                        except GeneratorExit as error:
                            if not running.takes(error):
                                raise
                except StopAsyncIteration:
                    operation.finish(None, False)
                    return
                try:
                    step.append(generator.asend((yield produced.pop())))
                except BaseException as error:
                    thrown.append(error)
                if thrown:
                    step.append(generator.athrow(thrown.pop()))
        except BaseException as error:
            operation.finish(error, not isinstance(error, GeneratorExit))
            raise

    return measured


def operation_name(fn: Any) -> str:
    """Module and qualified name of what ``fn`` really calls."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not hasattr(fn, "__qualname__"):
        fn = type(fn)
    return f"{getattr(fn, '__module__', None) or '?'}.{fn.__qualname__}"


def wrap(fn: Any, make_options: Callable[[str], Options]) -> Any:
    """``fn`` with each run measured, by its kind; ``make_options`` is given the name that it has by itself.

    Raises:
        TypeError: if it isn't a function or method, or another callable object.
    """
    if isinstance(fn, (classmethod, staticmethod)):
        return type(fn)(wrap(fn.__func__, make_options))
    if not callable(fn) or inspect.isclass(fn):
        raise TypeError(f"monitor_memory wraps functions and methods, not {fn!r}: {_MEND}")
    options = make_options(operation_name(fn))
    if _is(inspect.isasyncgenfunction, fn):
        return _wrap_async_generator(fn, options)
    if _is(inspect.iscoroutinefunction, fn):
        return _wrap_coroutine(fn, options)
    if _is(inspect.isgeneratorfunction, fn):
        return _wrap_generator(fn, options)
    if UNDIVIDED and not (options.peak or options.trace_malloc):
        return _wrap_function_quickly(fn, options)
    return _wrap_function(fn, options)


def _is(kind: Callable[[object], bool], fn: Any) -> bool:
    """Whether a call of ``fn`` is of that kind; of an object with ``__call__`` that method says so."""
    return kind(fn) or (not inspect.isroutine(fn) and kind(type(fn).__call__))


def measured_in(fn: Any) -> Callable[..., Any] | None:
    """The wrapper of this module that a call of ``fn`` comes by: ``fn`` itself, or what it wraps; None if none."""
    for _ in range(_DEPTH):
        if getattr(fn, "__globals__", None) is globals():
            wrapper: Callable[..., Any] = fn
            return wrapper
        fn = getattr(fn, "__wrapped__", None) or getattr(fn, "__func__", None)
        if fn is None:
            break
    return None


def set_measuring(wrapper: Any, on: bool) -> None:
    """Make a wrapper of this module measure its runs, or only hand them on: when somebody holds it or has wrapped it
    in turn, it can't be taken away any more. Runs that have begun end as they began."""
    cells = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__, strict=True))
    cells["new"].cell_contents = operation_class(cells["options"].cell_contents) if on else _Unmeasured


def is_measuring(wrapper: Any) -> bool:
    """Whether a wrapper of this module measures its runs."""
    cells = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__, strict=True))
    return cells["new"].cell_contents is not _Unmeasured


class _Unmeasured:
    """An operation that nobody asks about any more."""

    seconds = 0.0

    def enter(self) -> None:
        return

    def enter_step(self) -> None:
        return

    def leave(self) -> None:
        return

    def fail(self, error: BaseException) -> None:
        return

    def finish(self, error: BaseException | None, failed: bool) -> None:
        return
