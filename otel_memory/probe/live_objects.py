"""Counts of live instances of chosen classes, and gauges of the application's own in a line.

Owns what the application asked for: it may ask before the probe starts, and what it asked for outlives the probe. How
instances are counted is ``sources.live_objects``'; the feature here gives it its beat and hands the numbers out.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, SupportsFloat, cast

from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe import import_hooks
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.plain import MAX_INTEGER
from otel_memory.probe.sources import live_objects as source
from otel_memory.probe.sources import observe_metrics
from otel_memory.probe.sources.cadence import Budget
from otel_memory.probe.sources.live_objects import ClassCount, check_countable

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.sources import Gate, Undo

__all__ = [
    "LiveObjects",
    "count_instances",
    "custom_values",
    "live_counts",
    "register_gauge",
    "track_class",
]

PART: Final = "live_objects"
GAUGES: Final = "gauges"
SETTING: Final = "OTEL_PYTHON_MEMORY_LIVE_OBJECTS"
MAX_CLASSES: Final = 100
MAX_GAUGES: Final = 200
SLOW_SECONDS: Final = 0.05
"""A gauge that takes longer holds up the export of all metrics: it is told of once."""

_logger: Final = logging.getLogger("otel_memory.probe")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-/]{0,254}")  # the rule of OpenTelemetry's API for instruments

Value = Callable[[], SupportsFloat | None]


@dataclass(frozen=True, slots=True, eq=False)
class _CustomGauge:
    metric: names.Metric
    fn: Value

    def read(self) -> float | None:
        """The value now; None is a gap. Raises what ``fn`` raises, and ``TypeError`` where it gives no number.

        An integer of more than 64 bits becomes a float: exporters would drop all metrics of the process for it.
        """
        began = time.perf_counter()
        value: object = self.fn()
        took = time.perf_counter() - began
        if took > SLOW_SECONDS:
            _tell_once(
                f"gauge {self.metric.name} took {took:.2f} s to read and held up the export of all metrics for as "
                "long; have it return a number that is kept up to date elsewhere"
            )
        if value is None:
            return None
        if isinstance(value, int) and abs(value) <= MAX_INTEGER:
            return int(value)
        if not isinstance(value, Real):
            raise TypeError(f"gauge {self.metric.name} returned {type(value).__name__}, expected a number or None")
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    def observe(self) -> Iterable[Observation]:
        value = self.read()
        return () if value is None else (Observation(value),)


# --- what the application asked for: outlives every probe -----------------------------------------------------

_lock = threading.RLock()
_gauges: dict[str, _CustomGauge] = {}
_classes: dict[str, ClassCount] = {}
_running: tuple[LiveObjects, ...] = ()
_told: set[str] = set()
_dropped = 0


def register_gauge(name: str, fn: Value, *, unit: str = "1", description: str = "") -> Callable[[], None]:
    """Emit ``fn()`` as the gauge ``name`` with each export, from now or, if none runs yet, once the probe starts.

    ``register_gauge("chat.sessions", lambda: len(sessions), unit="{session}")``. Works before the probe is started and
    after it was started anew. ``fn`` takes nothing, is called on the exporter's thread, and returns a number, or None
    for "not known now", which is a gap. It should only look something up. What it raises is counted
    (``otel_memory.probe.failures``, part ``gauges``) and goes no further.
    Registering a name again puts the new ``fn`` in the old one's place; its unit and description stay what they were
    first, because an OpenTelemetry meter knows no other way.

    Returns how to take it back; it may be called more than once.

    Raises:
        ValueError: the name isn't one that OpenTelemetry allows, or belongs to this package.
        TypeError: ``fn`` can't be called.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"gauge {name!r}: expected a letter and then letters, digits and _ . - /, 255 characters at most"
        )
    if name in names.METRICS or name.startswith("otel_memory."):
        raise ValueError(f"gauge {name!r}: the name is otel-memory's own; choose one of your application")
    if not callable(fn):
        raise TypeError(f"gauge {name!r}: expected a function that returns a number, not {type(fn).__name__}")
    gauge = _CustomGauge(names.Metric(name, unit, "gauge", description), fn)
    with _lock:
        if name not in _gauges and len(_gauges) >= MAX_GAUGES:
            _drop(f"gauge {name} is not emitted: there are {MAX_GAUGES} already")
            return _nothing
        before, _gauges[name] = _gauges.get(name), gauge
        running = _running
    for feature in running:
        feature.emit_gauge(gauge)
        if before is not None:
            feature.forget_gauge(before)

    def undo() -> None:
        with _lock:
            if _gauges.get(name) is gauge:
                del _gauges[name]
            features = _running
        for feature in features:
            feature.forget_gauge(gauge)

    return undo


def track_class(cls: type, *, name: str | None = None) -> Callable[[], None]:
    """Emit how many instances of ``cls`` and its subclasses there are, as ``otel_memory.object.count``.

    ``name`` is the value of ``otel_memory.object.type``; by default module and qualified name. The class is held
    weakly, and nothing is done to it or to its instances. Returns how to take it back.

    Raises:
        TypeError: ``cls`` is no class.
        ValueError: the garbage collector doesn't know its instances (``int``, ``str``, ``bytes`` …).
    """
    count = ClassCount(cls, name)
    with _lock:
        if count.name not in _classes and len(_classes) >= MAX_CLASSES:
            _drop(f"class {count.name} is not counted: there are {MAX_CLASSES} already")
            return _nothing
        _classes[count.name] = count
        running = _running
    for feature in running:
        feature.census_soon()

    def undo() -> None:
        with _lock:
            if _classes.get(count.name) is count:
                del _classes[count.name]

    return undo


