"""What an output is, and what it is given.

Owns the nouns between alerting's decisions and the world outside. Imports no transport.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from otel_memory.analyzer.model import Alert, Assessment


@dataclass(frozen=True, slots=True)
class AlertChange:
    """One change of one alert's state.

    ``id`` is made from the alert, its state and the event time ``at``: the same input gives the same id, over
    restarts and repeats, so receivers can drop what they have seen. ``assessment`` is the judgement that made the
    change, where there was one.
    """

    id: str
    at: float
    alert: Alert
    assessment: Assessment | None = None


class Output(Protocol):
    """Where alert changes go. Used by one thread of its own; may block that thread."""

    @property
    def name(self) -> str:
        """Names the output in the outbox, the health page and the metrics. Stable over restarts."""

    def deliver(self, change: AlertChange) -> None:
        """Hands over one change and returns when the other side has it. Raises to have it tried again later.

        After a crash the same change may come a second time, with the same ``id``.
        """

    def close(self) -> None:
        """Lets go of connections. Idempotent; ends a delivery in progress where the transport can."""


def change_id(alert: Alert, at: float) -> str:
    """The identity of the change of ``alert`` to its state at event time ``at`` (seconds since the epoch)."""
    return f"{alert.id}.{alert.state.value}.{round(at * 1000)}"
