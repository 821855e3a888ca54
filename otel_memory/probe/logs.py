"""Log enrichment: memory, change, operation and trace id on the records of the application's own loggers.

Owns the fields that a record gets and the three ways by which it gets them: a factory of log records that is chained
before the one that is there (``enrich_logs``, or the setting), a filter for one handler (``MemoryLogFilter``), and a
processor of structlog (``add_memory``). Where a record goes on as an OTLP log record, the fields are its attributes,
under the names of ``names.py``. Never raises, never takes a lock where records are made, never imports the SDK.

The fields, each None where it isn't known:

- ``otel_memory_rss``: resident bytes of the process, read when the record is made (1 µs).
- ``otel_memory_change``: bytes that the innermost tracked operation has changed the memory by since it began, by its
  own measure (of a coroutine, only while it ran); None outside of one. So it doesn't depend on who logged before.
- ``otel_memory_operation``: the name of that operation.
- ``otel_memory_trace_id``: trace id of the current span, 32 hexadecimal digits.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, MutableMapping
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from opentelemetry.trace import get_current_span

from otel_memory import names
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.import_hooks import when_imported
from otel_memory.probe.operation import current_operation
from otel_memory.probe.reader import read_rss

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggingHandler

__all__ = ["LOG_DEFAULTS", "LogEnrichment", "MemoryLogFilter", "add_memory", "enrich_logs", "log_enrichment_failures"]

RSS: Final = "otel_memory_rss"
CHANGE: Final = "otel_memory_change"
OPERATION: Final = "otel_memory_operation"
TRACE_ID: Final = "otel_memory_trace_id"

LOG_DEFAULTS: Final[Mapping[str, object]] = {RSS: None, CHANGE: None, OPERATION: None, TRACE_ID: None}
"""For ``logging.Formatter(..., defaults=LOG_DEFAULTS)``: a format that names the fields then works without them too."""

# An OTLP log record has a trace id of its own.
_OTLP_NAMES: Final = {
    RSS: names.LOG_MEMORY_USAGE,
    CHANGE: names.LOG_MEMORY_DELTA,
    OPERATION: names.OPERATION_NAME,
    TRACE_ID: None,
}
_OTLP_HANDLERS: Final = ("opentelemetry.instrumentation.logging.handler", "opentelemetry.sdk._logs._internal")
"""Where the handlers stand that make OTLP log records; each is a class ``LoggingHandler``."""

Factory = Callable[..., logging.LogRecord]

# Bound here: a record may be made while the interpreter ends and modules are gone.
_read_rss = read_rss
_current_operation = current_operation
_current_span = get_current_span


class _Failures:
    """The module's count of records that could not be enriched."""

    count = 0


def log_enrichment_failures() -> int:
    """Records so far that went on without the fields, because something went wrong."""
    return _Failures.count


def _enrich(fields: MutableMapping[str, Any]) -> None:
    """Put the fields on a record that has none yet."""
    if RSS in fields:
        return
    operation = _current_operation()
    rss = _read_rss()
    context = _current_span().get_span_context()
    fields[RSS] = rss
    fields[CHANGE] = None if operation is None else operation.change(rss)
    fields[OPERATION] = None if operation is None else operation.options.name
    fields[TRACE_ID] = f"{context.trace_id:032x}" if context.trace_id else None


# --- logging ------------------------------------------------------------------------------------------------------


class MemoryLogFilter(logging.Filter):
    """Puts the fields on every record that passes it; for one handler or logger, also in ``logging.config``.

    Lets everything pass. On a handler behind a queue it belongs to the handler that fills the queue: the fields are
    those of the thread on which it runs.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            _enrich(record.__dict__)
        except Exception:  # law 1: the record goes on without
            _Failures.count += 1
        return True


class _Chained:
    """A factory of log records before ``inner``; passes through once ``active`` is False."""

    def __init__(self, inner: Factory) -> None:
        self.inner = inner
        self.active = True

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.inner(*args, **kwargs)
        if self.active:
            try:
                _enrich(record.__dict__)
            except Exception:
                _Failures.count += 1
        return record


class _State:
    """Who asks for enrichment, and what has to be undone when nobody does any more."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: set[object] = set()
        self.factory: _Chained | None = None
        self.undo: list[Callable[[], object]] = []


