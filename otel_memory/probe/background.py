"""One daemon thread for what takes longer than a beat of the sampler: cleaning up, censuses, bursts, diagnostics.

Owns that thread and the bounded queue before it. Jobs run one at a time, in order. The thread is started when the first
job comes, and stays: an interpreter whose main thread has ended while others work on starts no new one (CPython 3.12).
A job that hangs keeps the others waiting and nobody else.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from otel_memory.probe.threads import DaemonThread

if TYPE_CHECKING:
    from otel_memory.probe.ledger import Ledger

THREAD_NAME: Final = "otel-memory-background"
MAX_WAITING: Final = 16

Job = Callable[[], object]
_Queue = queue.SimpleQueue[tuple[str, Job] | None]


class Background:
    """Runs jobs beside the application until ``stop()``; usable again after a fork by ``after_fork()``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._jobs: _Queue = queue.SimpleQueue()
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

        Returns False, and does nothing, where one of that part is there already, too many wait, it is stopped, or no
        thread can be had. Never blocks and never raises.
        """
        with self._lock:
            if self._stopped or part in self._named:
                return False
            if len(self._named) > MAX_WAITING:  # those that wait, and the one that runs
                self.dropped += 1
                return False
            if self._thread is None and not self._start(part):
                return False
            self._named.add(part)
            self._jobs.put((part, job))
        return True

    def _start(self, part: str) -> bool:
        thread = DaemonThread(self._run, THREAD_NAME, (self._jobs,))
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            if threading.main_thread().is_alive():  # else the interpreter is ending, and that is no failure
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
            self._jobs.put(None)
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(max(0.0, timeout))
        return not thread.is_alive()

    def after_fork(self) -> None:
        """In the child: the parent's thread and jobs are not here."""
        self._reset()

    def _run(self, jobs: _Queue) -> None:
        # In the child of a job that forks, this is still the parent's queue, and not the one that jobs come in.
        while (item := jobs.get()) is not None and not self._stopped and jobs is self._jobs:
            part, job = item
            self._ledger.guard(part, job)
            if jobs is not self._jobs:
                return
            with self._lock:
                self._named.discard(part)
