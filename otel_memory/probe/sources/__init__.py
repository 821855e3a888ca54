"""The way from a source to an OpenTelemetry meter: the gate, and the registry of instruments.

A source reads one thing. It offers ``read()`` (a frozen reading in which ``None`` is "could not be read") and
``register(meter, gate)``, which returns how to undo it. This module owns what they share and reads nothing itself.

An SDK meter can't forget an instrument, and creating one again silently drops the new callbacks. So an instrument is
created once for each meter, with a slot for its callback: registering fills the slot, undoing empties it.
Callbacks take no lock of ours, because the SDK calls them while it holds its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary, WeakValueDictionary

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from otel_memory import names

__all__ = ["Gate", "Observe", "Undo", "create_histogram", "observe_metrics", "one", "reset_after_fork"]

Observe = Callable[[], Iterable[Observation]]
"""What a source hands out for one metric; an empty iterable is a gap."""

Undo = Callable[[], None]
"""Takes back a registration. Idempotent; harmless when somebody else has registered since."""

Callback = Callable[[CallbackOptions], Iterable[Observation]]


def one(value: float | None, attributes: Mapping[str, str | int] | None = None) -> tuple[Observation, ...]:
    """One observation, or none where the value could not be read."""
    return () if value is None else (Observation(value, attributes),)


def _nobody(_metric_name: str) -> bool:
    return False


class Gate:
    """Stands between the SDK's reader and the sources: nothing passes while it is closed, no failure ever passes.

    ``on_failure(part, error)`` is told of each failed callback; ``claimed(metric_name)`` says that somebody else
    (contrib's system-metrics) emits that conventional metric now. Both are called on the reader's thread and must
    neither block nor take a lock that is held while instruments are created. A gate is open from the start.
    """

    __slots__ = ("_claimed", "_observers", "_on_failure", "_open")

    def __init__(
        self, on_failure: Callable[[str, BaseException], None], claimed: Callable[[str], bool] = _nobody
    ) -> None:
        self._on_failure = on_failure
        self._claimed = claimed
        self._open = True
        self._observers: dict[str, Observe] = {}

    def observer(self, metric_name: str) -> Observe | None:
        """What observes a metric for whoever registered it last through this gate, None where nobody did or it was
        undone. For threshold rules: it reads past the gate, also what somebody else emits."""
        return self._observers.get(metric_name)

    def know(self, observers: Mapping[str, Observe]) -> None:
        """Remember who observes; called by ``observe_metrics``."""
        self._observers.update(observers)

    def forget(self, observers: Mapping[str, Observe]) -> None:
        """Undo ``know``, but for what somebody else has registered since."""
        for name, fn in observers.items():
            if self._observers.get(name) is fn:
                del self._observers[name]

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self._open = False

    def passes(self, metric_name: str) -> bool:
        """True if ``metric_name`` may be emitted now. Raises what ``claimed`` raises."""
        return self._open and not self._claimed(metric_name)

    def failed(self, part: str, error: BaseException) -> None:
        """Tell of a failure; never raises."""
        try:
            self._on_failure(part, error)
        except Exception:  # the host is never harmed, not even by the code that counts the harm
            return

    def observe(self, part: str, metric_name: str, fn: Observe) -> Callback:
        """An SDK callback around ``fn``; ``part`` names who failed."""

        claimed = self._claimed

        def callback(_options: CallbackOptions) -> Sequence[Observation]:
            try:
                if not self._open or claimed(metric_name):
                    return ()
                found = fn()
                # A generator must raise here and not in the SDK; what most sources return is handed on as it is.
                return found if type(found) is tuple or type(found) is list else list(found)
            except Exception as error:
                self.failed(part, error)
                return ()

        return callback


class _Slot:
    """The callback that an instrument was created with, for good. It forwards to whoever registered last."""

    __slots__ = ("__weakref__", "callback")

    def __init__(self) -> None:
        self.callback: Callback | None = None

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        callback = self.callback  # read once: undo may empty the slot in between
        return () if callback is None else callback(options)


# The package's only global state here. Weak on both sides: instruments own their slots, nothing keeps a meter alive.
_slots: WeakKeyDictionary[Meter, WeakValueDictionary[str, _Slot]] = WeakKeyDictionary()
_lock = threading.Lock()


def reset_after_fork() -> None:
    """Call in the child: another thread of the parent may have held the registry's lock."""
    global _lock
    _lock = threading.Lock()


def observe_metrics(
    meter: Meter,
    gate: Gate,
    part: str,
    observers: Mapping[str, Observe],
    metrics: Mapping[str, names.Metric] = names.METRICS,
) -> Undo:
    """Emit each metric of ``observers`` (names from ``metrics``) through ``gate`` until undone.

    Whoever registers a metric last on a meter is the only one who emits it there.
    """
    filled: list[tuple[_Slot, Callback]] = []
    known = dict(observers)  # not the caller's own, so that undoing lets go of what it holds

    def undo() -> None:
        with _lock:
            for slot, callback in filled:
                if slot.callback is callback:
                    slot.callback = None
            filled.clear()
        gate.forget(known)
        known.clear()

    try:
        with _lock:
            slots = _slots_of(meter)
            for name, fn in observers.items():
                slot = slots.get(name)
                callback = gate.observe(part, name, fn)
                if slot is None:
                    slot = _Slot()
                    slots[name] = slot
                    _create_observable(meter, metrics[name], slot)
                slot.callback = callback
                filled.append((slot, callback))
    except BaseException:
        undo()
        raise
    gate.know(known)
    return undo


def create_histogram(meter: Meter, name: str, boundaries: Sequence[float]) -> Histogram:
    """The histogram ``name`` of ``meter``; the SDK hands out the same one each time. Boundaries are a piece of advice
    that a view may override."""
    metric = names.METRICS[name]
    return meter.create_histogram(
        name, unit=metric.unit, description=metric.description, explicit_bucket_boundaries_advisory=boundaries
    )


def _create_observable(meter: Meter, metric: names.Metric, slot: _Slot) -> None:
    create = {
        "counter": meter.create_observable_counter,
        "updowncounter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }[metric.kind]
    create(metric.name, callbacks=[slot], unit=metric.unit, description=metric.description)


def _slots_of(meter: Meter) -> WeakValueDictionary[str, _Slot]:
    found = _slots.get(meter)
    if found is None:
        found = next((slots for known, slots in list(_slots.items()) if _share_instruments(known, meter)), None)
        if found is None:
            found = WeakValueDictionary()
        _slots[meter] = found
    return found


def _share_instruments(known: Meter, meter: Meter) -> bool:
    """True if both end in the same SDK meter. One that was had before the provider was set is a stand-in: its
    instruments are created again on the real meter, with the same callbacks, and that counts as the first time."""
    known_end, end = _behind(known), _behind(meter)
    if known_end is None and end is None:
        return (known.name, known.version, known.schema_url) == (meter.name, meter.version, meter.schema_url)
    return known_end is end


def _behind(meter: Meter) -> Meter | None:
    """The meter behind a stand-in of the API, None while there is none yet; any other meter is itself."""
    real: Meter | None = getattr(meter, "_real_meter", meter)
    return real
