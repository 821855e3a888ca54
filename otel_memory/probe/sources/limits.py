"""The source ``limits``: what will really end the process for want of memory, how near it is, and the host's memory.

Owns the choice of the limit and the pressure level. Where limits stand is in ``cgroups`` and ``procfs``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import psutil
from opentelemetry.metrics import Meter, Observation

from otel_memory import names
from otel_memory.probe.sources import Gate, Undo, cgroups, observe_metrics, one
from otel_memory.probe.sources.cadence import Latest
from otel_memory.probe.sources.process_readings import ProcessReading
from otel_memory.probe.sources.procfs import parse_address_space_limit, parse_sizes, parse_stall, read_file

PART = "limits"

LimitKind = Literal["configured", "cgroup_v2", "cgroup_v1", "rlimit", "host"]


class Limit(NamedTuple):
    """``limit_bytes`` bounds resident memory, except for kind ``rlimit``, which bounds virtual memory."""

    limit_bytes: int
    kind: LimitKind


class Stall(NamedTuple):
    """Seconds that ``some`` or all (``full``) tasks of the ``system`` or of the ``cgroup`` have stalled for memory."""

    scope: Literal["system", "cgroup"]
    kind: Literal["some", "full"]
    seconds: float


@dataclass(frozen=True, slots=True)
class LimitsReading:
    """Sizes in bytes; None is "could not be read" or "there is none"."""

    limit_bytes: int | None = None
    """The smallest of ``limits``."""
    kind: LimitKind | None = None
    limits: tuple[Limit, ...] = ()
    """All limits that were found."""
    high_bytes: int | None = None
    """``memory.high`` of cgroup v2: the process is slowed down above it, not ended."""
    host_total: int | None = None
    host_available: int | None = None
    psi: tuple[Stall, ...] = ()

    @property
    def host_utilization(self) -> float | None:
        """Share of the host's memory that isn't available to new work."""
        if not self.host_total or self.host_available is None:
            return None
        return (self.host_total - self.host_available) / self.host_total


class Pressure(IntEnum):
    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3


class PressureBounds(NamedTuple):
    """Shares of the limit at which a level begins; below ``medium`` it is low."""

    medium: float = 0.7
    high: float = 0.85
    critical: float = 0.95


DEFAULT_BOUNDS = PressureBounds()


def pressure_level(utilization: float, bounds: PressureBounds = DEFAULT_BOUNDS) -> Pressure:
    """Pure: the level of a use of ``utilization`` (1 is all of the limit)."""
    if utilization >= bounds.critical:
        return Pressure.CRITICAL
    if utilization >= bounds.high:
        return Pressure.HIGH
    return Pressure.MEDIUM if utilization >= bounds.medium else Pressure.LOW


def utilization(limits: LimitsReading, process: ProcessReading) -> float | None:
    """Pure: memory in use as a share of the limit: resident, or virtual where that is what the limit bounds."""
    used_bytes = process.virtual_bytes if limits.kind == "rlimit" else process.rss_bytes
    if used_bytes is None or not limits.limit_bytes:
        return None
    return used_bytes / limits.limit_bytes


class LimitsSource:
    """Limits of this process, or of process ``pid`` below ``proc_root``.

    ``cgroup_root`` stands for ``/`` when the mount points in mountinfo are followed. ``configured_bytes`` is the
    user's own budget. ``process`` gives the use of memory (``ProcessSource.latest``). Limits change in place, so
    ``latest()`` reads again after ``interval_seconds``.
    """

    def __init__(
        self,
        process: Callable[[], ProcessReading],
        *,
        configured_bytes: int | None = None,
        proc_root: str = "/proc",
        pid: int | None = None,
        cgroup_root: str = "/",
        bounds: PressureBounds = DEFAULT_BOUNDS,
        clock: Callable[[], float] = time.monotonic,
        interval_seconds: float = 10.0,
    ) -> None:
        self._process = process
        self._configured_bytes = configured_bytes
        self._proc_root = proc_root
        self._directory = f"{proc_root}/{'self' if pid is None else pid}"
        self._is_self = pid is None
        self._cgroup_root = cgroup_root
        self._bounds = bounds
        self._located: tuple[bytes | None, cgroups.MemoryCgroups] | None = None
        self.latest: Latest[LimitsReading] = Latest(self._read, interval_seconds, clock)

    def read(self) -> LimitsReading:
        """Read now: some 100 µs."""
        return self.latest.read()

    def reopen(self) -> None:
        """Forget what was read; in the child after a fork, which may be moved to a cgroup of its own."""
        self._located = None
        self.latest.drop()

    def utilization(self) -> float | None:
        """Use of the limit by the latest readings."""
        return utilization(self.latest(), self._process())

    def pressure(self) -> Pressure | None:
        share = self.utilization()
        return None if share is None else pressure_level(share, self._bounds)

    def _read(self) -> LimitsReading:
        found = self._cgroups()
        host_total, host_available = self._host()
        candidates: tuple[tuple[int | None, LimitKind], ...] = (
            (self._configured_bytes, "configured"),
            (cgroups.limit_v2(found.v2), "cgroup_v2"),
            (cgroups.limit_v1(found.v1), "cgroup_v1"),
            (self._address_space_limit(), "rlimit"),
            (host_total, "host"),
        )
        limits = tuple(Limit(size, kind) for size, kind in candidates if size)
        # Of equal ones the first: it is the more particular.
        smallest = min(limits, key=lambda limit: limit.limit_bytes, default=None)
        system = parse_stall(read_file(f"{self._proc_root}/pressure/memory"))
        return LimitsReading(
            limit_bytes=smallest.limit_bytes if smallest else None,
            kind=smallest.kind if smallest else None,
            limits=limits,
            high_bytes=cgroups.high_v2(found.v2),
            host_total=host_total,
            host_available=host_available,
            psi=(*_stalls("system", system), *_stalls("cgroup", cgroups.stalls(found.v2))),
        )

    def _cgroups(self) -> cgroups.MemoryCgroups:
        # mountinfo is long in containers, so it is read again only when the process has moved.
        cgroup = read_file(f"{self._directory}/cgroup")
        if self._located is None or self._located[0] != cgroup:
            mountinfo = read_file(f"{self._directory}/mountinfo")
            self._located = (cgroup, cgroups.locate(cgroup, mountinfo, self._cgroup_root))
        return self._located[1]

    def _host(self) -> tuple[int | None, int | None]:
        sizes = parse_sizes(read_file(f"{self._proc_root}/meminfo"))
        if "MemTotal" in sizes:
            return sizes["MemTotal"], sizes.get("MemAvailable")
        try:
            memory = psutil.virtual_memory()
        except (psutil.Error, OSError):
            return None, None
        return int(memory.total), int(memory.available)

    def _address_space_limit(self) -> int | None:
        data = read_file(f"{self._directory}/limits")
        if data is not None:
            return parse_address_space_limit(data)
        if sys.platform == "win32" or not self._is_self:
            return None
        import resource  # not on Windows

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        return None if soft == resource.RLIM_INFINITY else soft

    # --- metrics --------------------------------------------------------------------------------------------

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit this source's metrics on ``meter`` until the returned function is called."""
        latest = self.latest
        return observe_metrics(
            meter,
            gate,
            PART,
            {
                names.MEMORY_LIMIT: lambda: self._by_kind(latest(), latest().limit_bytes),
                names.PROCESS_MEMORY_UTILIZATION: lambda: self._by_kind(latest(), self.utilization()),
                names.MEMORY_PRESSURE: lambda: one(self.pressure()),
                names.PSI_STALL_TIME: self._observe_stalls,
                names.SYSTEM_MEMORY_LIMIT: lambda: one(latest().host_total),
                names.SYSTEM_MEMORY_AVAILABLE: lambda: one(latest().host_available if _on_linux() else None),
                names.SYSTEM_MEMORY_UTILIZATION: lambda: one(
                    latest().host_utilization, {names.SYSTEM_MEMORY_STATE: "used"}
                ),
            },
        )

    @staticmethod
    def _by_kind(reading: LimitsReading, value: float | None) -> tuple[Observation, ...]:
        return () if reading.kind is None else one(value, {names.LIMIT_KIND: reading.kind})

    def _observe_stalls(self) -> list[Observation]:
        return [
            Observation(stall.seconds, {names.PSI_SCOPE: stall.scope, names.PSI_KIND: stall.kind})
            for stall in self.latest().psi
        ]


def _stalls(scope: Literal["system", "cgroup"], seconds: dict[str, float]) -> list[Stall]:
    kinds: tuple[Literal["some", "full"], ...] = ("some", "full")
    return [Stall(scope, kind, seconds[kind]) for kind in kinds if kind in seconds]


def _on_linux() -> bool:
    """The metric of the available memory is Linux's by its name."""
    return sys.platform.startswith("linux")
