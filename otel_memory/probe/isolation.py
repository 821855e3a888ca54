"""Running other people's code so that it harms nobody: on a daemon thread of its own, timed, and waited for in bounds.

Also owns the question whether this thread may wait at all (a running event loop's may not), and the way from a thread
back to such a loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from otel_memory.probe.errors import MonitoringError
from otel_memory.probe.loaded import loaded
from otel_memory.probe.threads import DaemonThread

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

THREAD_NAME: Final = "otel-memory-evictor"
_inside: Final = threading.local()


class OutOfTime(Exception):
    """Raised within isolated code that ends itself because its time is up."""


class Isolated:
    """One call of ``action`` on its own daemon thread.

    ``state`` after ``wait``: ``done``, ``failed`` (``error`` says what was raised) or ``timed_out`` (it may still be
    running: see ``running``). The error is kept as text, because a traceback would keep alive what was to be freed.
    """

    def __init__(self, action: Callable[[], object]) -> None:
        self._action: Callable[[], object] | None = action
        self._ended = threading.Event()
        self._thread = DaemonThread(self._run, THREAD_NAME)
        self.error = ""
        self._out_of_time = False
        self.started = time.monotonic()
        self._seconds: float | None = None

    def _run(self) -> None:
        _inside.yes = True
        action, self._action = self._action, None
        try:
            if action is not None:
                action()
        except OutOfTime:
            self._out_of_time = True
        except BaseException as error:  # SystemExit too: it would end this thread silently
            self.error = f"{type(error).__name__}: {error}"[:200]
        finally:
            del action
            self._seconds = time.monotonic() - self.started
            self._ended.set()

    def wait(self, timeout_seconds: float) -> Literal["done", "failed", "timed_out"]:
        """Start it and wait at most that long. Never raises."""
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread to be had: the interpreter ends, or the system has none
            self.error = str(error)
            self._seconds = 0.0
            self._ended.set()
        if not self._ended.wait(timeout_seconds) or self._out_of_time:
            return "timed_out"
        self._thread.join(1.0) if self._thread.ident is not None else None
        return "failed" if self.error else "done"

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return time.monotonic() - self.started if self._seconds is None else self._seconds

    @property
    def running(self) -> bool:
        """Whether its thread is still there; never in a forked child."""
        return self._thread.is_alive()


def inside() -> bool:
    """Whether this thread is one that runs isolated code."""
    return getattr(_inside, "yes", False)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The asyncio event loop that runs on this thread. Imports nothing: without asyncio there is none."""
    events = loaded("asyncio.events")
    loop: asyncio.AbstractEventLoop | None = events._get_running_loop() if events is not None else None
    return loop


def refuse_where_waiting_harms(name: str, instead: str) -> None:
    """Raise where this thread must not wait for ``name``.

    Raises:
        MonitoringError: an event loop runs on this thread, or it is an evictor's.
    """
    if running_loop() is not None:
        raise MonitoringError(f"{name}() would block the event loop that runs on this thread; use `await {instead}(…)`")
    if inside():
        raise MonitoringError(
            f"{name}() was called by an evictor; an evictor frees memory itself and calls nobody else"
        )


async def in_thread(call: Callable[[], T]) -> T:
    """What ``call`` returns or raises, from a daemon thread. Cancelling the waiting does not end the call."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only beside an error

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = call()
        except Exception as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
            return

    DaemonThread(run, "otel-memory-waiter").start()
    return await future


def on_loop(coroutine: Coroutine[Any, Any, object], loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> None:
    """Run ``coroutine`` on ``loop`` from another thread, and cancel it when the time is up.

    Raises:
        OutOfTime: it took longer.
        Exception: what it raised.
    """
    import asyncio
    import concurrent.futures

    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        future.result(timeout_seconds)
    except concurrent.futures.TimeoutError:
        if future.done():  # it was the coroutine's own
            raise
        future.cancel()
        raise OutOfTime from None
