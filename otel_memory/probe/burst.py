"""A burst of tracemalloc: which lines of the program allocate what stays.

Tracing begins with nothing known, so whatever it knows at the end was allocated within the burst and is still alive.
Requests that are under way at that moment are in it too; so each site is looked at twice, and only what came between
the two looks and lies on top of what was there at the first counts as growth. Shares tracemalloc with everybody else
(``traced.py``), and bounds its own time, memory and pauses.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from otel_memory.probe import sites
from otel_memory.probe.traced import TRACING, SharedTracing

SECONDS_A_TRACE: Final = 0.6e-6
"""Time that one live trace costs while a snapshot holds the interpreter; measured 0.3 µs, with room to spare."""
BYTES_A_TRACE: Final = 60
LOOK_EVERY_SECONDS: Final = 0.05
MAX_SITES: Final = 5
_LEAST_SHARE: Final = 0.02  # of all growth, that a site must have to be named
_MOST_YOUNG: Final = 100_000

Frames = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A line of the program whose allocations stay. ``library``: where below it the memory was really asked for."""

    path: str
    line: int
    function: str | None
    bytes_per_second: float
    blocks_per_second: float
    library: str | None = None

    def __str__(self) -> str:
        where = f"{sites.short_path(self.path)}:{self.line}"
        return where if self.function is None else f"{where} {self.function}"


@dataclass(frozen=True, slots=True)
class Burst:
    """What a burst of ``seconds`` found. ``growth`` (By/s) is that of all Python memory that stayed, named or not."""

    seconds: float
    growth: float
    sites: tuple[Site, ...]
    gave_up: str | None = None
    ended_early: bool = False
    pause_seconds: float = 0.0
    """The longest time that one look held the interpreter."""


def run(
    seconds: float,
    *,
    frames: int,
    max_pause_seconds: float,
    stopping: Callable[[], bool] = lambda: False,
    tracing: SharedTracing = TRACING,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
) -> Burst:
    """Trace for ``seconds`` and name the sites that grew. Blocks the calling thread for that time, and no other.

    ``frames`` of each allocation are kept; the first of them that is the program's own is named. The burst ends early
    where a look would hold the interpreter for more than ``max_pause_seconds``, and when ``stopping()`` says so.
    """
    most = int(max_pause_seconds / SECONDS_A_TRACE)
    if tracemalloc.is_tracing() and _traces() > most:
        return Burst(0.0, 0.0, (), f"tracemalloc is on already and knows more than {most:,} blocks")
    pauses = [0.0]
    use = tracing.begin(frames)
    try:
        began = clock()
        before = _look(pauses)  # not empty where somebody else traces
        early = _wait(began + seconds / 2, most // 2, stopping, sleep, clock)
        _collect_young()
        middle_at, middle = clock(), _look(pauses)
        early = _wait(clock() + (middle_at - began), most, stopping, sleep, clock) or early
        _collect_young()
        ended, end = clock(), _look(pauses)
    finally:
        tracing.end(use)
    if stopping() or not end:
        gave_up = None if end else "tracemalloc was stopped, or nothing was allocated that stayed"
        return Burst(ended - began, 0.0, (), gave_up, early, max(pauses))
    return _judge(before, middle, end, middle_at - began, ended - middle_at, early, max(pauses))


def _traces() -> int:
    return tracemalloc.get_tracemalloc_memory() // BYTES_A_TRACE


def _wait(
    until: float, most: int, stopping: Callable[[], bool], sleep: Callable[[float], None], clock: Callable[[], float]
) -> bool:
    """Whether it ended before its time."""
    while clock() < until:
        if stopping() or _traces() > most:
            return True
        sleep(max(0.0, min(LOOK_EVERY_SECONDS, until - clock())))
    return False


def _collect_young() -> None:
    """Free the young garbage that waits for the collector, or it would be taken for growth. Not where collecting is
    switched off, nor where so much has gathered that it would be felt."""
    if not gc.isenabled():
        return
    threshold, counts = gc.get_threshold(), gc.get_count()
    if counts[0] + counts[1] * max(1, threshold[0]) <= _MOST_YOUNG:
        gc.collect(1)


def _look(pauses: list[float]) -> dict[Frames, tuple[int, int]]:
    """(bytes, blocks) that are alive, by traceback. Notes in ``pauses`` how long it held the interpreter."""
    if not tracemalloc.is_tracing():
        return {}
    began = time.thread_time()
    snapshot = tracemalloc.take_snapshot()
    pauses.append(time.thread_time() - began)
    raw: list[Any] = getattr(snapshot.traces, "_traces", None) or []
    sums: dict[int, list[Any]] = {}
    for trace in raw:  # (domain, size, ((file, line), …), …); equal tracebacks are one object
        size, frames = trace[1], trace[2]
        known = sums.get(id(frames))
        if known is None:
            sums[id(frames)] = [frames, size, 1]
        else:
            known[1] += size
            known[2] += 1
    merged: dict[Frames, tuple[int, int]] = {}
    for frames, size, count in sums.values():
        merged[tuple(frames)] = size, count
    return merged


def _judge(
    before: dict[Frames, tuple[int, int]],
    middle: dict[Frames, tuple[int, int]],
    end: dict[Frames, tuple[int, int]],
    first_seconds: float,
    second_seconds: float,
    early: bool,
    pause: float,
) -> Burst:
    early_bytes: Counter[tuple[str, int]] = Counter()
    late_bytes: Counter[tuple[str, int]] = Counter()
    late_blocks: Counter[tuple[str, int]] = Counter()
    library: dict[tuple[str, int], tuple[int, str]] = {}
    for frames, (size, count) in end.items():
        site = _own_site(frames)
        if site is None:
            continue
        before_size, before_count = before.get(frames, (0, 0))
        middle_size, _ = middle.get(frames, (before_size, before_count))
        early_bytes[site] += middle_size - before_size
        late_bytes[site] += size - middle_size
        late_blocks[site] += count - before_count
        if frames[0] != site and size > library.get(site, (0, ""))[0]:
            library[site] = size, f"{sites.short_path(frames[0][0])}:{frames[0][1]}"
    for frames, (size, _) in middle.items():  # what was there and has gone
        site = _own_site(frames)
        if site is not None and frames not in end:
            early_bytes[site] += size - before.get(frames, (0, 0))[0]
            late_bytes[site] -= size
    # What came in both halves grows steadily; what only one half saw may have been under way, and counts half.
    seconds = first_seconds + second_seconds
    rates = {
        site: (late + max(0, min(late, early_bytes[site]))) / 2 / second_seconds
        for site, late in late_bytes.items()
        if late > 0 and second_seconds > 0
    }
    total = sum(rates.values())
    top = sorted(rates, key=lambda site: -rates[site])[:MAX_SITES]
    named = [
        Site(
            path, line, sites.function_at(path, line), rates[path, line],
            max(0.0, late_blocks[path, line] / seconds),
            library.get((path, line), (0, None))[1],
        )
        for path, line in top
        if rates[path, line] >= _LEAST_SHARE * total
    ]  # fmt: skip
    return Burst(seconds, total, tuple(named), None, early, pause)


def _own_site(frames: Frames) -> tuple[str, int] | None:
    """The innermost frame that is the program's own, else the innermost of all; None where it is this package's."""
    own = None
    for frame in frames:
        path = frame[0]
        if sites.is_ours(path) or path == tracemalloc.__file__:
            return None
        if own is None and not sites.is_library(path):
            own = frame
    return own or frames[0]
