"""A census of the living objects: how many of each type, and which containers are how long.

Two censuses some time apart say what grows. Owns the counting: in chunks, giving way to the program's threads between
them, within a bound on the one pause that can't be cut up (listing the objects) and on the whole time. It runs none
of the program's code and keeps no object but those that it hands out.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from otel_memory.probe import sizes
from otel_memory.probe.cycle_labels import type_name
from otel_memory.probe.listing import Interrupted, Kept, Listing
from otel_memory.probe.referents import referents

LEAST_ENTRIES: Final = 16
LEAST_BUFFER: Final = 64 * 1024
"""A container is remembered from so many entries on, a buffer from so many bytes on."""
MAX_CONTAINERS: Final = 50_000
MAX_GROWN: Final = 16
SECONDS_AN_OBJECT: Final = 40e-9
"""What listing one object costs; measured 15 ns, with room to spare for a slower machine."""
TRACKED_SHARE: Final = 0.5
"""Objects that the collector knows for each block of Python's allocator, until a census has counted them."""
_LOOKED_INTO: Final = 10_000
_GIVE_WAY_EVERY: Final = 5
_SAMPLES: Final = 12
_UNKNOWN_SIZE: Final = 64

_LENGTHS: Final = (
    *((kind, length, LEAST_ENTRIES) for kind, length in sizes.LENGTHS),
    *((kind, length, LEAST_BUFFER) for kind, length in sizes.BUFFERS),
)
_BUFFERS: Final = tuple(kind for kind, _ in sizes.BUFFERS)
_SILENT: Final = frozenset(map(id, (dict, bytearray, array)))
"""Types whose objects the collector may not know, found through who refers to them."""


@dataclass(frozen=True, slots=True)
class Grown:
    """A container that has grown by ``entries`` between two censuses (bytes where it is a buffer)."""

    kept: Kept = field(repr=False)
    """The container alone."""
    entries: int
    size: int
    estimated_bytes: int
    """``entries`` times the mean size of the newest of them, with all that only one of them refers to."""

    @property
    def container(self) -> Any:
        """The container itself; None in the child of a fork."""
        return self.kept[0] if self.kept else None

    @property
    def what(self) -> str:
        """Its type, and that of what is in it: ``list of shop.Order``."""
        name = type_name(type(self.container))
        if self.is_buffer:
            return f"{name} (bytes)"
        items = sizes.newest(self.container, 1)
        return f"{name} of {type_name(type(items[0][-1]))}" if items else name

    @property
    def is_buffer(self) -> bool:
        return issubclass(type(self.container), _BUFFERS)


@dataclass(frozen=True, slots=True)
class Census:
    """One count. ``pause_seconds``: the longest time that it held the interpreter in one piece."""

    objects: int
    blocks: int
    """Of Python's allocator, at that time."""
    counts: dict[str, int]
    containers: dict[int, tuple[int, int]] = field(repr=False)
    """(length, id of the type) by id, for comparing with the next census only."""
    grown: tuple[Grown, ...] = field(repr=False)
    pause_seconds: float
    duration_seconds: float
    gave_up: str | None = None


def expected_pause(known: Census | None) -> float:
    """Seconds that listing all objects would hold the interpreter: by the last census, or by what is usual."""
    blocks: int = getattr(sys, "getallocatedblocks", lambda: 0)()
    share = TRACKED_SHARE if known is None or not known.blocks else known.objects / known.blocks
    return blocks * share * SECONDS_AN_OBJECT


