"""``OncePerMinute``: a log that an outage does not fill.

Owns which lines are one kind: those of one logger and level that were written by the same statement.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Final

SECONDS: Final = 60.0
MAX_KINDS: Final = 1000
_NUMBERS: Final = re.compile(r"(?:0x)?[0-9a-f]*\d[0-9a-f]*")


class OncePerMinute(logging.Filter):
    """For a handler. Lets through one line of a kind each ``SECONDS``, which says how many were left out before it.

    Meant are the lines of loggers called ``library`` or below, and those that begin with one of ``beginnings``; all
    others pass.
    """

    def __init__(
        self, library: str, beginnings: tuple[str, ...] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(library)
        self._beginnings = beginnings
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}
        """Kind -> when a line of it was let through last, and how many were left out since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        template = str(record.msg)
        if not super().filter(record) and not template.startswith(self._beginnings):
            return True
        kind = (record.name, record.levelno, _NUMBERS.sub("", template))
        now = self._clock()
        with self._lock:
            at, left_out = self._said.get(kind, (float("-inf"), 0))
            if now - at < SECONDS:
                self._said[kind] = (at, left_out + 1)
                return False
            self._said.pop(kind, None)
            self._said[kind] = (now, 0)
            if len(self._said) > MAX_KINDS:
                del self._said[next(iter(self._said))]
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it were left out)", None
        return True
