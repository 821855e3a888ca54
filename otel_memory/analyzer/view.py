"""``View``: what REST and SSE see of the analyzer.

Owns the published state: frozen assessments, alerts and events that the worker thread swaps in. Readers on other
threads see a state whole or not at all and never wait for the worker. Never judges, never stores.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_memory.analyzer.model import Alert, AlertState, Assessment, Event, Verdict

SortValue = float | str | None

_SORTS: Final[Mapping[str, Callable[[Assessment], SortValue]]] = {
    "leak_score": lambda a: a.leak_score,
    "memory_bytes": lambda a: a.memory_bytes,
    "limit_bytes": lambda a: a.limit_bytes,
    "utilization": lambda a: a.utilization,
    "growth_bytes_per_second": lambda a: a.growth_bytes_per_second,
    "time_to_limit_seconds": lambda a: None if a.time_to_limit is None else a.time_to_limit.estimate,
    "service_name": lambda a: a.process.service_name,
    "first_seen": lambda a: a.first_seen,
    "last_seen": lambda a: a.last_seen,
}
SORTS: Final[tuple[str, ...]] = tuple(sign + name for name in _SORTS for sign in ("", "-"))
DEFAULT_SORT: Final = "-leak_score"


class BadCursor(ValueError):
    """The cursor was not made by this analyzer, or for another order."""


class Page(NamedTuple):
    """Some of the processes; ``next`` is the cursor of the following ones, None at the end."""

    items: list[Assessment]
    next: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts and totals over all processes. ``growth_bytes_per_second`` is that of the leaking ones together,
    ``time_to_limit_seconds`` the soonest; both None where there is none."""

    processes: Mapping[Verdict, int]
    alerts: Mapping[AlertState, int]
    memory_bytes: int
    growth_bytes_per_second: float | None
    time_to_limit_seconds: float | None


@dataclass(frozen=True, slots=True)
class State:
    """One published state. ``changed`` says in which generation each process or alert last changed."""

    generation: int
    processes: Mapping[str, Assessment]
    alerts: Mapping[str, Alert]
    changed: Mapping[tuple[str, str], int]


Listener = Callable[[int, Collection[Assessment], Collection[Alert]], None]
"""Called on the worker's thread with the generation and what changed; must not block and must not raise."""


