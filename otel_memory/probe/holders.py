"""Who holds an object: the module's global, the class, the cached function, the closure, the frame at its end.

Goes backwards from the object, level by level, by ``listing.referrers`` (which looks at every
object, so each level is one call for all targets, with a rest after it), until something with a name of its
own is reached. Owns the search; the wording is ``holder_names.py``'s. Runs none of the program's code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from otel_memory.probe import listing, sites
from otel_memory.probe.cycle_labels import type_name
from otel_memory.probe.holder_names import Holder, Names, Step, is_own
from otel_memory.probe.listing import Kept
from otel_memory.probe.referents import referents

MAX_LEVELS: Final = 12
MAX_WIDTH: Final = 24
"""Objects of one level that are followed, for each target."""
REST_TIMES: Final = 4.0
"""After each level the search rests so many times as long as it took."""
_LEVELS_AFTER_LOCAL: Final = 3

NOBODY: Final = Holder("unknown", "nothing that the collector knows of")
GARBAGE: Final = Holder("cycle", "only itself: a cycle that waits for the collector")


@dataclass(frozen=True, slots=True)
class Search:
    """The holders in the order of the targets, and what it cost."""

    holders: tuple[Holder, ...]
    pause_seconds: float
    gave_up: str | None = None


class _Trail:
    """One target's search."""

    __slots__ = ("after_local", "came_back", "found", "frontier", "local", "seen", "was_held")

    def __init__(self, thing: Any) -> None:
        self.frontier: list[Step] = Kept([Step(thing, None)])
        self.seen = {id(thing)}
        self.found: Holder | None = None
        self.local: Holder | None = None
        self.after_local = 0
        self.was_held = False
        self.came_back = False

    @property
    def open(self) -> bool:
        return self.found is None and bool(self.frontier) and self.after_local <= _LEVELS_AFTER_LOCAL

    def result(self) -> Holder:
        if self.found is not None:
            return self.found
        if self.local is not None:
            return self.local
        if self.frontier:
            return self.frontier[0].guess()
        return GARBAGE if self.came_back else NOBODY


def find(
    targets: Sequence[Any],
    *,
    max_pause_seconds: float,
    max_seconds: float = 8.0,
    stopping: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
    objects: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    cost_clock: Callable[[], float] = time.thread_time,
) -> Search:
    """Who holds each of ``targets`` (a list or tuple of the caller's, which doesn't count as a holder).

    ``objects``: how many the collector knows, about; where they are many, each look is cut up. Ends early, with what
    is known by then, where one look held the interpreter for longer than ``max_pause_seconds`` or all of them took
    longer than ``max_seconds``.
    """
    began, longest, gave_up = clock(), 0.0, None
    names = Names()
    trails = [_Trail(thing) for thing in targets]
    for _ in range(MAX_LEVELS):
        active = [trail for trail in trails if trail.open]
        if not active or stopping():
            break
        things = Kept(step.thing for trail in active for step in trail.frontier)
        turned = cost_clock()

        def rest() -> None:
            nonlocal turned
            sleep((cost_clock() - turned) * REST_TIMES / 2)
            turned = cost_clock()

        try:
            referrers, pause = listing.referrers(things, objects, rest, cost_clock)
        except listing.Interrupted as interrupted:
            gave_up = f"the search for holders was cut off: {interrupted}"
            break
        longest = max(longest, pause)
        mine = {id(things), id(targets), id(referrers), id(trails), id(active)}
        others = Kept(each for each in referrers if id(each) not in mine and not _is_ours(each))
        held = _held_by(others, {id(thing) for thing in things})
        del referrers, things
        for trail in active:
            _advance(trail, others, held, names)
        del others
        if pause > max_pause_seconds:
            gave_up = f"the search for holders was cut off: one look took {pause * 1000:.0f} ms"
            break
        if clock() - began > max_seconds:
            gave_up = f"the search for holders was cut off after {clock() - began:.1f} s"
            break
        sleep(min(0.25, pause * REST_TIMES))
    return Search(tuple(trail.result() for trail in trails), longest, gave_up)


def _is_ours(referrer: object) -> bool:
    kind = type(referrer)
    if kind is FrameType:
        return sites.is_ours(referrer.f_code.co_filename)  # type: ignore[attr-defined]
    return type_name(kind).startswith("otel_memory.probe.")


def _held_by(referrers: list[Any], wanted: set[int]) -> list[set[int]]:
    """For each referrer those of the ``wanted`` objects that it refers to."""
    return [wanted.intersection(map(id, referents(referrer))) for referrer in referrers]


def _preference(holder: Holder) -> tuple[int, bool, bool]:
    """The lowest is the name to tell: of a lasting kind, of the program, of the package that what it keeps is of."""
    keeper = holder.through or holder.name
    return holder.rank, not is_own(keeper), keeper.partition(".")[0] != holder.name.partition(".")[0]


def _advance(trail: _Trail, referrers: list[Any], held: list[set[int]], names: Names) -> None:
    """Go one level up: see whether an end is reached, and what to follow if not."""
    reached: list[Step] = []
    locals_found: list[Holder] = []
    for step in trail.frontier:
        local = names.local_of(step)
        if local is not None:
            locals_found.append(local)
        number = id(step.thing)
        for referrer, numbers in zip(referrers, held, strict=True):
            if number not in numbers:
                continue
            trail.was_held = True
            if id(referrer) in trail.seen:
                trail.came_back = True
                continue
            trail.seen.add(id(referrer))
            reached.append(Step(referrer, step))
    ends = [end for end in map(names.end, reached) if end is not None]
    # A suspended function's variable that was reached by what keeps the function is as good as any other name.
    lasting = [holder for holder in ends if holder.kind != "local" or holder.through is not None]
    locals_found += [holder for holder in ends if holder not in lasting]
    if lasting:
        trail.found = min(lasting, key=_preference)
        trail.frontier = []
        return
    # A local variable may be that of a method at work right now: what lasts longer is looked for a little further.
    for holder in locals_found:
        if trail.local is None or (holder.kind == "instance") > (trail.local.kind == "instance"):
            trail.local = holder
    if trail.local is not None:
        trail.after_local += 1
    following = [step for step in reached if not names.is_end(step.thing)]
    trail.frontier = Kept(following[:MAX_WIDTH])
