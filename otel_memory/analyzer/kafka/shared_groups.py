"""The alerts of groups as all analyzers know them: records in the compacted topic of the assessments.

Owns their form there, and which alert waits for the comparison that it belongs into. The key is ``group:`` and the id
of the group's alert, the value the alert and the processes that it tells of. Beside them ``group:looked`` says up to
where in the topic the one who decides (``Leader``) has compared: a leak that stands behind that may be one of a group
still, so the outputs wait for it. Every analyzer reads all of them (``Fleet``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from otel_memory.analyzer.alerting import MEMORY_LEAK
from otel_memory.analyzer.fleet_alerts import Groups
from otel_memory.analyzer.kafka.records import Owner
from otel_memory.analyzer.model import Alert, AlertState

_logger = logging.getLogger(__name__)

PREFIX: Final = b"group:"
LOOKED: Final = PREFIX + b"looked"
FORM: Final = 1
SETTLE_SECONDS: Final = 5.0
"""A comparison so long after a leak was known first is the one that counts: others may be just about to be known."""
WAIT_SECONDS: Final = 30.0
"""So long an output waits for it: an alert that nobody compares is told by itself."""


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """The alert of one group of instances. ``told`` is the analyzers' own: which change each output got last."""

    form: int
    owner: Owner
    """Who decides, and tells the outputs of it."""
    alert: Alert
    members: tuple[str, ...]
    """Ids of the processes that it tells of; none once it is over."""
    apart_since: float | None
    """Since when (s) they have been no group any more."""
    told: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """The value of the record."""
        return GROUP.dump_json(self)

    @classmethod
    def from_bytes(cls, value: bytes) -> GroupRecord:
        """The record that ``to_bytes`` gave.

        Raises:
            ValueError: it is none, or of a form that is not known here.
        """
        record = GROUP.validate_json(value)
        if record.form != FORM:
            raise ValueError(f"a group's record of form {record.form} is not known, only {FORM}")
        return record

    @property
    def key(self) -> bytes:
        """Of the record."""
        return PREFIX + self.alert.id.encode()


@dataclass(frozen=True, slots=True)
class Look:
    """How far the latest comparison reached: of each partition of the topic the first offset that it did not see."""

    form: int
    owner: Owner
    offsets: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """The value of the record."""
        return LOOK.dump_json(self)


GROUP: Final = TypeAdapter(GroupRecord)
LOOK: Final = TypeAdapter(Look)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Where in the topic a leak stands first, and when that was read (``clock``)."""

    starts_at: float
    place: int
    offset: int
    at: float


class SharedGroups:
    """The reader of the topic (``Fleet``) writes; ``waits`` and the rest are for any thread."""

    def __init__(self, groups: Groups, clock: Callable[[], float] = time.monotonic) -> None:
        self._groups = groups
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[bytes, GroupRecord] = {}
        self._read: dict[int, int] = {}
        self._looked: tuple[int, ...] = ()
        self._looked_at = clock()
        self._leaks: dict[str, _Begun] = {}
        self._asked: dict[str, float] = {}
        """Process -> since when its leak waits to be compared."""
        self._ticked = clock()
        self.begun = 0
        """Leaks that have begun since the start."""
        groups.waits = self.waits

    # --- the reader of the topic -----------------------------------------------------------------------------

    def begin(self) -> None:
        """The topic is read from its beginning: what was said of it before may be of another one."""
        with self._lock:
            self._read, self._looked, self._leaks = {}, (), {}

    def take(self, key: bytes, value: bytes | None) -> Alert | None:
        """Take a record whose key begins with ``PREFIX``; the alert to be shown, if it is one."""
        try:
            if key == LOOKED:
                self._take_look(value)
                return None
            record = None if value is None else GroupRecord.from_bytes(value)
        except ValueError as error:
            _logger.warning("Kafka: the record %r is no group of instances: %s", key[:80], error)
            return None
        with self._lock:
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record
            members = {
                process_id: one.alert.id
                for one in self._records.values()
                if one.alert.state is not AlertState.RESOLVED
                for process_id in one.members
            }
        self._groups.assign(members)
        return None if record is None else record.alert

    def _take_look(self, value: bytes | None) -> None:
        look = None if value is None else LOOK.validate_json(value)
        with self._lock:
            self._looked = () if look is None or look.form != FORM else look.offsets
            self._looked_at = self._clock()
            waiting = bool(self._asked)
        if waiting:
            self._groups.renew()

    def judged(self, process_id: str, place: int, offset: int, alerts: Collection[Alert]) -> None:
        """Take note of a process's latest record."""
        leak = next((one for one in alerts if one.name == MEMORY_LEAK), None)
        if leak is None or leak.state is AlertState.RESOLVED:
            self.gone(process_id)
            return
        known = self._leaks.get(process_id)
        if known is None or known.starts_at != leak.starts_at or known.place != place:
            with self._lock:
                self._leaks[process_id] = _Begun(leak.starts_at, place, offset, self._clock())
                self.begun += 1

    def gone(self, process_id: str) -> None:
        """It leaks no more, or is no more."""
        with self._lock:
            self._leaks.pop(process_id, None)
            self._asked.pop(process_id, None)

    def read_up_to(self, place: int, offset: int) -> None:
        """All before ``offset`` is published."""
        with self._lock:
            self._read[place] = offset

    def tick(self) -> None:
        """Let those go that have waited long enough. Call it every now and then."""
        now = self._clock()
        with self._lock:
            over = any(self._ticked < since + WAIT_SECONDS <= now for since in self._asked.values())
            self._ticked = now
        if over:
            self._groups.renew()

    # --- everybody -------------------------------------------------------------------------------------------

    @property
    def leaking(self) -> bool:
        """Whether any process of the fleet is known to leak."""
        return bool(self._leaks)

    def read(self) -> tuple[int, ...]:
        """Of each partition of the topic the first offset that is not published yet."""
        with self._lock:
            return tuple(self._read.get(place, 0) for place in range(max(self._read, default=-1) + 1))

    def owner(self, alert_id: str) -> Owner | None:
        """Who tells the outputs of a group's alert."""
        record = self._records.get(PREFIX + alert_id.encode())
        return None if record is None else record.owner

    def waits(self, alert: Alert) -> bool:
        """Whether an alert of a leak is still to be compared with the other instances."""
        if alert.name != MEMORY_LEAK or alert.state is AlertState.RESOLVED:
            return False
        with self._lock:
            leak = self._leaks.get(alert.process)
            if leak is not None and leak.starts_at >= alert.starts_at and self._is_compared(leak):
                self._asked.pop(alert.process, None)
                return False
            return self._clock() - self._asked.setdefault(alert.process, self._clock()) < WAIT_SECONDS

    def _is_compared(self, leak: _Begun) -> bool:
        reached = self._looked[leak.place] if leak.place < len(self._looked) else 0
        return leak.offset < reached and self._looked_at >= leak.at + SETTLE_SECONDS
