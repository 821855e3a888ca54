"""One process through psutil: macOS, Windows, and wherever ``/proc`` isn't mounted."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from otel_memory.probe.sources.process_readings import RAW_END, ProcessReading, Resident, SlowReading

R = TypeVar("R")


class PsutilProcess:
    """Process ``pid``, None being this one. A ``psutil.Process`` remembers its pid, so a child makes a new one."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.reopen()

    def reopen(self) -> None:
        self._highest_bytes = 0
        self._process: psutil.Process | None = _or_none(lambda: psutil.Process(self._pid))

    def close(self) -> None:
        self._process = None

    def rss_bytes(self) -> int | None:
        process = self._process
        return None if process is None else _or_none(lambda: int(process.memory_info().rss))

    @property
    def resident(self) -> Resident:
        return self

    def pread(self, _descriptor: int, _length: int, _offset: int) -> bytes:
        rss_bytes = self.rss_bytes()
        if rss_bytes is None:
            raise OSError("no resident memory to read")
        return b"%d%b" % (rss_bytes, RAW_END)

    descriptor = -1

    def rss_of(self, raw: bytes) -> int | None:
        return int(raw.removesuffix(RAW_END))

    def read(self) -> ProcessReading:
        process = self._process
        if process is None:
            return ProcessReading()
        memory = _or_none(process.memory_info)
        if memory is None:
            return ProcessReading()
        minor, major, mark_bytes = self._usage()
        # Windows keeps the mark itself.
        mark_bytes = max(mark_bytes, int(memory.rss), int(getattr(memory, "peak_wset", 0)))
        self._highest_bytes = max(self._highest_bytes, mark_bytes)
        return ProcessReading(
            rss_bytes=int(memory.rss),
            virtual_bytes=int(memory.vms),
            peak_bytes=self._highest_bytes,
            minor_faults=minor,
            major_faults=major,
            thread_count=_or_none(process.num_threads),
            uptime_seconds=_or_none(lambda: max(0.0, time.time() - process.create_time())),
        )

    def read_slow(self) -> SlowReading:
        process = self._process
        if process is None:
            return SlowReading()
        full = _or_none(process.memory_full_info)
        # Where the system doesn't tell (a Linux without smaps), psutil leaves it out.
        private_bytes: int | None = getattr(full, "uss", None)
        shared_bytes = None if full is None or private_bytes is None else max(0, int(full.rss) - private_bytes)
        # Windows has handles, which are something else.
        count: Callable[[], int] | None = getattr(process, "num_fds", None)
        return SlowReading(shared_bytes, private_bytes, None if count is None else _or_none(count))

    def _usage(self) -> tuple[int | None, int | None, int]:
        """Minor and major faults and the high-water mark in bytes; only the process itself can ask for them."""
        if sys.platform == "win32" or self._pid not in (None, os.getpid()):
            return None, None, 0
        import resource  # not on Windows

        usage = resource.getrusage(resource.RUSAGE_SELF)
        # macOS counts in bytes, the others in KiB.
        return usage.ru_minflt, usage.ru_majflt, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _or_none(read: Callable[[], R]) -> R | None:
    try:
        return read()
    except (psutil.Error, OSError):
        return None
