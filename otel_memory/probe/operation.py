"""One run of a tracked operation: sections of measured time on some thread, then one result.

Owns the readings and where the result goes: the table's sums, the current span, one log line. Never raises: what goes
wrong in the measuring is counted, because it must not reach the operation that is measured.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, get_current

from otel_memory import names
from otel_memory.probe.operation_table import OperationTable, current_task
from otel_memory.probe.peak import PeakMark, PeakUse
from otel_memory.probe.plain import MAX_TEXT, plain_text
from otel_memory.probe.reader import RESIDENT
from otel_memory.probe.resource_monitor import format_bytes
from otel_memory.probe.sources.process_readings import RAW_END, RAW_LENGTH
from otel_memory.probe.traced import TRACING as _TRACING
from otel_memory.probe.traced import TracedGrowth, TracedUse

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

LOGGER: Final = logging.getLogger("otel_memory.operations")
_writing: Final = threading.local()
"""The logger of the one line per operation; silent unless the operation or the setting asks for it."""

SPAN_WAIT_SECONDS: Final = 0.05
TABLE: Final = OperationTable()
PEAK: Final = PeakMark()

# Bound here, because the decorated call reads them, and because a finalizer may call one when modules are gone.
_perf_counter = time.perf_counter
_get_ident = threading.get_ident
_RESIDENT = RESIDENT
_RAW_END = RAW_END
_current_context = get_current
_current_span = trace.get_current_span
_LOCK = type(threading.Lock())
_NAME = names.OPERATION_NAME
_OVERLAP = names.OPERATION_OVERLAP
_MEMORY_BEFORE = names.OPERATION_MEMORY_BEFORE
_MEMORY_AFTER = names.OPERATION_MEMORY_AFTER
_MEMORY_DELTA = names.OPERATION_MEMORY_DELTA
_MEMORY_PEAK_DELTA = names.OPERATION_MEMORY_PEAK_DELTA
_TRACED = names.OPERATION_TRACED
_TRACED_PEAK = names.OPERATION_TRACED_PEAK


class Defaults:
    """The module's one piece of mutable state beside the table: what operations do that don't say it themselves."""

    log_level: int | None = None


def set_default_log_level(level: int | None) -> None:
    """Level of the line of operations that name none themselves; ``None``: no line."""
    Defaults.log_level = level


def reset_after_fork() -> None:
    """In the child: count from zero, forget the parent's threads and its peak."""
    PEAK.reopen()
    TABLE.reset_after_fork()
    _TRACING.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_after_fork)


class Options:
    """What one decorated function or tracker was asked for; made once."""

    __slots__ = ("level", "min_duration", "name", "peak", "trace_malloc")

    def __init__(self, name: str, min_duration: float, level: int | None, trace_malloc: bool, peak: bool) -> None:
        self.name = name if type(name) is str and len(name) <= MAX_TEXT and name.isascii() else plain_text(name)
        self.min_duration = min_duration
        self.level = level
        self.trace_malloc = trace_malloc
        self.peak = peak


