"""When to read: a reading handed out again while it is fresh, and a bound on the share of time that reading takes.

Owns no thread and no timer: it answers when asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R")


class Latest(Generic[R]):
    """The last reading of ``read``, made anew when it is ``seconds`` old or older."""

    __slots__ = ("_clock", "_kept", "_read", "_seconds")

    def __init__(self, read: Callable[[], R], seconds: float, clock: Callable[[], float]) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._kept: tuple[float, R] | None = None

    def __call__(self) -> R:
        kept = self._kept
        if kept is not None and self._clock() - kept[0] < self._seconds:
            return kept[1]
        return self.read()

    def read(self) -> R:
        """Read now, and keep it."""
        reading = self._read()
        self._kept = (self._clock(), reading)
        return reading

    def drop(self) -> None:
        self._kept = None


class Budget:
    """Spaces out work whose cost isn't known beforehand, so that it takes at most ``share`` of the time.

    After work that cost ``c`` seconds the next is due ``max(interval_seconds, c / share)`` later. ``cost_clock``
    counts the thread's own processor time by default: a preempted reading didn't cost the host anything.
    """

    __slots__ = ("_clock", "_cost_clock", "_interval_seconds", "_next", "_share")

    def __init__(
        self,
        interval_seconds: float,
        *,
        share: float = 0.0005,
        clock: Callable[[], float] = time.monotonic,
        cost_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._share = share
        self._clock = clock
        self._cost_clock = cost_clock
        self._next: float | None = None

    def due(self) -> bool:
        return self._next is None or self._clock() >= self._next

    def run(self, work: Callable[[], R]) -> R:
        """Do ``work`` now and take its cost into account, also when it raises."""
        began = self._cost_clock()
        try:
            return work()
        finally:
            cost = self._cost_clock() - began
            self._next = self._clock() + max(self._interval_seconds, cost / self._share)

    def reset(self) -> None:
        """Due at once."""
        self._next = None
