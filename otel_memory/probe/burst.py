"""A burst of tracemalloc: which lines of the program allocate what stays.

A burst is cut into pieces of a fifth of a second with rests between them, so that no request meets a long slow time.
In each piece tracing begins with nothing known, so whatever it knows at the end was allocated within the piece and is
still alive. Requests that are under way at that moment are in it too; so each site is looked at twice, and only what
came between the two looks and lies on top of what was there at the first counts as growth. What came to containers
that are known to grow (``added.py``) is surer than that, and is told apart. Shares tracemalloc with everybody else
(``traced.py``), and bounds its own time, memory and pauses.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from otel_memory.probe import sites
from otel_memory.probe.added import Watched
from otel_memory.probe.listing import HOLD_SECONDS
from otel_memory.probe.traced import TRACING, SharedTracing
from otel_memory.probe.tracing_switch import LEAVE_SECONDS, SAFE_TO_STOP

SECONDS_A_TRACE: Final = 0.6e-6
"""Time that one live trace costs while a snapshot holds the interpreter; measured 0.3 µs, with room to spare."""
BYTES_A_TRACE: Final = 60
LOOK_EVERY_SECONDS: Final = 0.02
PIECE_SECONDS: Final = 0.2
REST_TIMES: Final = 4.0
"""After each piece the program has so many times as long to itself."""
DEEPER_FRAMES: Final = 8
"""Where the first pieces saw none of the program's own lines, only the library's below them, the others look deeper."""
_OFF_SECONDS: Final = 0.0 if SAFE_TO_STOP else LEAVE_SECONDS * 5
"""So long a burst waits until the piece before is quite off, where the next one is to see more frames."""
_MOST_TIMES: Final = 2
MAX_SITES: Final = 5
_OWN_LINE: Final = 4.0  # times as heavy as a library's is a line of the program
_LEAST_SHARE: Final = 0.02  # of all growth, that a site must have to be named
_MOST_LINES: Final = 2_000
_MOST_YOUNG: Final = 100_000

Frames = tuple[tuple[str, int], ...]
_Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Site:
    """A line of the program whose allocations stay."""

    path: str
    line: int
    function: str | None
    bytes_per_second: float

    def __str__(self) -> str:
        where = f"{sites.short_path(self.path)}:{self.line}"
        return where if self.function is None else f"{where} {self.function}"


@dataclass(frozen=True, slots=True)
class Burst:
    """What a burst found in ``seconds`` of tracing. ``growth`` (By/s) is that of all Python memory that stayed, named
    or not: of a program that tracing made slower, so rather too little."""

    seconds: float
    growth: float
    sites: tuple[Site, ...]
    gave_up: str | None = None
    ended_early: bool = False
    pause_seconds: float = 0.0
    """The longest time that one look held the interpreter."""
    added: tuple[tuple[Site, ...], ...] = ()
    """For each watched container the lines that made what came to it, the most first."""


def run(
    seconds: float,
    *,
    frames: int,
    max_pause_seconds: float,
    watched: Watched | None = None,
    rest_times: float = REST_TIMES,
    stopping: Callable[[], bool] = lambda: False,
    tracing: SharedTracing = TRACING,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
) -> Burst:
    """Trace for ``seconds`` in all and name the sites that grew; for up to twice as long where nothing came to the
    ``watched`` containers till then. Blocks the calling thread, and no other, for ``1 + rest_times`` times as long.

    ``frames`` of each allocation are kept, ``DEEPER_FRAMES`` where those are all a library's; the first of them that is
    the program's own is named. A piece ends early where a look would hold the interpreter for more than 10 ms or
    ``max_pause_seconds``, and the burst when ``stopping()`` says so.
    """
    if tracemalloc.is_tracing() and _traces() > max_pause_seconds / SECONDS_A_TRACE:
        most = int(max_pause_seconds / SECONDS_A_TRACE)
        return Burst(0.0, 0.0, (), f"tracemalloc is on already and knows more than {most:,} blocks")
    sums = _Sums(len(watched or ()))
    most = int(min(max_pause_seconds, HOLD_SECONDS) / SECONDS_A_TRACE)
    pieces = max(1, round(seconds / PIECE_SECONDS))
    while not stopping():
        use = tracing.begin(frames)
        began = clock()
        try:
            piece = _piece(seconds / pieces, most, watched, stopping, sleep, clock)
        finally:
            tracing.end(use)
        traced = clock() - began
        sums.add(piece, traced)
        # On a busy machine a piece takes longer than it should; there are fewer of them then.
        named = frames >= DEEPER_FRAMES or sums.names_own()
        done = sums.seconds >= seconds * (1 - 0.5 / pieces)
        if (done and named and sums.saw_additions()) or sums.seconds >= _MOST_TIMES * seconds:
            break
        sleep(rest_times * traced)
        if not named:
            until = clock() + _OFF_SECONDS
            while tracemalloc.is_tracing() and clock() < until and not stopping():
                sleep(LOOK_EVERY_SECONDS)
            if not tracemalloc.is_tracing():
                frames = DEEPER_FRAMES
                sums.begin_anew()
    return sums.burst(stopping())


@dataclass(frozen=True, slots=True)
class _Piece:
    """What was alive at the start, in the middle and at the end of a piece, and what came to the watched containers."""

    before: list[Any]
    middle: list[Any]
    end: list[Any]
    late_seconds: float
    added: list[Counter[Frames]]
    added_seconds: float
    standing: frozenset[_Place]
    ended_early: bool
    pause_seconds: float


def _piece(
    seconds: float,
    most: int,
    watched: Watched | None,
    stopping: Callable[[], bool],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> _Piece:
    pauses: list[float] = []
    if watched is not None:
        watched.begin()
    standing = _standing()
    began, known = clock(), _traces()
    before = _look(pauses)  # not empty where somebody else traces
    early = _wait(began + seconds / 2, known + most // 2, stopping, sleep, clock)
    _collect_young()
    middle_at, middle = clock(), _look(pauses)
    early = _wait(clock() + (middle_at - began), known + most, stopping, sleep, clock) or early
    _collect_young()
    ended, end = clock(), _look(pauses)
    added = watched.added() if watched is not None and tracemalloc.is_tracing() else []
    standing &= _standing()
    return _Piece(before, middle, end, ended - middle_at, added, clock() - began, standing, early, max(pauses))


def _standing() -> frozenset[_Place]:
    """The lines at which all threads stand, from the innermost frame to the outermost."""
    lines: set[_Place] = set()
    for top in list(sys._current_frames().values()):
        frame: FrameType | None = top
        while frame is not None and len(lines) < _MOST_LINES:
            lines.add((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back
    return frozenset(lines)


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


def _look(pauses: list[float]) -> list[Any]:
    """What is alive, as tracemalloc tells it. Notes in ``pauses`` how long it held the interpreter."""
    collections, began = _full_collections(), time.thread_time()
    raw: list[Any] = []
    if tracemalloc.is_tracing():
        raw = getattr(tracemalloc.take_snapshot().traces, "_traces", raw)
    took = time.thread_time() - began
    # A full collection that was due anyway may have come just here: its time is the collector's.
    pauses.append(took if _full_collections() == collections else 0.0)
    return raw


def _full_collections() -> int:
    return int(gc.get_stats()[-1]["collections"])


def _bytes_by_traceback(raw: list[Any]) -> dict[Frames, int]:
    sums: dict[int, list[Any]] = {}
    for trace in raw:  # (domain, size, ((file, line), …), …); equal tracebacks are one object
        size, frames = trace[1], trace[2]
        known = sums.get(id(frames))
        if known is None:
            sums[id(frames)] = [frames, size]
        else:
            known[1] += size
    return {tuple(frames): size for frames, size in sums.values()}


class _Sums:
    """What all pieces saw, by site."""

    def __init__(self, containers: int = 0) -> None:
        self.seconds = self.pause_seconds = 0.0
        self.ended_early = self._seen = False
        self._containers = containers
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was seen of sites: from now on they are told better."""
        self._late_seconds = self._added_seconds = 0.0
        self._early: Counter[_Place] = Counter()
        self._late: Counter[_Place] = Counter()
        self._added: list[Counter[_Place]] = [Counter() for _ in range(self._containers)]

    def add(self, piece: _Piece, seconds: float) -> None:
        """Count a piece in, in which tracing was on for ``seconds``."""
        self.seconds += seconds
        self.pause_seconds = max(self.pause_seconds, piece.pause_seconds)
        self.ended_early |= piece.ended_early
        self._seen |= bool(piece.end)
        self._late_seconds += piece.late_seconds
        before, middle, end = map(_bytes_by_traceback, (piece.before, piece.middle, piece.end))
        for frames in {*middle, *end}:
            site = _own_site(frames, piece.standing)
            if site is not None:
                was, then = before.get(frames, 0), middle.get(frames, 0)
                self._early[site] += then - was
                self._late[site] += end.get(frames, 0) - then
        self._added_seconds += piece.added_seconds
        for sums, found in zip(self._added, piece.added, strict=False):
            for frames, size in found.items():
                site = _own_site(frames, piece.standing)
                if site is not None:
                    sums[site] += size

    def saw_additions(self) -> bool:
        """Whether something came to a watched container, if there are any."""
        return not self._added or any(self._added)

    def names_own(self) -> bool:
        """Whether most of what stays comes from lines of the program itself."""
        kept = [*filter(None, self._added)] or [+self._late]
        own = sum(size for sums in kept for (path, _), size in sums.items() if not sites.is_library(path))
        return own * 2 >= sum(sums.total() for sums in kept)

    def burst(self, stopped: bool) -> Burst:
        """All of it."""
        added = tuple(_named(_rates(sums, self._added_seconds)) for sums in self._added)
        if stopped or not self._seen:
            gave_up = None if stopped else "tracemalloc was stopped, or nothing was allocated that stayed"
            return Burst(self.seconds, 0.0, (), gave_up, self.ended_early, self.pause_seconds, added)
        # What came in both halves grows steadily; what only one half saw may have been under way, and counts half.
        steady = {
            site: (late + max(0, min(late, self._early[site]))) / 2 for site, late in self._late.items() if late > 0
        }
        rates = _rates(steady, self._late_seconds)
        growth = sum(rates.values())
        return Burst(self.seconds, growth, _named(rates), None, self.ended_early, self.pause_seconds, added)