class Operation:
    """One run. ``enter`` and ``leave`` bound each section, ``finish`` comes last; none of them raises.

    The class holds what most runs never change: a decorated call is as quick as its stores are few. ``options`` is set
    by whoever makes one.
    """

    options: Options
    first: bytes | int | None = None
    """Of several sections what was read at the beginning of the first one; of one only that is ``reading``."""
    reading: bytes | int | None = None
    """What was read when the section began, as it was read: how much that is, hardly anybody asks."""
    end: bytes | int | None = None
    """What was read when the last section ended; None if nothing could be measured."""
    delta = 0
    seconds = 0.0
    overlap = False
    foreign = False
    """Begun before a fork, by the parent, which will count it."""
    started: float | None = None
    mark: object = None
    peak_delta: int | None = None
    traced: int | None = None
    traced_peak: int | None = None
    task: object = None
    thread = 0
    running: dict[int, Operation] | None = None
    """None while no section is open."""
    outer: Operation | None = None
    """The section that was open on this thread when this one began, while this one is."""

    def enter(self, table: OperationTable = TABLE) -> None:
        """A section begins: the operation runs from here on this thread."""
        try:
            self.thread = thread = _get_ident()
            # Read before others can see this section: what they change from then on is about it.
            self.mark = table.mark
            self.running = running = table.running
            outer = running.get(thread)
            if outer is not None and outer is not self:
                self.outer = outer
            running[thread] = self
            if len(running) > 1 or table.blocks:
                self.meet(table)
            self.reading = _RESIDENT.pread(_RESIDENT.descriptor, RAW_LENGTH, 0)
            self.started = _perf_counter()
        except OSError:
            self.reading, self.started = _read_bytes(table), _perf_counter()
        except Exception:  # law 1: the host is never harmed
            table.failed += 1

    def meet(self, table: OperationTable = TABLE) -> None:
        """Others are at work while a section begins: they overlap with it, and it with them."""
        if len(table.running) > 1:
            self.overlap = True
            table.mark = object()
        if table.blocks and table.meet_blocks(self.thread):
            self.overlap = True

    def enter_step(self, table: OperationTable = TABLE) -> None:
        """One of several sections begins."""
        self.started = self.reading = None  # the last step's, should this one's beginning be broken off
        self.enter(table)
        if self.first is None:
            self.first = self.reading

    def leave(self, table: OperationTable = TABLE) -> None:
        """The section ends: the operation gives the thread back. Does nothing if none is open."""
        running = self.running
        if running is None:
            return
        try:
            self._measure_end(running, table)
        except Exception:
            table.failed += 1
        finally:
            if self.mark is not table.mark:
                self.overlap = True
            if self.outer is None and running.get(self.thread) is self:
                running.pop(self.thread, None)
            else:
                self._step_out(running)
            self.running = None  # last: whatever breaks this off, the section can be left again

    def fail(self, error: BaseException, table: OperationTable = TABLE) -> None:
        """``leave`` and ``finish`` of a run of one section that ``error`` has ended, unless it has ended already."""
        if self.running is not None:
            self.leave(table)
            self.finish(error, True, table)

    def _step_out(self, running: dict[int, Operation]) -> None:
        """Give the thread back to the section around this one: the nearest that is still open."""
        outer, self.outer = self.outer, None
        while outer is not None and outer.running is None:
            outer = outer.outer
        inner = running.get(self.thread)
        if inner is self:
            if outer is None:
                running.pop(self.thread, None)
            else:
                running[self.thread] = outer
            return
        # One that began later is still open: a block in a generator ends whenever that one goes on.
        while inner is not None and inner.outer is not self:
            inner = inner.outer
        if inner is not None:
            inner.outer = outer

    def enter_block(self, table: OperationTable = TABLE) -> None:
        """A block that may await begins: it can't stand for its thread, where other tasks run meanwhile."""
        try:
            self.thread = _get_ident()
            self.task = current_task()
            self.running = running = table.running  # not entered there: only to recognise a fork
            self.outer = running.get(self.thread)
            table.open_block(self)
            self.reading, self.started = _read_bytes(table), _perf_counter()
        except Exception:
            table.failed += 1

    def leave_block(self, table: OperationTable = TABLE) -> None:
        """The block ends."""
        try:
            self._measure_end(self.running, table)
        except Exception:
            table.failed += 1
        finally:
            self.outer = self.running = None
            table.close_block(self)

    def _measure_end(self, running: object, table: OperationTable) -> None:
        if self.started is not None:
            self.seconds += _perf_counter() - self.started
        end: bytes | int | None
        try:
            end = _RESIDENT.pread(_RESIDENT.descriptor, RAW_LENGTH, 0)
        except OSError:
            end = _read_bytes(table)
        if running is not table.running:
            self.foreign = True
            return
        if end == self.reading and isinstance(end, bytes) and end.endswith(_RAW_END):
            self.end = end
            return
        before, after = _bytes_of(self.reading), _bytes_of(end)
        if after is None:
            _read_bytes(table)  # opens again what has become somebody else's file, for the next section
        elif before is not None:
            self.delta += after - before
            self.end = end

    @property
    def start(self) -> int | None:
        """Bytes when the section began; None if that couldn't be read."""
        return _bytes_of(self.reading)

    @property
    def before(self) -> int | None:
        """Bytes when the run began; None if that couldn't be read."""
        return _bytes_of(self.reading if self.first is None else self.first)

    @property
    def after(self) -> int | None:
        """Bytes when the last section ended; None if nothing could be measured."""
        return _bytes_of(self.end)

    def change(self, rss_bytes: int | None) -> int | None:
        """Bytes that the run has changed the memory by so far, with ``rss_bytes`` resident now."""
        start = self.start
        return None if rss_bytes is None or start is None else self.delta + rss_bytes - start

    def finish(self, error: BaseException | None, failed: bool, table: OperationTable = TABLE) -> None:
        """Count the run, put it on the current span, log it if asked.

        Args:
            error: what ended it. A ``GeneratorExit`` may come out of a garbage collection in the middle of anybody's
                code: the current span isn't the operation's then, and its log isn't wanted.
            failed: whether it counts as an error.
        """
        if self.running is not None:
            self.leave(table)  # something (Ctrl-C) has come between
        if self.foreign:
            return
        try:
            name = self.options.name
            (table.aggregates.get(name) or table.aggregate(name)).add(self.delta, self.seconds, failed)
            if error is None or not isinstance(error, GeneratorExit):
                self.tell(error, _current_context(), table)
        except Exception:
            table.failed += 1

    def tell(self, error: BaseException | None, context: Context, table: OperationTable = TABLE) -> None:
        """Put the run on the span of ``context``, which is the current one; log it if asked."""
        try:
            if context:  # without any there is no span: the quicker question
                span = _current_span(context)
                if span.is_recording():
                    self._put_on(span, table)
            options = self.options
            level = Defaults.log_level if options.level is None else options.level
            if level is not None and self.seconds >= options.min_duration:
                self._log(level, error)
        except Exception:
            table.failed += 1

    def _log(self, level: int, error: BaseException | None) -> None:
        if getattr(_writing, "line", False):
            return  # a handler, formatter or filter that is tracked itself: its line would ask for another one
        _writing.line = True
        try:
            if LOGGER.isEnabledFor(level):
                LOGGER.log(level, "%s", self._line(error))
        finally:
            _writing.line = False

    def _put_on(self, span: trace.Span, table: OperationTable) -> None:
        # The SDK's span has a lock that is not re-entrant. A finalizer or a signal handler may have interrupted this
        # very thread while it holds that lock, and would wait for itself: it gives up instead.
        lock: Any = getattr(span, "_lock", None)
        if isinstance(lock, _LOCK) and lock.locked():
            if not lock.acquire(timeout=SPAN_WAIT_SECONDS):
                table.failed += 1
                return
            lock.release()
        attributes: dict[str, AttributeValue] = {
            _NAME: self.options.name,
            _OVERLAP: self.overlap,
        }
        before = self.before
        after = before if self.first is None and self.end == self.reading else self.after
        if before is not None and after is not None:
            attributes[_MEMORY_BEFORE] = before
            attributes[_MEMORY_AFTER] = after
            attributes[_MEMORY_DELTA] = self.delta
        if self.peak_delta is not None:
            attributes[_MEMORY_PEAK_DELTA] = self.peak_delta
        if self.traced is not None:
            attributes[_TRACED] = self.traced
        if self.traced_peak is not None:
            attributes[_TRACED_PEAK] = self.traced_peak
        span.set_attributes(attributes)

    def _line(self, error: BaseException | None) -> str:
        after = self.after
        parts = [
            "MEMORY",
            self.options.name,
            "SUCCESS" if error is None else "ERROR",
            f"{self.seconds:.3f}s",
            f"Current: {format_bytes(after) if after is not None else 'unknown'}",
            f"Change: {format_bytes(self.delta, signed=True) if after is not None else 'unknown'}",
        ]
        if self.traced is not None:
            peak = format_bytes(self.traced_peak) if self.traced_peak is not None else "unknown"
            parts.append(f"Traced: {format_bytes(self.traced)} (Peak: {peak})")
        return " | ".join(parts)


