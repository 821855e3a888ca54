"""How the points of one metric become one number: levels summed over attribute sets, increments added up.

Owns the way from a point to a sample of a window. Never decides which metric counts (``roles``) nor which source
of a role is used (``series``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from otel_memory import names
from otel_memory.analyzer.model import AttributeValue, PointKind
from otel_memory.analyzer.windows import Counted, Level, Reset, Window

NO_ROUTE: Final = "(no route)"
_NEVER: Final = float("-inf")


class Sum:
    """A level that is the sum of its attribute sets (memory pools, kinds of heap)."""

    __slots__ = ("window", "priority", "_parts", "_before")

    def __init__(self, levels: tuple[Level, ...], priority: int = 0) -> None:
        self.window = Window("minimum", levels)
        self.priority = priority
        self._parts: list[LevelFeed] = []
        self._before = _NEVER

    def feed(self) -> LevelFeed:
        part = LevelFeed(self)
        self._parts.append(part)
        return part

    def flush(self, time: float) -> None:
        window = self.window
        if len(self._parts) == 1:
            window.put(time, self._parts[0].value)
            return
        # A set that this request lacks is bridged once (a batch may be cut anywhere), then taken for gone.
        if time > window.last_time:
            self._before = window.last_time
        oldest = self._before
        window.put(time, sum(part.value for part in self._parts if part.time >= oldest))


class Total:
    """A cumulative count that is the sum of the increments of its attribute sets."""

    __slots__ = ("window", "value", "resuming", "_monotonic", "_shown", "_fresh", "_dated", "_resumed_at")

    def __init__(self, levels: tuple[Level, ...], monotonic: bool = True) -> None:
        self.window = Window("last", levels)
        self._monotonic = monotonic
        self.value = 0.0
        self.resuming = False
        """True from ``resume`` until the first sample after it."""
        self._shown = 0.0
        self._fresh = 0.0
        self._dated = True
        self._resumed_at = _NEVER

    def resume(self, value: float, at: float) -> None:
        """Go on from a count that was kept elsewhere until ``at``: what streams show first was counted in part."""
        self.value = value
        self.resuming = True
        self._resumed_at = at

    def add(self, increment: float, first: bool, start: float | None = None) -> None:
        """Add what one stream counted since ``start``; ``first`` if that is all that it ever counted."""
        if first and self.resuming:
            if start is not None and start > self._resumed_at:
                self._fresh += increment
            else:
                self._shown += increment
                self._dated = self._dated and start is not None
        else:
            self.value += increment

    def flush(self, time: float) -> None:
        if self.resuming:
            self.resuming = False
            # What shows less than was known, and began before: earlier lives are in what was known. Without a start
            # it is taken for a count that began again at zero, as the process restarted meanwhile.
            less = self._monotonic and self._shown < self.value
            if not less:
                self.value = self._shown
            elif not self._dated:
                self.value += self._shown
            self.value += self._fresh
        self.window.put(time, self.value)


Dirty = dict[Sum | Total, None]


class LevelFeed:
    """One attribute set of a level."""

    __slots__ = ("_sum", "time", "value")

    def __init__(self, owner: Sum) -> None:
        self._sum = owner
        self.time = _NEVER
        self.value = 0.0

    def take(self, time: float, _start: float | None, value: float, _kind: PointKind, dirty: Dirty) -> bool:
        if time <= self.time or time < self._sum.window.last_time:
            return False
        self.time = time
        self.value = value
        dirty[self._sum] = None
        return True


class CountFeed:
    """One attribute set of a cumulative count; ``totals`` are what it adds to."""

    __slots__ = ("_counted", "_totals", "_on_reset", "_seen")

    def __init__(
        self, totals: tuple[Total, ...], monotonic: bool = True, on_reset: Callable[[Reset], None] | None = None
    ) -> None:
        self._counted = Counted(monotonic)
        self._totals = totals
        self._on_reset = on_reset
        self._seen: Reset | None = None

    def take(self, time: float, start: float | None, value: float, kind: PointKind, dirty: Dirty) -> bool:
        counted = self._counted
        first = counted.last_time == _NEVER and kind != "delta"
        added = counted.increment(time, start, value, kind)
        if added is None:
            return False
        for total in self._totals:
            total.add(added, first, start)
            dirty[total] = None
        if counted.reset is not self._seen:
            self._seen = counted.reset
            if self._on_reset is not None and counted.reset is not None:
                self._on_reset(counted.reset)
        return True


class CallFeed:
    """Hands single values on: limit, uptime, info."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[float, float], bool]) -> None:
        self._call = call

    def take(self, time: float, _start: float | None, value: float, _kind: PointKind, _dirty: Dirty) -> bool:
        return self._call(time, value)


Feed = LevelFeed | CountFeed | CallFeed


def route_of(attributes: Mapping[str, AttributeValue]) -> str:
    """The name of a request series: ``GET /cart``, ``rpc shop.Cart/Add``, ``GET (no route)``.

    ``http.target`` and ``http.method`` are what route and method were called before the conventions were stable;
    Python's instrumentations still put the route there.
    """
    service, call = attributes.get("rpc.service"), attributes.get("rpc.method")
    if call is not None:
        # The stable form of rpc.method carries the service with it.
        return f"rpc {call}" if service is None else f"rpc {service}/{call}"
    method = attributes.get(names.HTTP_REQUEST_METHOD, attributes.get("http.method"))
    route = attributes.get(names.HTTP_ROUTE, attributes.get("http.target"))
    name = NO_ROUTE if route in {None, ""} else str(route)
    return name if method in {None, ""} else f"{method} {name}"
