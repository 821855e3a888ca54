"""Takes snapshots on a beat: the probe's own, and ``MemoryProfiler`` for use by hand.

Owns when a snapshot is taken and the trend that its growth comes from. While the probe runs everything happens on the
sampler's thread; a profiler without a probe has a thread of its own. Never judges (``status.py``) and never reads
(``vitals.py``).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakSet

from otel_memory import names
from otel_memory.probe import status, vitals
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.readings import Growth, Ring
from otel_memory.probe.sampler import Ticker, next_deadline
from otel_memory.probe.snapshots import MemorySnapshot, SnapshotRing, write_jsonl
from otel_memory.probe.units import human_bytes
from otel_memory.probe.vitals import Vitals, VitalSources

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from otel_memory.probe.thresholds import Crossing

__all__ = ["MemoryProfiler", "SnapshotFeature", "running_feature", "running_profiler"]

PART: Final = "snapshots"
INTERVAL_SECONDS: Final = 30.0
MAX_SNAPSHOTS: Final = 2880
TREND_SECONDS: Final = 120.0
MARK_EVERY_SECONDS: Final = 60.0
MARKS: Final = 10
STOP_SECONDS: Final = 2.0


class Trend:
    """Growth of resident memory over the last two minutes, or twelve readings where those take longer.

    Robust (``readings.robust_line``), and None until half of that is known. Readings come from one thread, questions
    from any.
    """

    def __init__(self, interval_seconds: float) -> None:
        self._window = max(TREND_SECONDS, 12 * interval_seconds)
        self.reset()

    def reset(self) -> None:
        """Forget all, with a new lock."""
        self._lock = threading.Lock()
        self._ring = Ring(self._window)

    def add(self, now: float, rss_bytes: int | None) -> None:
        """One reading at ``now`` (monotonic seconds)."""
        with self._lock:
            self._ring.add(now, rss_bytes)

    def growth(self) -> Growth | None:
        """Bytes per second, and over how long."""
        with self._lock:
            return self._ring.growth(self._window)

    def seconds(self) -> float:
        """How long it takes until the growth is known."""
        return self._window / 2


class MemoryProfiler:
    """Keeps a snapshot of this process's memory every ``interval_seconds``, the newest ``max_snapshots`` of them.

    The default is a day at 30 s in 144 kB. While the probe runs, a started profiler is served by the probe's sampler
    and has no thread of its own; it goes on with one when the probe is stopped. Its methods may be called by any
    thread. In a forked child it begins with an empty ring.

    Raises:
        ValueError: the interval isn't from 0.1 s to a day, or the number not from 1 to 100,000.
    """

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS, max_snapshots: int = MAX_SNAPSHOTS) -> None:
        if not 0.1 <= interval_seconds <= 86_400:
            raise ValueError(f"interval_seconds is {interval_seconds!r}; expected 0.1 to 86400")
        if not 1 <= max_snapshots <= 100_000:
            raise ValueError(f"max_snapshots is {max_snapshots!r}; expected 1 to 100000")
        self.interval_seconds = float(interval_seconds)
        self.max_snapshots = int(max_snapshots)
        self.trend = Trend(self.interval_seconds)
        self._active = False
        self._ticker: Ticker | None = None
        self._reset()
        _profilers.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._ring = SnapshotRing(self.max_snapshots)
        self._deadline: float | None = None
        self.failed = 0
        """Beats of an own thread on which something went wrong."""

    # --- starting and stopping ------------------------------------------------------------------------------

    @property
    def profiling_active(self) -> bool:
        """Whether snapshots are taken."""
        return self._active

    def start_profiling_sync(self) -> None:
        """Begin to take snapshots, the first one soon. Does nothing if it has begun."""
        with self._lock:
            if self._active:
                return
            self._active = True
            feature = running_feature()
            if feature is None or not feature.attach(self):
                self.go_on_alone()

    def stop_profiling(self) -> None:
        """Take no more; those that were taken stay. Does nothing if it was not started."""
        with self._lock:
            if not self._active:
                return
            self._active = False
            ticker, self._ticker = self._ticker, None
        feature = running_feature()
        if feature is not None:
            feature.detach(self)
        if ticker is not None:
            ticker.stop(STOP_SECONDS)  # without the lock, which its beat may wait for

    def go_on_alone(self) -> None:
        """Take them on an own thread, if it is started and has none: no probe runs (any more).

        Raises:
            RuntimeError: there is no thread to be had; it is stopped then.
        """
        with self._lock:
            if not self._active or self._ticker is not None:
                return
            self.trend.reset()
            ticker = Ticker(self._own_beat, self.interval_seconds)
            try:
                ticker.start()
            except RuntimeError:
                self._active = False
                raise
            self._ticker = ticker

    def _own_beat(self, now: float) -> None:
        try:
            reading = vitals.own_sources().read()
            self.trend.add(now, reading.rss_bytes)
            self.remember(reading, self.trend.growth())
        except Exception:  # law 1: the host is never harmed; a lost snapshot is a gap
            self.failed += 1

    def beat(self, now: float, sources: VitalSources, trend: Trend) -> MemorySnapshot | None:
        """A beat of the sampler at ``now`` (monotonic seconds): the snapshot, if it is time for one."""
        deadline = self._deadline
        if deadline is not None and now < deadline:
            return None
        self._deadline = (
            now + self.interval_seconds if deadline is None else next_deadline(deadline, now, self.interval_seconds)
        )
        return self.remember(sources.read(), trend.growth())

    def remember(self, reading: Vitals, growth: Growth | None) -> MemorySnapshot:
        """Keep a snapshot of ``reading``."""
        snapshot = snapshot_of(reading, growth, vitals.custom_values())
        with self._lock:
            self._ring.add(snapshot)
        return snapshot

    # --- asking ---------------------------------------------------------------------------------------------

    def take_snapshot(self) -> MemorySnapshot:
        """Take one now and keep it, also where the profiler isn't started."""
        sources, trend = _readers()
        return self.remember(sources.read(), (trend or self.trend).growth())

    def get_snapshots(self, max_snapshots: int | None = None) -> list[MemorySnapshot]:
        """The newest ``max_snapshots`` (all where None), oldest first."""
        if max_snapshots is not None and max_snapshots < 0:
            raise ValueError(f"max_snapshots is {max_snapshots!r}; expected 0 or more")
        return list(self._copy().newest(max_snapshots))

    def get_latest_snapshot(self) -> MemorySnapshot | None:
        """The newest one, None where there is none."""
        with self._lock:
            return next(self._ring.newest(1), None)

    def get_statistics(self) -> dict[str, Any]:
        """Least, greatest, mean and current value of what the snapshots hold; gaps don't count.

        ``rss_mb``, ``usage_percent``, ``heap_objects``, ``growth_rate_mb_per_sec``: ``{"min", "max", "avg",
        "current"}``, each None where nothing is known. One MB is 1024 * 1024 bytes.
        """
        ring = self._copy()
        return {
            "total_snapshots_taken": ring.taken,
            "current_snapshot_count": len(ring),
            "max_snapshots": self.max_snapshots,
            "interval_seconds": self.interval_seconds,
            "profiling_active": self._active,
            "size_bytes": ring.size_bytes,
            **ring.statistics(),
        }

    def export_snapshots(self, path: str | os.PathLike[str]) -> int:
        """Write all snapshots to ``path``, a line of JSON each; returns how many.

        Who reads the file sees the one that was there, or the whole new one.

        Raises:
            OSError: it could not be written; what was there is as it was.
        """
        return write_jsonl(self._copy(), path)

    @property
    def dropped(self) -> int:
        """Custom values that were left out because there are more names than a ring keeps."""
        return self._ring.dropped

    def _copy(self) -> SnapshotRing:
        with self._lock:
            return self._ring.copy()

    def begin_anew(self) -> None:
        """In a forked child: what was taken is the parent's, and so is the thread."""
        self._reset()
        self.trend.reset()
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            try:
                self.go_on_alone()
            except RuntimeError:  # it is stopped, and says so
                pass