class ExtraOperation(Operation):
    """A run whose peak or traced memory is asked for too."""

    peak_use: PeakUse | None = None
    traced_use: TracedUse | None = None

    def enter(self, table: OperationTable = TABLE) -> None:
        """As above, with the section's own marks set first."""
        self._begin_extra(table)
        super().enter(table)

    def leave(self, table: OperationTable = TABLE) -> None:
        """As above, also when no section is open: its marks may be."""
        try:
            super().leave(table)
        finally:
            self._end_extra(table)

    def enter_block(self, table: OperationTable = TABLE) -> None:
        """As above."""
        self._begin_extra(table)
        super().enter_block(table)

    def leave_block(self, table: OperationTable = TABLE) -> None:
        """As above."""
        try:
            super().leave_block(table)
        finally:
            self._end_extra(table)

    def _begin_extra(self, table: OperationTable) -> None:
        try:
            if self.options.trace_malloc:
                self.traced_use = _TRACING.begin()
            if self.options.peak:
                self.peak_use = PEAK.begin()
        except Exception:
            table.failed += 1

    def _end_extra(self, table: OperationTable) -> None:
        peak_use, self.peak_use = self.peak_use, None
        traced_use, self.traced_use = self.traced_use, None
        try:
            if peak_use is not None:
                self._add_peak(PEAK.end(peak_use))
            if traced_use is not None:
                self._add_traced(_TRACING.end(traced_use))
        except Exception:
            table.failed += 1

    def _add_peak(self, peak: int | None) -> None:
        after, start = self.after, self.start
        if peak is not None and after is not None and start is not None:
            # ``delta`` has this section's part already: without it, it is where the section began.
            peak_delta = self.delta - after + max(peak, after, start)
            self.peak_delta = peak_delta if self.peak_delta is None else max(peak_delta, self.peak_delta)

    def _add_traced(self, growth: TracedGrowth | None) -> None:
        if growth is None:
            return
        so_far = self.traced or 0
        self.traced = so_far + growth.bytes
        if growth.peak_bytes is not None:
            self.traced_peak = max(self.traced_peak or 0, so_far + growth.peak_bytes)


