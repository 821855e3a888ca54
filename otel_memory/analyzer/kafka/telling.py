"""``Telling``: from what is committed to this worker's outputs, and back what they have got.

Owns what stands in this worker's outbox: the changes of alerts of its own partitions that an output has not got. It is
filled after the commit, and once more from the records when a partition arrives; it is emptied of what goes to another
worker.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from otel_memory.analyzer.fleet_alerts import MEMORY_LEAK_GROUP
from otel_memory.analyzer.kafka.leader import Leader
from otel_memory.analyzer.kafka.owned import Owned, Phase
from otel_memory.analyzer.kafka.shared_groups import GroupRecord
from otel_memory.analyzer.keeper import Keeper, Turn
from otel_memory.analyzer.model import Alert
from otel_memory.analyzer.outputs.base import AlertChange

MAX_NOTED: Final = 10_000
"""Deliveries that are still to be noted: beyond them the oldest is forgotten, and told again after a takeover."""


class Telling:
    """All but ``noted`` is for the worker's thread."""

    def __init__(
        self, keeper: Keeper, leader: Leader | None, on_change: Callable[[Sequence[AlertChange], bool], None]
    ) -> None:
        """``on_change`` is told of changes of alerts once they are committed, and whether the store has them in its
        outbox."""
        self._keeper = keeper
        self._leader = leader
        self._on_change = on_change
        self._noted: deque[tuple[str, Alert, str]] = deque(maxlen=MAX_NOTED)
        self._left: dict[int, set[str]] = {}

    def noted(self, output: str, alert: Alert, change: str) -> None:
        """``output`` has got the change with the id ``change`` of ``alert``. From any thread."""
        self._noted.append((output, alert, change))

    def tell(self, changes: Sequence[AlertChange]) -> None:
        """These are committed."""
        if changes:
            self._on_change(changes, self._keeper.keep(Turn(changes=list(changes)), time.time()))

    def note(self, owned: Collection[Owned]) -> None:
        """Keep what outputs have got, with the records of the processes."""
        waiting = any(one.phase is not Phase.LIVE for one in owned)
        for _ in range(len(self._noted)):
            output, alert, change = noted = self._noted.popleft()
            if alert.name == MEMORY_LEAK_GROUP:
                if self._leader is not None:
                    self._leader.told(alert, output, change)
                continue
            known = any(one.phase is Phase.LIVE and one.partition.told(alert, output, change) for one in owned)
            if waiting and not known:
                self._noted.append(noted)

    def arrived(self, owned: Owned, everyone: Collection[Owned], groups: Iterable[GroupRecord] | None) -> None:
        """A partition, of ``everyone``, is live: what is owed of it is this worker's to tell. ``groups``: those that
        are committed, if it is the partition of the one who decides on them."""
        if groups is not None and self._leader is not None:
            self._leader.take_over(groups)
        self.note(everyone)
        outputs = self._keeper.outputs
        owed = list(owned.partition.owed(outputs))
        if groups is not None and self._leader is not None:
            owed += self._leader.owed(outputs)
        if owed:
            self._keeper.owe(owed, time.time())
            self._on_change((), True)

    def left(self, number: int, alerts: Collection[str]) -> None:
        """A partition is let go; perhaps it comes back at once."""
        self._left.setdefault(number, set()).update(alerts)

    def settle(self, numbers: Collection[int]) -> None:
        """``numbers`` are this worker's partitions now: what others have they tell."""
        for number, alerts in self._left.items():
            if number not in numbers:
                self._keeper.disown(alerts)
        self._left.clear()