def count_instances(cls: type) -> int:
    """How many instances of ``cls`` and its subclasses there are now: counted exactly, with or without a probe.

    Looks at every object: about 20 ms for 100,000 objects, during which other threads run only now and then. For a
    number that is to be watched use :func:`track_class`.

    Raises:
        TypeError: ``cls`` is no class.
        ValueError: the garbage collector doesn't know its instances.
    """
    return source.census([check_countable(cls)])[0]


def custom_values() -> dict[str, float]:
    """What the application's gauges give now, by name; those that give nothing or fail are left out."""
    found = {}
    for name, gauge in list(_gauges.items()):
        try:
            value = gauge.read()
        except Exception as error:  # counted when it is exported
            _logger.debug("otel-memory: gauge %s failed: %r", name, error)
            continue
        if value is not None:
            found[name] = value
    return found


def live_counts() -> dict[str, int | None]:
    """Instances of each tracked class by its name; None before the first census."""
    return {name: count.read() for name, count in list(_classes.items())}


def dropped() -> int:
    """Gauges and classes that were refused because there were too many."""
    return _dropped


def _drop(problem: str) -> None:
    global _dropped
    _dropped += 1
    _tell_once(problem)


def _tell_once(problem: str) -> None:
    key = problem.partition(" took ")[0]
    if key not in _told and len(_told) < MAX_CLASSES + MAX_GAUGES:
        _told.add(key)
        _logger.warning("otel-memory: %s.", problem)


def _nothing() -> None:
    return


def _reset_after_fork() -> None:
    """In the child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


# --- with a probe ---------------------------------------------------------------------------------------------


class LiveObjects(Feature):
    """Hands out the gauges and counts of this module, and those classes that the setting names."""

    part = PART

    def __init__(self, around: Surroundings) -> None:
        self._ledger = around.ledger
        self._background = around.background
        self._budget = Budget(around.settings.slow_interval_seconds)
        self._too_large = False
        self._meter: tuple[Meter, Gate] | None = None
        self._emitted: dict[_CustomGauge, Undo] = {}
        self._undo: list[Callable[[], None]] = []
        self._problems: dict[str, str] = {}
        self._ledger.watch(PART, failures=int, drops=dropped)
        by_module: dict[str, list[str]] = {}
        for text in around.settings.live_objects:
            module, _, path = text.partition(":")
            by_module.setdefault(module, []).append(path)
        self._tracked: dict[str, Callable[[], None]] = {}
        for module, paths in by_module.items():
            failed = partial(self._ledger.failed, PART)
            self._undo.append(import_hooks.when_imported(module, partial(self._imported, module, paths), failed))

    def register(self, meter: Meter, gate: Gate) -> Undo:
        global _running
        undo = observe_metrics(meter, gate, PART, {names.OBJECT_COUNT: _observe_counts})
        with _lock:
            self._meter = (meter, gate)
            _running = (*_running, self)
            gauges = list(_gauges.values())
        for gauge in gauges:
            self.emit_gauge(gauge)

        def unregister() -> None:
            global _running
            with _lock:
                _running = tuple(other for other in _running if other is not self)
                self._meter = None
                emitted, self._emitted = self._emitted, {}
            for stop in emitted.values():
                stop()
            undo()

        return unregister

    def emit_gauge(self, gauge: _CustomGauge) -> None:
        """Emit a gauge from now on. Never raises."""
        name = gauge.metric.name

        def emit() -> None:
            with _lock:
                if self._meter is not None and _gauges.get(name) is gauge and gauge not in self._emitted:
                    meter, gate = self._meter
                    self._emitted[gauge] = observe_metrics(
                        meter, gate, GAUGES, {name: gauge.observe}, {name: gauge.metric}
                    )

        self._ledger.guard(GAUGES, emit)

    def forget_gauge(self, gauge: _CustomGauge) -> None:
        """Emit it no more."""
        with _lock:
            undo = self._emitted.pop(gauge, None)
        if undo is not None:
            undo()

    def census_soon(self) -> None:
        """A class has come that was never counted."""
        self._budget.reset()

    def tick(self, now: float) -> None:
        import_hooks.poll()
        if _classes and self._budget.due():
            self._background.submit(PART, self._census)

    def after_fork(self) -> None:
        # The child's instances are the parent's, one for one: the marks stand.
        self._budget.reset()

    def close(self) -> None:
        for undo in (*self._undo, *self._tracked.values()):
            undo()

    def status(self) -> Mapping[str, Any]:
        return {
            "objects": live_counts(),
            "gauges": sorted(_gauges),
            "census": not self._too_large,
            "problems": dict(self._problems),
        }

    def _census(self) -> None:
        if self._background.stopping:
            return
        counts = list(_classes.values())
        self._too_large = not self._budget.run(partial(source.take_census, counts))
        if self._too_large:
            _tell_once(
                f"live objects are not counted: the interpreter has more than {source.MAX_BLOCKS:,} memory blocks, and "
                "looking at them all would stop the program for too long"
            )

    def _imported(self, name: str, paths: list[str], module: object) -> None:
        for path in paths:
            full = f"{name}:{path}"
            found: object = module
            try:
                for part in path.split("."):
                    found = vars(found)[part]
                undo = track_class(cast("type", found))
            except KeyError as error:
                problem = f"there is no {error.args[0]}"
            except (TypeError, ValueError) as error:
                problem = str(error)
            else:
                self._tracked[full] = undo
                continue
            if full not in self._problems:
                self._problems[full] = problem
                _logger.warning("otel-memory: %s: %s: %s. The others are counted.", SETTING, full, problem)


def _observe_counts() -> Iterable[Observation]:
    return [Observation(count, {names.OBJECT_TYPE: name}) for name, count in live_counts().items() if count is not None]
