"""The cgroups of a process that bound its memory, and what they say. Reads below the mount points, keeps nothing.

Paths in ``/proc/<pid>/cgroup`` and roots in ``/proc/<pid>/mountinfo`` are both as the reader's cgroup namespace shows
them (cgroup_namespaces(7)): ``/`` inside a container, ``/docker/<id>`` where the namespace is the host's and only the
container's part is mounted, ``/../..`` for what lies above the namespace. Version 1:
Documentation/admin-guide/cgroup-v1/memory.rst of the kernel; version 2: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from otel_memory.probe.sources.procfs import parse_stall, read_file

NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes "none" as 2^63 less some pages, how many depends on the page size; no machine has an exbibyte."""


class Mount(NamedTuple):
    """A mounted cgroup hierarchy: ``root`` is the cgroup that shows at ``point``."""

    root: str
    point: str


@dataclass(frozen=True, slots=True)
class MemoryCgroups:
    """Directories of the process's own cgroup and of those around it, the innermost first; only existing ones."""

    v2: tuple[str, ...] = ()
    v1: tuple[str, ...] = ()


def locate(cgroup: bytes | None, mountinfo: bytes | None, cgroup_root: str = "/") -> MemoryCgroups:
    """Find the directories from the two files' contents. Mount points are looked for below ``cgroup_root``."""
    v2_path, v1_path = _paths(cgroup or b"")
    v2_mounts, v1_mounts = _mounts(mountinfo or b"")
    return MemoryCgroups(
        v2=_chain(v2_path, v2_mounts or [Mount("/", "/sys/fs/cgroup")], cgroup_root),
        v1=_chain(v1_path, v1_mounts or [Mount("/", "/sys/fs/cgroup/memory")], cgroup_root),
    )


def limit_v2(directories: Iterable[str]) -> int | None:
    """The smallest ``memory.max``: each level binds everything below it."""
    return _smallest(f"{directory}/memory.max" for directory in directories)


def high_v2(directories: Iterable[str]) -> int | None:
    """The smallest ``memory.high``, over which the kernel throttles and reclaims but doesn't kill."""
    return _smallest(f"{directory}/memory.high" for directory in directories)


def limit_v1(directories: tuple[str, ...]) -> int | None:
    """The process's own limit or the smallest around it, as the kernel has it in ``hierarchical_memory_limit``: that
    sees levels which aren't mounted, and leaves out parents that don't bind (``use_hierarchy`` 0)."""
    if not directories:
        return None
    own = directories[0]
    hierarchical = _field(read_file(f"{own}/memory.stat"), b"hierarchical_memory_limit")
    levels = directories if hierarchical is None else (own,)
    limits = [_smallest(f"{directory}/memory.limit_in_bytes" for directory in levels), _bounded(hierarchical)]
    return min((limit for limit in limits if limit is not None), default=None)


def stalls(directories: tuple[str, ...]) -> dict[str, float]:
    """Seconds that tasks of the innermost cgroup stalled for memory, by ``some`` and ``full``; version 2 only. The
    topmost cgroup has no ``cgroup.type``: it is the system, which has its own file."""
    if not directories or not os.path.exists(f"{directories[0]}/cgroup.type"):
        return {}
    return parse_stall(read_file(f"{directories[0]}/memory.pressure"))


def _paths(cgroup: bytes) -> tuple[str | None, str | None]:
    v2: str | None = None
    v1: str | None = None
    for line in cgroup.splitlines():
        _, _, rest = line.partition(b":")
        controllers, found, path = rest.partition(b":")
        if not found:
            continue
        if not controllers:
            v2 = os.fsdecode(path)
        elif b"memory" in controllers.split(b","):
            v1 = os.fsdecode(path)
    return v2, v1


def _mounts(mountinfo: bytes) -> tuple[list[Mount], list[Mount]]:
    v2: list[Mount] = []
    v1: list[Mount] = []
    for line in mountinfo.splitlines():
        before, found, after = line.partition(b" - ")
        fields, kinds = before.split(b" "), after.split(b" ")
        if not found or len(fields) < 5:
            continue
        mount = Mount(_unescaped(fields[3]), _unescaped(fields[4]))
        if kinds[0] == b"cgroup2":
            v2.append(mount)
        elif kinds[0] == b"cgroup" and b"memory" in kinds[-1].split(b","):
            v1.append(mount)
    return v2, v1


def _unescaped(field: bytes) -> str:
    """mountinfo writes blanks and backslashes as octal escapes."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field))


def _chain(path: str | None, mounts: Iterable[Mount], cgroup_root: str) -> tuple[str, ...]:
    if path is None:
        return ()
    points = list(mounts)
    candidates: list[str] = []
    for mount in points:
        below = _below(path, mount.root)
        if below is not None:
            candidates += (_join(cgroup_root, mount.point, *below[:depth]) for depth in range(len(below), -1, -1))
    if not candidates:
        # The two files speak of different namespaces. What is mounted in a container is its own cgroup.
        candidates = [_join(cgroup_root, mount.point) for mount in points[:1]]
    return tuple(directory for directory in dict.fromkeys(candidates) if os.path.isdir(directory))


def _below(path: str, root: str) -> list[str] | None:
    """The steps from ``root`` down to ``path``; None where that doesn't lead down, or through a level without name."""
    steps = [part for part in path.split("/") if part]
    start = [part for part in root.split("/") if part]
    if steps[: len(start)] != start or ".." in steps[len(start) :]:
        return None
    return steps[len(start) :]


def _join(cgroup_root: str, point: str, *steps: str) -> str:
    return os.path.join(cgroup_root, point.lstrip("/"), *steps)


def _smallest(paths: Iterable[str]) -> int | None:
    limits = (_bounded(_number(read_file(path))) for path in paths)
    return min((limit for limit in limits if limit is not None), default=None)


def _number(data: bytes | None) -> int | None:
    """None for ``max`` and for what can't be read."""
    text = (data or b"").strip()
    return int(text) if text.isdigit() else None


def _field(data: bytes | None, name: bytes) -> int | None:
    for line in (data or b"").splitlines():
        key, _, value = line.partition(b" ")
        if key == name:
            return _number(value)
    return None


def _bounded(limit: int | None) -> int | None:
    # 0 is no limit that a process could live under: a runtime's way to say "none".
    return limit if limit is not None and 0 < limit < NO_LIMIT_BYTES else None
