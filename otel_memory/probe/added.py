"""Which lines made what came to a growing container while allocations were traced.

A request that is under way keeps much that it will give back; what is in the growing container is kept. So where a
container is known to grow, the newest of its entries are asked for the lines that allocated them and what they refer
to. Only what was allocated within the trace counts, so what the entries share with others doesn't. Runs none of the
program's code.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

from otel_memory.probe import sizes
from otel_memory.probe.listing import Kept

Frames = tuple[tuple[str, int], ...]

MAX_ENTRIES: Final = 60
"""Of the newest entries of a container that are looked at."""
MAX_OBJECTS: Final = 3_000
"""Of each container that are looked at."""
_DEEPEST: Final = 8
_MANAGED_DICT: Final = 1 << 4 if sys.version_info < (3, 12) else 0
"""Py_TPFLAGS_MANAGED_DICT: of such objects ``tracemalloc`` can't say where they were made before CPython 3.12, because
it looks for them at a wrong address. What they refer to is asked for all the same."""
_SCANNED: Final = 5_000
"""Entries of a set that are looked through for new ones: it doesn't tell which came last."""


class Watched:
    """The growing containers, and how long they were when tracing began."""

    def __init__(self, containers: Sequence[Any] = ()) -> None:
        self._containers = Kept(containers)
        self.begin()

    def __len__(self) -> int:
        return len(self._containers)

    def begin(self) -> None:
        """From now on what comes is new."""
        self._lengths = [sizes.length(thing) or 0 for thing in self._containers]

    def added(self) -> list[Counter[Frames]]:
        """Bytes by traceback of what came to each container since; in the order of the containers."""
        return [_came_to(thing, before) for thing, before in zip(self._containers, self._lengths, strict=True)]

    def let_go(self) -> None:
        """Keep none of the containers alive any longer."""
        self._containers.clear()
        self._lengths.clear()


def _came_to(thing: Any, before: int) -> Counter[Frames]:
    found: Counter[Frames] = Counter()
    new = (sizes.length(thing) or 0) - before
    seen: set[int] = set()
    entries = 0
    # A deque with a bound loses as many as it gets; nothing is new there that the trace doesn't know.
    count = min(max(new, 1), MAX_ENTRIES)
    for entry in _new_entries(thing, count):
        if len(seen) >= MAX_OBJECTS:
            break
        _collect(entry, found, seen)
        entries += 1
    if entries and new > entries:  # those that weren't looked at are like those that were
        for frames in found:
            found[frames] = found[frames] * new // entries
    return found


def _new_entries(thing: Any, count: int) -> list[tuple[Any, ...]]:
    if not issubclass(type(thing), set):
        return sizes.newest(thing, count)
    return [entry for entry in sizes.newest(thing, _SCANNED) if _is_new(entry[0])][:count]


def _is_new(thing: object) -> bool:
    # A small object that was made of a spare one is not known to the trace, but what it refers to is.
    return _traceback(thing) is not None or any(_traceback(each) for each in sizes.referents(thing)[:5])


def _traceback(thing: object) -> Frames | None:
    """Where the object was allocated, if that was within the trace."""
    found: Frames | None = tracemalloc._get_object_traceback(thing)  # type: ignore[attr-defined]
    return found


def _collect(entry: tuple[Any, ...], found: Counter[Frames], seen: set[int]) -> None:
    """Sum up what the entry brought. Goes on below what was allocated in the trace, and below the entry itself."""
    waiting: deque[tuple[Any, int]] = deque((each, 0) for each in entry)
    while waiting and len(seen) < MAX_OBJECTS:
        thing, depth = waiting.popleft()
        if id(thing) in seen or issubclass(type(thing), sizes.SHARED):
            continue
        seen.add(id(thing))
        frames = _traceback(thing)
        if frames is not None:
            found[frames] += sizes.own_size(thing)
        elif depth > 1 and not type(thing).__flags__ & _MANAGED_DICT:
            continue  # older than the trace, or made of a spare one: shared with others, as a rule
        if depth < _DEEPEST:
            waiting.extend((each, depth + 1) for each in sizes.referents(thing)[:200])
