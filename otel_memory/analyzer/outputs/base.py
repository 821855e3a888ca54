"""What an output is, and what it is given.

Owns the nouns between alerting's decisions and the world outside. Imports no transport.

``Output`` is all that one must be. What it may do beside that it says by having the methods of ``Choosy``,
``Grouping`` or ``Repeating``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from otel_memory.analyzer.model import Alert, AlertState, Assessment


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


class Refused(Exception):
    """The other side will never take this: trying again is no use."""


class Busy(ConnectionError):
    """The other side asks to come again, not sooner than in ``retry_after`` seconds."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Output(Protocol):
    """Where alert changes go. Used by one thread of its own; may block that thread."""

    @property
    def name(self) -> str:
        """Names the output in the outbox, the health page and the metrics. Stable over restarts."""

    def deliver(self, change: AlertChange) -> None:
        """Hands over one change and returns when the other side has it. Raises to have it tried again later, and
        ``Refused`` to have it given up.

        After a crash the same change may come a second time, with the same ``id``.
        """

    def close(self) -> None:
        """Lets go of connections. Idempotent; ends a delivery in progress where the transport can."""


@runtime_checkable
class Choosy(Protocol):
    """An output that is not told of every change."""

    def wants(self, change: AlertChange) -> bool:
        """Whether it is to be told of this change."""


@runtime_checkable
class Grouping(Protocol):
    """An output that takes several changes in one delivery."""

    group_seconds: float
    """How long the first of a group waits for others; 0: only what is there already goes with it."""

    def group_of(self, change: AlertChange) -> str:
        """What has the same group may go together."""

    def deliver_group(self, changes: Sequence[AlertChange]) -> None:
        """As ``deliver``, for all of them: taken or failed as a whole."""


@runtime_checkable
class Repeating(Protocol):
    """An output that has to be told again and again of what still fires."""

    repeat_seconds: float

    def repeat(self, alerts: Sequence[Alert]) -> None:
        """Tells of every alert that fires, is not silenced, and of which nothing waits for the output. Raises where
        that failed; it is not tried again before the next time."""


def change_id(alert: Alert, at: float) -> str:
    """The identity of the change of ``alert`` to its state at event time ``at`` (seconds since the epoch)."""
    return f"{alert.id}.{alert.state.value}.{round(at * 1000)}"


def notable(change: AlertChange) -> bool:
    """Whether somebody who is to act should hear of it: it fires, or it ended after it had fired."""
    return change.alert.state is AlertState.FIRING or (
        change.alert.state is AlertState.RESOLVED and change.alert.fired_at is not None
    )
