"""Which lines made what came to a growing container while allocations were traced.

A request that is under way keeps much that it will give back; what is in the growing container is kept. So where a
container is known to grow, the newest of its entries are asked for the lines that allocated them and what they refer
to. Only what was allocated within the trace counts, so what the entries share with others doesn't. Runs none of the
program's code.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from otel_memory.probe.sizes import own_size

Frames = tuple[tuple[str, int], ...]

MAX_ENTRIES: Final = 60
"""Of the newest entries of a container that are looked at."""
MAX_OBJECTS: Final = 3_000
_DEEPEST: Final = 8
_SCANNED: Final = 20_000
_NEVER: Final = (type, ModuleType, FunctionType, CodeType)


class Watched:
    """The growing containers, and how long they were when tracing began."""

    def __init__(self, containers: Sequence[Any]) -> None:
        self._containers = [thing for thing in containers if _length(thing) is not None]
        self.begin()

    def __bool__(self) -> bool:
        return bool(self._containers)

    def begin(self) -> None:
        """From now on what comes is new."""
        self._lengths = [_length(thing) or 0 for thing in self._containers]

    def added(self) -> tuple[Counter[Frames], int]:
        """Bytes by traceback of what came since, and how many new entries were allocated since."""
        found: Counter[Frames] = Counter()
        entries, seen = 0, set[int]()
        for thing, before in zip(self._containers, self._lengths, strict=True):
            new = (_length(thing) or 0) - before
            if new <= 0 and type(thing) not in (set, deque):
                continue
            for entry in _newest(thing, min(max(new, 1), MAX_ENTRIES)):
                bytes_before = found.total()
                _collect(entry, found, seen)
                entries += found.total() > bytes_before
        return found, entries


def _length(thing: Any) -> int | None:
    for base in (dict, list, set, deque):
        if issubclass(type(thing), base):
            return base.__len__(thing)
    return None


def _newest(thing: Any, count: int) -> list[tuple[Any, ...]]:
    kind = type(thing)
    try:
        if issubclass(kind, dict):
            if _length(thing) and not hasattr(dict, "__reversed__"):
                return []
            keys = list(islice(dict.__reversed__(thing), count))
            return [(key, dict.get(thing, key)) for key in keys if type(key).__hash__ in _PLAIN_HASHES] or [
                pair for pair in islice(reversed(dict.items(thing)), count)
            ]
        if issubclass(kind, list):
            return [(each,) for each in list.__getitem__(thing, slice(-count, None))]
        if issubclass(kind, deque):
            size = deque.__len__(thing)
            last = [deque.__getitem__(thing, -index - 1) for index in range(min(count, size))]
            first = [deque.__getitem__(thing, index) for index in range(min(count, size - len(last)))]
            return [(each,) for each in last + first]
        new = (each for each in islice(set.__iter__(thing), _SCANNED) if _traceback(each) is not None)
        return [(each,) for each in islice(new, count)]
    except (RuntimeError, IndexError):  # changed while it was read
        return []


_PLAIN_HASHES: Final[tuple[Any, ...]] = ()


def _traceback(thing: object) -> Frames | None:
    found: Frames | None = tracemalloc._get_object_traceback(thing)  # type: ignore[attr-defined]
    return found


def _collect(entry: tuple[Any, ...], found: Counter[Frames], seen: set[int]) -> None:
    """Sum up what the entry brought. Goes on below what was allocated in the trace, and below the entry itself."""
    waiting: list[tuple[Any, int]] = [(each, 0) for each in entry]
    while waiting and len(seen) < MAX_OBJECTS:
        thing, depth = waiting.pop()
        if id(thing) in seen or issubclass(type(thing), _NEVER):
            continue
        seen.add(id(thing))
        frames = _traceback(thing)
        if frames is not None:
            found[frames] += own_size(thing)
        elif depth > 1:
            continue  # older than the trace, or made of a spare one: shared with others, as a rule
        if depth < _DEEPEST:
            waiting += [(each, depth + 1) for each in gc.get_referents(thing)[:200]]