class _Served(MemoryProfiler):
    """The probe's own: started and stopped with the probe."""

    def start_profiling_sync(self) -> None:
        """Does nothing: it runs while the probe does."""

    def stop_profiling(self) -> None:
        """Does nothing: the setting ``OTEL_PYTHON_MEMORY_SNAPSHOTS`` switches it off."""


class SnapshotFeature(Feature):
    """The probe's snapshots, the beats of profilers used by hand, and what the health check wants to know.

    ``profiler`` is None where the settings switch snapshots off; growth, beats and crossings are watched all the same.
    """

    part: ClassVar[str] = PART

    def __init__(self, around: Surroundings) -> None:
        settings, parts = around.settings, around.parts
        self.interval_seconds = settings.interval_seconds
        self.sources = VitalSources(parts.process, parts.limits, parts.heap)
        self.trend = Trend(settings.interval_seconds)
        self.ledger = around.ledger
        self.profiler: MemoryProfiler | None = None
        self._process = parts.process
        self._emit = around.emit if settings.snapshot_events else None
        if settings.snapshots:
            self.profiler = profiler = _Served(settings.snapshot_interval_seconds, settings.snapshots)
            profiler._active = True
            around.ledger.watch(PART, failures=lambda: 0, drops=lambda: profiler.dropped)
        self._served: tuple[MemoryProfiler, ...] = ()
        self._open = True
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self.began = time.monotonic()
        self.beat_at: float | None = None
        """Monotonic seconds of the last beat."""
        self.crossings: dict[str, int] = {"info": 0, "warning": 0, "critical": 0}
        """Thresholds that were crossed, by severity."""
        self._marks: deque[tuple[float, dict[str, int], dict[str, int]]] = deque(maxlen=MARKS)

    def tick(self, now: float) -> None:
        """Feed the trend, and take the snapshots whose time has come."""
        self.beat_at = now
        self.trend.add(now, self._process.latest().rss_bytes)
        if not self._marks or now - self._marks[-1][0] >= MARK_EVERY_SECONDS:
            self._marks.append((now, self.ledger.failures, self.ledger.drops))
        if self.profiler is not None:
            snapshot = self.profiler.beat(now, self.sources, self.trend)
            if snapshot is not None and self._emit is not None:
                self._tell(snapshot)
        for profiler in self._served:
            profiler.beat(now, self.sources, self.trend)

    def _tell(self, snapshot: MemorySnapshot) -> None:
        assert self._emit is not None
        known: Mapping[str, AttributeValue | None] = {
            names.SNAPSHOT_STATUS: snapshot.status,
            names.SNAPSHOT_MEMORY: snapshot.rss_bytes,
            names.SNAPSHOT_UTILIZATION: snapshot.utilization,
            names.SNAPSHOT_PRESSURE: snapshot.pressure,
            names.SNAPSHOT_BLOCK_COUNT: snapshot.heap_objects,
            names.SNAPSHOT_GROWTH: snapshot.growth_bytes_per_second,
            names.SNAPSHOT_EVICTION_COUNT: snapshot.eviction_count,
        }
        memory = "unknown" if snapshot.rss_bytes is None else human_bytes(snapshot.rss_bytes)
        used = "" if snapshot.utilization is None else f", {snapshot.utilization:.1%} of the limit in use"
        self._emit(
            names.EVENT_SNAPSHOT,
            f"Resident memory is {memory}{used} ({snapshot.status}).",
            {name: value for name, value in known.items() if value is not None},
            time_ns=round(snapshot.timestamp * 1e9),
        )

    def crossing(self, crossing: Crossing) -> None:
        """Count a threshold that was crossed."""
        if crossing.kind == "crossed":
            self.crossings[crossing.rule.severity] += 1

    def recent_troubles(self) -> tuple[float, dict[str, int], dict[str, int]]:
        """Over how many seconds (at most ten minutes) which parts have failed, and which dropped something."""
        marks = tuple(self._marks)
        since, failures, drops = marks[0] if marks else (self.began, {}, {})
        return (
            max(0.0, time.monotonic() - since),
            _more(self.ledger.failures, failures),
            _more(self.ledger.drops, drops),
        )

    def attach(self, profiler: MemoryProfiler) -> bool:
        """Serve a profiler with this probe's beats; False where the probe is being stopped."""
        with self._lock:
            if self._open and profiler not in self._served:
                self._served = (*self._served, profiler)
            return self._open

    def detach(self, profiler: MemoryProfiler) -> None:
        """Serve it no more."""
        with self._lock:
            self._served = tuple(other for other in self._served if other is not profiler)

    def after_fork(self) -> None:
        """In the child: an empty ring, an unknown trend, counts from zero."""
        self._reset()
        self.trend.reset()

    def close(self) -> None:
        """Profilers that are used by hand go on with threads of their own."""
        with self._lock:
            self._open = False
            served, self._served = self._served, ()
        if self.profiler is not None:
            self.profiler._active = False
        for profiler in served:
            self.ledger.guard(PART, profiler.go_on_alone)

    def status(self) -> dict[str, Any]:
        """How many snapshots there are, how often, and in how many bytes."""
        if self.profiler is None:
            return {"snapshots": 0, "interval_seconds": None, "size_bytes": 0}
        kept = self.profiler.get_statistics()
        return {
            "snapshots": kept["current_snapshot_count"],
            "interval_seconds": kept["interval_seconds"],
            "size_bytes": kept["size_bytes"],
        }


