"""Packages loaded when they are first needed, with memory measured around it: ``get_lazy_loader()``.

Owns the one loader of the process and the list of packages that are watched, bounded. Its lock is never held while a
module is imported, because a module may use the loader itself.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Final

from otel_memory.probe import reader
from otel_memory.probe.packages import suggestions as suggesting
from otel_memory.probe.packages import unloading
from otel_memory.probe.packages.import_costs import ImportTracker
from otel_memory.probe.packages.live_bytes import MAX_BLOCKS
from otel_memory.probe.packages.memory_monitor import LEAK_THRESHOLD, MemoryMonitor
from otel_memory.probe.packages.package_info import PackageInfo
from otel_memory.probe.packages.package_names import package_of
from otel_memory.probe.packages.suggestions import Suggestion
from otel_memory.probe.packages.unloading import Unloading

MAX_REGISTERED: Final = 1000
MAX_FOUND: Final = 64
"""Packages that are watched without having been registered: those that took most."""
LEAST_FOUND_BYTES: Final = 100 * 1024
_MAX_ERROR: Final = 500


class LazyPackage(ModuleType):
    """Stands for a package until an attribute of it is used, and hands that through; holds nothing of the package."""

    def __init__(self, name: str, get: Callable[[str], ModuleType]) -> None:
        super().__init__(name)
        vars(self)["_get"] = get

    def __getattr__(self, attribute: str) -> Any:
        return getattr(vars(self)["_get"](self.__name__), attribute)

    def __setattr__(self, attribute: str, value: object) -> None:
        setattr(vars(self)["_get"](self.__name__), attribute, value)

    def __dir__(self) -> list[str]:
        return dir(vars(self)["_get"](self.__name__))

    def __repr__(self) -> str:
        return f"<lazy package {self.__name__!r}, {'loaded' if self.__name__ in sys.modules else 'not loaded'}>"


class LazyLoader:
    """Loads, unloads and watches packages. Thread-safe. ``get_lazy_loader()`` gives the one of the process."""

    def __init__(self, monitor: MemoryMonitor | None = None) -> None:
        self.monitor = MemoryMonitor() if monitor is None else monitor
        self._packages: dict[str, PackageInfo] = {}
        self._registered: set[str] = set()
        self._tracker = ImportTracker()
        self._loads = 0
        self._reset_locks()
        self.monitor.follow(self._tracker)

    def _reset_locks(self) -> None:
        self._lock = threading.Lock()
        self._updating = threading.Lock()

    # --- packages -----------------------------------------------------------------------------------------

    def register(self, name: str) -> PackageInfo:
        """Watch the package ``name`` without loading it. The same object for the same name.

        Raises:
            ValueError: no absolute name of a module, or more than 1,000 are registered.
        """
        given: object = name
        if not isinstance(given, str) or not all(part.isidentifier() for part in given.split(".")):
            raise ValueError(f"expected the absolute name of a package such as numpy or xml.dom, not {name!r}")
        with self._lock:
            info = self._packages.get(name)
            if name not in self._registered:
                if len(self._registered) >= MAX_REGISTERED:
                    raise ValueError(f"{MAX_REGISTERED} packages are registered, no more are taken; unregister some")
                self._registered.add(name)
            if info is None:
                info = self._packages[name] = PackageInfo(name, monitor=self.monitor)
                if info.is_loaded:
                    info.status = "loaded"
        return info

    def unregister(self, name: str) -> None:
        """Watch it no more. It stays loaded."""
        with self._lock:
            self._registered.discard(name)
            self._packages.pop(name, None)

    def packages(self) -> list[PackageInfo]:
        """All that are watched: the registered ones, and those that were found to take most."""
        with self._lock:
            return list(self._packages.values())

    # --- loading ------------------------------------------------------------------------------------------

    def load(self, name: str) -> ModuleType:
        """Import the package now, and measure what that takes; at once if it is loaded already.

        Raises:
            BaseException: what the import raises, untouched. The package's status is then ``failed``, with the error
                as text and with what the try has cost.
        """
        info = self.register(name)
        module = sys.modules.get(name)
        if module is not None and not _is_initializing(module):
            info.status = "loaded"
            return module
        return self._measured(info, lambda: importlib.import_module(name))

    get = load
    """The package, loaded if it isn't."""

    def lazy(self, name: str) -> LazyPackage:
        """Something to use as the package, which is loaded at the first use of an attribute:
        ``np = loader.lazy("numpy")``. Nobody else's imports see it."""
        self.register(name)
        return LazyPackage(name, self.load)

    def reload(self, name: str) -> ModuleType:
        """``importlib.reload`` of the package's own module (its submodules stay), measured; loads it if it isn't.

        References to functions and classes of before stay what they were. Raises what the module's code raises.
        """
        info = self.register(name)
        module = sys.modules.get(name)
        if module is None:
            return self.load(name)
        return self._measured(info, lambda: importlib.reload(module))

    def unload(self, name: str, *, force: bool = False) -> Unloading:
        """Remove the package and its submodules from the interpreter's modules, collect garbage, and measure what that
        freed. What is still referred to stays alive, and shared libraries stay mapped: the result says so.

        Nothing is done to packages of the standard library and of the probe, nor, without ``force``, to those with
        extension modules.
        """
        result = unloading.unload(name, force=force)
        if result.unloaded:
            for tracker in self.monitor.imports:
                tracker.forget(name)
            with self._lock:
                info = self._packages.get(name)
            if info is not None:
                info.status = "unloaded"
                info.import_cost = None
                info.update_memory_metrics(self.monitor.last_live)
        return result

    def _measured(self, info: PackageInfo, load: Callable[[], ModuleType]) -> ModuleType:
        mine = ImportTracker(thread_id=threading.get_ident())
        self._begin(mine)
        info.memory_before = reader.read_rss()
        began = time.perf_counter()
        error: str | None = None
        try:
            module = load()
        except BaseException as problem:
            error = f"{type(problem).__name__}: {problem}"[:_MAX_ERROR]
            raise
        finally:
            seconds = time.perf_counter() - began
            info.memory_after = reader.read_rss()
            self._end(mine)
            self._note(info, mine, seconds, error)
        return module

    def _begin(self, mine: ImportTracker) -> None:
        try:
            mine.start()
            with self._lock:
                self._loads += 1
                self._tracker.start()
        except RuntimeError:  # an import system that isn't known here: loaded all the same, and not measured
            return

    def _end(self, mine: ImportTracker) -> None:
        mine.stop()
        with self._lock:
            self._loads = max(0, self._loads - 1)
            if self._loads == 0:
                self._tracker.stop()

    def _note(self, info: PackageInfo, mine: ImportTracker, seconds: float, error: str | None) -> None:
        if mine.modules():
            info.import_cost = mine.total()
        info.load_time = seconds
        info.error = error
        if error is None:
            info.status = "loaded"
            info.load_count += 1
            info.loaded_at = self.monitor.now()
            info.version = info.version or _version(info.name)
        else:
            info.status = "failed"
        # Not a new reading of live bytes: whoever loads shouldn't wait for one.
        info.update_memory_metrics(self.monitor.last_live)

    # --- memory -------------------------------------------------------------------------------------------

    def update_all_memory_metrics(self, max_blocks: int = MAX_BLOCKS) -> None:
        """Measure all packages anew: what imports have cost, and live bytes where tracemalloc is on (see
        ``LiveBytes.read``: up to a second). Does nothing if another thread is at it."""
        if not self._updating.acquire(blocking=False):
            return
        try:
            live = self.monitor.read_live(max_blocks)
            self._find()
            for info in self.packages():
                info.update_memory_metrics(live)
        finally:
            self._updating.release()

    def _is_within(self, info: PackageInfo, packages: Sequence[PackageInfo]) -> bool:
        """Whether its import was measured within that of another of ``packages``, whose footprint has it then."""
        if info.memory_metrics.memory_footprint_kind != "import":
            return False
        own = package_of(info.name)
        others = {package_of(each.name) for each in packages if each.memory_metrics.memory_footprint_kind == "import"}
        for tracker in self.monitor.imports:
            cost = tracker.module(info.name)
            while cost is not None and cost.parent is not None:
                importer = package_of(cost.parent)
                if importer != own and importer in others:
                    return True
                cost = tracker.module(cost.parent)
        return False

    def get_memory_usage_summary(self) -> dict[str, Any]:
        """The documented summary. Totals are sums of what is known, None where nothing is; that of the footprints
        counts what several packages need once: with the first that imported it."""
        packages = self.packages()
        metrics = [info.memory_metrics for info in packages]
        return {
            "total_current_memory": _sum(each.current_memory_usage for each in metrics),
            "total_peak_memory": _sum(each.peak_memory_usage for each in metrics),
            "total_memory_footprint": _sum(
                info.memory_metrics.memory_footprint for info in packages if not self._is_within(info, packages)
            ),
            "packages_with_leaks": [
                {
                    "package_name": info.name,
                    "leak_score": info.memory_metrics.memory_leak_score,
                    "trend": info.memory_metrics.memory_trend,
                    "growth_rate": info.memory_metrics.memory_growth_rate,
                }
                for info in _leaking(packages, self.monitor.leak_threshold)
            ],
            "memory_trends": _counts(("increasing", "decreasing", "stable"), (each.memory_trend for each in metrics)),
            "memory_pressure_levels": _counts(
                ("low", "medium", "high", "critical"), (each.memory_pressure_level for each in metrics)
            ),
            "system_memory_pressure": self.monitor.get_memory_pressure_level(),
            "total_packages": len(packages),
            "loaded_packages": sum(info.is_loaded for info in packages),
        }

    def detect_memory_leaks(self, threshold: float = LEAK_THRESHOLD) -> list[dict[str, Any]]:
        """The packages whose leak score is at least ``threshold``, worst first, by what was measured last.

        Raises:
            ValueError: a threshold that isn't above 0 and at most 1.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"expected a threshold above 0 and at most 1, not {threshold!r}")
        return [
            {
                "package_name": info.name,
                "leak_score": each.memory_leak_score,
                "memory_trend": each.memory_trend,
                "memory_growth_rate": each.memory_growth_rate,
                "current_memory_usage": each.current_memory_usage,
                "peak_memory_usage": each.peak_memory_usage,
                "memory_footprint": each.memory_footprint,
                "memory_check_count": each.memory_check_count,
                "last_memory_check": each.last_memory_check,
            }
            for info in _leaking(self.packages(), threshold)
            for each in (info.memory_metrics,)
        ]

    def get_memory_optimization_suggestions(self) -> list[Suggestion]:
        """What could be done, the most severe first; thresholds stand in ``suggestions``."""
        return suggesting.suggest(
            self.packages(),
            utilization=self.monitor.get_memory_utilization(),
            pressure_levels=self.monitor.thresholds,
            has_extensions=unloading.has_extensions,
        )

    def get_package_memory_info(self, package_name: str) -> dict[str, Any] | None:
        """The documented form of one package; None if it isn't watched."""
        with self._lock:
            info = self._packages.get(package_name)
        return None if info is None else info.get_memory_summary()

    def force_garbage_collection(self) -> dict[str, Any]:
        """A full collection (the program stands still meanwhile: 100 ms at a million objects), and what it freed:
        measured, so negative where memory grew meanwhile, and None where it could not be read."""
        before = reader.read_rss()
        collected = gc.collect()
        after = reader.read_rss()
        return {
            "memory_before": before,
            "memory_after": after,
            "memory_freed": None if before is None or after is None else before - after,
            "objects_collected": collected,
            "garbage_collection_time": self.monitor.now(),
        }

    def _find(self) -> None:
        """Watch the packages that take most, and no longer those found before that don't."""
        sizes: dict[str, float] = {}
        for tracker in self.monitor.imports:
            for cost in tracker.packages():
                sizes.setdefault(cost.name, float(cost.own.rss_bytes or 0))
        for name, live in (self.monitor.last_live.packages or {}).items():
            sizes[name] = max(sizes.get(name, 0.0), float(live.live_bytes))
        large = [name for name, size in sizes.items() if size >= LEAST_FOUND_BYTES and name in sys.modules]
        found = sorted(large, key=lambda name: -sizes[name])[:MAX_FOUND]
        with self._lock:
            for name in [each for each in self._packages if each not in self._registered and each not in found]:
                del self._packages[name]
            for name in found:
                if name not in self._packages:
                    self._packages[name] = PackageInfo(name, "loaded", monitor=self.monitor)

    def _after_fork(self) -> None:
        self._reset_locks()
        self._loads = 0
        self._tracker.stop()
        for info in self._packages.values():
            info.forget_history()


def _leaking(packages: list[PackageInfo], threshold: float) -> list[PackageInfo]:
    found = [info for info in packages if info.memory_metrics.memory_leak_score >= threshold]
    return sorted(found, key=lambda info: info.memory_metrics.memory_leak_score, reverse=True)


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if known or not found else None


def _counts(keys: tuple[str, ...], values: Any) -> dict[str, int]:
    found = dict.fromkeys(keys, 0)
    for value in values:
        found[value] += 1
    return found


def _is_initializing(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except Exception:  # not installed as a distribution of that name, or with broken metadata
        return None


_the_loader: LazyLoader | None = None
_creating = threading.Lock()


def get_lazy_loader() -> LazyLoader:
    """The one loader of this process; made at the first call."""
    global _the_loader
    if _the_loader is None:
        with _creating:
            if _the_loader is None:
                _the_loader = LazyLoader()
    return _the_loader


def _after_fork_in_child() -> None:
    global _creating
    _creating = threading.Lock()
    if _the_loader is not None:
        _the_loader._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
