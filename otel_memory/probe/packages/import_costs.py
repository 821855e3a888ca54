"""What imports cost, kept by module and by package: ``track_imports()``.

Owns the tables and their bounds. Within an import a cost is only appended to a bounded queue; tables are filled when
nobody else does so, or when they are read.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Final
from weakref import WeakSet

from otel_memory.probe.packages.import_hook import FREE, HOOK, Cost, ImportCost

MAX_MODULES: Final = 2048
MAX_PACKAGES: Final = 512
_MAX_WAITING: Final = 8192
_FOLD_AT: Final = 64


@dataclass(frozen=True, slots=True)
class PackageCost:
    """The imports of one package. ``own``: its modules' own costs, which over all packages add up to the whole.
    ``inclusive``: with everything that they imported first; what two packages share counts for the first."""

    name: str
    modules: int
    """Executions of its modules."""
    failed: int
    """Of them, those that raised."""
    own: Cost
    inclusive: Cost
    overlapped: bool
    """Another thread imported meanwhile, so sizes may be the other's."""


class _Sum:
    __slots__ = ("failed", "inclusive", "modules", "overlapped", "own")

    def __init__(self) -> None:
        self.modules = self.failed = 0
        self.own = self.inclusive = FREE
        self.overlapped = False

    def add(self, cost: ImportCost) -> None:
        self.modules += 1
        self.failed += cost.error is not None
        self.own = self.own.plus(cost.own)
        if cost.outermost:
            self.inclusive = self.inclusive.plus(cost.inclusive)
        self.overlapped |= cost.overlapped


class ImportTracker:
    """Collects the costs of imports from ``start()`` to ``stop()`` or within ``with``; with ``thread_id`` its alone.

    ``blocks``: count Python's blocks too, which makes each import dearer. May be read while it runs and after it has
    stopped, and started again.
    """

    def __init__(self, *, thread_id: int | None = None, blocks: bool = False, max_modules: int = MAX_MODULES) -> None:
        self._thread_id = thread_id
        self._blocks = blocks
        self._max_modules = max_modules
        self._since = 0.0
        self._modules: dict[str, ImportCost] = {}
        self._packages: dict[str, _Sum] = {}
        self._total = FREE
        self._waiting: deque[ImportCost] = deque(maxlen=_MAX_WAITING)
        self._lock = threading.Lock()
        self._running = False
        self._unread = False
        self.dropped = 0
        """Modules (the cheapest) that are no longer listed, and packages that were not, because a bound was reached.
        Their costs are in the total."""
        _trackers.add(self)

    def start(self) -> ImportTracker:
        """Begin to collect. Does nothing if it does so already.

        Raises:
            RuntimeError: this Python's import system isn't known.
        """
        if not self._running:
            self._since = time.perf_counter()
            HOOK.add(self._take, blocks=self._blocks)
            self._running = True
        return self

    def stop(self) -> None:
        """Collect no more, and leave nothing in the import system. Idempotent."""
        self._running = False
        HOOK.remove(self._take)

    def __enter__(self) -> ImportTracker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._running

    def modules(self) -> list[ImportCost]:
        """The last execution of each module, those that cost most resident memory of their own first."""
        with self._lock:
            self._fold()
            found = list(self._modules.values())
        return sorted(found, key=_weight, reverse=True)

    def packages(self) -> list[PackageCost]:
        """The sums by package, those that cost most resident memory of their own first."""
        with self._lock:
            self._fold()
            self._unread = False
            found = [
                PackageCost(name, each.modules, each.failed, each.own, each.inclusive, each.overlapped)
                for name, each in self._packages.items()
            ]
        return sorted(found, key=lambda cost: (cost.own.rss_bytes or 0, cost.own.time_seconds), reverse=True)

    def module(self, name: str) -> ImportCost | None:
        """The last execution of ``name``."""
        with self._lock:
            self._fold()
            return self._modules.get(name)

    def package(self, name: str) -> PackageCost | None:
        """The sum of one package."""
        with self._lock:
            self._fold()
            each = self._packages.get(name)
            if each is None:
                return None
            return PackageCost(name, each.modules, each.failed, each.own, each.inclusive, each.overlapped)

    @property
    def changed(self) -> bool:
        """Whether imports came since ``packages()`` was last read."""
        return bool(self._waiting) or self._unread

    def forget(self, name: str) -> None:
        """Leave a package out of the tables: its modules have been removed. The total still knows them."""
        with self._lock:
            self._fold()
            self._packages.pop(name, None)
            self._modules = {module: cost for module, cost in self._modules.items() if cost.package != name}

    def total(self) -> Cost:
        """All of it: the sum of what every module took of its own."""
        with self._lock:
            self._fold()
            return self._total

    # --- while an import ends ---------------------------------------------------------------------------------

    def _take(self, cost: ImportCost) -> None:
        if cost.began < self._since or (self._thread_id is not None and cost.thread_id != self._thread_id):
            return
        waiting = self._waiting
        if len(waiting) == _MAX_WAITING:
            self.dropped += 1
        waiting.append(cost)
        # Never waits: an import may run in a finalizer, within whatever holds the lock.
        if len(waiting) >= _FOLD_AT and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def _fold(self) -> None:
        for _ in range(len(self._waiting)):
            try:
                cost = self._waiting.popleft()
            except IndexError:  # somebody else's turn, in a build without the interpreter's lock
                return
            self._unread = True
            self._total = self._total.plus(cost.own)
            self._modules[cost.name] = cost
            each = self._packages.get(cost.package)
            if each is None:
                if len(self._packages) >= MAX_PACKAGES:
                    self.dropped += 1
                    continue
                each = self._packages[cost.package] = _Sum()
            each.add(cost)
        if len(self._modules) > self._max_modules:
            kept = heapq.nlargest(self._max_modules * 3 // 4, self._modules.values(), key=_weight)
            self.dropped += len(self._modules) - len(kept)
            self._modules = {cost.name: cost for cost in kept}

    def _reset_lock(self) -> None:
        self._lock = threading.Lock()


def _weight(cost: ImportCost) -> tuple[int, float]:
    return cost.own.rss_bytes or 0, cost.own.time_seconds


def track_imports() -> ImportTracker:
    """Start to measure what imports cost, from now on and on every thread.

    ``with track_imports() as imports: import numpy`` and then ``imports.packages()``; or keep what it returns, and
    ``stop()`` it. Modules that are loaded already cost nothing, so measure in a fresh process.
    """
    return ImportTracker(blocks=True).start()


_trackers: WeakSet[ImportTracker] = WeakSet()


def _after_fork() -> None:
    for tracker in list(_trackers):
        tracker._reset_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

__all__ = ["Cost", "ImportCost", "ImportTracker", "PackageCost", "track_imports"]
