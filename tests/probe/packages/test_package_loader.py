"""The lazy loader: measured loading, also where it fails; unloading that says what it could not free; reloading."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_memory.probe.packages.import_hook import HOOK
from otel_memory.probe.packages.lazy_loader import LazyLoader, get_lazy_loader
from otel_memory.probe.packages.live_bytes import LiveReading, PackageLive
from otel_memory.probe.packages.memory_monitor import MemoryMonitor

Write = Callable[[dict[str, str]], str]
MIB = 1024 * 1024
# Beyond the largest size up to which glibc may keep freed memory for itself: mapped and unmapped on its own.
BIG = {
    "__init__.py": "from PKG import data\nVALUE = 1\ndef size():\n    return len(data.held)\n",
    "data.py": "held = b'x' * 40_000_000\n",
}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def loader() -> Iterator[LazyLoader]:
    yield LazyLoader(MemoryMonitor(clock=Clock()))
    assert not HOOK.listeners


def test_there_is_one_loader_a_process() -> None:
    found: list[LazyLoader] = []
    threads = [threading.Thread(target=lambda: found.append(get_lazy_loader())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1


def test_loading_is_measured(write_package: Write, loader: LazyLoader) -> None:
    name = write_package(BIG)
    info = loader.register(name)
    assert (info.status, info.is_loaded, info.memory_metrics.current_memory_usage) == ("registered", False, None)
    module = loader.load(name)
    assert module is sys.modules[name]
    assert (info.status, info.is_loaded, info.load_count, info.error) == ("loaded", True, 1, None)
    assert info.import_cost
    assert info.import_cost.rss_bytes == pytest.approx(40e6, abs=8e6)
    assert info.memory_before is not None
    assert info.memory_after is not None
    assert info.memory_after - info.memory_before == pytest.approx(40e6, abs=8e6)
    assert info.memory_metrics.memory_footprint == pytest.approx(40e6, abs=8e6)
    assert info.memory_metrics.memory_footprint_kind == "import"
    assert info.memory_metrics.memory_source == "import"
    assert loader.load(name) is module
    assert loader.get(name) is module
    assert info.load_count == 1


def test_a_loading_that_fails_is_measured_and_raises_what_the_import_raises(
    write_package: Write, loader: LazyLoader
) -> None:
    name = write_package({"__init__.py": "import PKG.kept\nraise OSError('no licence')\n", "kept.py": BIG["data.py"]})
    for _ in range(2):
        with pytest.raises(OSError, match="no licence"):
            loader.load(name)
    info = loader.register(name)
    assert (info.status, info.is_loaded, info.error) == ("failed", False, "OSError: no licence")
    assert info.load_count == 0
    with pytest.raises(ModuleNotFoundError):
        loader.load(f"{name}_is_not_there")
    summary = loader.get_package_memory_info(f"{name}_is_not_there")
    assert summary
    assert (summary["status"], summary["is_loaded"]) == ("failed", False)


def test_what_a_failed_loading_left_behind_is_told(write_package: Write, loader: LazyLoader) -> None:
    name = write_package({"__init__.py": "import PKG.kept\nraise OSError('no licence')\n", "kept.py": BIG["data.py"]})
    with pytest.raises(OSError, match="no licence"):
        loader.load(name)
    told = [each for each in loader.get_memory_optimization_suggestions() if each["package_name"] == name]
    assert [(each["type"], each["severity"]) for each in told] == [("failed_load", "medium")]
    assert told[0]["value"] == pytest.approx(40e6, abs=8e6)


def test_a_lazy_package_loads_at_its_first_use(write_package: Write, loader: LazyLoader) -> None:
    name = write_package(BIG)
    lazy = loader.lazy(name)
    assert name not in sys.modules
    assert "not loaded" in repr(lazy)
    assert lazy.VALUE == 1
    assert lazy.size() == 40_000_000
    assert "size" in dir(lazy)
    lazy.VALUE = 5
    assert sys.modules[name].VALUE == 5
    with pytest.raises(AttributeError, match="nothing_like_it"):
        lazy.nothing_like_it


def test_many_threads_load_a_package_once(write_package: Write, loader: LazyLoader) -> None:
    name = write_package({"__init__.py": "import time\ntime.sleep(0.05)\nheld = bytearray(20_000_000)\n"})
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(loader.load(name))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [sys.modules[name]] * 8
    package = loader.monitor.imports[0].package(name)
    assert package
    assert package.modules == 1


def test_a_module_may_use_the_loader_while_it_is_loaded(write_package: Write, loader: LazyLoader) -> None:
    inner = write_package({"__init__.py": "VALUE = 7\n"})
    holder = type(sys)("otel_memory_test_loader")
    holder.loader = loader  # type: ignore[attr-defined]
    sys.modules["otel_memory_test_loader"] = holder
    try:
        source = f"import otel_memory_test_loader as t\nVALUE = t.loader.load({inner!r}).VALUE\n"
        outer = write_package({"__init__.py": source})
        assert loader.load(outer).VALUE == 7
    finally:
        del sys.modules["otel_memory_test_loader"]


def test_unloading_measures_what_it_frees(write_package: Write, loader: LazyLoader) -> None:
    name = write_package(BIG)
    loader.load(name)
    result = loader.unload(name)
    assert result.unloaded, result.message
    assert result.modules_removed == 2
    assert result.modules_still_alive == ()
    assert result.memory_freed == pytest.approx(40e6, abs=8e6)
    assert result.heap_freed == pytest.approx(40e6, abs=2e6)
    info = loader.register(name)
    assert (info.status, info.is_loaded, info.memory_metrics.current_memory_usage) == ("unloaded", False, None)
    assert loader.load(name).VALUE == 1
    assert info.load_count == 2
    # Not the sum of both loadings.
    assert info.memory_metrics.memory_footprint == pytest.approx(40e6, abs=8e6)


def test_what_is_still_referred_to_is_said_to_be_alive(write_package: Write, loader: LazyLoader) -> None:
    name = write_package(BIG)
    module = loader.load(name)
    result = loader.unload(name)
    assert result.unloaded
    assert f"{name}.data" in result.modules_still_alive
    assert "kept alive" in result.message
    assert module.size() == 40_000_000


@pytest.mark.parametrize("name", ["json", "threading", "otel_memory", "opentelemetry"])
def test_what_others_need_is_not_unloaded(name: str, loader: LazyLoader) -> None:
    loader.load(name)
    result = loader.unload(name)
    assert not result.unloaded
    assert name in sys.modules


def test_a_package_with_extension_modules_is_unloaded_only_by_force(loader: LazyLoader) -> None:
    loader.load("numpy")
    result = loader.unload("numpy")
    assert not result.unloaded
    assert "force=True" in result.message
    assert result.extension_modules
    assert "numpy" in sys.modules


def test_unloading_what_is_not_loaded_says_so(loader: LazyLoader) -> None:
    assert not loader.unload("nothing_of_that_name").unloaded


def test_a_reload_runs_the_code_again_in_the_same_module(write_package: Write, loader: LazyLoader) -> None:
    name = write_package({"__init__.py": "cache = []\n"})
    module = loader.load(name)
    module.cache.append(bytearray(10))
    assert loader.reload(name) is module
    assert module.cache == []
    assert loader.register(name).load_count == 2


@pytest.mark.parametrize("name", ["", "a b", ".relative", "a..b", "../etc", None, 5])
def test_a_name_that_is_none_is_refused(name: Any, loader: LazyLoader) -> None:
    with pytest.raises(ValueError, match="absolute name"):
        loader.register(name)


# --- over time ------------------------------------------------------------------------------------------------


def feed(loader: LazyLoader, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, list[int]]) -> None:
    """As if tracemalloc had found ``sizes`` one after the other, every 30 s."""
    clock = loader.monitor._clock
    assert isinstance(clock, Clock)
    for index in range(max(map(len, sizes.values()))):
        clock.now += 30.0
        packages = {name: PackageLive(found[index], 1) for name, found in sizes.items() if index < len(found)}
        monkeypatch.setattr(loader.monitor._live, "read", lambda _bound, p=packages: LiveReading(p, session=1))
        loader.update_all_memory_metrics()


def test_the_package_that_leaks_is_told_from_those_that_do_not(
    loader: LazyLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.register("json")
    loader.register("email")
    feed(loader, monkeypatch, {"json": [MIB + i * 300_000 for i in range(120)], "email": [5 * MIB] * 120})
    leak = loader.detect_memory_leaks()
    assert [each["package_name"] for each in leak] == ["json"]
    assert leak[0]["leak_score"] == 1.0
    assert leak[0]["memory_trend"] == "increasing"
    assert leak[0]["memory_growth_rate"] == pytest.approx(10_000, rel=0.2)
    assert set(leak[0]) == {
        *("package_name", "leak_score", "memory_trend", "memory_growth_rate", "current_memory_usage"),
        *("peak_memory_usage", "memory_footprint", "memory_check_count", "last_memory_check"),
    }
    info = loader.get_package_memory_info("json")
    assert info
    assert info["memory_metrics"]["memory_history_length"] == 100
    assert info["memory_metrics"]["memory_check_count"] == 120
    assert info["memory_metrics"]["peak_memory_usage"] == MIB + 119 * 300_000
    summary = loader.get_memory_usage_summary()
    assert [each["package_name"] for each in summary["packages_with_leaks"]] == ["json"]
    assert set(summary["packages_with_leaks"][0]) == {"package_name", "leak_score", "trend", "growth_rate"}
    told = loader.get_memory_optimization_suggestions()
    assert told[0]["type"] == "memory_leak"
    assert (told[0]["package_name"], told[0]["severity"], told[0]["value"]) == ("json", "high", 1.0)


def test_a_new_session_of_tracing_begins_a_new_series(loader: LazyLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    info = loader.register("json")
    feed(loader, monkeypatch, {"json": [50 * MIB] * 10})
    again = LiveReading({"json": PackageLive(MIB, 1)}, session=2)
    monkeypatch.setattr(loader.monitor._live, "read", lambda _bound: again)
    loader.update_all_memory_metrics()
    assert [size for _, size in info.memory_metrics.memory_history] == [MIB]
    assert info.memory_metrics.peak_memory_usage == MIB


def test_too_much_to_trace_is_a_gap_and_tracing_off_ends_the_series(
    loader: LazyLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = loader.register("json")
    feed(loader, monkeypatch, {"json": [50 * MIB] * 3})
    monkeypatch.setattr(loader.monitor._live, "read", lambda _bound: LiveReading(reason="too many", session=1))
    loader.update_all_memory_metrics()
    assert len(info.memory_metrics.memory_history) == 3
    monkeypatch.setattr(loader.monitor._live, "read", lambda _bound: LiveReading(reason="off"))
    loader.update_all_memory_metrics()
    assert info.memory_metrics.memory_history == []
    assert info.memory_metrics.current_memory_usage is None


def test_documents_are_json_in_the_documented_shapes(write_package: Write, loader: LazyLoader) -> None:
    name = write_package(BIG)
    loader.load(name)
    loader.update_all_memory_metrics()
    info = json.loads(json.dumps(loader.get_package_memory_info(name)))
    assert set(info) == {"package_name", "memory_metrics", "is_loaded", "status"}
    assert set(info["memory_metrics"]) >= {
        *("current_memory_usage", "peak_memory_usage", "memory_footprint", "memory_leak_score", "memory_trend"),
        *("memory_pressure_level", "memory_growth_rate", "average_memory_usage", "memory_variance"),
        *("memory_check_count", "last_memory_check", "memory_history_length"),
    }
    summary = json.loads(json.dumps(loader.get_memory_usage_summary()))
    assert set(summary) == {
        *("total_current_memory", "total_peak_memory", "total_memory_footprint", "packages_with_leaks"),
        *("memory_trends", "memory_pressure_levels", "system_memory_pressure", "total_packages", "loaded_packages"),
    }
    assert sum(summary["memory_trends"].values()) == summary["total_packages"]
    freed = json.loads(json.dumps(loader.force_garbage_collection()))
    assert set(freed) == {
        *("memory_before", "memory_after", "memory_freed", "objects_collected", "garbage_collection_time"),
    }
    assert loader.get_package_memory_info("never_heard_of") is None


def test_a_package_that_another_one_imports_counts_once_in_the_total(write_package: Write, loader: LazyLoader) -> None:
    assert loader.get_memory_usage_summary()["total_current_memory"] == 0
    inner = write_package(BIG)
    outer = write_package({"__init__.py": f"import {inner}\n"})
    loader.load(outer)
    loader.load(inner)
    loader.update_all_memory_metrics()
    found = [loader.get_package_memory_info(name) for name in (outer, inner)]
    sizes = [info["memory_metrics"]["memory_footprint"] for info in found if info is not None]
    assert sizes == [pytest.approx(40e6, abs=8e6)] * 2
    assert loader.get_memory_usage_summary()["total_memory_footprint"] == sizes[0]


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold: float, loader: LazyLoader) -> None:
    with pytest.raises(ValueError, match="threshold"):
        loader.detect_memory_leaks(threshold)
