"""Diagnostic runs that start by themselves: on a schedule, or when memory grows.

Owns when they start. They run on the background's thread, and take at most one per cent of the process's time as
pauses: a long collection makes the next one wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from otel_memory import names
from otel_memory.probe import diagnostics
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.thresholds import WINDOWED

if TYPE_CHECKING:
    from otel_memory.probe.thresholds import Crossing

GROWTH: Final = "growth"
GROWTH_COOLDOWN_SECONDS: Final = 600.0
LONGEST_SHARE: Final = 0.01
"""Of the time, what the pauses of runs that start by themselves take at most."""
MAX_SECONDS: Final = 1.0
WAIT_SECONDS: Final = 5.0
_MEMORY: Final = frozenset(
    {
        *(names.PROCESS_MEMORY_USAGE, names.PROCESS_MEMORY_VIRTUAL, names.PROCESS_MEMORY_UTILIZATION),
        *(names.HEAP_USAGE, names.PYTHON_BLOCK_COUNT),
    }
)


class DiagnosticsFeature(Feature):
    """``settings.diagnostic_gc``: None, seconds between two runs, or ``"growth"``."""

    part: ClassVar[str] = "diagnostics"

    def __init__(self, surroundings: Surroundings) -> None:
        settings = surroundings.settings
        self._background = surroundings.background
        self._ledger = surroundings.ledger
        self._when = settings.diagnostic_gc
        self._due: float | None = None
        self._not_before = 0.0
        self._last: diagnostics.DiagnosticRun | None = None
        self._runs = 0
        self._record_to = settings.diagnostic_gc_file
        if self._record_to is not None:
            diagnostics.record_to = self._record_to

    def tick(self, now: float) -> None:
        """Start a run if the schedule says so. The first is one interval after the start."""
        if not isinstance(self._when, float):
            return
        if self._due is None:
            self._due = now + self._when
        elif now >= max(self._due, self._not_before):
            self._due = now + self._when
            self._background.submit(self.part, lambda: self._run("schedule"))

    def crossing(self, crossing: Crossing) -> None:
        """Start a run if a rule about the growth of memory has spoken, and none did in the last ten minutes."""
        rule = crossing.rule
        if self._when != GROWTH or crossing.kind != "crossed":
            return
        if rule.comparison not in WINDOWED or rule.metric not in _MEMORY:
            return
        now = time.monotonic()
        if now >= self._not_before and self._background.submit(self.part, lambda: self._run("growth")):
            self._not_before = now + GROWTH_COOLDOWN_SECONDS

    def after_fork(self) -> None:
        """The child's schedule begins anew; what ran was the parent's."""
        self._due, self._not_before, self._last, self._runs = None, 0.0, None, 0

    def close(self) -> None:
        """Record no more. A run that is under way looks no further and ends by itself."""
        if diagnostics.record_to == self._record_to:
            diagnostics.record_to = None

    def status(self) -> Mapping[str, Any]:
        """When it runs, how often it did, and the last run."""
        return {"when": self._when, "runs": self._runs, "last": self._last.to_dict() if self._last else None}

    def _run(self, reason: diagnostics.Reason) -> None:
        background = self._background
        done = diagnostics.run(
            max_seconds=MAX_SECONDS,
            max_objects=diagnostics.MAX_OBJECTS,
            record=None,
            wait_seconds=WAIT_SECONDS,
            reason=reason,
            stop=lambda: background.stopping,
        )
        self._last = done
        self._runs += 1
        paused = sum(done.durations.collect) + done.durations.free
        self._not_before = max(self._not_before, time.monotonic() + paused / LONGEST_SHARE)
        if done.record_error is not None:
            self._ledger.failed(self.part, OSError(done.record_error))
