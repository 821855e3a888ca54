"""``Leader``: whoever has the first partition of the metrics decides for all which instances of a service are a group.

Owns when is compared, and what is written of it. It compares the assessments of the whole fleet, as everybody reads
them; what follows is committed with the partition's offsets, so that of two that take themselves for the leader only
one can write, and the next one goes on from what stands there. Everybody reads the decisions back (``SharedGroups``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from otel_memory.analyzer.alerting import AlertingSettings
from otel_memory.analyzer.fleet_alerts import FleetAlerting, Group
from otel_memory.analyzer.kafka.deliveries import OWED_SECONDS, Owed, owed
from otel_memory.analyzer.kafka.fleet import Fleet
from otel_memory.analyzer.kafka.owned import Owned
from otel_memory.analyzer.kafka.records import Owner
from otel_memory.analyzer.kafka.shared_groups import FORM, LOOKED, GroupRecord, Look, SharedGroups
from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.pipeline import COMPARE_SECONDS
from otel_memory.analyzer.view import View

_logger = logging.getLogger(__name__)

LEADING: Final = 0
"""The partition."""
LEAST_SECONDS: Final = 0.5
"""Between two comparisons, when one begins to leak."""
COST: Final = 20.0
"""... and at least so many times as long as the last one took."""
RETELL_SECONDS: Final = 30.0
"""Figures alone are written again so often."""
FORGET_SECONDS: Final = 24 * 3600.0
"""An alert that was over so long gets its tombstone."""
MAX_MEMBERS: Final = 40_000
"""In one record: with more it would be larger than brokers take. Those beyond are told of by themselves."""


class Leader:
    """``take_over`` when the partition is live, then ``lead`` every turn. On the worker's thread."""

    def __init__(
        self, fleet: Fleet, shared: SharedGroups, view: View, owner: Owner, alerting: AlertingSettings | None
    ) -> None:
        self._fleet = fleet
        self._shared = shared
        self._view = view
        self._owner = owner
        self._settings = alerting
        self._alerting = FleetAlerting(alerting)
        self._records: dict[str, GroupRecord] = {}
        """Alert -> what was written last, or is to be."""
        self._written_at: dict[str, float] = {}
        self._changed: set[str] = set()
        """Alerts whose records are to be written."""
        self._begun = -1
        self._compared_at = float("-inf")
        self._took = 0.0

    def take_over(self, records: Iterable[GroupRecord]) -> None:
        """Go on from what is committed."""
        self._records = {record.alert.id: replace(record, owner=self._owner) for record in records}
        self._alerting = FleetAlerting(self._settings)
        self._alerting.go_on(Group(one.alert, one.members, one.apart_since) for one in self._records.values())
        self._changed = set(self._records)
        self._written_at = {}
        self._begun, self._compared_at = -1, float("-inf")

    def let_go(self) -> set[str]:
        """Another one decides, or this one begins anew; the ids of the alerts that it told of."""
        alerts = set(self._records)
        self.take_over(())
        return alerts

    def lead(self, owned: Owned, now: float) -> None:
        """Compare, if it is time (``now``: s of a clock that only goes on); what follows is ``owned``'s to commit."""
        if self._due(now):
            self._begun, self._compared_at = self._shared.begun, now
            began = time.perf_counter()
            # Before what was published by then is looked at.
            read = self._shared.read()
            assessments = self._view.state.processes.values()
            changes = self._alerting.step(assessments)
            owned.outcome.turn.changes += changes
            for group in self._alerting.groups:
                self._keep(group, now)
            for change in changes:
                if change.alert.state is AlertState.RESOLVED:
                    self._keep(Group(change.alert, ()), now)
            self._bury(owned, max((one.last_seen for one in assessments), default=0.0))
            if self._shared.leaking:
                owned.shared[LOOKED] = Look(FORM, self._owner, read).to_bytes()
            self._took = time.perf_counter() - began
        for alert_id in self._changed:
            record = self._records[alert_id]
            owned.shared[record.key] = record.to_bytes()
            self._written_at[alert_id] = now
        self._changed.clear()

    def _due(self, now: float) -> bool:
        if self._fleet.problem is not None:
            return False
        pause = COMPARE_SECONDS if self._shared.begun == self._begun else LEAST_SECONDS
        return now - self._compared_at >= max(pause, COST * self._took)

    def _keep(self, group: Group, now: float) -> None:
        alert, before = group.alert, self._records.get(group.alert.id)
        members = group.members[:MAX_MEMBERS]
        self._records[alert.id] = record = GroupRecord(
            FORM, self._owner, alert, members, group.apart_since, {} if before is None else before.told
        )
        if (
            before is None
            or (before.alert.state, before.members, before.apart_since) != (alert.state, members, record.apart_since)
            or now - self._written_at.get(alert.id, float("-inf")) >= RETELL_SECONDS
        ):
            self._changed.add(alert.id)
            if len(members) < len(group.members):
                _logger.warning("%s: its alert names %d of %d instances", alert.id, len(members), len(group.members))

    def _bury(self, owned: Owned, newest: float) -> None:
        for alert_id, record in list(self._records.items()):
            ended = record.alert.ends_at
            if ended is not None and newest - ended >= FORGET_SECONDS:
                del self._records[alert_id]
                self._changed.discard(alert_id)
                owned.shared[record.key] = None

    # --- what the outputs have got ---------------------------------------------------------------------------

    def told(self, alert: Alert, output: str, change: str) -> None:
        """``output`` has got the change with the id ``change``."""
        record = self._records.get(alert.id)
        if record is not None:
            self._records[alert.id] = replace(record, told={**record.told, output: change})
            self._changed.add(alert.id)

    def owed(self, outputs: Iterable[str]) -> Iterator[Owed]:
        """What outputs have not got yet."""
        names = tuple(outputs)
        since = max((one.last_seen for one in self._view.state.processes.values()), default=0.0) - OWED_SECONDS
        for record in self._records.values():
            last = {output: record.told.get(output) for output in names}
            yield from owed(record.alert, self._view.process(record.alert.process), last, since)
