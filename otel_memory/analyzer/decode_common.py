"""What the two OTLP encodings have in common: the shapes their readers hand out, and the bounds on attributes.

Never judges a number: which points are taken is the business of ``decode``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_memory.analyzer.model import AttributeSet, AttributeValue

MAX_STRING: Final = 1024
"""Characters kept of a string in an attribute, of its key and of a log record's body."""
MAX_ATTRIBUTES: Final = 64
"""Attributes kept of a point or an event, and elements kept of an array value."""
MAX_RESOURCE_ATTRIBUTES: Final = 256
"""Attributes kept of a resource: more, because Kubernetes labels come before the attributes that identify."""
MAX_DEPTH: Final = 4
"""Levels kept of a nested value."""

EVENT_PREFIX: Final = "otel_memory."
LEGACY_EVENT_NAME: Final = "event.name"
"""Attribute that carried an event's name before log records had a field for it."""

# AggregationTemporality of metrics.proto.
DELTA: Final = 1
CUMULATIVE: Final = 2

Plain = str | bool | int | float | bytes | list["Plain"] | dict[str, "Plain"] | None
"""A value of an attribute as its encoding has it."""


@dataclass(slots=True)
class Notes:
    """What was cut while reading one request."""

    cut: int = 0


RawPoint = tuple[int, int, int, float | None, float | None, AttributeSet]
"""One data point as sent: time, start (nanoseconds), flags, value, total, attributes. Value None: it has none. Of a
histogram or a summary the value is the count and the total the sum, where there is one. A bare tuple: it is made
once for each point."""


class RawMetric(NamedTuple):
    """One metric. ``temporality`` None: a gauge. ``points`` is lazy, so that a skipped metric costs next to nothing."""

    name: str
    temporality: int | None
    monotonic: bool
    size: int
    points: Iterator[RawPoint]


class RawRecord(NamedTuple):
    """One log record that is an event of ours."""

    name: str
    time_ns: int
    severity_number: int
    attributes: Mapping[str, AttributeValue]
    body: str | None


class RawResource(NamedTuple):
    """What one resource sent; its attributes are read when asked for. None stands for a record that is no event of
    ours."""

    attributes: Callable[[], Mapping[str, AttributeValue]]
    metrics: Iterator[RawMetric] = iter(())
    records: Iterator[RawRecord | None] = iter(())


def cut(text: str, notes: Notes) -> str:
    """``text`` with at most ``MAX_STRING`` characters."""
    if len(text) <= MAX_STRING:
        return text
    notes.cut += 1
    return text[:MAX_STRING]


def bounded(value: Plain, notes: Notes) -> AttributeValue | None:
    """``value`` as the analyzer keeps it, or None for an empty one.

    An array becomes a tuple, of numbers where all its elements are finite numbers, else of strings; bytes and a
    key-value list become a string. A number that is not finite becomes a string too: NaN differs from itself, so a
    series named by it would be a new one at each export.
    """
    if isinstance(value, str):
        return cut(value, notes)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        numbers = [one for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        if len(numbers) == len(value) and all(map(math.isfinite, numbers)):
            return tuple(numbers)
        return tuple(text(element, notes) for element in value)
    if isinstance(value, dict | bytes):
        return text(value, notes)
    return value


def attribute_set(pairs: list[tuple[str, AttributeValue]]) -> AttributeSet:
    """Sorted by key; of a key that is there twice the last one counts."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        pairs = list(unique.items())
    pairs.sort()  # the keys differ, so values of different types are never compared
    return tuple(pairs)


def body_text(value: Plain, notes: Notes) -> str | None:
    """A log record's body; None for an empty one."""
    return None if value is None else text(value, notes)


def text(value: Plain, notes: Notes) -> str:
    """Any value as a string: bytes in hex, what has parts as JSON."""
    if isinstance(value, str):
        return cut(value, notes)
    if isinstance(value, bytes):
        return cut(value[: MAX_STRING // 2 + 1].hex(), notes)
    return cut(json.dumps(value, default=bytes.hex, ensure_ascii=False), notes)
