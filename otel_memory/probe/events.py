"""The one way to emit an event: a log record with an event name, sent through the OpenTelemetry logs API.

Owns the form of events. A record is made once, and handed to the application's logger provider and to each sink of the
probe's own (``sinks.py``); one that fails keeps no other from its turn. Never raises, never queues (the SDK's processor
has a bounded queue of its own), and never picks a provider: without one, an event goes nowhere, and costs next to
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context

from otel_memory import names
from otel_memory.probe.plain import plain_text, plain_value
from otel_memory.probe.units import human_bytes, human_seconds
from otel_memory.version import __version__

if TYPE_CHECKING:
    from opentelemetry._logs import Logger, LoggerProvider
    from opentelemetry.util.types import AttributeValue

    from otel_memory.probe.thresholds import Crossing

PART: Final = "events"

_SEVERITY: Final = {
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "critical": SeverityNumber.ERROR,
}
_LABELS: Final = {
    names.PROCESS_MEMORY_USAGE: "Resident memory",
    names.PROCESS_MEMORY_UTILIZATION: "Memory in use",
    names.PROCESS_MEMORY_VIRTUAL: "Virtual memory",
    names.SYSTEM_MEMORY_UTILIZATION: "Memory in use on the host",
    names.HEAP_USAGE: "Memory in use in the C allocator",
    names.PYTHON_BLOCK_COUNT: "Count of Python memory blocks",
    names.PROCESS_THREAD_COUNT: "Count of threads",
    names.PROCESS_FD_COUNT: "Count of open file descriptors",
}
# An empty Context would be falsy, and the SDK would then take the current span's; this one says "no span".
_NO_SPAN: Final = trace.set_span_in_context(trace.INVALID_SPAN, Context())


class Sink(Protocol):
    """Another place for events; ``part`` names it where it fails."""

    part: str

    def logger(self) -> Logger | None:
        """What takes the records now."""


class _Application:
    """The application's logger provider."""

    part = PART

    def __init__(self, logger_provider: LoggerProvider | None) -> None:
        self._logger = get_logger(names.SCOPE, __version__, logger_provider=logger_provider)

    def logger(self) -> Logger | None:
        return self._logger


