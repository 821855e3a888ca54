"""The probe's one thread: reads, remembers, judges, drains, on a fixed beat.

:class:`Sampler` is what happens at one tick, with the time as an argument; :class:`Ticker` is the thread that calls it.
Never lets a failure of one part keep another from its turn, and never catches up: beats that were missed (the machine
slept, the process was stopped) are skipped.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_memory.probe.ledger import LOGGER
from otel_memory.probe.readings import Ring
from otel_memory.probe.subjects import value_of
from otel_memory.probe.threads import DaemonThread
from otel_memory.probe.thresholds import Crossing, Rule, State, Subject, evaluate

if TYPE_CHECKING:
    from otel_memory.probe.ledger import Ledger
    from otel_memory.probe.sources import Observe

THREAD_NAME: Final = "otel-memory-sampler"
PATIENCE_SECONDS: Final = 60.0
"""A subject that is observed but has had no value for so long, from the start on, is told of."""

Read = Callable[[], float | None]
"""Reads one number now; None is "could not be read"."""


class Sampler:
    """One process's readings and judgements.

    ``observer(metric name)`` gives what observes a metric, None where nobody does; ``limit`` the limit in bytes.
    ``refresh`` are (part, action) that make the sources read and give the features their beat, called with the tick's
    time; ``drains`` hand to the SDK what has gathered since the last tick. ``tell(crossing, event_id, time_ns)`` takes
    crossings and recoveries.
    ``wall_ns`` is the time of day that events bear; ticks themselves are on a monotonic clock, so that a step of the
    time of day moves no window.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        observer: Callable[[str], Observe | None],
        limit: Read,
        tell: Callable[[Crossing, str, int], object],
        ledger: Ledger,
        refresh: Sequence[tuple[str, Callable[[float], object]]] = (),
        drains: Sequence[tuple[str, Callable[[], object]]] = (),
        wall_ns: Callable[[], int] = time.time_ns,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._observer = observer
        self._limit = limit
        self._tell = tell
        self._ledger = ledger
        self._refresh = tuple(refresh)
        self._drains = tuple(drains)
        self._wall_ns = wall_ns
        self._cpu = cpu
        self._rules = tuple(rules)
        self._judged: tuple[Rule, ...] = ()  # those that rings and states are for; the thread's own, as these are
        self._rings: dict[Subject, Ring] = {}
        self._states: dict[str, tuple[Rule, State]] = {}
        self._last_serial = 0
        self._since: dict[Subject, float] = {}  # subjects without a value yet, and when that began
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
        rules = self._rules
        if rules is not self._judged:
            self._prepare(rules, now)
        for subject, ring in self._rings.items():
            ring.add(now, self._read(subject.metric, partial(self._value, subject, now)))
        share = any(rule.comparison == "share_of_limit" for rule in rules)
        limit = self._read("limits", self._limit) if share else None
        for rule in rules:
            self._judge(rule, limit, now)
        for ring in self._rings.values():
            ring.forget_growth()
        self.ticks += 1
        self.cpu_seconds += max(0.0, self._cpu() - began)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that are judged."""
        return self._rules

    def standings(self) -> list[tuple[Rule, State]]:
        """Each rule that is judged and how it stands; from any thread. Times are on the clock of ``tick``."""
        return list(self._states.values())

    def set_rules(self, rules: Iterable[Rule]) -> None:
        """Judge by ``rules`` from the next beat on; from any thread. A rule that stays goes on where it was."""
        self._rules = tuple(rules)

    def _prepare(self, rules: tuple[Rule, ...], now: float) -> None:
        """Rings and states for ``rules``, what was gathered for those that stay kept."""
        windows: dict[Subject, float] = {}
        for rule in rules:
            windows[rule.subject] = max(windows.get(rule.subject, 0.0), rule.window_seconds)
        self._rings = {subject: Ring(seconds, self._rings.get(subject)) for subject, seconds in windows.items()}
        self._since = {subject: self._since.get(subject, now) for subject, ring in self._rings.items() if not len(ring)}
        # No serial is given out twice, so that another rule of a name that was there before has ids of its own.
        self._last_serial = max([self._last_serial, *(state.episodes for _, state in self._states.values())])
        kept = {rule.name: state for rule, state in self._states.values() if rule in rules}
        self._states = {rule.name: (rule, kept.get(rule.name) or State(episodes=self._last_serial)) for rule in rules}
        self._judged = rules

    def _value(self, subject: Subject, now: float) -> float | None:
        observe = self._observer(subject.metric)
        value = None if observe is None else value_of(subject, observe())
        if subject in self._since:
            if value is not None:
                del self._since[subject]
            elif observe is None or now - self._since[subject] >= PATIENCE_SECONDS:
                del self._since[subject]
                self._tell_unread(subject, observed=observe is not None)
        return value

    def _tell_unread(self, subject: Subject, observed: bool) -> None:
        concerned = ", ".join(rule.name for rule in self._judged if rule.subject == subject)
        why = (
            f"has had no value in {PATIENCE_SECONDS:g} s"
            if observed
            else "is emitted by nothing that runs here (some metrics come with a setting)"
        )
        LOGGER.warning("otel-memory: %s %s; not judged without one: %s", subject, why, concerned)

    def _read(self, part: str, read: Read) -> float | None:
        try:
            return read()
        except Exception as error:
            self._ledger.failed(part, error)
            return None

    def _judge(self, rule: Rule, limit: float | None, now: float) -> None:
        try:
            before = self._states[rule.name][1]
            state, crossing = evaluate(rule, before, self._rings[rule.subject], limit, now)
            if state is not before:
                self._states[rule.name] = rule, state
            if crossing is not None:
                with self.calling_out:
                    self._tell(crossing, self.event_id(rule, crossing.serial), self._wall_ns())
        except Exception as error:
            self._ledger.failed("thresholds", error)

    def event_id(self, rule: Rule, serial: int) -> str:
        """Identity of one episode of a rule: the same for crossing and recovery, unlike that of any other process."""
        return str(uuid.uuid5(self._run_id, f"{rule.name}\n{serial}"))


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
        self._thread = DaemonThread(self._run, THREAD_NAME)

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
