"""Whether what has grown is enough to be told from an allocator's own unrest. Pure.

An allocator keeps, fragments and returns memory by itself: some per cent of a process come and go without any leak.
A rise within one window counts against a process only beyond that. A slow leak is not lost: it becomes material in a
coarser window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from otel_memory.analyzer.scoring import ScoreResult
from otel_memory.analyzer.windows import Floats
from otel_memory.humanize import format_bytes

LEAST_BYTES: Final = 1_000_000.0
LEAST_SHARE: Final = 0.04
"""A rise is material beyond the larger of these: bytes, and share of the memory in use."""
LEAST_GARBAGE_BYTES: Final = 16_000_000.0
LEAST_GARBAGE_SHARE: Final = 0.5
"""The same for a heap that is measured with its garbage, until a few collections were seen: V8 lets a small one grow
fourfold between two of them, Go and the JVM by half and more."""
LEAST_COLLECTIONS: Final = 3
COLLECTED_SHARE: Final = 0.02
"""A fall by that share from one sample to the next is a collection."""
CAPPED: Final = 0.45
"""What a rise is worth at most that is immaterial, or stays within a healthy history: below ``watch``."""
_LEAST_ENDS: Final = 3
_ENDS: Final = 8


def rise(times: Floats, values: Floats, since: float | None) -> float | None:
    """Bytes from the floor at ``since`` (s; None: the beginning) to the floor at the end; None where too few are known.

    Floors are the smallest of an eighth of the samples, so that neither a peak nor a dip is taken for the rise.
    """
    grown = values if since is None else values[times >= since]
    ends = max(_LEAST_ENDS, len(grown) // _ENDS)
    if len(grown) < 2 * ends:
        return None
    return float(grown[-ends:].min() - grown[:ends].min())


def cap_immaterial(result: ScoreResult, times: Floats, values: Floats, *, with_garbage: bool = False) -> ScoreResult:
    """The result, its score capped where the rise that it speaks of isn't material.

    ``with_garbage``: the values are those of a heap with what the next collection frees.
    """
    if result.score <= CAPPED or not len(values):
        return result
    risen = rise(times, values, result.since)
    with_garbage = with_garbage and _collections(values) < LEAST_COLLECTIONS
    least, share = (LEAST_GARBAGE_BYTES, LEAST_GARBAGE_SHARE) if with_garbage else (LEAST_BYTES, LEAST_SHARE)
    material = max(least, share * float(values[-1]))
    if risen is None or risen >= material:
        return result
    cause = "garbage that the next collection frees" if with_garbage else "the allocator's own unrest"
    reason = f"that is {format_bytes(risen)}; below {format_bytes(material)} it may be {cause}"
    return replace(result, score=CAPPED, reasons=(*result.reasons, reason))


def _collections(values: Floats) -> int:
    return int((values[1:] < (1 - COLLECTED_SHARE) * values[:-1]).sum())
