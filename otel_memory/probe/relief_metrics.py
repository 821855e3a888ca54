"""The metrics of evictors and cleanups, in every probe, for whatever of the two the application uses.

Owns their registration. Loads neither: until the application (or a setting) has, there is nothing to tell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Final

from otel_memory import names
from otel_memory.probe.feature import Feature
from otel_memory.probe.sources import Gate, Undo, observe_metrics

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, Observation

_EVICTION: Final = "otel_memory.probe.eviction"
_CLEANUP: Final = "otel_memory.probe.cleanup"


class ReliefMetrics(Feature):
    """Counts of evictors and cleanups."""

    part: ClassVar[str] = "relief"

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit them on ``meter``; nothing while their module isn't loaded."""
        return observe_metrics(
            meter,
            gate,
            self.part,
            {
                names.EVICTOR_RUNS: lambda: _ask(_EVICTION, "observe_runs"),
                names.EVICTOR_FREED: lambda: _ask(_EVICTION, "observe_freed"),
                names.CLEANUP_RUNS: lambda: _ask(_CLEANUP, "observe_runs"),
                names.CLEANUP_FREED: lambda: _ask(_CLEANUP, "observe_freed"),
                names.CLEANUP_TIME: lambda: _ask(_CLEANUP, "observe_time"),
            },
        )


def _ask(module: str, observe: str) -> Iterable[Observation]:
    found = sys.modules.get(module)
    # A module that is being imported on another thread may not have it yet.
    ask = getattr(found, observe, None)
    return () if ask is None else ask()
