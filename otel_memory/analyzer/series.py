"""The recent past of every process: payloads in, bounded windows out.

Owns how the points of one role become one series: several attribute sets summed, the best source of a role
chosen, cumulative counts made monotone, restarts recognised, everything bounded. Never judges, and never
looks at a clock: all times are event time, and where the present matters it is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from otel_memory import names
from otel_memory.analyzer.feeds import CallFeed, CountFeed, Dirty, Feed, LevelFeed, Sum, Total, route_of
from otel_memory.analyzer.identity import KnownResource, Resource, identify, pid_of, runtime_of
from otel_memory.analyzer.latest import Breakdown, Limit
from otel_memory.analyzer.model import AttributeSet, AttributeValue, Payload, Point, ProcessInfo
from otel_memory.analyzer.roles import RUNTIME_LIMITS, Role, use_of
from otel_memory.analyzer.windows import LEVELS, Floats, Level, Reset, Window, spacing_of

OTHER: Final = "(other)"
"""Where routes and operations beyond the bound are counted together."""

_FUTURE_SECONDS: Final = 86400.0
_SOURCE_IDLE_SECONDS: Final = 300.0
_RESTORED: Final = ""
_NO_SUMS: Final[dict[str, Sum]] = {}
_NO_BOUND: Final = 1e300
_MOST: Final = 2.0**63
"""No count and no size reaches it: such a number is a fault of the sender, and no integer that readers of JSON take."""
_MAX_LIVES: Final = 16
_MAX_TOLERANCE_SECONDS: Final = 1.0


class Bounds(NamedTuple):
    """What one process may take: distinct routes, operations, and attribute sets over all metrics."""

    routes: int = 64
    operations: int = 64
    attribute_sets: int = 4096


_BOUNDS: Final = Bounds()


class Dropped:
    """How many points of one process were not taken, and why."""

    __slots__ = ("late", "future", "invalid", "overflow", "folded")

    def __init__(self) -> None:
        self.late = 0
        """Not younger than what was known: late or sent twice."""
        self.future = 0
        """More than a day ahead of the present."""
        self.invalid = 0
        """Not a number that can be (not finite, 2**63 and more, a level below 0 or sent as an increment), or without a
        time."""
        self.overflow = 0
        """Of attribute sets beyond the bound."""
        self.folded = 0
        """Routes and operations beyond the bound: counted under ``(other)``, so not lost."""

    @property
    def total(self) -> int:
        """Points that were lost."""
        return self.late + self.future + self.invalid + self.overflow


class OperationWindows(NamedTuple):
    """One tracked operation: calls, and the sum of the changes of resident memory over them (bytes)."""

    calls: Window
    growth: Window


class ProcessSeries:
    """All windows of one process.

    Counts in ``routes``, ``requests``, ``gc_gen2`` and ``operations`` are cumulative and never fall: resets are
    corrected and delta temporality is summed.
    """

    def __init__(self, info: ProcessInfo, *, levels: tuple[Level, ...] = LEVELS, bounds: Bounds = _BOUNDS) -> None:
        self._info = info
        self._resource: Resource | None = None
        self._levels = levels
        self._bounds = bounds
        self._feeds: dict[tuple[str, AttributeSet], Feed | None] = {}
        # By role and metric.
        self._sums: dict[Role, dict[str, Sum]] = {}
        self._requests: Total | None = None
        self._request_sources: dict[str, int] = {}
        self._routes: dict[str, Total] = {}
        self._route_family: dict[str, str] = {}
        self._gc_gen2: Total | None = None
        self._calls: dict[str, Total] = {}
        self._growth: dict[str, Total] = {}
        self._uptime_at: float | None = None
        self._lives: list[float] = []
        self._from_points: dict[str, AttributeValue] = {}
        self._limit = Limit()
        self._breakdown = Breakdown()
        self.first_seen: float | None = None
        self.last_seen: float | None = None
        self.dropped = Dropped()

    # --- what goes in ----------------------------------------------------------------------------------------

    def add(self, payload: Payload, now: float | None = None) -> bool:
        """Take the points of one payload; True if the memory in use has a new sample.

        ``now`` (s, event or wall time) only refuses points more than a day ahead of it.
        """
        if payload.resource is not self._resource and payload.resource != self._resource:
            self._learn_resource(payload.resource)
        before = self._memory_time()
        latest = _NO_BOUND if now is None else now + _FUTURE_SECONDS
        points = payload.points
        if len({point[2] for point in points}) <= 1:
            self._add_at(points, latest)
        else:
            by_time: dict[float, list[Point]] = {}
            for point in points:
                by_time.setdefault(point.time, []).append(point)
            # NaN has no place in an order; such points are counted one by one.
            for time in sorted(by_time, key=lambda time: time if time == time else 0.0):
                self._add_at(by_time[time], latest)
        return self._memory_time() > before

    def _add_at(self, points: Iterable[Point], latest: float) -> None:
        """Take points that all have one time."""
        feeds = self._feeds
        dropped = self.dropped
        dirty: Dirty = {}
        time = 0.0
        for metric, attributes, time, start, value, kind, _total in points:
            # Chained so that NaN fails too.
            if not (0.0 < time <= latest) or not (-_MOST < value < _MOST):
                if time > latest and math.isfinite(time):
                    dropped.future += 1
                else:
                    dropped.invalid += 1
                continue
            key = (metric, attributes)
            try:
                feed = feeds[key]
            except KeyError:
                feed = self._new_feed(metric, attributes, time)
            if feed is None:
                continue
            # Of increments the level isn't known unless all of them came in, and that can't be told.
            if (value < 0.0 or kind == "delta") and type(feed) is LevelFeed:
                dropped.invalid += 1
            elif not feed.take(time, start, value, kind, dirty):
                dropped.late += 1
        if not dirty:
            return
        for owner in dirty:
            owner.flush(time)
        if self.last_seen is None or time > self.last_seen:
            self.last_seen = time
        if self.first_seen is None or time < self.first_seen:
            self.first_seen = time

    def _new_feed(self, metric: str, attributes: AttributeSet, time: float) -> Feed | None:
        if len(self._feeds) >= self._bounds.attribute_sets:
            self.dropped.overflow += 1
            return None
        feed = self._make_feed(metric, attributes, time)
        self._feeds[metric, attributes] = feed
        return feed

    def _make_feed(self, metric: str, attributes: AttributeSet, time: float) -> Feed | None:
        use = use_of(metric, attributes)
        if use is None:
            return None
        match use.role:
            case Role.MEMORY | Role.FLOOR | Role.HEAP | Role.BLOCKS:
                return self._sum(use.role, metric, use.priority).feed()
            case Role.REQUESTS:
                return self._request_feed(metric, use.priority, dict(attributes), time)
            case Role.GC_GEN2:
                if self._gc_gen2 is None:
                    self._gc_gen2 = Total(self._levels)
                return CountFeed((self._gc_gen2,), on_reset=self._learn_reset)
            case Role.OPERATION_CALLS | Role.OPERATION_GROWTH:
                name = str(dict(attributes).get(names.OPERATION_NAME, OTHER))
                calls, growth = self._operation(name)
                if use.role is Role.OPERATION_CALLS:
                    return CountFeed((calls,), on_reset=self._learn_reset)
                return CountFeed((growth,), monotonic=False)
            case Role.LIMIT:
                of_runtime = RUNTIME_LIMITS.get(metric)
                if of_runtime is not None:
                    runtime = metric.partition(".")[0]
                    return CallFeed(lambda at, value: self._learn_runtime_limit(at, value, of_runtime, runtime))
                kind = dict(attributes).get(names.LIMIT_KIND)
                return CallFeed(lambda at, value: self._limit.learn(at, value, None if kind is None else str(kind)))
            case Role.BREAKDOWN:
                part = str(dict(attributes).get(names.MEMORY_PART, OTHER))
                return CallFeed(lambda at, value: self._breakdown.learn(part, at, value))
            case Role.START_TIME:
                return CallFeed(self._learn_uptime)
            case Role.INFO:
                return CallFeed(lambda _at, _value: self._learn_info(attributes))

    def _sum(self, role: Role, metric: str, priority: int) -> Sum:
        owners = self._sums.setdefault(role, {})
        owner = owners.get(metric)
        if owner is None:
            # What was restored has lost the name of its metric: it goes on with the first one of its role.
            owner = owners.pop(_RESTORED, None) or Sum(self._levels)
            owner.priority = priority
            owners[metric] = owner
        return owner

    def _request_feed(
        self, metric: str, priority: int, attributes: Mapping[str, AttributeValue], time: float
    ) -> Feed | None:
        # An SDK in the middle of a migration sends a request under the old and the new name: only one may count.
        family = metric.partition(".")[0]
        best = self._request_sources.get(family)
        if best is not None and priority > best:
            return None
        if best is not None and priority < best:
            self._forget_requests(family)
        self._request_sources[family] = priority
        name = route_of(attributes)
        route = self._routes.get(name)
        if self._requests is None:
            self._requests = Total(self._levels)
        if route is None:
            if len(self._routes) >= self._bounds.routes:
                self.dropped.folded += 1
                name = OTHER
            route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = Total(self._levels)
            self._route_family[name] = family
            # A route that was never called has no point. Its first calls fell after the last request sample.
            last = self._requests.window.last_time
            if last < time and last != float("-inf") and not self._requests.resuming:
                route.window.append(last, 0.0)
        return CountFeed((route, self._requests), on_reset=self._learn_reset)

    def _forget_requests(self, family: str) -> None:
        for key in self._feeds:
            use = use_of(*key)
            if use is not None and use.role is Role.REQUESTS and key[0].partition(".")[0] == family:
                self._feeds[key] = None
        for name in [name for name, of in self._route_family.items() if of == family]:
            del self._routes[name], self._route_family[name]
        self._requests = None

    def _operation(self, name: str) -> tuple[Total, Total]:
        if name not in self._calls and len(self._calls) >= self._bounds.operations:
            self.dropped.folded += 1
            name = OTHER
        if name not in self._calls:
            self._calls[name] = Total(self._levels)
            self._growth[name] = Total(self._levels, monotonic=False)
        return self._calls[name], self._growth[name]

    def restore(self, samples: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        """Fill the empty windows with samples that were kept: series key -> (times, values), in order of time.

        Keys are memory, heap, blocks, floor, gc_gen2, requests, limit, route:NAME, operation_calls:NAME and
        operation_growth:NAME; others are ignored.
        """
        for key, (times, values) in samples.items():
            window = self._window_of(key)
            if not len(times):
                continue
            if key == "limit":
                self._limit.learn(times[-1], values[-1], None)
            if window is None:
                continue
            for time, value in zip(times, values, strict=True):
                window.append(time, value)
            self.first_seen = min(times[0], times[0] if self.first_seen is None else self.first_seen)
            self.last_seen = max(times[-1], times[-1] if self.last_seen is None else self.last_seen)
        for total in self._totals():
            if total.window.last_value is not None:
                total.resume(total.window.last_value, total.window.last_time)

    def kept(self, most_names: int = 32) -> list[tuple[str, Window]]:
        """The windows that ``restore`` takes, by key; of routes and operations the first ``most_names``."""
        windows: list[tuple[str, Window | None]] = [
            ("memory", self.memory),
            ("heap", self.heap),
            ("blocks", self.blocks),
            ("floor", self.floor),
            ("gc_gen2", self.gc_gen2),
            ("requests", self.requests),
        ]
        windows += [(f"route:{name}", total.window) for name, total in islice(self._routes.items(), most_names)]
        for name, calls in islice(self._calls.items(), most_names):
            windows.append((f"operation_calls:{name}", calls.window))
            windows.append((f"operation_growth:{name}", self._growth[name].window))
        return [(key, window) for key, window in windows if window is not None and len(window)]

    def _window_of(self, key: str) -> Window | None:
        role, _, name = key.partition(":")
        match role:
            case "memory" | "heap" | "blocks" | "floor":
                return self._sums.setdefault(Role(role), {}).setdefault(_RESTORED, Sum(self._levels)).window
            case "gc_gen2":
                self._gc_gen2 = self._gc_gen2 or Total(self._levels)
                return self._gc_gen2.window
            case "requests":
                self._requests = self._requests or Total(self._levels)
                return self._requests.window
            case "route" if len(self._routes) < self._bounds.routes or name in self._routes:
                family = "rpc" if name.startswith("rpc ") else "http"
                self._route_family[name] = family
                return self._routes.setdefault(name, Total(self._levels)).window
            case "operation_calls":
                return self._operation(name)[0].window
            case "operation_growth":
                return self._operation(name)[1].window
        return None

    def forget_before(self, time: float) -> None:
        """Let go of all samples older than ``time`` (s, event time): what is judged is then no older."""
        for window in self._windows():
            window.forget_before(time)

    def resume_lives(self, lives: Sequence[float]) -> None:
        """Take over when the process (re)started as it was known elsewhere, oldest first (s since the epoch)."""
        self._lives = list(lives)

    # --- what single points teach ----------------------------------------------------------------------------

    def _learn_resource(self, resource: Resource) -> None:
        self._resource = resource if isinstance(resource, KnownResource) else dict(resource)
        known = identify(resource)
        if known is not None and known.id == self._info.id:
            self._info = known

    def _learn_runtime_limit(self, time: float, value: float, kind: str, runtime: str) -> bool:
        # It bounds the runtime's own heap, so it means nothing for other measures.
        of_it = (self.memory_metric or "").startswith(f"{runtime}.")
        return of_it and self._limit.learn_of_runtime(time, value, kind)

    def _learn_info(self, attributes: AttributeSet) -> bool:
        self._from_points.update(attributes)
        return True

    def _learn_uptime(self, time: float, value: float) -> bool:
        before = self._uptime_at
        if before is not None and time <= before:
            return False
        self._uptime_at = time
        start = time - value
        # Only a start after the last sample is another process: smaller moves are the clocks'.
        if (before is None or start > before) and (not self._lives or start > self._lives[-1]):
            self._begin_life(start)
        return True

    def _learn_reset(self, reset: Reset) -> None:
        if self._uptime_at is not None:
            return
        if not self._lives:
            self._begin_life(reset.last_start if reset.last_start is not None else self.first_seen or reset.last_time)
        # A counter first used long after the restart resets then; its sample before belongs to the earlier life.
        if reset.last_time >= self._lives[-1] and reset.at > self._lives[-1]:
            self._begin_life(reset.at)

    def _begin_life(self, start: float) -> None:
        self._lives.append(start)
        del self._lives[:-_MAX_LIVES]

    # --- what comes out --------------------------------------------------------------------------------------

    @property
    def info(self) -> ProcessInfo:
        """Who this is: the resource, completed by what the points say (pid, runtime, host)."""
        info, said = self._info, self._from_points
        if not said:
            return info
        host = said.get(names.HOST_NAME)
        runtime = runtime_of(said)
        return replace(
            info,
            pid=info.pid if info.pid is not None else pid_of(said),
            host_name=info.host_name if info.host_name is not None or host is None else str(host),
            # A runtime with its version says more than the SDK's language.
            runtime=runtime if runtime is not None and " " not in (info.runtime or "") else info.runtime,
        )

    @property
    def lives(self) -> tuple[float, ...]:
        """When the process (re)started, oldest first, as far as that is known (s since the epoch)."""
        return tuple(self._lives)

    @property
    def life(self) -> float | None:
        """When the process (re)started last (s since the epoch); None where that is not known."""
        return self._lives[-1] if self._lives else None

    @property
    def memory(self) -> Window | None:
        """Memory in use (bytes): the best source that is still being reported."""
        return self._best(Role.MEMORY)

    @property
    def limit_bytes(self) -> int | None:
        """The limit that ends the process (bytes); None where none is known."""
        return self._limit.size

    @property
    def limit_kind(self) -> str | None:
        """What sets it."""
        return self._limit.kind

    @property
    def breakdown(self) -> dict[str, int] | None:
        """Parts of the resident memory in bytes, those of the newest report; None where nothing reports them."""
        return self._breakdown.newest

    @property
    def memory_metric(self) -> str | None:
        """Name of the metric behind ``memory``."""
        window = self.memory
        owners = self._sums.get(Role.MEMORY, {})
        return next((metric for metric, owner in owners.items() if owner.window is window), None)

    @property
    def heap(self) -> Window | None:
        """Bytes in use in the C allocator, all kinds together."""
        return self._best(Role.HEAP)

    @property
    def blocks(self) -> Window | None:
        """Blocks handed out by the Python allocator."""
        return self._best(Role.BLOCKS)

    @property
    def floor(self) -> Window | None:
        """Memory in use just after the last full collection (bytes)."""
        return self._best(Role.FLOOR)

    @property
    def gc_gen2(self) -> Window | None:
        """Full collections."""
        return None if self._gc_gen2 is None else self._gc_gen2.window

    @property
    def requests(self) -> Window | None:
        """Requests on all routes."""
        return None if self._requests is None else self._requests.window

    @property
    def routes(self) -> dict[str, Window]:
        """Requests by route (``GET /cart``), the ones beyond the bound under ``(other)``."""
        return {name: total.window for name, total in self._routes.items()}

    @property
    def operations(self) -> dict[str, OperationWindows]:
        """Tracked operations by name."""
        return {name: OperationWindows(calls.window, self._growth[name].window) for name, calls in self._calls.items()}

    def covariate(self, name: str, level: int = 0) -> Floats | None:
        """One covariate at the times of ``memory.arrays(level)``: the last value at or before, NaN where none.

        ``name`` is requests, start_time, gc_gen2, heap, blocks or floor. None where the process never sent it.
        A value up to a tenth of the spacing (1 s at most) after counts as simultaneous: some SDKs read the
        clock once for each metric. Requests at coarser levels lie on the line between the kept ones: see
        ``Window.between``.
        """
        memory = self.memory
        if memory is None:
            return None
        times, _ = memory.arrays(level)
        return self._covariate(name, level, times, tolerance_of(times))

    def covariates(self, level: int = 0) -> dict[str, Floats]:
        """Those that scoring takes and the process sends, by name."""
        memory = self.memory
        if memory is None:
            return {}
        times, _ = memory.arrays(level)
        tolerance = tolerance_of(times)
        names_of_all = ("requests", "start_time", "gc_gen2", "heap")
        found = {name: self._covariate(name, level, times, tolerance) for name in names_of_all}
        return {name: values for name, values in found.items() if values is not None}

    def _covariate(self, name: str, level: int, times: Floats, tolerance: float) -> Floats | None:
        if name == "start_time":
            return self._start_times(times) if self._lives else None
        window: Window | None = getattr(self, name)
        if window is None:
            return None
        if level and name == "requests":
            return window.between(times, level)
        return window.at(times, level, tolerance)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples held."""
        return sum(window.nbytes for window in self._windows())

    def _windows(self) -> list[Window]:
        sums = [owner.window for owners in self._sums.values() for owner in owners.values()]
        return sums + [total.window for total in self._totals()]

    def _totals(self) -> list[Total]:
        single = [total for total in (self._requests, self._gc_gen2) if total is not None]
        return [*single, *self._routes.values(), *self._calls.values(), *self._growth.values()]

    def _start_times(self, times: Floats) -> Floats:
        lives = np.asarray(self._lives)
        if len(times) and times[0] < lives[0] - _MAX_TOLERANCE_SECONDS:
            # Samples that are older than the first known start were taken in a life of which only they are known.
            lives = np.concatenate([times[:1], lives])
        index = np.searchsorted(lives, times, side="right") - 1
        return lives[np.maximum(index, 0)]

    def _best(self, role: Role) -> Window | None:
        found = [owner for owner in self._sums.get(role, _NO_SUMS).values() if owner.window.last_value is not None]
        if len(found) <= 1:
            return found[0].window if found else None
        newest = max(owner.window.last_time for owner in found)
        alive = [owner for owner in found if owner.window.last_time >= newest - _SOURCE_IDLE_SECONDS]
        return min(alive, key=lambda owner: owner.priority).window

    def _memory_time(self) -> float:
        memory = self.memory
        return float("-inf") if memory is None else memory.last_time