class Events:
    """Emits events as log records of scope ``otel_memory``.

    They go to ``logger_provider``, which defaults to the global one, whenever that is set, unless ``otlp`` is False;
    and to each of ``sinks``. ``failed`` is called with (part, error) when an event could not be handed over.
    """

    def __init__(
        self,
        logger_provider: LoggerProvider | None = None,
        failed: Callable[[str, BaseException], None] | None = None,
        *,
        otlp: bool = True,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._sinks: tuple[Sink, ...] = (*((_Application(logger_provider),) if otlp else ()), *sinks)
        self._failed = failed
        self.emitted = 0
        """Events that somebody took."""

    def emit(
        self,
        event_name: str,
        body: str,
        attributes: Mapping[str, AttributeValue],
        *,
        severity: SeverityNumber = SeverityNumber.INFO,
        time_ns: int | None = None,
    ) -> bool:
        """Emit one event that happened at ``time_ns`` (since the epoch; now if not given).

        Returns whether a provider took it. ``attributes`` are flat; long strings are cut to 512 characters, and one
        that is None is left out.
        """
        record: dict[str, Any] = {}
        taken = False
        for sink in self._sinks:
            try:
                logger = sink.logger()
                enabled = getattr(logger, "enabled", None)  # the API has it from 1.41 on
                if logger is None or not (enabled is None or enabled(severity_number=severity, event_name=event_name)):
                    continue
                record = record or _record(event_name, body, attributes, severity, time_ns)
                logger.emit(**record)
                taken = True
            except Exception as error:  # a provider's fault must not reach the host
                if self._failed is not None:
                    self._failed(sink.part, error)
        self.emitted += taken
        return taken

    def threshold(self, crossing: Crossing, event_id: str, time_ns: int) -> bool:
        """Emit a crossing or recovery of a threshold; ``event_id`` is the same for both of one episode."""
        rule = crossing.rule
        attributes: dict[str, AttributeValue] = {
            names.EVENT_ID: event_id,
            names.THRESHOLD_NAME: rule.name,
            names.THRESHOLD_METRIC: rule.metric,
            names.THRESHOLD_COMPARISON: rule.comparison,
            names.THRESHOLD_BOUND: float(rule.bound),
            names.THRESHOLD_VALUE: float(crossing.value),
            names.THRESHOLD_UNIT: rule.unit,
            names.THRESHOLD_SEVERITY: rule.severity,
            names.PROCESS_PID: os.getpid(),
        }
        if rule.subject.attributes:
            attributes[names.THRESHOLD_ATTRIBUTES] = rule.subject.chosen
        if crossing.kind == "crossed":
            severity = _SEVERITY[rule.severity]
            name = names.EVENT_THRESHOLD_CROSSED
        else:
            severity = SeverityNumber.INFO
            name = names.EVENT_THRESHOLD_RECOVERED
            attributes[names.THRESHOLD_PEAK] = float(crossing.peak)
            attributes[names.THRESHOLD_DURATION] = float(crossing.duration)
        return self.emit(name, describe(crossing), attributes, severity=severity, time_ns=time_ns)

    def error(self, part: str, kind: str, message: str, time_ns: int) -> bool:
        """Emit that ``part`` of the probe failed with an exception of type ``kind``."""
        return self.emit(
            names.EVENT_ERROR,
            f"{part} failed: {kind}: {message}",
            {
                names.PROBE_PART: part,
                names.EXCEPTION_TYPE: kind,
                names.EXCEPTION_MESSAGE: message,
                names.PROCESS_PID: os.getpid(),
            },
            severity=SeverityNumber.WARN,
            time_ns=time_ns,
        )


# --- the way in for what runs with or without a probe ---------------------------------------------------------

_attached: tuple[Events, ...] = ()


def attach(sink: Events) -> None:
    """``emit`` goes to ``sink`` too, until ``detach``. Called while a probe starts."""
    global _attached
    _attached = (*_attached, sink)


def detach(sink: Events) -> None:
    """Undo ``attach``; does nothing if it was undone before."""
    global _attached
    _attached = tuple(other for other in _attached if other is not sink)


def emit(
    event_name: str,
    body: str,
    attributes: Mapping[str, AttributeValue],
    *,
    severity: SeverityNumber = SeverityNumber.INFO,
    time_ns: int | None = None,
) -> bool:
    """``Events.emit`` of every running probe, with ``process.pid`` added; without one the event goes nowhere.

    Returns whether somebody took it. Never raises.
    """
    attributes = {names.PROCESS_PID: os.getpid(), **attributes}
    taken = [sink.emit(event_name, body, attributes, severity=severity, time_ns=time_ns) for sink in _attached]
    return any(taken)


def _record(
    event_name: str,
    body: str,
    attributes: Mapping[str, AttributeValue],
    severity: SeverityNumber,
    time_ns: int | None,
) -> dict[str, Any]:
    now_ns = time.time_ns()
    return {
        "timestamp": now_ns if time_ns is None else time_ns,
        "observed_timestamp": now_ns,
        "context": _NO_SPAN,
        "severity_number": severity,
        "severity_text": severity.name,
        "body": plain_text(body),
        "attributes": {plain_text(key): plain_value(value) for key, value in attributes.items() if value is not None},
        "event_name": event_name,
    }


def describe(crossing: Crossing) -> str:
    """The crossing or recovery in one sentence."""
    rule = crossing.rule
    label = str(rule.subject) if rule.attributes else _LABELS.get(rule.metric, rule.metric)
    value, bound = _quantity(crossing, crossing.value), _quantity(crossing, rule.bound)
    what = {
        "greater_than": f"{label} is {value}",
        "share_of_limit": f"{label} is {value} of the limit",
        "growth_per_second": f"{label} grows by {value}",
        "percent_change": f"{label} grew by {value} in {human_seconds(rule.window_seconds)}",
    }[rule.comparison]
    if crossing.kind == "crossed":
        return f"{what}, over the threshold of {bound} ({rule.name}, {rule.severity})."
    peak = _quantity(crossing, crossing.peak)
    lasted = human_seconds(crossing.duration)
    return f"{what}, back under the threshold of {bound} after {lasted}; peak {peak} ({rule.name})."


def _quantity(crossing: Crossing, value: float) -> str:
    unit = crossing.rule.unit
    if unit == "By":
        return human_bytes(value)
    if unit == "By/s":
        return f"{human_bytes(value)}/s"
    if unit == "%":
        return f"{value:.1f} %"
    if crossing.rule.comparison == "share_of_limit" or crossing.rule.metric == names.SYSTEM_MEMORY_UTILIZATION:
        return f"{value:.1%}".replace("%", " %")
    number = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{number}{' s' if unit.startswith('s') else ''}{'/s' if unit.endswith('/s') else ''}"
