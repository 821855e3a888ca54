"""Ctrl-C, SIGTERM and SIGHUP as a question that is asked, never as an exception out of the blue.

An exception that a signal raises may come between the start of a process and the noting of its id, and nobody would
ever end that one. Owns the handlers while the demo runs; gives them back unless it was asked to end.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

_NUMBERS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_STEP_SECONDS: Final = 0.1


class Interrupted(Exception):
    """The demo was asked to end."""


class Signals:
    """Counts how often the demo was asked to end."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        for number in _NUMBERS:
            # Who starts it with nohup, or in a shell's background, has had the signal ignored on purpose.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # Whoever was asked to end is about to: one more Ctrl-C would only turn a clean exit into a killed one.
            signal.signal(number, signal.SIG_IGN if self.count else handler or signal.SIG_DFL)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def check(self) -> None:
        """Raise `Interrupted` if the demo was asked to end."""
        if self.count:
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Sleep; raise `Interrupted` soon after the demo was asked to end."""
        end = time.monotonic() + seconds
        while True:
            self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _STEP_SECONDS))
