"""One reading of all that snapshots and the health check look at, from a running probe's sources or from own ones.

Owns the sources that serve where no probe runs: made when first asked for, and anew in a forked child.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_memory.probe.config import Settings, SettingsError
from otel_memory.probe.loaded import loaded
from otel_memory.probe.reader import SOURCE
from otel_memory.probe.sources.heap import HeapSource
from otel_memory.probe.sources.limits import LimitsSource, Pressure, PressureBounds

if TYPE_CHECKING:
    from otel_memory.probe.sources.process import ProcessSource

_EVICTION: Final = "otel_memory.probe.eviction"
_LIVE_OBJECTS: Final = "otel_memory.probe.live_objects"


@dataclass(frozen=True, slots=True)
class Vitals:
    """Bytes, and shares of the limit; None is "could not be read"."""

    timestamp: float
    """Seconds since the epoch."""
    rss_bytes: int | None = None
    used_bytes: int | None = None
    """What the limit bounds: resident bytes, or virtual ones where the limit is ``rlimit``."""
    heap_objects: int | None = None
    """Blocks that Python's allocator has handed out (``sys.getallocatedblocks``)."""
    limit_bytes: int | None = None
    limit_kind: str | None = None
    utilization: float | None = None
    pressure: Pressure | None = None


@dataclass(frozen=True, slots=True)
class Evictions:
    """What evictors have done in this process so far."""

    registered: int = 0
    count: int = 0
    """Calls of evictors, those that were skipped not among them."""
    troubled: int = 0
    """Of these, the ones that raised or took too long."""
    freed_bytes: int = 0
    """Measured."""


class VitalSources:
    """The three sources that are read."""

    def __init__(self, process: ProcessSource, limits: LimitsSource, heap: HeapSource) -> None:
        self._process = process
        self._limits = limits
        self._heap = heap

    def read(self) -> Vitals:
        """The sources' latest readings, each made anew where it has aged: some µs to some 200."""
        process, limits = self._process.latest(), self._limits.latest()
        return Vitals(
            timestamp=time.time(),
            rss_bytes=process.rss_bytes,
            used_bytes=process.virtual_bytes if limits.kind == "rlimit" else process.rss_bytes,
            heap_objects=self._heap.latest().blocks,
            limit_bytes=limits.limit_bytes,
            limit_kind=limits.kind,
            utilization=self._limits.utilization(),
            pressure=self._limits.pressure(),
        )


def evictions() -> Evictions:
    """The sums of all evictors; zeros where nobody has registered one. Imports nothing."""
    module = loaded(_EVICTION)
    if module is None:
        return Evictions()
    from otel_memory import names

    runs = [(str((run.attributes or {}).get(names.EVICTOR_OUTCOME)), int(run.value)) for run in module.observe_runs()]
    return Evictions(
        registered=len(module.registered_evictors()),
        count=sum(number for outcome, number in runs if outcome != "skipped"),
        troubled=sum(number for outcome, number in runs if outcome in ("failed", "timed_out")),
        freed_bytes=sum(int(freed.value) for freed in module.observe_freed()),
    )


def custom_values() -> dict[str, float]:
    """Values of the gauges that the application has registered; none where it has registered none. Imports nothing."""
    read = getattr(loaded(_LIVE_OBJECTS), "custom_values", None)
    found: Mapping[str, float | None] = {} if read is None else read()
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


# --- where no probe runs --------------------------------------------------------------------------------------

_own: VitalSources | None = None


def own_sources() -> VitalSources:
    """Sources by the environment's settings of limit and pressure levels, or their defaults where those are wrong."""
    global _own
    if _own is None:
        try:
            settings = Settings.load(os.environ)
        except SettingsError:
            settings = Settings()
        bounds = PressureBounds(*settings.pressure_levels)
        limits = LimitsSource(SOURCE.latest, configured_bytes=settings.limit_bytes, bounds=bounds)
        _own = VitalSources(SOURCE, limits, HeapSource())
    return _own


def _forget_own() -> None:
    global _own
    _own = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_own)
