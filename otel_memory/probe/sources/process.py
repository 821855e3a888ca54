"""The source ``process``: memory, faults, threads, descriptors and uptime of one process.

Owns the cadence and the metrics. How a process is read is in ``procfs_process`` and, where there is no ``/proc``, in
``psutil_process``.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable

from opentelemetry.metrics import Meter, Observation

from otel_memory import names
from otel_memory.probe.sources import Gate, Undo, observe_metrics, one
from otel_memory.probe.sources.cadence import Budget, Latest
from otel_memory.probe.sources.process_readings import ProcessReader, ProcessReading, SlowReading
from otel_memory.probe.sources.procfs_process import ProcfsProcess, boot_seconds
from otel_memory.probe.sources.psutil_process import PsutilProcess
from otel_memory.version import __version__

__all__ = ["PART", "ProcessReading", "ProcessSource", "SlowReading"]

PART = "process"

_MINOR = {names.PAGING_FAULT_TYPE: "minor"}
_MAJOR = {names.PAGING_FAULT_TYPE: "major"}


class ProcessSource:
    """Reads this process, or process ``pid`` below ``proc_root``; through psutil where that isn't a ``/proc``.

    ``rss()`` is resident bytes now, about one ``pread``, no lock, never raises; ``resident`` is the same reading in two
    steps, for decorated calls.
    ``latest()`` is the last reading, made anew when it is ``fresh_seconds`` old. ``latest_slow()`` is the last slow
    reading, made anew after ``slow_interval_seconds``, later where it turned out to be expensive.
    After a fork call ``reopen()`` in the child: until then everything is the parent's.
    """

    def __init__(
        self,
        proc_root: str = "/proc",
        pid: int | None = None,
        *,
        page_size: int | None = None,
        ticks_per_second: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        boot_clock: Callable[[], float | None] = boot_seconds,
        fresh_seconds: float = 1.0,
        slow_interval_seconds: float = 30.0,
        wiped_peak: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._pid = pid
        self._wiped_peak = wiped_peak
        self._reader: ProcessReader = (
            ProcfsProcess(
                proc_root,
                pid,
                page_size=page_size or _sysconf("SC_PAGE_SIZE", 4096),
                ticks_per_second=ticks_per_second or _sysconf("SC_CLK_TCK", 100),
                boot_clock=boot_clock,
            )
            if os.path.exists(f"{proc_root}/{'self' if pid is None else pid}/statm")
            else PsutilProcess(pid)
        )
        self.resident = self._reader.resident
        self.rss: Callable[[], int | None] = self.resident.rss_bytes
        self.latest: Latest[ProcessReading] = Latest(self._reader.read, fresh_seconds, clock)
        self._slow_budget = Budget(slow_interval_seconds, clock=clock)
        self._slow: SlowReading | None = None
        self._host_name = socket.gethostname()

    def reopen(self) -> None:
        """Start over: in the child after a fork, or after ``close()``. Forgets what was read before."""
        self._reader.reopen()
        self.latest.drop()
        self._slow = None
        self._slow_budget.reset()
        self._host_name = socket.gethostname()

    def close(self) -> None:
        """Hold nothing open any more. Idempotent; readings are None from now on."""
        self._reader.close()

    def read(self) -> ProcessReading:
        """Read now."""
        return self.latest.read()

    def read_slow(self) -> SlowReading:
        """Read now what may take milliseconds in a process of many gigabytes."""
        self._slow = slow = self._slow_budget.run(self._reader.read_slow)
        return slow

    def latest_slow(self) -> SlowReading:
        """The last slow reading, made anew when its time has come."""
        slow = self._slow
        return self.read_slow() if slow is None or self._slow_budget.due() else slow

    def peak_bytes(self) -> int | None:
        """Highest resident bytes: the kernel's mark, or one that was wiped out since (``wiped_peak``)."""
        known = [peak for peak in (self.latest().peak_bytes, self._wiped_peak()) if peak is not None]
        return max(known, default=None)

    def register(self, meter: Meter, gate: Gate) -> Undo:
        """Emit this source's metrics on ``meter`` until the returned function is called."""
        latest, slow = self.latest, self.latest_slow
        return observe_metrics(
            meter,
            gate,
            PART,
            {
                names.PROCESS_MEMORY_USAGE: lambda: one(latest().rss_bytes),
                names.PROCESS_MEMORY_VIRTUAL: lambda: one(latest().virtual_bytes),
                names.PROCESS_PAGING_FAULTS: self._observe_faults,
                names.PROCESS_THREAD_COUNT: lambda: one(latest().thread_count),
                names.PROCESS_FD_COUNT: lambda: one(slow().fd_count),
                names.PROCESS_UPTIME: lambda: one(latest().uptime_seconds),
                names.PROCESS_INFO: self._observe_info,
                names.MEMORY_PEAK: lambda: one(self.peak_bytes()),
                names.MEMORY_SHARED: lambda: one(slow().shared_bytes),
                names.MEMORY_PRIVATE: lambda: one(slow().private_bytes),
            },
        )

    def _observe_faults(self) -> tuple[Observation, ...]:
        reading = self.latest()
        return (
            *one(reading.minor_faults, _MINOR),
            *one(reading.major_faults, _MAJOR),
        )

    def _observe_info(self) -> tuple[Observation, ...]:
        attributes: dict[str, str | int] = {
            names.PROCESS_PID: os.getpid() if self._pid is None else self._pid,
            names.PROCESS_RUNTIME_NAME: platform.python_implementation().lower(),
            names.PROCESS_RUNTIME_VERSION: platform.python_version(),
            names.HOST_NAME: self._host_name,
            names.PROBE_VERSION: __version__,
        }
        return one(1, attributes)


def _sysconf(name: str, default: int) -> int:
    try:
        return os.sysconf(name)
    except (AttributeError, ValueError, OSError):
        return default
