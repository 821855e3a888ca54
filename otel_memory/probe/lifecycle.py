"""Builds, starts, stops and forks the probe.

Start goes downstream first, stop upstream first; both are idempotent, safe from any thread and can be repeated.
After a stop nothing is left: no thread, no gc callback, no descriptor, no metric. Owns the interpreter's hooks for fork
and exit: those for fork can't be unregistered, so they are registered once and act on the probes that run.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from opentelemetry._logs import get_logger_provider
from opentelemetry.metrics import Observation, get_meter, get_meter_provider

from otel_memory import names
from otel_memory.probe import contrib, events, operations, sdk_fork, sinks, sources
from otel_memory.probe.background import Background
from otel_memory.probe.events import Events
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.features import builders
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.parts import Parts
from otel_memory.probe.sampler import Sampler, Ticker
from otel_memory.version import __version__

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import Meter, MeterProvider

    from otel_memory.probe.config import Settings
    from otel_memory.probe.thresholds import Crossing, Rule, State

PART: Final = "lifecycle"
STOP_SECONDS: Final = 2.0
BACKGROUND_STOP_SECONDS: Final = 1.0
FORK_WAIT_SECONDS: Final = 0.05
FORK_NO_WAIT_SECONDS: Final = 60.0


class Probe:
    """The probe of one process: made with ``settings``, idle until ``start()``.

    ``meter_provider`` and ``logger_provider`` default to the global ones, also where those are set later.
    """

    def __init__(
        self,
        settings: Settings,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        self._settings = settings
        self._meter_provider = meter_provider
        self._logger_provider = logger_provider
        self.ledger = Ledger()
        self._lock = threading.RLock()
        self._undo: list[tuple[str, Callable[[], object]]] = []
        self._running = False
        self._parts: Parts | None = None
        self._sampler: Sampler | None = None
        self._ticker: Ticker | None = None
        self._events: Events | None = None
        self._sinks: tuple[sinks.PrivateSink, ...] = ()
        self._rules = settings.rules
        self._rules_lock = threading.Lock()
        self._observer: Callable[[str], sources.Observe | None] = lambda _metric: None
        self._background = Background(self.ledger)
        self._features: tuple[Feature, ...] = ()
        self._open_features: tuple[Feature, ...] = ()  # until each is closed, also while the probe is being stopped
        self.ledger.watch("background", failures=lambda: 0, drops=lambda: self._background.dropped)
        self._holds: dict[int, sdk_fork.Hold] = {}  # by thread, because several may fork at once
        self._no_wait_until = 0.0

    @property
    def running(self) -> bool:
        """Whether the probe is started."""
        return self._running

    def start(self) -> None:
        """Start everything. Does nothing if it runs already.

        Raises:
            Exception: something could not be started; what had been is undone.
        """
        with self._lock:
            if self._running:
                return
            try:
                self._build()
            except BaseException:
                self._undo_all()
                raise
            self._running = True

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """Undo everything within about ``timeout`` seconds. Does nothing if it doesn't run. Never raises.

        Returns whether all is gone; False if a tick hangs in somebody else's code, whose thread ends when that does.
        """
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=max(0.0, timeout)):
            self.ledger.failed(PART, TimeoutError(f"another start or stop has held on for {timeout:g} s"))
            return False
        try:
            self._running = False
            ticker = self._ticker
            ended = ticker is None or ticker.stop(deadline - time.monotonic())
            if not ended:
                self.ledger.failed(PART, TimeoutError(f"the sampler's thread has not ended within {timeout:g} s"))
            self._undo_all()
            return ended
        finally:
            self._lock.release()

    # --- building -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        undo = self._undo.append
        parts = self._parts = Parts(self._settings, self.ledger)
        undo((PART, parts.close))
        self._rules = self._settings.rules
        gate = sources.Gate(self.ledger.failed, contrib.claimed)
        self._observer = gate.observer
        undo((PART, gate.close))
        meter = get_meter(names.SCOPE, __version__, meter_provider=self._meter_provider)
        for part, unregister in parts.register(meter, gate):
            undo((part, unregister))
        undo((PART, sources.observe_metrics(meter, gate, "probe", self._own_metrics())))
        if self._settings.events:
            given = [provider for provider in (self._logger_provider, self._meter_provider) if provider is not None]
            self._sinks = private = sinks.build(self._settings, given, self.ledger.failed)
            undo(("events", lambda: sinks.close(private, self.ledger.failed)))
            otlp = "otlp" in self._settings.events
            self._events = sink = Events(self._logger_provider, self.ledger.failed, otlp=otlp, sinks=private)
            events.attach(sink)
            undo(("events", lambda: events.detach(sink)))
        if self._settings.operation_log:
            operations.set_default_log_level(logging.INFO)
            undo((PART, lambda: operations.set_default_log_level(None)))
        parts.gc.install()
        undo((PART, parts.gc.uninstall))
        self._build_features(parts, meter, gate)
        _register_hooks()
        _live.add(self)
        undo((PART, lambda: _live.discard(self)))
        self._start_sampling(parts)
        undo((PART, self._forget_sampling))

    def _build_features(self, parts: Parts, meter: Meter, gate: sources.Gate) -> None:
        """Each feature that the settings ask for. One that can't be built is counted; the others come all the same."""
        self._background = background = Background(self.ledger)
        self._undo.append(("background", lambda: background.stop(BACKGROUND_STOP_SECONDS)))
        around = Surroundings(self._settings, parts, events.emit, background, self.ledger)
        for part, build in builders():
            try:
                feature = build(around)
                if feature is None:
                    continue
                self._open_features += (feature,)
                self._undo.append((part, feature.close))
                self._undo.append((part, feature.register(meter, gate)))
                self._features += (feature,)
            except Exception as error:
                self.ledger.failed(part, error)

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those that run."""
        return self._features

    def _undo_all(self) -> None:
        self._features = ()
        while self._undo:
            part, action = self._undo[-1]
            self.ledger.guard(part, action)
            self._undo.pop()  # only now: a child forked in the middle of it does it itself
        self._open_features = ()
        self._events = None
        self._sinks = ()

    def _start_sampling(self, parts: Parts) -> None:
        self._sampler = sampler = Sampler(
            self._rules,
            self._observer,
            parts.limit,
            self._tell,
            self.ledger,
            refresh=[*parts.refresh(), *((feature.part, feature.tick) for feature in self._features)],
            drains=[*parts.drains(), (PART, self._tell_errors)],
        )
        self._ticker = Ticker(sampler.tick, self._settings.interval_seconds)
        self._ticker.start()

    def change_rules(self, change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> None:
        """Judge by what ``change`` makes of the rules, from the next beat on, until the probe stops.

        ``change`` must neither block nor change rules itself. Raises what it raises, and then changes nothing.
        """
        with self._rules_lock:
            self._rules = change(self._rules)
            if self._sampler is not None:
                self._sampler.set_rules(self._rules)

    def standings(self) -> list[tuple[Rule, State]]:
        """Each rule that is judged and how it stands now; times are monotonic seconds."""
        sampler = self._sampler
        return [] if sampler is None else sampler.standings()

    def _tell(self, crossing: Crossing, event_id: str, time_ns: int) -> None:
        sink = self._events
        if sink is not None:
            sink.threshold(crossing, event_id, time_ns)
        for feature in self._features:
            self.ledger.guard(feature.part, partial(feature.crossing, crossing))

    def _tell_errors(self) -> None:
        for time_ns, part, kind, message in self.ledger.take_logged():
            if self._events is not None:
                self._events.error(part, kind, message, time_ns)

    def _forget_sampling(self) -> None:
        # The sampler itself is kept: its counts are still asked for until the gate is closed.
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.stop(0)

    def _own_metrics(self) -> dict[str, sources.Observe]:
        return {
            names.PROBE_TIME: lambda: [Observation(self._sampler.cpu_seconds)] if self._sampler else [],
            names.PROBE_FAILURES: self.ledger.observe_failures,
            names.PROBE_DROPPED: self.ledger.observe_drops,
        }

    def _provider(self) -> MeterProvider:
        return get_meter_provider() if self._meter_provider is None else self._meter_provider

    def _drop_shared_connections(self) -> None:
        logger_provider = get_logger_provider() if self._logger_provider is None else self._logger_provider
        sdk_fork.drop_shared_connections(self._provider(), logger_provider)

    # --- the end of the process ------------------------------------------------------------------------------

    def _at_exit(self) -> None:
        """End the threads and hand over what is left, but leave the metrics: the SDK collects once more after us."""
        self._background.stop(BACKGROUND_STOP_SECONDS)  # first, for no beat may ask for more
        ticker, sampler = self._ticker, self._sampler
        if ticker is not None and sampler is not None and ticker.stop(STOP_SECONDS):
            sampler.tick(time.monotonic())
        sinks.close(self._sinks, self.ledger.failed)

    # --- fork -----------------------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        """Keep the sampler and the SDK's readers from being copied in the middle of something.

        Takes some µs, and at most 50 ms while an export is under way; if one takes longer than that (its receiver is
        down), forks don't wait for the next minute.
        """
        sampler, now = self._sampler, time.monotonic()
        locks = sdk_fork.pipeline_locks(self._provider())
        if sampler is not None:
            locks.append(sampler.calling_out)
        hold = self._holds[threading.get_ident()] = sdk_fork.Hold()
        if not hold.acquire(locks, FORK_WAIT_SECONDS if now >= self._no_wait_until else 0.0):
            self._no_wait_until = now + FORK_NO_WAIT_SECONDS

    def _after_fork_in_parent(self) -> None:
        hold = self._holds.pop(threading.get_ident(), None)
        if hold is not None:
            hold.release()

    def _after_fork_in_child(self) -> None:
        """Make this the child's own probe: own descriptors, locks, thread, readings and counts."""
        self._lock = threading.RLock()
        self._rules_lock = threading.Lock()
        self._after_fork_in_parent()  # the locks that the forking thread took are the child's to give back, too
        self._holds = {}
        self.ledger.reset()
        self._ticker = None  # its thread is not here, and may have been in the middle of a step
        self._background.after_fork()
        for sink in self._sinks:
            sink.after_fork()
        parts = self._parts
        if self._running and parts is not None:
            for part, reopen in parts.reopeners():
                self.ledger.guard(part, reopen)
        for feature in self._open_features:
            self.ledger.guard(feature.part, feature.after_fork)
        if not self._running or parts is None:
            self._undo_all()  # forked while another thread was starting or stopping it
            return
        self.ledger.guard("sdk", lambda: sdk_fork.release_orphaned_locks(self._provider()))
        self.ledger.guard("sdk", self._drop_shared_connections)
        self.ledger.guard(PART, lambda: self._start_sampling(parts))


# --- state of the interpreter ---------------------------------------------------------------------------------

_live: WeakSet[Probe] = WeakSet()


def running_probe() -> Probe | None:
    """The probe of this process that runs, if one does (the newest, should there be several)."""
    return next((probe for probe in list(_live) if probe.running), None)


_hooks_registered = False


def _register_hooks() -> None:
    global _hooks_registered
    if _hooks_registered:
        return
    _hooks_registered = True
    atexit.register(_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
        )


def _at_exit() -> None:
    for probe in list(_live):
        probe.ledger.guard(PART, probe._at_exit)


def _before_fork() -> None:
    for probe in list(_live):
        probe.ledger.guard(PART, probe._before_fork)


def _after_fork_in_parent() -> None:
    for probe in list(_live):
        probe.ledger.guard(PART, probe._after_fork_in_parent)


def _after_fork_in_child() -> None:
    if not _live:
        return
    sources.reset_after_fork()
    for probe in list(_live):
        probe.ledger.guard(PART, probe._after_fork_in_child)
        probe.ledger.guard("contrib", contrib.refresh_after_fork)
