"""Remembers the attribute sets of data points by their bytes, because a process sends the same ones every second.

Reading two attributes through upb costs about three times as much as the rest of a point. Serializing the point
again is one call, and everything behind its time and value says which attribute set it has. A hit also hands out
the object of last time, so the series behind share one copy.

Owns nothing but the cache; which attributes are kept is the business of its caller.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Final

from otel_memory.analyzer.model import AttributeSet

MAX_CACHE_BYTES: Final = 2 * 2**20
MAX_KEY_BYTES: Final = 1024

# Tags (field number and wire type) of NumberDataPoint's fixed-width fields.
_START: Final = 0x11
_TIME: Final = 0x19
_DOUBLE: Final = 0x21
_INT: Final = 0x31

_WITH_START: Final = Struct("<BQBQBd").unpack_from
_WITHOUT_START: Final = Struct("<BQBd").unpack_from
_INT64: Final = Struct("<q").unpack_from


class AttributeCache:
    """Bytes behind a point's time and value -> its flags and attributes. Emptied when it reaches its bound."""

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: dict[bytes, tuple[int, AttributeSet]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, rest: bytes) -> tuple[int, AttributeSet] | None:
        """Flags and attributes, or None where they aren't known."""
        return self._known.get(rest)

    def put(self, rest: bytes, flags: int, attributes: AttributeSet) -> None:
        """Remembers what ``rest`` stands for, if it is short."""
        if len(rest) > MAX_KEY_BYTES:
            return
        if self._bytes + len(rest) > self._max_bytes:
            self.clear()
        self._known[rest] = (flags, attributes)
        self._bytes += len(rest)

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
