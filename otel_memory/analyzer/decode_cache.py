"""Remembers attribute sets of data points and resources by their bytes, because a process sends the same ones every
second.

Reading two attributes through upb costs about three times as much as the rest of a point. Serializing the point
again is one call, and everything behind its time and value says which attribute set it has. A hit also hands out
the object of last time, so the series behind share one copy.

Owns nothing but the cache; which attributes are kept is the business of its caller.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Final, Generic, TypeVar

from otel_memory.analyzer.model import AttributeSet

MAX_CACHE_BYTES: Final = 2 * 2**20
MAX_RESOURCE_CACHE_BYTES: Final = 16 * 2**20
"""Enough for some 30,000 resources."""
MAX_KEY_BYTES: Final = 4096

T = TypeVar("T")
Known = tuple[int, AttributeSet]
"""Flags and attributes of a point."""

# Tags (field number and wire type) of NumberDataPoint's fixed-width fields.
_START: Final = 0x11
_TIME: Final = 0x19
_DOUBLE: Final = 0x21
_INT: Final = 0x31

_WITH_START: Final = Struct("<BQBQBd").unpack_from
_WITHOUT_START: Final = Struct("<BQBd").unpack_from
_INT64: Final = Struct("<q").unpack_from


class Cache(Generic[T]):
    """Bytes -> what they stand for. Emptied when it reaches its bound."""

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: bytes) -> T | None:
        """What the bytes stand for, or None where it isn't known."""
        return self._known.get(key)

    def put(self, key: bytes, value: T) -> None:
        """Remembers what ``key`` stands for, if it is short."""
        if len(key) > MAX_KEY_BYTES:
            return
        if self._bytes + len(key) > self._max_bytes:
            self.clear()
        self._known[key] = value
        self._bytes += len(key)

    def clear(self) -> None:
        """Forgets everything."""
        self._known.clear()
        self._bytes = 0


def split(point: bytes) -> tuple[int, int, float, bytes] | None:
    """Start, time, value and the rest of a serialized ``NumberDataPoint``; None where it doesn't begin with a time
    and a value in the order of their field numbers, which no encoder has to keep."""
    try:
        if point[0] == _START:
            _, start, second, time, third, value = _WITH_START(point)
            rest = point[27:]
            begin = 19
        else:
            start = 0
            second, time, third, value = _WITHOUT_START(point)
            rest = point[18:]
            begin = 10
    except (error, IndexError):
        return None
    if second != _TIME:
        return None
    if third == _INT:
        value = _INT64(point, begin)[0]
    elif third != _DOUBLE:
        return None
    return start, time, value, rest
