"""The probe's one thread: reads, remembers, judges, drains, on a fixed beat.

:class:`Sampler` is what happens at one tick, with the time as an argument; :class:`Ticker` is the thread that calls it.
Never lets a failure of one part keep another from its turn, and never catches up: beats that were missed (the machine
slept, the process was stopped) are skipped.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_memory.probe.readings import Ring
from otel_memory.probe.thresholds import Crossing, Rule, State, evaluate

if TYPE_CHECKING:
    from otel_memory.probe.ledger import Ledger

THREAD_NAME: Final = "otel-memory-sampler"

Read = Callable[[], float | None]
"""Reads one number now; None is "could not be read"."""


class Sampler:
    """One process's readings and judgements.

    ``readers`` gives a reader for each metric that a rule reads, ``limit`` the limit in bytes. ``refresh`` are (part,
    action) that make the sources read and give the features their beat, called with the tick's time; ``drains`` hand to
    the SDK what has gathered since the last tick. ``tell(crossing, event_id, time_ns)`` takes crossings and recoveries.
    ``wall_ns`` is the time of day that events bear; ticks themselves are on a monotonic clock, so that a step of the
    time of day moves no window.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        readers: Mapping[str, Read],
        limit: Read,
        tell: Callable[[Crossing, str, int], object],
        ledger: Ledger,
        refresh: Sequence[tuple[str, Callable[[float], object]]] = (),
        drains: Sequence[tuple[str, Callable[[], object]]] = (),
        wall_ns: Callable[[], int] = time.time_ns,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._rules = [rule for rule in rules if rule.metric in readers]
        self._readers = {rule.metric: readers[rule.metric] for rule in self._rules}
        self._limit = limit if any(rule.comparison == "share_of_limit" for rule in self._rules) else _unknown
        self._tell = tell
        self._ledger = ledger
        self._refresh = tuple(refresh)
        self._drains = tuple(drains)
        self._wall_ns = wall_ns
        self._cpu = cpu
        windows = {
            metric: max(rule.window_seconds for rule in self._rules if rule.metric == metric)
            for metric in self._readers
        }
        self._rings = {metric: Ring(seconds) for metric, seconds in windows.items()}
        self._states = {rule.name: State() for rule in self._rules}
        self._run_id = uuid.uuid4()
        self.cpu_seconds = 0.0
        """Processor time that all ticks so far have used."""
        self.ticks = 0
        self.calling_out = threading.RLock()
        """Held while a tick calls into the OpenTelemetry SDK, whose locks a fork must not catch held."""

    def tick(self, now: float) -> None:
        """Do one beat at ``now`` (monotonic seconds). Never raises."""
        began = self._cpu()
        for part, beat in self._refresh:
            self._ledger.guard(part, partial(beat, now))
        with self.calling_out:
            for part, action in self._drains:
                self._ledger.guard(part, action)
        for metric, read in self._readers.items():
            self._rings[metric].add(now, self._read(metric, read))
        limit = self._read("limits", self._limit)
        for rule in self._rules:
            self._judge(rule, limit, now)
        self.ticks += 1
        self.cpu_seconds += max(0.0, self._cpu() - began)

    def _read(self, part: str, read: Read) -> float | None:
        try:
            return read()
        except Exception as error:
            self._ledger.failed(part, error)
            return None

    def _judge(self, rule: Rule, limit: float | None, now: float) -> None:
        try:
            state, crossing = evaluate(rule, self._states[rule.name], self._rings[rule.metric], limit, now)
            self._states[rule.name] = state
            if crossing is not None:
                with self.calling_out:
                    self._tell(crossing, self.event_id(rule, crossing.serial), self._wall_ns())
        except Exception as error:
            self._ledger.failed("thresholds", error)

    def event_id(self, rule: Rule, serial: int) -> str:
        """Identity of one episode of a rule: the same for crossing and recovery, unlike that of any other process."""
        return str(uuid.uuid5(self._run_id, f"{rule.name}\n{serial}"))


def _unknown() -> float | None:
    return None


def next_deadline(deadline: float, now: float, interval: float) -> float:
    """The first beat after ``now`` on the grid of ``deadline`` and ``interval`` (seconds).

    Keeps to the grid, so that the cost of a tick doesn't add up to a drift; beats that have passed are skipped.
    """
    if now < deadline:
        return deadline
    return deadline + ((now - deadline) // interval + 1) * interval


class Ticker:
    """A daemon thread that calls ``tick(now)`` every ``interval`` seconds from its start until it is stopped."""

    def __init__(
        self, tick: Callable[[float], None], interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tick = tick
        self._interval = interval
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start the thread; the first tick is at once, so that a short program is seen too.

        Raises:
            RuntimeError: the system has no thread to give, or this ticker was started before.
        """
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end and wait at most ``timeout`` seconds for it. Returns whether it has ended.

        Called from the thread itself (an exporter that shuts everything down) it doesn't wait: it ends on its return.
        """
        self._stop.set()
        if self._thread is threading.current_thread() or self._thread.ident is None:
            return True
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _run(self) -> None:
        deadline = self._clock()
        while True:
            now = self._clock()
            if now >= deadline:
                self._tick(now)
                deadline = next_deadline(deadline, self._clock(), self._interval)
            if self._stop.wait(max(0.0, deadline - self._clock())):
                return
