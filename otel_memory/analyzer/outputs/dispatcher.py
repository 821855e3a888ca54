"""``Dispatcher``: brings every alert change to every output.

Owns one daemon thread for each output, so that one that hangs or raises does not hurt the others. What is queued lies
in the store's outbox: in ordinary operation a change is delivered once, over a crash at least once and with the same
id. Never decides what is an alert.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from otel_memory.analyzer.outputs.base import AlertChange, Output
from otel_memory.analyzer.stats import OutputHealth, Stats
from otel_memory.analyzer.store.errors import StoreError
from otel_memory.analyzer.store.outbox import Outbox

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits ``first_seconds`` and doubles up to ``longest_seconds``, each time less up to half by chance. A change is
    given up after ``max_attempts`` tries or ``max_age_seconds``, or when more than ``max_pending`` newer ones wait."""

    first_seconds: float = 1.0
    longest_seconds: float = 300.0
    max_attempts: int = 500
    max_age_seconds: float = 24 * 3600.0
    max_pending: int = 10_000

    def delay(self, attempts: int, chance: float) -> float:
        """Seconds to wait after the ``attempts``-th failed try (1 is the first); ``chance`` is in [0, 1)."""
        full = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 60))
        return full * (1 - chance / 2)


@dataclass(slots=True)
class _Unsaved:
    change: AlertChange
    attempts: int
    created_at: float
    next_at: float


class Lane:
    """One output and what waits for it. Driven by one thread; ``offer`` may come from another."""

    MAX_UNSAVED: Final = 1000
    MAX_REMEMBERED: Final = 1000

    def __init__(
        self,
        output: Output,
        outbox: Outbox,
        stats: Stats,
        *,
        policy: RetryPolicy,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._output = output
        self._outbox = outbox
        self._stats = stats
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._unsaved: deque[_Unsaved] = deque(maxlen=self.MAX_UNSAVED)
        # Delivered, but the store could not take note: must not go out again.
        self._unnoted: dict[int, str] = {}
        self._failing = False
        self._health = OutputHealth(output.name)
        self._publish()

    def offer(self, change: AlertChange) -> None:
        """Takes a change that the store could not keep. Of too many the oldest are given up."""
        if len(self._unsaved) == self.MAX_UNSAVED:
            self._publish(abandoned=self._health.abandoned + 1)
        now = self._clock()
        self._unsaved.append(_Unsaved(change, 0, now, now))

    def drain(self, stopping: Callable[[], bool] = lambda: False) -> float | None:
        """Delivers what is due. Returns when to come again (s since the epoch), None when nothing waits."""
        waits = [self._drain_unsaved(stopping)]
        try:
            waits.append(self._drain_outbox(stopping))
            self._publish(pending=self._outbox.pending(self._output.name) + len(self._unsaved))
        except StoreError as error:
            _logger.warning("output %s: the outbox can't be read, trying again: %s", self._output.name, error)
            self._publish(last_error=str(error))
            waits.append(self._clock() + 10 * self._policy.first_seconds)
        return min((wait for wait in waits if wait is not None), default=None)

    def close(self) -> None:
        """Closes the output. Never raises."""
        try:
            self._output.close()
        except Exception as error:
            _logger.warning("output %s: closing failed: %s", self._output.name, error)

    def _drain_unsaved(self, stopping: Callable[[], bool]) -> float | None:
        for _ in range(len(self._unsaved)):
            if stopping():
                break
            with contextlib.suppress(IndexError):
                item = self._unsaved.popleft()
                if item.next_at > self._clock():
                    self._unsaved.append(item)
                elif (error := self._try(item.change)) is not None:
                    item.attempts += 1
                    if not self._exhausted(item.change, item.attempts, item.created_at, error):
                        item.next_at = self._clock() + self._policy.delay(item.attempts, self._chance())
                        self._unsaved.append(item)
        return min((item.next_at for item in list(self._unsaved)), default=None)

    def _drain_outbox(self, stopping: Callable[[], bool]) -> float | None:
        name = self._output.name
        trimmed = self._outbox.trim(name, self._policy.max_pending)
        if trimmed:
            _logger.error("output %s: gave up the oldest %d of too many waiting changes", name, trimmed)
            self._publish(abandoned=self._health.abandoned + trimmed)
        while not stopping():
            batch = self._outbox.due(name, self._clock())
            if not batch:
                break
            for pending in batch:
                if stopping():
                    break
                # The id too: a store that was begun anew counts from 1 again.
                if self._unnoted.get(pending.seq) != pending.change.id:
                    error = self._try(pending.change)
                    if error is not None:
                        attempts = pending.attempts + 1
                        if self._exhausted(pending.change, attempts, pending.created_at, error):
                            self._outbox.give_up(pending.seq)
                        else:
                            delay = self._policy.delay(attempts, self._chance())
                            self._outbox.failed(pending.seq, self._clock() + delay, error)
                        continue
                    self._remember(pending.seq, pending.change.id)
                self._outbox.delivered(pending.seq)
                self._unnoted.pop(pending.seq, None)
        return self._outbox.next_due(name)

    def _try(self, change: AlertChange) -> str | None:
        self._publish(busy_since=self._clock())
        try:
            self._output.deliver(change)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            # Once for each outage: the tries of a day would fill a log.
            level = logging.DEBUG if self._failing else logging.WARNING
            _logger.log(level, "output %s: %s was not delivered, trying again: %s", self._output.name, change.id, text)
            self._failing = True
            self._publish(failed=self._health.failed + 1, last_error=text, busy_since=None)
            return text
        self._failing = False
        self._publish(delivered=self._health.delivered + 1, last_delivered=self._clock(), busy_since=None)
        return None

    def _exhausted(self, change: AlertChange, attempts: int, created_at: float, error: str) -> bool:
        tired = attempts >= self._policy.max_attempts or self._clock() - created_at >= self._policy.max_age_seconds
        if tired:
            _logger.error("output %s: gave up %s after %d tries: %s", self._output.name, change.id, attempts, error)
            self._publish(abandoned=self._health.abandoned + 1)
        return tired

    def _remember(self, seq: int, change: str) -> None:
        self._unnoted[seq] = change
        if len(self._unnoted) > self.MAX_REMEMBERED:
            self._unnoted.pop(next(iter(self._unnoted)))

    def _publish(self, **changes: object) -> None:
        self._health = replace(self._health, **changes)  # type: ignore[arg-type]
        self._stats.output(self._health)


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
    ) -> None:
        names = [output.name for output in outputs]
        if len(set(names)) != len(names):
            raise ValueError(f"outputs need different names, not {names}")
        self.names: Final[tuple[str, ...]] = tuple(names)
        self._path = path
        self._clock = clock
        self._stopping = threading.Event()
        self._outboxes = [Outbox(path) for _ in outputs]
        self._lanes = [
            Lane(output, outbox, stats, policy=policy or RetryPolicy(), clock=clock, chance=chance)
            for output, outbox in zip(outputs, self._outboxes, strict=True)
        ]
        self._wakes = [threading.Event() for _ in outputs]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begins to deliver, first what an earlier run left. Once only; a stopped dispatcher stays stopped."""
        if self._threads or self._stopping.is_set():
            return
        outbox = Outbox(self._path)
        try:
            dropped = outbox.retain(self.names)
            if dropped:
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