def take(
    *,
    max_pause_seconds: float,
    previous: Census | None = None,
    max_seconds: float = 10.0,
    extra: Iterable[object] = (),
    stopping: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
    cost_clock: Callable[[], float] = time.thread_time,
) -> Census:
    """Count now. With ``previous`` also say which containers have grown since.

    Gives up beforehand where the pause would be longer than ``max_pause_seconds``, and in the middle after
    ``max_seconds``; ``gave_up`` says so. ``extra``: objects that refer to something and that the collector doesn't
    list (frames that run).
    """
    began = clock()
    pause = expected_pause(previous)
    if pause > max_pause_seconds:
        return _none(
            f"too many objects for a census: listing them would hold the interpreter for about {pause * 1000:.0f} ms, "
            f"and {max_pause_seconds * 1000:.0f} ms are allowed"
        )
    blocks: int = getattr(sys, "getallocatedblocks", lambda: 0)()
    by_type: Counter[type] = Counter()
    lengths: dict[type, tuple[Callable[[Any], int], int] | None] = {}
    containers: dict[int, tuple[int, int]] = {}
    grown: dict[int, tuple[int, int, Any]] = {}
    known = {} if previous is None else previous.containers
    rounds, gave_up = 0, None

    def measure(thing: Any, kind: type) -> int:
        """The length of a container; 0 for anything else."""
        how = lengths[kind]
        if how is None:
            return 0
        length, least = how[0](thing), how[1]
        if length >= least and len(containers) < MAX_CONTAINERS:
            number = id(thing)
            containers[number] = length, id(kind)
            before = known.get(number)
            if before is not None and before[1] == id(kind) and length - before[0] >= max(8, before[0] // 100):
                grown[number] = length - before[0], length, thing
        return length

    def count(chunk: list[Any]) -> None:
        kinds = list(map(type, chunk))
        by_type.update(kinds)
        for kind in set(kinds):
            if kind not in lengths:
                lengths[kind] = _length_of(kind)
        small = [thing for thing, kind in zip(chunk, kinds, strict=True) if not _too_long(measure(thing, kind), thing)]
        for thing in referents(*small):
            kind = type(thing)
            if id(kind) in _SILENT and not gc.is_tracked(thing):
                if kind not in lengths:
                    lengths[kind] = _length_of(kind)
                measure(thing, kind)

    with Listing(extra, cost_clock) as listing:
        total, pause = listing.total, listing.pause_seconds
        try:
            for chunk in listing:
                count(chunk)
                rounds += 1
                if rounds % _GIVE_WAY_EVERY == 0:
                    sleep(0.001)
                    if stopping() or clock() - began > max_seconds:
                        seen = total - listing.left
                        gave_up = f"the census was cut off after {clock() - began:.1f} s: {seen} of {total} objects"
                        break
        except Interrupted as interrupted:
            gave_up = f"the census was cut off: {interrupted}"
            by_type.clear()
            lengths.clear()
            containers.clear()
            grown.clear()
    counts: Counter[str] = Counter()
    for kind, number in by_type.items():
        counts[type_name(kind)] += number
    ranked = sorted(grown.values(), key=lambda each: -_rough(each[2], each[0]))[:MAX_GROWN]
    grown.clear()
    found = [Grown(Kept([thing]), entries, size, _bytes_of(thing, entries)) for entries, size, thing in ranked]
    found.sort(key=lambda each: -each.estimated_bytes)
    return Census(total, blocks, dict(counts), containers, tuple(found), pause, clock() - began, gave_up)


def _none(gave_up: str) -> Census:
    return Census(0, 0, {}, {}, (), 0.0, 0.0, gave_up)


def _length_of(kind: type) -> tuple[Callable[[Any], int], int] | None:
    mro = type.__dict__["__mro__"].__get__(kind)
    for base, length, least in _LENGTHS:
        if base in mro:
            return length, least
    return None


def _too_long(length: int, thing: object) -> bool:
    """What refers to so much that asking it for all of it would be felt."""
    return length > _LOOKED_INTO or (type(thing) is tuple and len(thing) > _LOOKED_INTO)


def _rough(thing: Any, entries: int) -> int:
    """Bytes of the new entries by what one of them takes, without looking far: for a first choice."""
    if issubclass(type(thing), _BUFFERS):
        return entries
    items = sizes.newest(thing, 1)
    return entries * sum(map(_near_size, items[0])) if items else entries * _UNKNOWN_SIZE


def _near_size(thing: object) -> int:
    """Of a thing and of what it refers to directly."""
    held = [each for each in referents(thing)[:20] if not issubclass(type(each), sizes.SHARED)]
    return sum(map(sizes.own_size, [thing, *held]))


def _bytes_of(thing: Any, entries: int) -> int:
    """Bytes of the new entries: as many times what the newest take on average, and their room in the container."""
    if issubclass(type(thing), _BUFFERS):
        return entries
    room = sizes.own_size(thing) / max(1, sizes.length(thing) or 1)
    return int(entries * (sizes.mean_entry(sizes.newest(thing, min(entries, _SAMPLES))) + room))
