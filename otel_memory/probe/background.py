"""One daemon thread for what takes longer than a beat of the sampler: cleaning up, censuses, bursts, diagnostics.

Owns that thread and the bounded queue before it. Jobs run one at a time, in order; the thread is started when a job
comes, and ends after a while without one. A job that hangs keeps the others waiting and nobody else.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_memory.probe.ledger import Ledger

THREAD_NAME: Final = "otel-memory-background"
MAX_WAITING: Final = 16
IDLE_SECONDS: Final = 10.0

Job = Callable[[], object]


class Background:
    """Runs jobs beside the application until ``stop()``; usable again after a fork by ``after_fork()``."""

    def __init__(self, ledger: Ledger, idle_seconds: float = IDLE_SECONDS) -> None:
        self._ledger = ledger
        self._idle_seconds = idle_seconds
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.Queue[tuple[str, Job] | None] = queue.Queue(MAX_WAITING)
        self._named: set[str] = set()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.dropped = 0
        """Jobs that were refused because too many waited."""

    @property
    def stopping(self) -> bool:
        """Whether a long job should end early: the probe is being stopped."""
        return self._stopped

    def submit(self, part: str, job: Job) -> bool:
        """Run ``job`` soon. At most one job of a ``part`` waits or runs at a time.

        Returns False, and does nothing, where one of that part is there already, too many wait, or it is stopped.
        Never blocks and never raises.
        """
        with self._lock:
            if self._stopped or part in self._named:
                return False
            try:
                self._queue.put_nowait((part, job))
            except queue.Full:
                self.dropped += 1
                return False
            self._named.add(part)
            if self._thread is None:
                thread = threading.Thread(target=self._run, args=(self._queue,), name=THREAD_NAME, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no thread to be had: the interpreter ends, or the system has none
                    self._queue.get_nowait()
                    self._named.discard(part)
                    self._ledger.failed(part, error)
                    return False
                self._thread = thread
        return True

    def stop(self, timeout: float) -> bool:
        """Take no more jobs, drop those that wait, and wait at most ``timeout`` s for the one that runs.

        Returns whether the thread has ended. Called from a job it doesn't wait.
        """
        with self._lock:
            self._stopped = True
            thread = self._thread
            try:
                while True:
                    self._queue.get_nowait()
            except queue.Empty:
                pass
            self._queue.put_nowait(None)
        if thread is None or thread is threading.current_thread():
            return True
        deadline = time.monotonic() + max(0.0, timeout)
        thread.join(max(0.0, deadline - time.monotonic()))
        return not thread.is_alive()

    def after_fork(self) -> None:
        """In the child: the parent's thread and jobs are not here."""
        self._reset()

    def _run(self, jobs: queue.Queue[tuple[str, Job] | None]) -> None:
        while True:
            try:
                item = jobs.get(timeout=self._idle_seconds)
            except queue.Empty:
                with self._lock:
                    if not jobs.empty():
                        continue
                    if self._thread is threading.current_thread():
                        self._thread = None
                    return
            if item is None:
                return
            part, job = item
            self._ledger.guard(part, job)
            with self._lock:
                self._named.discard(part)
