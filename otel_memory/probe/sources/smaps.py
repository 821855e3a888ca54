"""``/proc/<pid>/smaps`` to resident bytes by what is mapped. Pure: takes the file's bytes, reads nothing.

What belongs to glibc's allocator and to threads is told by how glibc maps it: the main arena is ``[heap]``; a further
arena's heap begins at a multiple of 64 MiB (HEAP_MAX_SIZE) and is followed by its reserve without access; a thread's
stack comes right after its guard, and is either marked as kept from huge pages (Linux from 6.7 on) or no larger than a
stack: before that kernel it may have grown together with its neighbour, which is then taken for neither. Newer glibcs
may name both kinds, and the names are taken where they are there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

HEAP_MAX_SIZE: Final = 64 * 1024 * 1024
"""Of one heap of an arena other than the main one, on 64-bit systems; they are aligned to it."""

_MAPPING: Final = re.compile(
    rb"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<access>\S{4}) \S+ (?P<device>\S+) (?P<inode>\d+) *(?P<name>.*)$",
    re.MULTILINE,
)
_RSS: Final = re.compile(rb"^Rss: +(\d+) kB$", re.MULTILINE)
_ANONYMOUS: Final = re.compile(rb"^Anonymous: +(\d+) kB$", re.MULTILINE)
_FLAGS: Final = re.compile(rb"^VmFlags:(.*)$", re.MULTILINE)
_SHARED_MEMORY: Final = (b"/dev/shm/", b"/SYSV", b"/dev/zero", b"/memfd:")


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident bytes by kind of mapping; they add up to ``total``."""

    total: int = 0
    file: int = 0
    """Pages of files: code, data that was not written to, files mapped by the program."""
    shared: int = 0
    """Shared memory: anonymous shared mappings, ``/dev/shm``, System V segments, memfds."""
    c_arenas: int = 0
    """In the arenas of the C allocator, in use or not."""
    stacks: int = 0
    """Stacks of the threads."""
    anonymous: int = 0
    """Every other private page: Python's arenas, large C blocks, private copies of pages of files."""


def parse(text: bytes, stack_bytes: int = 8 * 1024 * 1024) -> Resident:
    """Sum up ``text``, the content of a ``smaps`` file. ``stack_bytes``: what a thread's stack takes at most.

    Raises:
        ValueError: it holds no mapping.
    """
    headers = list(_MAPPING.finditer(text))
    if not headers:
        raise ValueError("no mapping in it")
    sums = dict.fromkeys(("file", "shared", "c_arenas", "stacks", "anonymous"), 0)
    total = 0
    for index, header in enumerate(headers):
        until = headers[index + 1].start() if index + 1 < len(headers) else len(text)
        body = text[header.end() : until]
        resident = _kilobytes(_RSS, body)
        if not resident:
            continue
        total += resident
        if int(header["inode"]) and not header["name"].startswith(_SHARED_MEMORY):
            own = min(resident, _kilobytes(_ANONYMOUS, body))
            sums["file"] += resident - own
            sums["anonymous"] += own
            continue
        before = headers[index - 1] if index else None
        after = headers[index + 1] if index + 1 < len(headers) else None
        sums[_kind(header, body, before, after, stack_bytes)] += resident
    return Resident(total, **sums)


def _kind(
    header: re.Match[bytes],
    body: bytes,
    before: re.Match[bytes] | None,
    after: re.Match[bytes] | None,
    stack_bytes: int,
) -> str:
    name, access = header["name"], header["access"]
    if access[3:] == b"s" or name.startswith(_SHARED_MEMORY):
        return "shared"
    if name == b"[heap]" or name.startswith(b"[anon: glibc: malloc arena"):
        return "c_arenas"
    if name.startswith((b"[stack", b"[anon: glibc: pthread stack")):
        return "stacks"
    if name or not access.startswith(b"rw"):
        return "anonymous"
    start, end = int(header["start"], 16), int(header["end"], 16)
    if start % HEAP_MAX_SIZE == 0 and (end % HEAP_MAX_SIZE == 0 or _is_reserve(after, end)):
        return "c_arenas"
    flags = _FLAGS.search(body)
    marked = flags is not None and b" nh " in flags[1] + b" "
    if (marked or end - start <= stack_bytes) and _is_guard(before, start):
        return "stacks"
    return "anonymous"


def _is_reserve(after: re.Match[bytes] | None, end: int) -> bool:
    return after is not None and int(after["start"], 16) == end and after["access"].startswith(b"---")


def _is_guard(before: re.Match[bytes] | None, start: int) -> bool:
    return before is not None and int(before["end"], 16) == start and before["access"].startswith(b"---")


def _kilobytes(pattern: re.Pattern[bytes], body: bytes) -> int:
    found = pattern.search(body)
    return int(found[1]) * 1024 if found else 0
