"""Counts what failed and what was dropped, by part, and says so in the log without flooding it.

Owns the counts behind ``otel_memory.probe.failures`` and ``otel_memory.probe.dropped``. Never raises and never waits
for anything but itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import Observation

from otel_memory import names

LOGGER: Final = logging.getLogger("otel_memory.probe")
LOG_EVERY_SECONDS: Final = 600.0
MAX_PARTS: Final = 64


class Ledger:
    """``clock`` is monotonic seconds; a failing part is logged at most once in ten minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, logger: logging.Logger = LOGGER) -> None:
        self._clock = clock
        self._logger = logger
        self._watched: dict[str, tuple[Callable[[], int], Callable[[], int]]] = {}
        self.reset()

    def reset(self) -> None:
        """Zero all counts, with a new lock: after a fork a thread of the parent may hold the old one for ever."""
        # Re-entrant, because a finalizer that fails may run inside failed().
        self._lock = threading.RLock()
        self._failures: dict[str, int] = {}
        self._logged: dict[str, float] = {}
        self._untold: deque[tuple[int, str, str, str]] = deque(maxlen=MAX_PARTS)

    def failed(self, part: str, error: BaseException) -> None:
        """Count one failure of ``part``, and log it unless that part was logged lately."""
        now = self._clock()
        with self._lock:
            if part not in self._failures and len(self._failures) >= MAX_PARTS:
                part = "other"
            self._failures[part] = self._failures.get(part, 0) + 1
            last = self._logged.get(part)
            if last is not None and now - last < LOG_EVERY_SECONDS:
                return
            self._logged[part] = now
        self._untold.append((time.time_ns(), part, type(error).__qualname__, str(error)))
        try:
            self._logger.warning(
                "otel-memory: %s failed: %s: %s (the application is not affected; counted in %s, "
                "logged at most once in %d minutes)",
                part,
                type(error).__name__,
                error,
                names.PROBE_FAILURES,
                LOG_EVERY_SECONDS / 60,
                exc_info=error if self._logger.isEnabledFor(logging.DEBUG) else None,
            )
        except Exception:  # a logging handler of the host that raises must not hurt it
            return

    def take_logged(self) -> list[tuple[int, str, str, str]]:
        """What was logged since the last call: (ns since the epoch, part, type of the error, its message).

        The bounded rest of what ``failed`` may not do itself, being called with locks held: tell it as an event.
        """
        return [self._untold.popleft() for _ in range(len(self._untold))]

    def watch(self, part: str, *, failures: Callable[[], int], drops: Callable[[], int]) -> None:
        """Report what ``part`` counts itself, because it must not lock: failures and drops so far in this process."""
        self._watched[part] = (failures, drops)

    @property
    def failures(self) -> dict[str, int]:
        """Failures so far, by part."""
        with self._lock:
            counts = dict(self._failures)
        for part, (failures, _) in list(self._watched.items()):
            counts[part] = counts.get(part, 0) + failures()
        return {part: count for part, count in counts.items() if count}

    @property
    def drops(self) -> dict[str, int]:
        """Items dropped so far, by part."""
        counts = {part: drops() for part, (_, drops) in list(self._watched.items())}
        return {part: count for part, count in counts.items() if count}

    def guard(self, part: str, action: Callable[[], object]) -> bool:
        """Do ``action``; count it if it raises. Returns whether it went well."""
        try:
            action()
        except Exception as error:
            self.failed(part, error)
            return False
        return True

    def observe_failures(self) -> Iterable[Observation]:
        """One point for each part that has failed."""
        return [Observation(count, {names.PROBE_PART: part}) for part, count in self.failures.items()]

    def observe_drops(self) -> Iterable[Observation]:
        """One point for each part that has dropped something."""
        return [Observation(count, {names.PROBE_PART: part}) for part, count in self.drops.items()]
