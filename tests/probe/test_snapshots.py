"""Snapshots: what one holds, the ring that keeps a day of them, who takes them, and when."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.probe import profiler as profiling
from otel_memory.probe import snapshots, vitals
from otel_memory.probe.config import Settings
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.lifecycle import Probe
from otel_memory.probe.profiler import MemoryProfiler, SnapshotFeature, Trend
from otel_memory.probe.readings import Growth
from otel_memory.probe.snapshots import MAX_CUSTOM, MemorySnapshot, SnapshotRing, write_jsonl
from otel_memory.probe.sources.limits import Pressure
from otel_memory.probe.vitals import Vitals
from tests.harness import wait_until

MIB = 1024 * 1024

wholes = st.none() | st.integers(0, 2**62)
reals = st.none() | st.floats(allow_nan=False, allow_infinity=False)
some_snapshots = st.builds(
    MemorySnapshot,
    timestamp=st.floats(0, 4e9),
    rss_bytes=wholes,
    heap_objects=wholes,
    utilization=reals,
    status=st.sampled_from(("unknown", "healthy", "caution", "warning", "critical")),
    pressure=st.none() | st.sampled_from(("low", "medium", "high", "critical")),
    growth_bytes_per_second=reals,
    eviction_count=wholes,
    custom=st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False, allow_infinity=False)),
)


def test_a_snapshot_speaks_in_bytes_and_in_mb() -> None:
    snapshot = MemorySnapshot(1.5, 3 * MIB, 10, 0.25, "healthy", "low", MIB / 2, 4, {"sessions": 2.0})
    assert (snapshot.rss_mb, snapshot.usage_percent, snapshot.growth_rate_mb_per_sec) == (3.0, 25.0, 0.5)
    assert snapshot.metadata == {"sessions": 2.0}


def test_what_is_not_known_is_none_in_every_form() -> None:
    snapshot = MemorySnapshot(1.5)
    assert (snapshot.rss_mb, snapshot.usage_percent, snapshot.growth_rate_mb_per_sec) == (None, None, None)
    assert snapshot.to_dict() == {
        **dict.fromkeys(("rss_bytes", "heap_objects", "utilization", "pressure"), None),
        "growth_bytes_per_second": None,
        "eviction_count": None,
        "timestamp": 1.5,
        "status": "unknown",
        "custom": {},
    }


@given(some_snapshots)
def test_a_snapshot_comes_back_from_json(snapshot: MemorySnapshot) -> None:
    assert MemorySnapshot.from_dict(json.loads(json.dumps(snapshot.to_dict(), allow_nan=False))) == snapshot


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [({}, "needs a timestamp"), ({"timestamp": 1, "status": "fine"}, "status is 'fine'; expected one of")],
)
def test_what_is_no_snapshot_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MemorySnapshot.from_dict(fields)


def test_keys_of_another_version_are_passed_over() -> None:
    assert MemorySnapshot.from_dict({"timestamp": 1, "colour": "red"}) == MemorySnapshot(1)


# --- the ring ----------------------------------------------------------------------------------------------------


@given(st.lists(some_snapshots, max_size=12), st.integers(1, 5), st.integers(0, 15))
def test_the_ring_keeps_the_newest_as_they_were(taken: list[MemorySnapshot], capacity: int, asked: int) -> None:
    ring = SnapshotRing(capacity)
    for snapshot in taken:
        ring.add(snapshot)
    kept = taken[-capacity:]
    assert list(ring.newest()) == kept
    assert list(ring.newest(asked)) == (kept[-asked:] if asked else [])
    assert (ring.taken, len(ring)) == (len(taken), len(kept))
    for summary in ring.statistics().values():
        if summary["min"] is not None:
            assert summary["avg"] is not None
            assert summary["max"] is not None
            assert summary["min"] <= summary["avg"] <= summary["max"]


def test_gaps_count_for_nothing_in_statistics() -> None:
    ring = SnapshotRing(10)
    for rss in (2 * MIB, None, 4 * MIB, None):
        ring.add(MemorySnapshot(1.0, rss_bytes=rss))
    assert ring.statistics()["rss_mb"] == {"min": 2.0, "max": 4.0, "avg": 3.0, "current": None}
    assert ring.statistics()["usage_percent"] == {"min": None, "max": None, "avg": None, "current": None}


def test_a_day_takes_150_kb_however_long_it_runs() -> None:
    tracemalloc.start()
    try:
        ring = SnapshotRing(2880)
        for number in range(2880):
            ring.add(MemorySnapshot(float(number), 2**40 + number, 10**7, 0.5, "healthy", "low", 1.0, number))
        filled = tracemalloc.get_traced_memory()[0]
        for number in range(5000):
            ring.add(MemorySnapshot(float(number), 2**40 + number, 10**7, 0.5, "healthy", "low", 1.0, number))
        assert ring.size_bytes <= 160_000
        assert filled <= 165_000
        assert tracemalloc.get_traced_memory()[0] - filled < 5_000
    finally:
        tracemalloc.stop()


def test_custom_values_are_bounded_by_name_and_those_beyond_are_counted() -> None:
    ring = SnapshotRing(4)
    ring.add(MemorySnapshot(0.0, custom={str(name): 1.0 for name in range(MAX_CUSTOM + 3)}))
    assert len(next(ring.newest(1)).custom) == MAX_CUSTOM
    assert ring.dropped == 3


def test_a_name_that_is_gone_from_the_whole_ring_makes_room() -> None:
    ring = SnapshotRing(3)
    ring.add(MemorySnapshot(0.0, custom={str(name): 1.0 for name in range(MAX_CUSTOM)}))
    for time in (1.0, 2.0):
        ring.add(MemorySnapshot(time, custom={"late": 5.0}))
    assert ring.dropped == 2
    ring.add(MemorySnapshot(3.0, custom={"late": 5.0}))
    assert ring.dropped == 2
    assert [dict(snapshot.custom) for snapshot in ring.newest()] == [{}, {}, {"late": 5.0}]


# --- the file ----------------------------------------------------------------------------------------------------


def test_the_file_has_a_line_for_each_and_reads_back(tmp_path: Path) -> None:
    ring = SnapshotRing(3)
    taken = [MemorySnapshot(float(time), time * MIB, custom={"a": 1.0}) for time in range(5)]
    for snapshot in taken:
        ring.add(snapshot)
    path = tmp_path / "day.jsonl"
    assert write_jsonl(ring, path) == 3
    assert [MemorySnapshot.from_dict(json.loads(line)) for line in path.read_text().splitlines()] == taken[2:]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "day.jsonl"
    path.write_text("old\n")
    ring = SnapshotRing(3)
    ring.add(MemorySnapshot(1.0))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_jsonl(ring, path)
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


# --- who takes them ----------------------------------------------------------------------------------------------


class Sources:
    """Vitals that a test chooses."""

    def __init__(self, *rss: int | None) -> None:
        self.rss = list(rss)

    def read(self) -> Vitals:
        rss = self.rss.pop(0)
        return Vitals(1.0, rss_bytes=rss, pressure=Pressure.LOW if rss is not None else None)


def test_snapshots_keep_to_their_grid_and_missed_ones_are_skipped() -> None:
    profiler = MemoryProfiler(30, 100)
    sources: Any = Sources(*range(10))
    beats = [0.0, 1.0, 29.0, 30.5, 59.0, 60.0, 200.0, 201.0, 210.0]
    taken = [now for now in beats if profiler.beat(now, sources, Trend(1.0)) is not None]
    assert taken == [0.0, 30.5, 60.0, 200.0, 210.0]


def test_a_reading_that_failed_is_a_gap() -> None:
    profiler = MemoryProfiler(30, 100)
    profiler.remember(Sources(None).read(), None)
    latest = profiler.get_latest_snapshot()
    assert latest is not None
    assert (latest.rss_bytes, latest.heap_objects, latest.utilization) == (None, None, None)


@pytest.mark.parametrize(
    ("pressure", "per_second", "expected"),
    [
        (Pressure.LOW, 0.0, "healthy"),
        (Pressure.MEDIUM, None, "caution"),
        (Pressure.LOW, 5.1e6, "warning"),
        (Pressure.LOW, 10.1e6, "critical"),
        (Pressure.HIGH, 0.0, "warning"),
        (Pressure.CRITICAL, 0.0, "critical"),
        (None, 0.0, "healthy"),
        (None, None, "unknown"),
    ],
)
def test_the_status_is_the_worse_of_use_and_growth(
    pressure: Pressure | None, per_second: float | None, expected: str
) -> None:
    growth = None if per_second is None else Growth(per_second, 0.0, 60.0)
    assert profiling.snapshot_of(Vitals(1.0, pressure=pressure), growth).status == expected


def test_growth_is_known_after_a_minute_and_does_not_depend_on_who_asks() -> None:
    trend = Trend(1.0)
    for second in range(60):
        trend.add(float(second), 100 * MIB + second * MIB)
        trend.growth()
        trend.growth()
    assert trend.growth() is None
    trend.add(60.0, 160 * MIB)
    growth = trend.growth()
    assert growth is not None
    assert growth.per_second == pytest.approx(MIB)


@pytest.mark.parametrize(("interval", "number"), [(0.05, 10), (float("nan"), 10), (1, 0), (1, 100_001)])
def test_what_no_profiler_can_do_is_refused(interval: float, number: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        MemoryProfiler(interval, number)


def test_a_profiler_by_hand_takes_snapshots_until_it_is_stopped() -> None:
    profiler = MemoryProfiler(0.1, 1000)
    assert profiler.get_latest_snapshot() is None
    profiler.stop_profiling()  # not started: nothing happens
    profiler.start_profiling_sync()
    profiler.start_profiling_sync()
    assert threads() == 1
    wait_until(lambda: len(profiler.get_snapshots()) >= 3, timeout_seconds=20)
    assert profiler.get_statistics()["profiling_active"] is True
    profiler.stop_profiling()
    assert threads() == 0
    kept = profiler.get_snapshots()
    assert all(snapshot.rss_bytes and snapshot.heap_objects for snapshot in kept)
    assert profiler.get_snapshots(2) == kept[-2:]
    assert profiler.get_latest_snapshot() == kept[-1]
    assert profiler.get_statistics()["profiling_active"] is False


def test_taking_one_by_hand_needs_no_start() -> None:
    profiler = MemoryProfiler()
    snapshot = profiler.take_snapshot()
    assert profiler.get_snapshots() == [snapshot]


def test_a_failing_reading_ends_neither_thread_nor_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise OSError("gone")

    monkeypatch.setattr(vitals, "own_sources", fails)
    profiler = MemoryProfiler(0.1, 10)
    profiler.start_profiling_sync()
    try:
        wait_until(lambda: profiler.failed >= 2, timeout_seconds=20)
    finally:
        profiler.stop_profiling()
    assert profiler.get_snapshots() == []


def threads() -> int:
    return sum(thread.name == "otel-memory-sampler" for thread in threading.enumerate())


def test_with_a_probe_there_is_one_thread_and_one_of_its_own_after_the_probe() -> None:
    probe = Probe(Settings.load({}, interval=100))
    probe.start()
    profiler = MemoryProfiler(0.1, 100)
    try:
        profiler.start_profiling_sync()
        assert threads() == 1
        wait_until(lambda: len(profiler.get_snapshots()) >= 2, timeout_seconds=20)
        probe.stop()
        before = profiler.get_statistics()["total_snapshots_taken"]
        wait_until(lambda: profiler.get_statistics()["total_snapshots_taken"] >= before + 2, timeout_seconds=20)
    finally:
        probe.stop()
        profiler.stop_profiling()
    assert threads() == 0


def test_the_probe_keeps_its_own_by_its_settings() -> None:
    probe = Probe(Settings.load({}, interval=100, snapshot_interval=100, snapshots=3))
    probe.start()
    try:
        own = profiling.running_profiler()
        assert own is not None
        wait_until(lambda: own.get_statistics()["total_snapshots_taken"] >= 5, timeout_seconds=20)
        assert len(own.get_snapshots()) == 3
        own.stop_profiling()  # the probe's own go on
        assert own.profiling_active
    finally:
        probe.stop()
    assert not own.profiling_active
    assert profiling.running_profiler() is None


@pytest.mark.parametrize("off", ["0", "none"])
def test_a_setting_switches_them_off(off: str) -> None:
    settings = Settings.load({"OTEL_PYTHON_MEMORY_SNAPSHOTS": off})
    probe = Probe(settings)
    probe.start()
    try:
        feature = profiling.running_feature()
        assert feature is not None
        assert feature.profiler is None
        assert feature.status()["snapshots"] == 0
        assert profiling.running_profiler() is None
    finally:
        probe.stop()


def test_values_of_registered_gauges_are_in_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("otel_memory.probe.live_objects")
    values: dict[str, float | None] = {"sessions": 3, "broken": None, "odd": float("nan")}
    module.custom_values = lambda: values  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "otel_memory.probe.live_objects", module)
    assert MemoryProfiler().take_snapshot().custom == {"sessions": 3.0}


def test_each_snapshot_is_an_event_where_the_setting_asks_for_it() -> None:
    emitted: list[tuple[str, str, dict[str, Any]]] = []

    def emit(name: str, body: str, attributes: dict[str, Any], **_: Any) -> bool:
        emitted.append((name, body, attributes))
        return True

    for wanted in (True, False):
        settings = Settings.load({}, snapshot_events=wanted)
        with_parts(settings, emit)
    assert len(emitted) == 1
    name, body, attributes = emitted[0]
    assert name == "otel_memory.snapshot"
    assert body.startswith("Resident memory is ")
    assert attributes["otel_memory.snapshot.memory"] > MIB
    assert "otel_memory.snapshot.growth" not in attributes, "not known yet: left out, not 0"


def with_parts(settings: Settings, emit: Any) -> None:
    from otel_memory.probe.background import Background
    from otel_memory.probe.feature import Surroundings
    from otel_memory.probe.parts import Parts

    ledger = Ledger()
    parts = Parts(settings, ledger)
    try:
        feature = SnapshotFeature(Surroundings(settings, parts, emit, Background(ledger), ledger))
        feature.tick(100.0)
        feature.tick(101.0)
        feature.close()
    finally:
        parts.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_an_empty_ring_and_a_thread_of_its_own() -> None:
    profiler = MemoryProfiler(0.1, 100)
    profiler.start_profiling_sync()
    try:
        wait_until(lambda: len(profiler.get_snapshots()) >= 2, timeout_seconds=20)
        with profiler._lock:  # as if another thread held it
            child = os.fork()
            if child == 0:
                fine = False
                try:
                    taken = profiler.get_statistics()["total_snapshots_taken"]
                    wait_until(lambda: profiler.get_statistics()["total_snapshots_taken"] > taken, timeout_seconds=20)
                    profiler.stop_profiling()
                    fine = taken <= 1
                finally:
                    os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        profiler.stop_profiling()
