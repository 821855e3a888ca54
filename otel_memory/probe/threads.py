"""Starting a thread in bounded time. Owns the one class that the probe's threads are made of."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

START_SECONDS: Final = 5.0


class DaemonThread(threading.Thread):
    """A daemon thread whose ``start()`` doesn't wait for ever.

    ``threading.Thread.start()`` waits until the thread says that it has begun. One that finds no memory for its very
    first steps (``RLIMIT_AS``) ends without a word, and whoever started it then hangs.
    """

    def __init__(self, target: Callable[..., object], name: str, args: Iterable[Any] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)
        self._started = _Begun()  # the attribute of the base, whose wait has no bound

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: the system has no thread to give, or it has not begun within five seconds.
        """
        super().start()
        if not self._started.is_set():
            raise RuntimeError(f"the thread {self.name} has not begun within {START_SECONDS:g} s")

    def _delete(self) -> None:
        # At the thread's end. gevent's monkey-patching renumbers the threads that it finds: one from before then isn't
        # listed under its number, and the interpreter would print a traceback.
        with contextlib.suppress(KeyError):
            super()._delete()  # type: ignore[misc]


class _Begun(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(START_SECONDS if timeout is None else timeout)
