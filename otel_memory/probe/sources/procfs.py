"""The formats of ``/proc``: bytes in, numbers out. Reads no file but the one it is asked for, keeps nothing.

Formats: proc(5), and Documentation/filesystems/proc.rst and Documentation/accounting/psi.rst of the kernel.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Statm(NamedTuple):
    """Pages. ``shared`` are resident pages backed by a file or by shared memory."""

    virtual: int
    resident: int
    shared: int


class Stat(NamedTuple):
    """From ``/proc/<pid>/stat``, of the whole process; ``start_ticks`` counts clock ticks since boot."""

    minor_faults: int
    major_faults: int
    threads: int
    start_ticks: int


def read_file(path: str) -> bytes | None:
    """The whole file, or None where it can't be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return None


def anonymous_bytes(path: str = "/proc/self/statm", page_size: int | None = None) -> int | None:
    """Resident bytes that no file and no shared memory backs; None where the system doesn't tell."""
    data = read_file(path)
    statm = None if data is None else parse_statm(data)
    try:
        return None if statm is None else (statm.resident - statm.shared) * (page_size or os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return None


def parse_statm(data: bytes) -> Statm | None:
    """None for anything but a statm of a living process: seven numbers, of which ``lib`` and ``dt`` are always 0."""
    fields = data.split()
    if len(fields) != 7 or fields[4] != b"0" or fields[6] != b"0":
        return None
    try:
        virtual, resident, shared = int(fields[0]), int(fields[1]), int(fields[2])
    except ValueError:
        return None
    return Statm(virtual, resident, shared) if resident > 0 else None


def parse_stat(data: bytes) -> Stat | None:
    """The command's name may hold blanks and parentheses, so fields are counted from the last one."""
    fields = data[data.rfind(b")") + 1 :].split()
    try:
        return Stat(int(fields[7]), int(fields[9]), int(fields[17]), int(fields[19]))
    except (IndexError, ValueError):
        return None


def parse_sizes(data: bytes | None) -> dict[str, int]:
    """Bytes by name from lines like ``VmHWM:  1748 kB`` (status, smaps_rollup, meminfo); other lines are left out."""
    sizes: dict[str, int] = {}
    for line in (data or b"").splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[2] == b"kB" and fields[0][-1:] == b":" and fields[1].isdigit():
            sizes[fields[0][:-1].decode("ascii", "replace")] = int(fields[1]) * 1024
    return sizes


def parse_stall(data: bytes | None) -> dict[str, float]:
    """Seconds that tasks have stalled since boot, by ``some`` and ``full``, from a pressure-stall file."""
    stalls: dict[str, float] = {}
    for line in (data or b"").splitlines():
        kind, _, rest = line.partition(b" ")
        _, found, total = rest.partition(b"total=")
        if kind in (b"some", b"full") and found and total.strip().isdigit():
            stalls[kind.decode()] = int(total) / 1e6
    return stalls


def parse_address_space_limit(data: bytes | None) -> int | None:
    """Soft RLIMIT_AS in bytes from ``/proc/<pid>/limits``; None where there is no limit."""
    for line in (data or b"").splitlines():
        if line.startswith(b"Max address space"):
            soft = line[len(b"Max address space") :].split()[:1]
            return int(soft[0]) if soft and soft[0].isdigit() else None
    return None
