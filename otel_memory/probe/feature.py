"""What a feature of the probe is: a part that a setting brings in, beside the sources that are always there.

Owns the face that the lifecycle talks to. A feature reads its own settings, says nothing at import, and is built only
where it is asked for (``features.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.background import Background
    from otel_memory.probe.config import Settings
    from otel_memory.probe.ledger import Ledger
    from otel_memory.probe.parts import Parts
    from otel_memory.probe.sources import Gate, Undo
    from otel_memory.probe.thresholds import Crossing


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a feature may use. ``emit`` is ``Events.emit``: (event name, body, attributes, severity=, time_ns=)."""

    settings: Settings
    parts: Parts
    """The sources: ``parts.process.latest().rss_bytes``, ``parts.limits.latest()``, ``parts.heap.latest()`` …"""
    emit: Callable[..., bool]
    background: Background
    """For work of more than a millisecond: one daemon thread, started when first needed."""
    ledger: Ledger
    """``ledger.failed(part, error)`` counts and logs what went wrong."""


class Feature:
    """Does nothing; a feature overrides what it needs. Nothing here is called in a gc callback.

    ``part`` names it in logs and in ``otel_memory.probe.failures``. What any method raises is counted and goes no
    further.
    """

    part: ClassVar[str] = "feature"

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit this feature's metrics on ``meter`` until the returned function is called (``observe_metrics``)."""
        return _nothing

    def tick(self, now: float) -> None:
        """One beat of the sampler, on its thread, at ``now`` (monotonic seconds). Has to be over in a millisecond:
        what takes longer goes to the background."""

    def crossing(self, crossing: Crossing) -> None:
        """A threshold was crossed or recovered from; on the sampler's thread, after its event was emitted."""

    def after_fork(self) -> None:
        """In the child: forget what is the parent's, and make locks, threads and descriptors anew."""

    def close(self) -> None:
        """Undo everything: threads, hooks, patches. Called once, within about two seconds; what hangs is left."""

    def status(self) -> Mapping[str, Any]:
        """What a person may want to know about it now, ready for JSON; for the health check and the endpoints."""
        return {}


def _nothing() -> None:
    return
