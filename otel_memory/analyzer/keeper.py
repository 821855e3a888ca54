"""What the pipeline keeps over a restart, and what it still owes the store when that fails.

Owns when and how often what is written. One transaction for each turn; what a failed one held is written with the next
that succeeds, so that nothing is lost while the store can't be used for a while. Bounded: of more than that the oldest
is given up and counted. Never decides what the analyzer knows.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from otel_memory.analyzer.alerting import AlertingState
from otel_memory.analyzer.model import Assessment, Event
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.series import ProcessSeries
from otel_memory.analyzer.stats import DROPPED, STORE_BYTES, STORE_ERRORS, Stats
from otel_memory.analyzer.store import Store
from otel_memory.analyzer.store.errors import StoreError

RETRY_SECONDS: Final = 2.0
"""A store that failed is left alone so long: each try may block the worker, and holds all that is owed."""
LIMIT_SECONDS: Final = 60.0
"""A limit that does not change is written again so often."""
MAX_OWED_PROCESSES: Final = 20_000
MAX_OWED_CHANGES: Final = 1000
MAX_OWED_EVENTS: Final = 100
"""Of each process."""


@dataclass(slots=True)
class Turn:
    """What one batch, or one look at the clock, changed. All but ``changes`` go by process id."""

    touched: dict[str, ProcessSeries] = field(default_factory=dict)
    """Processes with new points."""
    concluded: dict[str, tuple[Assessment, AlertingState]] = field(default_factory=dict)
    """Processes that were judged, and what alerting remembers of them."""
    events: dict[str, list[Event]] = field(default_factory=dict)
    changes: list[AlertChange] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.touched or self.concluded or self.events or self.changes)


@dataclass(slots=True)
class _Stored:
    """Up to when the series of one process are in the store."""

    until: dict[str, float] = field(default_factory=dict)
    limit: tuple[int, float] | None = None


class Keeper:
    """Writes turns to the store. Without one it does nothing."""

    def __init__(self, store: Store | None, outputs: Sequence[str], stats: Stats) -> None:
        self._store = store
        self._outputs = tuple(outputs)
        self._stats = stats
        self._stored: dict[str, _Stored] = {}
        self._owed = Turn()
        self._told: deque[AlertChange] = deque(maxlen=MAX_OWED_CHANGES)
        """Changes that went to the outputs past the store; kept for the history and the next start."""
        self._failed_at: float | None = None
        self._due: list[tuple[AlertChange, tuple[str, ...]]] = []
        """Changes that were made elsewhere, and the outputs that have not got them."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of those that are told of every change."""
        return self._outputs

    def owe(self, changes: Sequence[tuple[AlertChange, tuple[str, ...]]], now: float) -> None:
        """Queue changes that were made elsewhere for outputs that have not got them; what waits for an output already
        is not queued twice. ``now`` as for ``keep``."""
        self._due = [*self._due, *changes][-MAX_OWED_CHANGES:]
        self.keep(Turn(), now)

    def disown(self, alerts: Collection[str]) -> None:
        """Another analyzer tells of these alerts (ids): nothing of them waits for an output here any more."""
        self._due = [(change, outputs) for change, outputs in self._due if change.alert.id not in alerts]
        if self._store is None:
            return
        try:
            with self._store.transaction():
                self._store.disown_alerts(alerts)
        except StoreError as error:
            self._stats.add(STORE_ERRORS, kind=error.kind)

    def keep(self, turn: Turn, now: float) -> bool:
        """Write one turn and all that is owed; True if the store has it. ``now``: seconds of any one clock."""
        if self._store is None:
            return False
        owed = self._owed
        for mine, new in ((owed.touched, turn.touched), (owed.concluded, turn.concluded)):
            mine.update(new)  # type: ignore[arg-type]
        for process_id, happened in turn.events.items():
            owed.events.setdefault(process_id, []).extend(happened)
        owed.changes = turn.changes
        if not owed and not self._told and not self._due:
            return True
        if self._failed_at is not None and 0 <= now - self._failed_at < RETRY_SECONDS:
            self._owe(turn)
            return False
        stored: list[tuple[str, _Stored]] = []
        try:
            with self._store.transaction():
                self._write(self._store, stored)
        except StoreError as error:
            self._failed_at = now
            self._stats.add(STORE_ERRORS, kind=error.kind)
            self._owe(turn)
            return False
        self._failed_at = None
        self._owed = Turn()
        self._told.clear()
        self._due.clear()
        self._stored.update(stored)
        return True

    def resume(self, process_id: str, until: dict[str, float]) -> None:
        """Say what the store has of a process already: series key -> time of its last sample."""
        self._stored[process_id] = _Stored(until)

    def forget(self, process_ids: Collection[str]) -> None:
        """Let go of what is remembered of processes; what is owed of them is still written."""
        for process_id in process_ids:
            self._stored.pop(process_id, None)

    def maintain(self, now: float) -> bool:
        """A step of the store's housekeeping; True if more waits."""
        if self._store is None:
            return False
        try:
            waiting = self._store.maintain(now)
            sizes = self._store.sizes()
        except StoreError as error:
            self._stats.add(STORE_ERRORS, kind=error.kind)
            return False
        self._stats.set(STORE_BYTES, sizes.file_bytes + sizes.wal_bytes)
        return waiting > 0

    @property
    def dropped_samples(self) -> int:
        """Samples that the store did not take: too old, or of a series beyond its bounds."""
        return 0 if self._store is None else self._store.dropped_samples

    def _owe(self, turn: Turn) -> None:
        """The store failed: what it should have is in ``_owed`` already; keep that bounded."""
        owed = self._owed
        owed.changes = []
        self._told.extend(turn.changes)
        for process_id in turn.events:
            dropped = owed.events[process_id][:-MAX_OWED_EVENTS]
            del owed.events[process_id][: len(dropped)]
            self._drop("events that the store missed", len(dropped))
        for mine in (owed.touched, owed.concluded, owed.events):
            excess = len(mine) - MAX_OWED_PROCESSES
            for process_id in list(mine)[: max(excess, 0)]:
                del mine[process_id]
            self._drop("processes that the store missed", max(excess, 0))

    def _drop(self, part: str, count: int) -> None:
        if count:
            self._stats.add(DROPPED, count, part=part)

    def _write(self, store: Store, stored: list[tuple[str, _Stored]]) -> None:
        owed = self._owed
        for change in self._told:
            store.record_alert_change(change.alert, change.at, assessment=change.assessment)
        for process_id, series in owed.touched.items():
            if process_id not in owed.concluded and series.first_seen is not None and series.last_seen is not None:
                store.save_process(series.info, series.first_seen, series.last_seen)
        for process_id, (assessment, state) in owed.concluded.items():
            store.save_assessment(assessment)
            store.save_alert_state(process_id, json.dumps(state.to_dict()))
        for process_id, series in owed.touched.items():
            stored.append((process_id, self._write_series(store, process_id, series)))
        for process_id, happened in owed.events.items():
            store.add_events(process_id, happened)
        for change in owed.changes:
            store.record_alert_change(change.alert, change.at, assessment=change.assessment, outputs=self._outputs)
        for change, outputs in self._due:
            store.owe_alert_change(change, outputs)

    def _write_series(self, store: Store, process_id: str, series: ProcessSeries) -> _Stored:
        """The samples that the store lacks; what it has once the transaction is committed."""
        before = self._stored.get(process_id) or _Stored()
        until = dict(before.until)
        for key, window in series.kept():
            times, values = window.since(until.get(key, float("-inf")))
            if times:
                store.add_samples(process_id, key, times, values)
                until[key] = times[-1]
        limit = before.limit
        if series.limit_bytes is not None and series.last_seen is not None:
            at = series.last_seen
            if limit is None or limit[0] != series.limit_bytes or not 0 <= at - limit[1] < LIMIT_SECONDS:
                store.add_samples(process_id, "limit", [at], [float(series.limit_bytes)])
                limit = (series.limit_bytes, at)
        return _Stored(until, limit)