def operation_class(options: Options) -> type[Operation]:
    """What a run with ``options`` is made of."""
    return ExtraOperation if options.peak or options.trace_malloc else Operation


def _read_bytes(table: OperationTable) -> int | None:
    """Bytes now, by the way that opens a descriptor again which somebody has closed."""
    try:
        return _RESIDENT.rss_bytes()
    except Exception:
        table.failed += 1
        return None


def _bytes_of(reading: bytes | int | None) -> int | None:
    return _RESIDENT.rss_of(reading) if isinstance(reading, bytes) else reading


def current_operation(table: OperationTable = TABLE) -> Operation | None:
    """The innermost tracked operation that runs here: on this thread, in this task. Takes no lock; some 0.2 µs."""
    section = table.running.get(_get_ident())
    if section is not None and section.running is None:
        section = None
    if table.blocks:
        task = current_task()
        for block in reversed(table.blocks_of(task)):
            if isinstance(block, Operation) and block.task is task and (task is not None or _is_here(block)):
                return block if section is None or _is_around(block.outer, section) else section
    return section


def _is_here(block: Operation) -> bool:
    return block.thread == _get_ident()


def _is_around(outer: Operation | None, section: Operation) -> bool:
    """Whether ``section`` was open when a block began: it is ``outer``, or lies around that."""
    while outer is not None and outer is not section:
        outer = outer.outer
    return outer is section
