"""``@monitor_memory`` and ``MemoryTracker``: what one operation did to the memory of the process.

Owns the public face of operations. A run is measured in ``operation``, callables are wrapped in ``operation_wrappers``.
RSS belongs to the whole process: when another tracked operation ran meanwhile, the delta is marked as overlapping.
Never raises into the operation, never changes what it returns, yields or raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from otel_memory.probe.operation import (
    LOGGER,
    PEAK,
    TABLE,
    Operation,
    Options,
    operation_class,
    reset_after_fork,
    set_default_log_level,
)
from otel_memory.probe.operation_table import OperationTable, current_task
from otel_memory.probe.operation_wrappers import wrap

__all__ = [
    "LOGGER",
    "PEAK",
    "TABLE",
    "MemoryTracker",
    "OperationTable",
    "monitor_memory",
    "parse_level",
    "reset_after_fork",
    "set_default_log_level",
]

F = TypeVar("F", bound=Callable[..., Any])


def parse_level(level: str | int | None) -> int | None:
    """A logging level from its name or number.

    Raises:
        ValueError: if there is no such level.
    """
    if level is None or isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log_level: there is no level {level!r}; use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return number


@overload
def monitor_memory(fn: F, /) -> F: ...
@overload
def monitor_memory(
    *,
    name: str | None = None,
    min_duration: float = 0.0,
    log_level: str | int | None = None,
    trace_malloc: bool = False,
    peak: bool = False,
) -> Callable[[F], F]: ...
def monitor_memory(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    min_duration: float = 0.0,
    log_level: str | int | None = None,
    trace_malloc: bool = False,
    peak: bool = False,
) -> Any:
    """Measure what each call of a function does to the memory of the process.

    Works on functions, coroutine functions, generators, asynchronous generators, methods, and above or below
    ``@classmethod`` and ``@staticmethod``. Puts before, after and delta on the current recording span (of several
    operations in one span those of the last to end), sums calls, growth and time into metrics, and logs one line if
    asked.

    Args:
        name: name of the operation; by default module and qualified name.
        min_duration: seconds; shorter calls aren't logged (they are counted all the same).
        log_level: level of the one log line per call; ``None``: no line, unless the setting
            ``OTEL_PYTHON_MEMORY_OPERATION_LOG`` asks for one.
        trace_malloc: also give the Python bytes that tracemalloc sees. Slows allocation-heavy code several
            times while the operation runs.
        peak: also give the highest resident memory during the call (Linux; costs some 10 µs more per call).

    Raises:
        TypeError: if it is put on something that isn't a function or method.
        ValueError: if ``log_level`` isn't the name of a level.
    """
    level = parse_level(log_level)

    def make_options(own_name: str) -> Options:
        return Options(name or own_name, min_duration, level, trace_malloc, peak)

    if fn is None:
        return lambda function: wrap(function, make_options)
    return wrap(fn, make_options)


class MemoryTracker:
    """Measure what a block of code does to the memory of the process: ``with MemoryTracker("import"): ...``.

    The arguments are those of :func:`monitor_memory`. A block that awaits belongs under ``async with``. It isn't
    measured step by step: what other tasks allocate while it awaits counts as its own, so it is marked as overlapping
    when any other tracked operation ran meanwhile.
    After the block ``delta_bytes`` and ``duration_seconds`` say what was measured. One tracker may be entered again
    while it is open, also by other threads and tasks; the two then speak of the block that ended last.
    """

    def __init__(
        self,
        name: str,
        *,
        min_duration: float = 0.0,
        log_level: str | int | None = None,
        trace_malloc: bool = False,
        peak: bool = False,
    ) -> None:
        self._options = Options(name, min_duration, parse_level(log_level), trace_malloc, peak)
        self._new = operation_class(self._options)
        self._open: list[tuple[object, Operation]] = []
        self.delta_bytes: int | None = None
        self.duration_seconds: float | None = None

    def __enter__(self) -> Self:
        operation = self._begin()
        try:
            operation.enter()
            self._open.append((operation.thread, operation))
        except BaseException:  # Ctrl-C just here: no __exit__ will come
            operation.leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        operation = self._close(get_ident())
        if operation is not None:
            try:
                operation.leave()
            finally:
                operation.leave()  # of use only if something (Ctrl-C) has come between
            self._finish(operation, error)

    async def __aenter__(self) -> Self:
        operation = self._begin()
        operation.enter_block()
        self._open.append((operation.task, operation))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        operation = self._close(current_task())
        if operation is not None:
            operation.leave_block()
            self._finish(operation, error)

    def _begin(self) -> Operation:
        operation = self._new()
        operation.options = self._options
        return operation

    def _close(self, owner: object) -> Operation | None:
        """The last that ``owner`` opened; a generator may be ended by another thread than began it: then the last.
        None if nothing is open."""
        for entry in reversed(self._open):
            if entry[0] == owner:
                self._open.remove(entry)
                return entry[1]
        return self._open.pop()[1] if self._open else None

    def _finish(self, operation: Operation, error: BaseException | None) -> None:
        self.delta_bytes = operation.delta if operation.end is not None else None
        self.duration_seconds = operation.seconds
        operation.finish(error, error is not None and not isinstance(error, GeneratorExit))
