"""``Dispatcher``: brings every alert change to every output.

Owns one daemon thread for each output, so that one that hangs or raises does not hurt the others. What is queued lies
in the store's outbox: in ordinary operation a change is delivered once, over a crash at least once and with the same
id. Never decides what is an alert.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from otel_memory.analyzer.model import Alert
from otel_memory.analyzer.outputs.base import AlertChange, Output
from otel_memory.analyzer.outputs.lane import Lane, RetryPolicy, Silencing
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store.errors import StoreError
from otel_memory.analyzer.store.outbox import Outbox

_logger = logging.getLogger(__name__)


class Dispatcher:
    """The lanes and their threads.

    Start it before what makes alerts, stop it after. ``wake`` after each transaction that recorded a change.
    """

    LONGEST_SLEEP: Final = 30.0
    SHORTEST_SLEEP: Final = 0.05

    def __init__(
        self,
        path: Path,
        outputs: Sequence[Output],
        stats: Stats,
        *,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        silences: Silencing | None = None,
        firing: Callable[[], Iterable[Alert]] = tuple,
        told: Callable[[str, Alert, str], object] = lambda _output, _alert, _change: None,
        resume: bool = True,
    ) -> None:
        """``silences`` holds changes back; ``firing`` gives the alerts that fire now, from any thread; ``told`` as the
        lanes have it. With ``resume`` what an earlier run left is delivered, else somebody else takes care of it."""
        names = [output.name for output in outputs]
        if len(set(names)) != len(names):
            raise ValueError(f"outputs need different names, not {names}")
        self.names: Final[tuple[str, ...]] = tuple(names)
        self._path = path
        self._resume = resume
        self._clock = clock
        self._stopping = threading.Event()
        self._outboxes = [Outbox(path) for _ in outputs]
        self._lanes = [
            Lane(
                output,
                outbox,
                stats,
                policy=policy or RetryPolicy(),
                clock=clock,
                chance=chance,
                silences=silences,
                firing=firing,
                told=told,
            )
            for output, outbox in zip(outputs, self._outboxes, strict=True)
        ]
        self._wakes = [threading.Event() for _ in outputs]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begins to deliver. Once only; a stopped dispatcher stays stopped."""
        if self._threads or self._stopping.is_set():
            return
        outbox = Outbox(self._path)
        try:
            dropped = outbox.retain(self.names if self._resume else ())
            if dropped and self._resume:
                _logger.warning("dropped %d alert changes for outputs that are not configured any more", dropped)
        except StoreError as error:
            _logger.warning("the outbox can't be read: %s", error)
        finally:
            outbox.close()
        self._threads = [
            threading.Thread(target=self._run, args=(index,), name=f"otel-memory-output-{name}", daemon=True)
            for index, name in enumerate(self.names)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Says that there may be something to deliver. Cheap, from any thread."""
        for event in self._wakes:
            event.set()

    def offer(self, change: AlertChange) -> None:
        """Delivers a change that the store could not keep. It is lost if the analyzer ends before it is out."""
        for lane in self._lanes:
            lane.offer(change)
        self.wake()

    def stop(self, timeout_seconds: float = 5.0) -> bool:
        """Ends the threads; what is not delivered stays in the outbox. Idempotent.

        Returns False where an output still hangs after ``timeout_seconds``; its thread is left to the end of the
        process.
        """
        self._stopping.set()
        self.wake()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()) / 2)
        for lane in self._lanes:
            lane.close()
        # Closing an output ends a delivery under way, where its transport can.
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        alive = [thread.name for thread in self._threads if thread.is_alive()]
        if alive:
            _logger.warning("still delivering at the end: %s", ", ".join(alive))
        return not alive

    def _run(self, index: int) -> None:
        lane, wake = self._lanes[index], self._wakes[index]
        while not self._stopping.is_set():
            wake.clear()
            again: float | None = None
            try:
                again = lane.drain(self._stopping.is_set)
            except Exception:
                # A fault of ours: the lane goes on, with a long pause.
                _logger.exception("output %s: the dispatcher failed", self.names[index])
            left = self.LONGEST_SLEEP if again is None else again - self._clock()
            if not self._stopping.is_set():
                wake.wait(min(max(left, self.SHORTEST_SLEEP), self.LONGEST_SLEEP))
        self._outboxes[index].close()
