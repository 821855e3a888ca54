"""Live bytes by package from tracemalloc, and the monitor's readings and estimates."""

from __future__ import annotations

import importlib
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from otel_memory.probe.packages.footprint import estimate
from otel_memory.probe.packages.live_bytes import LiveBytes
from otel_memory.probe.packages.memory_monitor import MemoryMonitor
from otel_memory.probe.packages.package_names import OTHER, FileNames, package_of
from otel_memory.probe.sources.limits import LimitsSource
from otel_memory.probe.sources.process_readings import ProcessReading

Write = Callable[[dict[str, str]], str]


@pytest.fixture
def tracing() -> Iterator[None]:
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("tracing")
def test_live_bytes_count_for_the_package_that_allocated(write_package: Write) -> None:
    one = write_package({"__init__.py": "held = []\ndef grow():\n    held.append('x' * 1_000_000 + str(len(held)))\n"})
    other = write_package({"__init__.py": "held = []\ndef grow():\n    held.append('x' * 100_000 + str(len(held)))\n"})
    modules = [importlib.import_module(name) for name in (one, other)]
    for _ in range(5):
        for module in modules:
            module.grow()
    reading = LiveBytes().read()
    assert reading.packages
    assert reading.packages[one].live_bytes == pytest.approx(5_000_000, abs=100_000)
    assert reading.packages[other].live_bytes == pytest.approx(500_000, abs=100_000)
    assert reading.packages[one].blocks >= 5


def test_without_tracing_nothing_is_measured_and_nothing_is_switched_on() -> None:
    reading = LiveBytes().read()
    assert reading.packages is None
    assert reading.reason == "tracemalloc is off"
    assert not tracemalloc.is_tracing()


@pytest.mark.usefixtures("tracing")
def test_more_blocks_than_the_bound_are_left_alone() -> None:
    held = [[index] for index in range(1000)]
    reading = LiveBytes().read(max_blocks=500)
    assert reading.packages is None
    assert reading.reason
    assert "the bound is 500" in reading.reason
    assert reading.estimated_blocks
    assert reading.estimated_blocks >= len(held)


def test_each_session_of_tracing_has_its_number() -> None:
    live = LiveBytes()
    sessions = []
    for _ in range(2):
        tracemalloc.start()
        try:
            sessions += [live.read().session, live.read().session]
            tracemalloc.clear_traces()
            sessions.append(live.read().session)
        finally:
            tracemalloc.stop()
    assert sessions == [1, 1, 2, 3, 3, 4]


def test_files_belong_to_the_package_that_was_imported_from_them() -> None:
    module = ModuleType("shop.cart")
    module.__file__ = "/srv/checkout/shop/cart.py"
    names = FileNames(lambda: [("shop.cart", module)], lambda: ["/usr/lib/python3", "/usr/lib/python3/site-packages"])
    assert names.package("/srv/checkout/shop/cart.py") == "shop"
    assert names.package("/usr/lib/python3/site-packages/numpy/core/a.py") == "numpy"
    assert names.package("/usr/lib/python3/site-packages/six.py") == "six"
    assert names.package("/usr/lib/python3/json/decoder.py") == "json"
    assert names.package("<frozen importlib._bootstrap_external>") == "importlib"
    assert names.package("<string>") == OTHER
    assert names.package("/elsewhere/x.py") == OTHER
    assert package_of("google.cloud.storage") == "google"


def test_an_estimate_is_labelled_as_one_and_stays_within_its_package(write_package: Write) -> None:
    big = write_package({"__init__.py": "held = [b'%d' % i * 1000 for i in range(1000)]\n"})
    user = write_package({"__init__.py": f"import {big}\nfrom {big} import held as theirs\nclass A: pass\n"})
    small = write_package({"__init__.py": f"import {big}\ndef f(): return {big}.held\n"})
    for name in (big, user, small):
        importlib.import_module(name)
    found = MemoryMonitor().measure_footprint(big)
    assert found
    assert (found.kind, found.complete) == ("estimated", True)
    assert found.size_bytes == pytest.approx(2_900_000, rel=0.1)
    alone = estimate(small)
    assert alone
    assert alone.size_bytes < 100_000
    assert estimate("never_loaded") is None
    assert MemoryMonitor().get_memory_footprint("never_loaded") is None


def test_an_estimate_is_bounded(write_package: Write) -> None:
    name = write_package({"__init__.py": "held = [[i] for i in range(50_000)]\n"})
    importlib.import_module(name)
    found = estimate(name, max_objects=1000)
    assert found
    assert not found.complete
    huge = write_package({"__init__.py": "held = list(range(200_000))\n"})
    importlib.import_module(huge)
    found = estimate(huge)
    assert found
    assert not found.complete
    assert found.size_bytes > 1_600_000


def monitor(used: int, limit: int, **more: object) -> MemoryMonitor:
    limits = LimitsSource(lambda: ProcessReading(rss_bytes=used), configured_bytes=limit)
    return MemoryMonitor(limits=limits, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("used", "level"), [(10, "low"), (69, "low"), (70, "medium"), (85, "high"), (95, "critical")])
def test_the_pressure_is_use_of_the_real_limit(used: int, level: str) -> None:
    assert monitor(used, 100).get_memory_pressure_level() == level


def test_the_levels_are_configurable_and_checked() -> None:
    assert monitor(50, 100, thresholds={"low": 0.1, "medium": 0.4}).get_memory_pressure_level() == "medium"
    with pytest.raises(ValueError, match="not a level"):
        MemoryMonitor({"mid": 0.5})
    with pytest.raises(ValueError, match="rising"):
        MemoryMonitor({"medium": 0.9})


def test_the_monitor_reads_and_judges() -> None:
    current = MemoryMonitor().get_current_memory_usage()
    assert current
    assert 5e6 < current < 1e11
    history = [(float(index), index * 1e6) for index in range(50)]
    assert MemoryMonitor().detect_memory_leak(history) == (True, 1.0)
    assert MemoryMonitor(leak_growth_bytes=1e9).detect_memory_leak(history)[0] is False
    assert MemoryMonitor().analyze_memory_trend(history) == "increasing"
    found = MemoryMonitor().calculate_memory_statistics(history)
    assert found["memory_growth_rate"] == pytest.approx(1e6)
    assert found["average_memory_usage"] == pytest.approx(24.5e6)
    assert sys.modules["json"] is not None
