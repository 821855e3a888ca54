"""When the probe cleans up by itself: every so often, and when a critical threshold is crossed.

Owns the occasions; what a cleanup does is in ``cleanup``. All of it runs on the background thread, so neither the
sampler nor an event loop waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Final

from otel_memory import names
from otel_memory.probe import cleanup
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.thresholds import Crossing

LEAST_BETWEEN_CRITICAL_SECONDS: Final = 60.0
"""Several rules may cross at once, and each has a cooldown of its own."""
ABOUT_SHARES_OF_MEMORY: Final = frozenset(
    {names.PROCESS_MEMORY_UTILIZATION, names.SYSTEM_MEMORY_UTILIZATION, names.PYTHON_BLOCK_COUNT}
)


class CleanupFeature(Feature):
    """Cleans up as ``settings.cleanup`` says: ``periodic``, ``critical`` or both."""

    part: ClassVar[str] = "cleanup"

    def __init__(self, around: Surroundings) -> None:
        self._background = around.background
        self._on = around.settings.cleanup
        self._interval = around.settings.cleanup_interval_seconds
        self._next: float | None = None
        self._critical_at: float | None = None
        self._critical_wanted = False

    def tick(self, now: float) -> None:
        """Gently, each ``cleanup_interval`` after the start; late rather than twice, or never."""
        if self._critical_wanted:
            self._submit_critical()
        if "periodic" not in self._on:
            return
        if self._next is None:
            self._next = now + self._interval
        if now < self._next:
            return
        if self._background.submit("cleanup.periodic", lambda: self._run("periodic", aggressive=False)):
            self._next = now + self._interval

    def crossing(self, crossing: Crossing) -> None:
        """Aggressively, when a critical rule about memory is crossed."""
        rule = crossing.rule
        if "critical" not in self._on or crossing.kind != "crossed" or rule.severity != "critical":
            return
        metric = names.METRICS.get(rule.metric)
        if (metric is None or metric.unit != "By") and rule.metric not in ABOUT_SHARES_OF_MEMORY:
            return  # no cleanup brings back threads or descriptors
        now = time.monotonic()
        if self._critical_at is not None and now - self._critical_at < LEAST_BETWEEN_CRITICAL_SECONDS:
            return
        self._critical_at = now
        self._submit_critical()

    def _submit_critical(self) -> None:
        # Refused while one is running or too much waits: tried again at the next beat.
        run = self._background.submit("cleanup.critical", lambda: self._run("critical", aggressive=True))
        self._critical_wanted = not run

    def after_fork(self) -> None:
        """The child counts its own time."""
        self._next = self._critical_at = None
        self._critical_wanted = False

    def status(self) -> Mapping[str, Any]:
        """When it cleans up, and what the last one did."""
        last = cleanup.last_result()
        return {
            "on": list(self._on),
            "interval_seconds": self._interval,
            "last": None if last is None else asdict(last),
        }

    def _run(self, trigger: cleanup.Trigger, *, aggressive: bool) -> None:
        background = self._background
        cleanup.run_cleanup(trigger, aggressive, stop=lambda: background.stopping)
