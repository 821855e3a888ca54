"""Live bytes by package, from tracemalloc where somebody has switched it on.

Never starts and never stops tracing. A block counts for the package whose line allocated it; blocks from before the
tracing began are not known to it. Taking a snapshot holds the interpreter's lock for 0.25 µs a traced block (a stand-
still of 0.25 s at a million) and takes some 120 bytes a block while it lasts; rolling it up costs 2 µs a block, beside
the program. So a process with more traced blocks than a bound is left alone, and the reading says so.
"""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Final

from otel_memory.probe.packages.package_names import FileNames

MAX_BLOCKS: Final = 300_000
_TRACER_BYTES_A_BLOCK: Final = 54
"""tracemalloc's own memory for one block, at least (its hash table; 3.11 to 3.13): so the count is never
underestimated."""


@dataclass(frozen=True, slots=True)
class PackageLive:
    """Live memory whose allocation was traced."""

    live_bytes: int
    blocks: int


@dataclass(frozen=True, slots=True)
class LiveReading:
    """``packages`` is None where nothing could be measured; ``reason`` then says why."""

    packages: dict[str, PackageLive] | None = None
    reason: str | None = None
    session: int = 0
    """Counts the times that tracing was begun or cleared: readings of different sessions can't be compared."""
    seconds: float = 0.0
    """What it took."""
    estimated_blocks: int | None = None
    """Upper bound of the traced blocks, by tracemalloc's own memory."""


@dataclass
class LiveBytes:
    """Measures on demand; keeps what tells one session of tracing from the next."""

    _session: int = 0
    _sentinel: object | None = None
    _files: FileNames = field(default_factory=FileNames)

    def read(self, max_blocks: int = MAX_BLOCKS) -> LiveReading:
        """Measure now, unless more than ``max_blocks`` may be traced. For a thread of its own: up to a second."""
        if not tracemalloc.is_tracing():
            return LiveReading(reason="tracemalloc is off")
        session = self.session()
        estimated = tracemalloc.get_tracemalloc_memory() // _TRACER_BYTES_A_BLOCK
        if estimated > max_blocks:
            reason = (
                f"up to {estimated} blocks are traced and the bound is {max_blocks}: a snapshot would take too long"
            )
            return LiveReading(reason=reason, session=session, estimated_blocks=estimated)
        began = time.perf_counter()
        try:
            grouped = tracemalloc.take_snapshot().statistics("filename")
        except RuntimeError:  # switched off meanwhile
            return LiveReading(reason="tracemalloc is off")
        sums: dict[str, list[int]] = {}
        for each in grouped:
            total = sums.setdefault(self._files.package(each.traceback[0].filename), [0, 0])
            total[0] += each.size
            total[1] += each.count
        packages = {name: PackageLive(size, count) for name, (size, count) in sums.items()}
        return LiveReading(packages, None, session, time.perf_counter() - began, estimated)

    def session(self) -> int:
        """The number of the present session of tracing. An object of our own is traced as long as it lasts."""
        sentinel = self._sentinel
        if sentinel is None or tracemalloc.get_object_traceback(sentinel) is None:
            self._sentinel = object()
            self._session += 1
        return self._session
