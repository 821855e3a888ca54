"""The application's own memory events, on the way that the probe's events take: the same sinks, the same form.

Owns nothing but their shape. What the probe measures itself it tells itself; this is for what only the application
knows: a cache that it rebuilt, an eviction of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import SeverityNumber

from otel_memory import names
from otel_memory.probe import events
from otel_memory.probe.plain import plain_text

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

MAX_FIELDS: Final = 32
"""Fields of one event at most; more are left out."""

LEVELS: Final[Mapping[str, SeverityNumber]] = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}


class StructuredLogger:
    """Emits ``otel_memory.application`` events; ``component`` says which part of the application speaks.

    Without a running probe they go nowhere. Every method returns whether some sink took the event.
    """

    def __init__(self, component: str = "application") -> None:
        self.component = component

    def log_memory_event(self, event_type: str, level: str = "info", **fields: Any) -> bool:
        """Emit one event; ``fields`` are attributes under the names given.

        A text, number or boolean stays what it is, a list becomes texts, anything else its ``str``; None is left out.

        Raises:
            ValueError: ``level`` is not debug, info, warning, error or critical.
        """
        severity = LEVELS.get(str(level).lower())
        if severity is None:
            raise ValueError(f"level={level!r}: expected one of {', '.join(LEVELS)}")
        kept = [(key, value) for key, value in fields.items() if value is not None][:MAX_FIELDS]
        told = ", ".join(f"{key}={plain_text(value)}" for key, value in kept)
        attributes: dict[str, AttributeValue] = {key: _plain(value) for key, value in kept}
        attributes[names.APPLICATION_COMPONENT] = plain_text(self.component)
        attributes[names.APPLICATION_EVENT_TYPE] = plain_text(event_type)
        body = f"{self.component}: {event_type}{f' ({told})' if told else ''}"
        return events.emit(names.EVENT_APPLICATION, body, attributes, severity=severity)

    def log_threshold_crossing(
        self, threshold_type: str, current_mb: float, threshold_mb: float, usage_percent: float
    ) -> bool:
        """A threshold of the application's own was crossed; one of type ``critical`` is told as such."""
        return self.log_memory_event(
            "threshold_crossed",
            "critical" if threshold_type == "critical" else "warning",
            threshold_type=threshold_type,
            current_mb=current_mb,
            threshold_mb=threshold_mb,
            usage_percent=usage_percent,
        )

    def log_eviction_event(
        self, projects_evicted: int, memory_freed_mb: float, target_mb: float, duration_seconds: float
    ) -> bool:
        """The application evicted on its own; evictors that are registered with the probe are told by it."""
        return self.log_memory_event(
            "eviction",
            projects_evicted=projects_evicted,
            memory_freed_mb=memory_freed_mb,
            target_mb=target_mb,
            duration_seconds=duration_seconds,
        )

    def log_error(self, error_type: str, error_message: str, **fields: Any) -> bool:
        """Something about memory went wrong in the application."""
        return self.log_memory_event(
            "error", "error", **{**fields, "error_type": error_type, "error_message": error_message}
        )


def _plain(value: Any) -> AttributeValue:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_text(element) for element in value]
    return plain_text(value)
