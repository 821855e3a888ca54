"""How long a container is, what its newest entries are, and how many bytes they take.

Owns the looking into containers and the sizes: of one object as the interpreter tells it, and of what only one entry
refers to, which is what goes when the entry goes. Runs none of the program's code.
"""

from __future__ import annotations

import io
import sys
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from otel_memory.probe.referents import referents as asked

LENGTHS: Final[tuple[tuple[type, Callable[[Any], int]], ...]] = (
    (dict, dict.__len__),
    (list, list.__len__),
    (set, set.__len__),
    (deque, deque.__len__),
)
BUFFERS: Final[tuple[tuple[type, Callable[[Any], int]], ...]] = (
    (bytearray, bytearray.__len__),
    (array, array.__sizeof__),
    (io.BytesIO, io.BytesIO.__sizeof__),
    (io.StringIO, io.StringIO.__sizeof__),
)
SHARED: Final = (type, ModuleType, CodeType)
"""Never a part of what refers to it."""
MAX_OBJECTS: Final = 2_000
"""Of one entry that are looked at; the rest is in proportion to nothing, and isn't counted."""
_MAX_WIDTH: Final = 500
_LOOKED_AT: Final = 50
_FEW: Final = 30
_UNSHARED: Final = 4
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
_COLLECTOR_HEAD: Final = 16
_ALIGNED: Final = 16


def own_size(thing: object) -> int:
    """Bytes of the object itself, with what the collector and the allocator add. Never by a ``__sizeof__`` of the
    program's own."""
    kind = type(thing)
    if kind.__flags__ & _HEAP_TYPE:
        base = next((base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE), object)
        size = int(base.__sizeof__(thing)) + _COLLECTOR_HEAD  # type: ignore[call-arg]
    else:
        size = sys.getsizeof(thing, 64)
    return -(-size // _ALIGNED) * _ALIGNED


def mean_entry(entries: Sequence[Sequence[Any]]) -> float:
    """Bytes that one of ``entries`` takes on average, with all that only it refers to; 0.0 for none.

    What two of the entries reach is shared, by them or by the whole program, and counts for neither.
    """
    reached = [_reached(entry) for entry in entries]
    times = Counter(number for sizes in reached for number in sizes)
    own = sum(size for sizes in reached for number, size in sizes.items() if times[number] == 1)
    return own / len(entries) if entries else 0.0


def mean_in_cycles(things: Sequence[Any]) -> float:
    """Bytes for each object of the type of ``things``, which nothing but cycles hold: all that they lead to goes with
    them."""
    sizes: dict[int, int] = {}
    kinds = set(map(type, things))
    alike: set[int] = set()
    for thing in things:
        sizes.update(_reached((thing,), lambda found: alike.add(id(found)) if type(found) in kinds else None))
    return sum(sizes.values()) / len(alike) if alike else 0.0


def _reached(entry: Sequence[Any], tell: Callable[[Any], object] = lambda _: None) -> dict[int, int]:
    """Bytes by id, of everything that the entry leads to."""
    sizes: dict[int, int] = {}
    waiting = deque(entry)
    while waiting and len(sizes) < MAX_OBJECTS:
        thing = waiting.popleft()
        if id(thing) in sizes or issubclass(type(thing), SHARED):
            continue
        sizes[id(thing)] = own_size(thing)
        tell(thing)
        entries = length(thing) or 0
        if entries > _MAX_WIDTH:
            sizes[id(thing)] += entries * _unshared(thing)
        elif len(waiting) < MAX_OBJECTS:
            waiting.extend(referents(thing)[:_MAX_WIDTH])
    return sizes


def _unshared(large: Any) -> int:
    """Bytes of one entry of a large container, on average, as far as nothing else refers to it."""
    total, looked = 0, 0
    for entry in newest(large, _LOOKED_AT):
        looked += 1
        waiting = list(entry)
        del entry
        while waiting:
            thing = waiting.pop()
            # Referred to by the container, by ``thing`` and by the call itself; a few more hold what is shared.
            if sys.getrefcount(thing) <= _UNSHARED and not issubclass(type(thing), SHARED):
                total += own_size(thing)
                if not length(thing) or (length(thing) or 0) < _FEW:
                    waiting += referents(thing)[:_FEW]
    return total // max(1, looked)


def referents(thing: Any) -> list[Any]:
    """What the thing refers to; of a function not its module, which it only works in."""
    if type(thing) is FunctionType:
        return [*(thing.__closure__ or ()), thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
    return asked(thing)


def length(thing: Any) -> int | None:
    """Entries of a container; None for what is none."""
    kind = type(thing)
    for base, count in LENGTHS:
        if issubclass(kind, base):
            return count(thing)
    return None


def newest(thing: Any, count: int) -> list[tuple[Any, ...]]:
    """Up to ``count`` of the entries that came last, the last first; of a dict keys with their values, of a set any.

    Empty where the container changed while it was read.
    """
    kind = type(thing)
    try:
        if issubclass(kind, dict):
            return list(islice(reversed(dict.items(thing)), count))
        if issubclass(kind, list):
            return [(each,) for each in reversed(list.__getitem__(thing, slice(-count, None)))]
        if issubclass(kind, deque):
            last = min(count, deque.__len__(thing))
            return [(deque.__getitem__(thing, -index - 1),) for index in range(last)]
        if issubclass(kind, set):
            return [(each,) for each in islice(set.__iter__(thing), count)]
    except (RuntimeError, IndexError):
        pass
    return []