def snapshot_of(reading: Vitals, growth: Growth | None, custom: Mapping[str, float] | None = None) -> MemorySnapshot:
    """The snapshot of a reading."""
    per_second = None if growth is None else growth.per_second
    pressure = reading.pressure
    return MemorySnapshot(
        timestamp=reading.timestamp,
        rss_bytes=reading.rss_bytes,
        heap_objects=reading.heap_objects,
        utilization=reading.utilization,
        status=status.worst(status.of_pressure(pressure), status.of_growth(per_second)),
        pressure=None if pressure is None else pressure.name.lower(),
        growth_bytes_per_second=per_second,
        eviction_count=vitals.evictions().count,
        custom=custom or {},
    )


def running_feature() -> SnapshotFeature | None:
    """The feature of the probe that runs, if one does."""
    from otel_memory.probe.lifecycle import running_probe

    probe = running_probe()
    features = () if probe is None else probe.features
    return next((feature for feature in features if isinstance(feature, SnapshotFeature)), None)


def running_profiler() -> MemoryProfiler | None:
    """The probe's profiler, else one that was started by hand, else None."""
    feature = running_feature()
    if feature is not None and feature.profiler is not None:
        return feature.profiler
    return next((profiler for profiler in list(_profilers) if profiler.profiling_active), None)


def _readers() -> tuple[VitalSources, Trend | None]:
    feature = running_feature()
    return (vitals.own_sources(), None) if feature is None else (feature.sources, feature.trend)


def _more(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    grown = {part: count - before.get(part, 0) for part, count in now.items()}
    return {part: count for part, count in grown.items() if count > 0}


# --- fork -----------------------------------------------------------------------------------------------------

_profilers: WeakSet[MemoryProfiler] = WeakSet()


def _begin_anew() -> None:
    for profiler in list(_profilers):
        profiler.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
