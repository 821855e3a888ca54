"""One process as ``/proc`` shows it. Keeps one descriptor open (``statm``); opens and closes the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from otel_memory.probe.sources.process_readings import ProcessReading, Resident, SlowReading
from otel_memory.probe.sources.procfs import parse_sizes, parse_stat, read_file
from otel_memory.probe.sources.statm import KeptStatm


def boot_seconds() -> float | None:
    """Seconds since boot by the clock that ``starttime`` counts on; a container's /proc/uptime may show another."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime(clock)


class ProcfsProcess:
    """Process ``pid`` (None: this one) below ``proc_root``."""

    def __init__(
        self,
        proc_root: str,
        pid: int | None,
        *,
        page_size: int,
        ticks_per_second: int,
        boot_clock: Callable[[], float | None],
    ) -> None:
        self._pid = pid
        self._proc_root = proc_root
        self._directory = f"{proc_root}/{'self' if pid is None else pid}"
        self._page_size = page_size
        self._ticks_per_second = ticks_per_second
        self._boot_clock = boot_clock
        self._closed = False
        self._highest_bytes = 0
        self._directory_size_counts: bool | None = None
        self._statm = KeptStatm(f"{self._directory}/statm", page_size)
        self.resident: Resident = self._statm

    def reopen(self) -> None:
        self._closed = False
        self._highest_bytes = 0
        self._statm.reopen()

    def close(self) -> None:
        self._closed = True
        self._statm.close()

    def read(self) -> ProcessReading:
        if self._closed:
            return ProcessReading()
        statm = self._statm.read()
        stat = parse_stat(read_file(f"{self._directory}/stat") or b"")
        if statm is None and stat is None:
            return ProcessReading()
        mark_bytes = parse_sizes(read_file(f"{self._directory}/status")).get("VmHWM", 0)
        rss_bytes = statm.resident * self._page_size if statm else None
        # The kernel's mark can be reset by anyone (clear_refs) and lags a little behind statm.
        self._highest_bytes = max(self._highest_bytes, mark_bytes, rss_bytes or 0)
        now = self._boot_clock()
        uptime = None if stat is None or now is None else max(0.0, now - stat.start_ticks / self._ticks_per_second)
        return ProcessReading(
            rss_bytes=rss_bytes,
            virtual_bytes=statm.virtual * self._page_size if statm else None,
            peak_bytes=self._highest_bytes or None,
            minor_faults=stat.minor_faults if stat else None,
            major_faults=stat.major_faults if stat else None,
            thread_count=stat.threads if stat else None,
            uptime_seconds=uptime,
        )

    def read_slow(self) -> SlowReading:
        if self._closed:
            return SlowReading()
        sizes = parse_sizes(read_file(f"{self._directory}/smaps_rollup"))
        if "Rss" in sizes:
            shared_bytes = sizes.get("Shared_Clean", 0) + sizes.get("Shared_Dirty", 0)
            private_bytes = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
            return SlowReading(shared_bytes, private_bytes, self._count_descriptors())
        statm = self._statm.read()
        if statm is None:
            return SlowReading(None, None, self._count_descriptors())
        return SlowReading(
            statm.shared * self._page_size,
            (statm.resident - statm.shared) * self._page_size,
            self._count_descriptors(),
        )

    def _count_descriptors(self) -> int | None:
        """From Linux 6.2 on the directory's size is the count, at a constant cost; before, it has to be listed. Other
        file systems have other ideas of a directory's size, so the two are compared once."""
        directory = f"{self._directory}/fd"
        try:
            if self._directory_size_counts:
                return os.stat(directory).st_size
            count = len(os.listdir(directory)) - self._listing_counts_itself()
            if self._directory_size_counts is None:
                self._directory_size_counts = os.stat(directory).st_size == count
            return count
        except OSError:
            return None

    def _listing_counts_itself(self) -> bool:
        """True if the listing held a descriptor of the process it lists; a recorded tree has no link ``self``."""
        return self._pid in (None, os.getpid()) and os.path.islink(f"{self._proc_root}/self")