class View:
    """See the module. ``publish`` belongs to one thread at a time, everything else to any.

    Listeners are called under the lock: they must not call back."""

    MAX_EVENTS: Final = 100
    MAX_ALERTS: Final = 20_000
    MAX_PROCESSES: Final = 20_000

    def __init__(self, max_processes: int = MAX_PROCESSES) -> None:
        self._max_processes = max_processes
        self._state = State(0, {}, {}, {})
        self._events: dict[str, deque[Event]] = {}
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    # --- the worker's side ---------------------------------------------------------------------------------

    def publish(
        self,
        assessments: Collection[Assessment] = (),
        alerts: Collection[Alert] = (),
        *,
        events: Mapping[str, Iterable[Event]] | None = None,
        forget: Collection[str] = (),
    ) -> None:
        """Swaps in what changed. ``events`` by process id; ``forget`` are ids of processes that are gone.

        A resolved alert stays until its process is forgotten, or more than MAX_ALERTS are there. Of more than
        ``max_processes`` those that were seen last longest ago are forgotten.
        """
        with self._lock:
            old = self._state
            generation = old.generation + 1
            processes, changed = dict(old.processes), dict(old.changed)
            for assessment in assessments:
                processes[assessment.process.id] = assessment
                changed["process", assessment.process.id] = generation
            current = dict(old.alerts)
            for alert in alerts:
                current[alert.id] = alert
                changed["alert", alert.id] = generation
            gone = {*forget, *self._excess(processes)}
            self._take_events(events or {}, gone)
            for process_id in gone:
                processes.pop(process_id, None)
                changed.pop(("process", process_id), None)
            for alert_id in self._outdated(current, gone):
                del current[alert_id]
                changed.pop(("alert", alert_id), None)
            self._state = State(generation, processes, current, changed)
            # Inside the lock, so that what another thread tells can't overtake it.
            for listener in self._listeners:
                listener(generation, assessments, alerts)

    def retell_alerts(self) -> None:
        """Publishes every alert that is not over once more, as it is: what is said about alerts has changed.

        From any thread.
        """
        with self._lock:
            old = self._state
            alerts = [alert for alert in old.alerts.values() if alert.state is not AlertState.RESOLVED]
            generation = old.generation + 1
            changed = {**old.changed, **{("alert", alert.id): generation for alert in alerts}}
            self._state = State(generation, old.processes, old.alerts, changed)
            for listener in self._listeners:
                listener(generation, (), alerts)

    def _excess(self, processes: Mapping[str, Assessment]) -> list[str]:
        excess = len(processes) - self._max_processes
        if excess <= 0:
            return []
        # Some more, so that sorting them isn't due at every publication.
        oldest = sorted(processes.values(), key=lambda a: a.last_seen)[: excess + self._max_processes // 20]
        return [a.process.id for a in oldest]

    def _outdated(self, alerts: Mapping[str, Alert], gone: Collection[str]) -> list[str]:
        if not gone and len(alerts) <= self.MAX_ALERTS:
            return []
        resolved = [alert for alert in alerts.values() if alert.state is AlertState.RESOLVED]
        outdated = [alert.id for alert in resolved if alert.process in gone]
        excess = len(alerts) - len(outdated) - self.MAX_ALERTS
        if excess > 0:
            rest = sorted((alert for alert in resolved if alert.process not in gone), key=lambda alert: alert.starts_at)
            outdated += [alert.id for alert in rest[:excess]]
        return outdated

    def _take_events(self, events: Mapping[str, Iterable[Event]], forget: Collection[str]) -> None:
        for process_id, fresh in events.items():
            self._events.setdefault(process_id, deque(maxlen=self.MAX_EVENTS)).extend(fresh)
        for process_id in forget:
            self._events.pop(process_id, None)
        while len(self._events) > self._max_processes:
            del self._events[next(iter(self._events))]

    # --- the readers' side ---------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The published state; it never changes once published."""
        return self._state

    def listen(self, listener: Listener) -> tuple[State, Callable[[], None]]:
        """Calls ``listener`` at every later publication. Returns the state before the first one, and the undo."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
            return self._state, lambda: self._unlisten(listener)

    def _unlisten(self, listener: Listener) -> None:
        with self._lock:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

    def processes(
        self,
        *,
        service: str | None = None,
        verdict: Verdict | None = None,
        q: str | None = None,
        sort: str = DEFAULT_SORT,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """A page of the processes that agree with every filter given.

        ``service`` is the exact service name; ``q`` is looked for in service, instance, host, version, runtime, pid
        and id, whatever the case; ``sort`` one of SORTS, a minus in front meaning descending; absent values are
        always last.

        Raises:
            BadCursor: see there.
            KeyError: no such order.
        """
        found = [a for a in self._state.processes.values() if _agrees(a, service, verdict, q and q.casefold())]
        descending = sort.startswith("-")
        value_of = _SORTS[sort.removeprefix("-")]
        keyed = [(value_of(a), a.process.id, a) for a in found]
        present = sorted((item for item in keyed if item[0] is not None), key=_key, reverse=descending)
        absent = sorted((item for item in keyed if item[0] is None), key=lambda item: item[1])
        ordered = present + absent
        begin = 0
        if cursor is not None:
            last = _decode(cursor, sort)
            # By value, not by position: what moved or went since the last page neither repeats nor hides the rest.
            begin = sum(1 for item in ordered if not _after((item[0], item[1]), last, descending))
        chosen = ordered[begin : begin + limit]
        more = begin + limit < len(ordered)
        return Page([a for _, _, a in chosen], _encode(sort, chosen[-1][0], chosen[-1][1]) if more and chosen else None)

    def process(self, process_id: str) -> Assessment | None:
        """One process."""
        return self._state.processes.get(process_id)

    def events(self, process_id: str) -> list[Event]:
        """The newest events of a process, newest first."""
        with self._lock:
            return list(self._events.get(process_id, ()))[::-1]

    def leaks(self, threshold: float) -> list[Assessment]:
        """The processes whose score is at least ``threshold``, worst first."""
        found = [a for a in self._state.processes.values() if a.leak_score is not None and a.leak_score >= threshold]
        return sorted(found, key=lambda a: (-(a.leak_score or 0.0), a.process.id))

    def alerts(self, state: AlertState | None = None) -> list[Alert]:
        """Alerts, firing ones first, then pending, then resolved; within a state the youngest first."""
        found = [alert for alert in self._state.alerts.values() if state is None or alert.state is state]
        order = {AlertState.FIRING: 0, AlertState.PENDING: 1, AlertState.RESOLVED: 2}
        return sorted(found, key=lambda alert: (order[alert.state], -alert.starts_at, alert.id))

    def summary(self) -> Summary:
        """Counts and totals."""
        state = self._state
        verdicts = Counter(a.verdict for a in state.processes.values())
        alerts = Counter(alert.state for alert in state.alerts.values())
        growing = [
            a.growth_bytes_per_second
            for a in state.processes.values()
            if a.verdict is Verdict.LEAKING and a.growth_bytes_per_second is not None
        ]
        times = [a.time_to_limit.estimate for a in state.processes.values() if a.time_to_limit is not None]
        return Summary(
            processes={verdict: verdicts[verdict] for verdict in Verdict},
            alerts={name: alerts[name] for name in AlertState},
            memory_bytes=sum(a.memory_bytes or 0 for a in state.processes.values()),
            growth_bytes_per_second=sum(growing) if growing else None,
            time_to_limit_seconds=min(times, default=None),
        )


def _agrees(a: Assessment, service: str | None, verdict: Verdict | None, q: str | None) -> bool:
    if service is not None and a.process.service_name != service:
        return False
    if verdict is not None and a.verdict is not verdict:
        return False
    if not q:
        return True
    p = a.process
    texts = (p.service_name, p.service_instance_id, p.host_name, p.service_version, p.runtime, p.id)
    return any(text is not None and q in text.casefold() for text in texts) or q == str(p.pid)


def _key(item: tuple[SortValue, str, Assessment]) -> tuple[SortValue, str]:
    return item[0], item[1]


def _after(item: tuple[SortValue, str], last: tuple[SortValue, str], descending: bool) -> bool:
    if (item[0] is None) != (last[0] is None):
        return item[0] is None
    if item[0] is None:
        return item[1] > last[1]
    return item < last if descending else item > last


def _encode(sort: str, value: SortValue, process_id: str) -> str:
    text = json.dumps([sort, value, process_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, sort: str) -> tuple[SortValue, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        made_for, value, process_id = json.loads(text, parse_constant=_refuse)
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise BadCursor("cursor: not one that this analyzer made") from error
    if made_for != sort:
        raise BadCursor("cursor: made for another sort order; begin without a cursor")
    expected = str if sort.removeprefix("-") == "service_name" else (int, float)
    if not isinstance(process_id, str):
        raise BadCursor("cursor: not one that this analyzer made")
    if value is None:
        return None, process_id
    if not isinstance(value, expected) or isinstance(value, bool):
        raise BadCursor("cursor: not one that this analyzer made")
    return value, process_id


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} has no place in an order")