def _rates(sums: Mapping[_Place, float], seconds: float) -> dict[_Place, float]:
    return {site: size / seconds for site, size in sums.items()} if seconds > 0 else {}


def weight(path: str, rate: float) -> float:
    """The rate of a line, as it counts beside others: what a library keeps, it keeps for the program as a rule."""
    return rate if sites.is_library(path) else rate * _OWN_LINE


def _named(rates: Mapping[_Place, float]) -> tuple[Site, ...]:
    total = sum(rates.values())
    top = sorted(rates, key=lambda site: -weight(site[0], rates[site]))[:MAX_SITES]
    return tuple(
        Site(path, line, sites.function_at(path, line), rates[path, line])
        for path, line in top
        if rates[path, line] >= _LEAST_SHARE * total
    )


def _own_site(frames: Frames, standing: Collection[_Place] = ()) -> _Place | None:
    """The innermost frame that is the program's own, else the innermost of all; None where it is this package's.

    ``standing``: lines at which a thread stood all the time, such as the one that runs the server. All that a library
    does lies below them: they say nothing but of what they allocate themselves.
    """
    own = None
    for frame in frames:
        path = frame[0]
        if sites.is_ours(path) or path == tracemalloc.__file__:
            return None
        if own is None and not sites.is_library(path) and (frame is frames[0] or frame not in standing):
            own = frame
    return own or frames[0]
