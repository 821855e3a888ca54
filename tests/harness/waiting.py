"""Waiting for something that another process does: until it is so, never a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(probe: Callable[[], T], *, timeout_seconds: float = 10.0, what: str = "", every: float = 0.05) -> T:
    """The first truthy value of ``probe``. Raises `TimeoutError` that names ``what`` and the last value or error.

    A probe may raise `OSError`, `ValueError`, `LookupError` or `AssertionError` while it is too early.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        last: object
        try:
            value = probe()
            if value:
                return value
            last = value
        except (OSError, ValueError, LookupError, AssertionError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what or 'it'} did not come true within {timeout_seconds:g} s; last: {last!r}")
        time.sleep(every)