_state: Final = _State()
_BY_HAND: Final = "by hand"


def enrich_logs(enabled: bool = True) -> None:
    """Put the fields on every record of every logger from now on; with ``enabled=False`` no more.

    Does nothing where it is (or isn't) done already. What the setting switched on stays on until the probe stops. A
    factory of log records that the application has set is called as before, and is left in place at the end.
    """
    (_switch_on if enabled else _switch_off)(_BY_HAND)


def _switch_on(user: object) -> None:
    with _state.lock:
        first = not _state.users
        _state.users.add(user)
        if not first:
            return
        _state.factory = factory = _Chained(logging.getLogRecordFactory())
        logging.setLogRecordFactory(factory)
        _state.undo = [when_imported(module, _name_attributes, _failed) for module in _OTLP_HANDLERS]


def _switch_off(user: object) -> None:
    with _state.lock:
        _state.users.discard(user)
        factory = _state.factory
        if _state.users or factory is None:
            return
        _state.factory = None
        factory.active = False
        if logging.getLogRecordFactory() is factory:
            logging.setLogRecordFactory(factory.inner)
        # Else somebody has chained another one before it, which goes on calling it: it passes through.
        for undo in (*_state.undo, *_restore):
            undo()
        _state.undo = []
        _restore.clear()


def _failed(error: BaseException) -> None:
    _Failures.count += 1


# --- OTLP ---------------------------------------------------------------------------------------------------------

_restore: Final[list[Callable[[], None]]] = []


def _name_attributes(module: ModuleType) -> None:
    """Let the handler of ``module`` see the fields under their OTLP names: it makes attributes of what it sees."""
    handler: type[LoggingHandler] | None = getattr(module, "LoggingHandler", None)
    if handler is None or "emit" not in vars(handler):
        return
    emit = handler.emit

    @wraps(emit)
    def renamed(self: Any, record: logging.LogRecord) -> None:
        emit(self, _for_otlp(record))

    def restore() -> None:
        if handler.emit is renamed:
            handler.emit = emit  # type: ignore[method-assign]

    handler.emit = renamed  # type: ignore[method-assign]
    _restore.append(restore)


def _for_otlp(record: logging.LogRecord) -> logging.LogRecord:
    """The record with the fields under their OTLP names, without those that aren't known; a copy, if it has them."""
    fields = record.__dict__
    if RSS not in fields:
        return record
    try:
        copy = object.__new__(type(record))
        target = copy.__dict__
        for name, value in fields.items():
            if name not in _OTLP_NAMES:
                target[name] = value
            elif value is not None and (otlp_name := _OTLP_NAMES[name]) is not None:
                target[otlp_name] = value
    except Exception:
        _Failures.count += 1
        return record
    return copy


# --- structlog ----------------------------------------------------------------------------------------------------


def add_memory(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for ``structlog.configure(processors=[..., add_memory, ...])``: adds those fields that are known."""
    try:
        fields: dict[str, Any] = {}
        _enrich(fields)
        for name, value in fields.items():
            if value is not None and name not in event_dict:
                event_dict[name] = value
    except Exception:
        _Failures.count += 1
    return event_dict


# --- the setting --------------------------------------------------------------------------------------------------


class LogEnrichment(Feature):
    """Enriches all records while the probe runs."""

    part: ClassVar[str] = "logs"

    def __init__(self, around: Surroundings) -> None:
        around.ledger.watch(self.part, failures=log_enrichment_failures, drops=lambda: 0)
        _switch_on(self)

    def close(self) -> None:
        """Enrich no more, unless somebody asked for it by hand."""
        _switch_off(self)


def _after_fork_in_child() -> None:
    _state.lock = threading.Lock()
    _Failures.count = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
