"""Whether the floor of memory grows: sustained, still going on, and more than an allocator's unrest. Pure.

A window is cut into six parts, and each part is stood for by its lowest reading, so that peaks, a request's own
memory and garbage that is collected in time don't count. What must rise is the floor, part by part, and not by one
step: a cache that is filled at once, a library that is loaded and the high-water mark that a batch leaves behind are
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from otel_memory.probe.readings import Reading, Ring

Signal = Literal["anonymous", "heap", "blocks"]
"""Resident memory that no file backs (By), in use in the C allocator (By), Python's small blocks (count)."""

LEAST_BYTES: Final = 4 * 1024 * 1024
LEAST_BLOCKS: Final = 40_000
"""As many of the usual sizes as four mebibytes."""
LEAST_SHARE: Final = 0.02
"""A rise has to be more than the larger of the two: so much, and this share of what was there."""

WIDENINGS: Final = (1, 2, 4, 8)
"""How many times the window is looked at: a slow leak becomes material in a wider one."""
_PARTS: Final = 6
_RISING_STEPS: Final = 4  # of five
_LARGEST_STEP: Final = 0.6
_LATE_SHARE: Final = 0.2  # of the rise, in the last two of the five steps
_GOES_ON: Final = 0.25


@dataclass(frozen=True, slots=True)
class Rise:
    """The floor of ``signal`` rose from ``start`` to ``end`` within ``seconds``."""

    signal: Signal
    start: float
    end: float
    seconds: float

    @property
    def per_second(self) -> float:
        return (self.end - self.start) / self.seconds


def floor_rise(signal: Signal, readings: list[Reading], seconds: float) -> Rise | None:
    """The rise over the newest ``seconds`` if it is one as this module means it, else None."""
    if not readings:
        return None
    end = readings[-1].time
    begin, part_seconds = end - seconds, seconds / _PARTS
    if readings[0].time > begin + part_seconds / 2:
        return None  # not that long yet
    floors: list[float | None] = [None] * _PARTS
    for reading in readings:
        if reading.time >= begin:
            index = min(_PARTS - 1, int((reading.time - begin) / part_seconds))
            floor = floors[index]
            floors[index] = reading.value if floor is None else min(floor, reading.value)
    known = [floor for floor in floors if floor is not None]
    if len(known) < _PARTS:
        return None
    rise = known[-1] - known[0]
    least = LEAST_BLOCKS if signal == "blocks" else LEAST_BYTES
    if rise <= max(least, LEAST_SHARE * known[0]):
        return None
    steps = [later - earlier for earlier, later in pairwise(known)]
    if sum(step > 0 for step in steps) < _RISING_STEPS or max(steps) > _LARGEST_STEP * rise:
        return None
    if steps[-1] <= 0 or steps[-1] + steps[-2] < _LATE_SHARE * rise:
        return None
    return Rise(signal, known[0], known[-1], seconds - part_seconds)


class GrowthWatch:
    """Remembers the three signals of a process and says when one grows. Times are monotonic seconds.

    ``window_seconds`` is the shortest time over which the floor must have risen. What came within
    ``grace_seconds`` after the first reading is the program's start and isn't looked at.
    """

    def __init__(self, window_seconds: float, grace_seconds: float) -> None:
        self._window = window_seconds
        self._grace = grace_seconds
        longest = window_seconds * max(WIDENINGS)
        self._rings: dict[Signal, Ring] = {signal: Ring(longest) for signal in ("anonymous", "heap", "blocks")}
        self._since: float | None = None
        self._asked = 0

    def add(self, now: float, values: Mapping[Signal, float | None]) -> None:
        """Remember one reading of each signal; None is a gap."""
        if self._since is None:
            self._since = now + self._grace
        if now >= self._since:
            for signal, value in values.items():
                self._rings[signal].add(now, value)

    def rise(self) -> Rise | None:
        """A signal that grows, in the shortest window that shows it; resident memory before the allocators' own."""
        self._asked += 1
        for times in WIDENINGS:
            if self._asked % times:
                continue  # a window twice as wide is looked at half as often: reading it costs twice as much
            seconds = self._window * times
            for signal, ring in self._rings.items():
                latest = ring.latest
                if latest is None:
                    continue
                found = floor_rise(signal, ring.since(latest.time - seconds), seconds)
                if found is not None:
                    return found
        return None

    def goes_on(self, rise: Rise, since: float) -> bool:
        """Whether what rose has gone on rising since ``since``, at a quarter of its rate or more."""
        ring = self._rings[rise.signal]
        latest = ring.latest
        if latest is None or latest.time <= since:
            return False
        third = (latest.time - since) / 3
        floors = []
        for index in range(3):
            begin, end = since + index * third, since + (index + 1) * third
            values = [reading.value for reading in ring.since(begin) if reading.time <= end]
            if not values:
                return False
            floors.append(min(values))
        least = _GOES_ON * rise.per_second * third
        return floors[2] - floors[1] > least and floors[2] - floors[0] > 2 * least