class SeriesTable:
    """The processes by id, at most ``max_processes``: the one that was silent longest makes room, and is counted."""

    def __init__(
        self, max_processes: int = 20_000, *, levels: tuple[Level, ...] = LEVELS, bounds: Bounds = _BOUNDS
    ) -> None:
        if max_processes < 1:
            raise ValueError(f"max_processes must be at least 1, not {max_processes}")
        self._max_processes = max_processes
        self._levels = levels
        self._bounds = bounds
        # Ordered by the last payload, the youngest last.
        self._processes: dict[str, ProcessSeries] = {}
        self.evicted = 0
        self.unidentified = 0
        """Payloads whose resource identifies no process."""

    def of(self, resource: Resource) -> ProcessSeries | None:
        """The series of the process that the resource stands for, made if need be; None where it identifies none."""
        info = identify(resource)
        if info is None:
            self.unidentified += 1
            return None
        series = self._processes.pop(info.id, None)
        if series is None:
            return self._make_room_for(info)
        self._processes[info.id] = series
        return series

    def restore(
        self, process: ProcessInfo, samples: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    ) -> ProcessSeries:
        """The series of a process as it was kept (see ``ProcessSeries.restore``); what comes in then continues it."""
        series = self._make_room_for(process)
        series.restore(samples)
        return series

    def get(self, process_id: str) -> ProcessSeries | None:
        """The series of a process, None where it is not known (any more)."""
        return self._processes.get(process_id)

    def remove(self, process_id: str) -> None:
        """Forget one process, if it is known."""
        self._processes.pop(process_id, None)

    def remove_idle_since(self, time: float) -> list[str]:
        """Forget the processes whose last sample is older than ``time`` (or that never had one); their ids."""
        idle = [key for key, series in self._processes.items() if (series.last_seen or float("-inf")) < time]
        for key in idle:
            del self._processes[key]
        return idle

    def _make_room_for(self, info: ProcessInfo) -> ProcessSeries:
        series = ProcessSeries(info, levels=self._levels, bounds=self._bounds)
        self._processes.pop(info.id, None)
        if len(self._processes) >= self._max_processes:
            del self._processes[next(iter(self._processes))]
            self.evicted += 1
        self._processes[info.id] = series
        return series

    def __len__(self) -> int:
        return len(self._processes)

    def __contains__(self, process_id: object) -> bool:
        return process_id in self._processes

    def __iter__(self) -> Iterator[ProcessSeries]:
        return iter(list(self._processes.values()))

    @property
    def nbytes(self) -> int:
        """Bytes of all samples of all processes."""
        return sum(series.nbytes for series in self._processes.values())


def tolerance_of(times: Floats) -> float:
    """How much later (s) a sample of another series may be and still count as taken together with one of these."""
    return min(0.1 * spacing_of(times), _MAX_TOLERANCE_SECONDS)
