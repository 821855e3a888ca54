"""A feature that is loaded only when the program turns out to need it. Owns the waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from otel_memory.probe.feature import Feature

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.sources import Gate, Undo


class Late(Feature):
    """Stands in for the feature that ``build`` gives, from the first beat at which ``needed`` says yes.

    What ``build`` raises is counted by the sampler as this feature's failure, once: it isn't tried again.
    """

    def __init__(self, part: str, needed: Callable[[], bool], build: Callable[[], Feature]) -> None:
        self.part = part  # type: ignore[misc]  # of this one
        self._needed = needed
        self._build: Callable[[], Feature] | None = build
        self._feature: Feature | None = None
        self._given: tuple[Meter, Gate] | None = None
        self._unregister: Undo | None = None

    def register(self, meter: Meter, gate: Gate) -> Undo:
        self._given = meter, gate
        return self._undo

    def _undo(self) -> None:
        self._given = None
        unregister, self._unregister = self._unregister, None
        if unregister is not None:
            unregister()

    def tick(self, now: float) -> None:
        build = self._build
        if build is not None and self._needed():
            self._build = None
            self._feature = feature = build()
            if self._given is not None:
                self._unregister = feature.register(*self._given)
        if self._feature is not None:
            self._feature.tick(now)

    def after_fork(self) -> None:
        if self._feature is not None:
            self._feature.after_fork()

    def close(self) -> None:
        self._build = None
        if self._feature is not None:
            self._feature.close()

    def status(self) -> Mapping[str, Any]:
        return {} if self._feature is None else self._feature.status()
