"""``Lane``: one output and what waits for it.

Owns when a change is tried, put off, held back by a silence, sent together with others, or given up. Driven by one
thread of the dispatcher; never decides what is an alert or what is silenced.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.outputs.base import AlertChange, Choosy, Grouping, Output, Refused, Repeating
from otel_memory.analyzer.stats import OutputHealth, Stats
from otel_memory.analyzer.store.errors import StoreError
from otel_memory.analyzer.store.outbox import Outbox, Pending

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits ``first_seconds`` and doubles up to ``longest_seconds``, each time less up to half by chance. A change is
    given up after ``max_attempts`` tries or ``max_age_seconds``, or when more than ``max_pending`` newer ones wait."""

    first_seconds: float = 1.0
    longest_seconds: float = 300.0
    max_attempts: int = 500
    max_age_seconds: float = 24 * 3600.0
    max_pending: int = 10_000

    def delay(self, attempts: int, chance: float) -> float:
        """Seconds to wait after the ``attempts``-th failed try (1 is the first); ``chance`` is in [0, 1)."""
        full = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 60))
        return full * (1 - chance / 2)


class Silencing(Protocol):
    """What a lane must know of silences."""

    @property
    def version(self) -> int:
        """Another number whenever the answers may be others."""

    def silencing(self, alert: Alert) -> tuple[str, ...]:
        """The ids of the silences in force for this alert."""


class NoSilences:
    """Nothing is silenced."""

    version = 0

    def silencing(self, alert: Alert) -> tuple[str, ...]:
        """None."""
        return ()


@dataclass(slots=True)
class _Unsaved:
    change: AlertChange
    attempts: int
    created_at: float
    next_at: float


class Lane:
    """See the module. ``offer`` may come from another thread than the rest."""

    MAX_UNSAVED: Final = 1000
    MAX_REMEMBERED: Final = 1000
    MAX_GROUP: Final = 100
    HELD_SECONDS: Final = 60.0
    """What is held is looked at again so often, whether silences changed or not."""

    def __init__(
        self,
        output: Output,
        outbox: Outbox,
        stats: Stats,
        *,
        policy: RetryPolicy,
        clock: Callable[[], float],
        chance: Callable[[], float],
        silences: Silencing | None = None,
        firing: Callable[[], Iterable[Alert]] = tuple,
        told: Callable[[str, Alert, str], object] = lambda _output, _alert, _change: None,
    ) -> None:
        """``firing`` gives the alerts that fire now, for outputs that repeat them. ``told`` gets this output's name, an
        alert and the id of each change of it that is done with: delivered, or not to be delivered any more."""
        self._output = output
        self._choosy = output if isinstance(output, Choosy) else None
        self._grouping = output if isinstance(output, Grouping) else None
        self._repeating = output if isinstance(output, Repeating) else None
        self._outbox = outbox
        self._stats = stats
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._silences = silences or NoSilences()
        self._firing = firing
        self._told = told
        self._silences_seen = self._silences.version
        self._repeat_at = float("-inf")
        self._unsaved: deque[_Unsaved] = deque(maxlen=self.MAX_UNSAVED)
        # Delivered, but the store could not take note: must not go out again.
        self._unnoted: dict[int, str] = {}
        self._failing = False
        self._health = OutputHealth(output.name)
        self._publish()

    def offer(self, change: AlertChange) -> None:
        """Takes a change that the store could not keep. Of too many the oldest are given up."""
        if not self._wants(change):
            self._done(change)
            return
        if len(self._unsaved) == self.MAX_UNSAVED:
            self._publish(abandoned=self._health.abandoned + 1)
        now = self._clock()
        self._unsaved.append(_Unsaved(change, 0, now, now))

    def drain(self, stopping: Callable[[], bool] = lambda: False) -> float | None:
        """Delivers what is due. Returns when to come again (s since the epoch), None when nothing waits."""
        waits = [self._drain_unsaved(stopping)]
        try:
            waits.append(self._drain_outbox(stopping))
            pending, held = self._outbox.waiting(self._output.name)
            self._publish(pending=pending - held + len(self._unsaved), held=held)
            if not stopping():
                waits.append(self._repeat())
        except StoreError as error:
            _logger.warning("output %s: the outbox can't be read, trying again: %s", self._output.name, error)
            self._publish(last_error=str(error))
            waits.append(self._clock() + 10 * self._policy.first_seconds)
        return min((wait for wait in waits if wait is not None), default=None)

    def close(self) -> None:
        """Closes the output. Never raises."""
        try:
            self._output.close()
        except Exception as error:
            _logger.warning("output %s: closing failed: %s", self._output.name, error)

    # --- what the store could not keep -----------------------------------------------------------------------

    def _drain_unsaved(self, stopping: Callable[[], bool]) -> float | None:
        for _ in range(len(self._unsaved)):
            if stopping():
                break
            with contextlib.suppress(IndexError):
                item = self._unsaved.popleft()
                now = self._clock()
                if item.next_at > now:
                    self._unsaved.append(item)
                elif self._silences.silencing(item.change.alert):
                    item.next_at = now + self._policy.first_seconds
                    self._unsaved.append(item)
                elif (error := self._try([item.change])) is not None:
                    item.attempts += 1
                    if not self._exhausted(item.change, item.attempts, item.created_at, error):
                        item.next_at = self._clock() + self._delay(item.attempts, error)
                        self._unsaved.append(item)
                        continue
                    self._done(item.change)
                else:
                    self._done(item.change)
        return min((item.next_at for item in list(self._unsaved)), default=None)

    # --- what is in the store --------------------------------------------------------------------------------

    def _drain_outbox(self, stopping: Callable[[], bool]) -> float | None:
        name = self._output.name
        self._heed_silences()
        trimmed = self._outbox.trim(name, self._policy.max_pending)
        if trimmed:
            _logger.error("output %s: gave up the oldest %d of too many waiting changes", name, trimmed)
            self._publish(abandoned=self._health.abandoned + trimmed)
        unripe = None
        limit = 50 if self._grouping is None else 5 * self.MAX_GROUP
        while not stopping():
            batch = self._outbox.due(name, self._clock(), limit)
            ready = [pending for pending in batch if self._passes(pending)]
            groups, unripe = self._grouped(ready)
            for group in groups:
                if stopping():
                    break
                self._deliver(group)
            # Something went, or was put off: what stood behind it may be due.
            if not groups and len(ready) == len(batch):
                break
        later = self._outbox.next_due(name, self._clock())
        return min((wait for wait in (later, unripe) if wait is not None), default=None)

    def _heed_silences(self) -> None:
        """Look again at what is held after silences changed; of what piles up behind it only the last counts."""
        version = self._silences.version
        if version != self._silences_seen:
            self._outbox.recheck(self._output.name)
            self._silences_seen = version
            self._repeat_at = float("-inf")
        if self._health.held:
            self._outbox.compact(self._output.name)

    def _passes(self, pending: Pending) -> bool:
        """Whether the change is to be delivered now; else it was taken out, or put off."""
        change, name = pending.change, self._output.name
        # The id too: a store that was begun anew counts from 1 again.
        if self._unnoted.get(pending.seq) == change.id or not self._wants(change):
            self._outbox.delivered(pending.seq)
            self._unnoted.pop(pending.seq, None)
            self._done(change)
            return False
        if self._silences.silencing(change.alert):
            self._outbox.hold(pending.seq, self._clock() + self.HELD_SECONDS)
            return False
        if pending.held:
            dropped = self._outbox.release(name, change.alert.id, untold=self._begins(change), now=self._clock())
            for change_id in dropped:
                self._told(name, change.alert, change_id)
            return False
        return True

    def _grouped(self, ready: Sequence[Pending]) -> tuple[list[list[Pending]], float | None]:
        """The changes that go together, oldest first; and when the next group is complete that is not yet."""
        if self._grouping is None:
            return [[pending] for pending in ready], None
        together: dict[str, list[Pending]] = {}
        for pending in ready:
            together.setdefault(self._grouping.group_of(pending.change), []).append(pending)
        groups, unripe = [], None
        for members in together.values():
            ripe_at = min(pending.created_at for pending in members) + self._grouping.group_seconds
            now = self._clock()
            # A wait of longer than the whole span means that the clock was set back.
            waits = now < ripe_at <= now + self._grouping.group_seconds
            if waits and len(members) < self.MAX_GROUP and not any(pending.attempts for pending in members):
                unripe = ripe_at if unripe is None else min(unripe, ripe_at)
            else:
                groups += [members[at : at + self.MAX_GROUP] for at in range(0, len(members), self.MAX_GROUP)]
        return groups, unripe

    def _deliver(self, group: Sequence[Pending]) -> None:
        error = self._try([pending.change for pending in group])
        for pending in group:
            if error is None:
                self._remember(pending.seq, pending.change.id)
                self._outbox.delivered(pending.seq)
                self._unnoted.pop(pending.seq, None)
                self._done(pending.change)
            elif self._exhausted(pending.change, pending.attempts + 1, pending.created_at, error):
                self._outbox.give_up(pending.seq)
                self._done(pending.change)
            else:
                delay = self._delay(pending.attempts + 1, error)
                self._outbox.failed(pending.seq, self._clock() + delay, _text(error))

    def _repeat(self) -> float | None:
        """Tell again what fires, where the output wants that and it is time. Returns when next."""
        repeating = self._repeating
        if repeating is None:
            return None
        now = self._clock()
        if self._repeat_at > now + repeating.repeat_seconds:
            self._repeat_at = now
        if now < self._repeat_at:
            return self._repeat_at
        self._repeat_at = now + repeating.repeat_seconds
        waiting = self._outbox.alerts(self._output.name)
        told = [one for one in self._firing() if one.id not in waiting and not self._silences.silencing(one)]
        if told:
            error = self._attempt("what still fires", lambda: repeating.repeat(told))
            if error is None:
                self._publish(last_delivered=self._clock())
        return self._repeat_at

    # --- one try ---------------------------------------------------------------------------------------------

    def _try(self, changes: Sequence[AlertChange]) -> Exception | None:
        def deliver() -> None:
            if self._grouping is not None:
                self._grouping.deliver_group(changes)
            else:
                for change in changes:
                    self._output.deliver(change)

        error = self._attempt(changes[0].id, deliver)
        if error is None:
            delivered = self._health.delivered + len(changes)
            self._publish(delivered=delivered, last_delivered=self._clock(), busy_since=None)
        return error

    def _attempt(self, what: str, deliver: Callable[[], object]) -> Exception | None:
        self._publish(busy_since=self._clock())
        try:
            deliver()
        except Exception as error:
            # Once for each outage: the tries of a day would fill a log.
            level = logging.DEBUG if self._failing else logging.WARNING
            _logger.log(level, "output %s: %s was not delivered: %s", self._output.name, what, _text(error))
            since = self._health.failing_since or self._clock()
            self._failing = True
            self._publish(failed=self._health.failed + 1, last_error=_text(error), busy_since=None, failing_since=since)
            return error
        self._failing = False
        self._publish(busy_since=None, failing_since=None)
        return None

    def _exhausted(self, change: AlertChange, attempts: int, created_at: float, error: Exception) -> bool:
        tired = attempts >= self._policy.max_attempts or self._clock() - created_at >= self._policy.max_age_seconds
        if not tired and not isinstance(error, Refused):
            return False
        text = _text(error)
        _logger.error("output %s: gave up %s after %d tries: %s", self._output.name, change.id, attempts, text)
        self._publish(abandoned=self._health.abandoned + 1)
        return True

    def _delay(self, attempts: int, error: Exception) -> float:
        asked = float(getattr(error, "retry_after", 0.0))
        return max(self._policy.delay(attempts, self._chance()), min(asked, self._policy.longest_seconds))

    def _done(self, change: AlertChange) -> None:
        self._told(self._output.name, change.alert, change.id)

    def _wants(self, change: AlertChange) -> bool:
        return self._choosy is None or self._choosy.wants(change)

    def _begins(self, change: AlertChange) -> bool:
        """Whether the output hears of an episode by this change for the first time."""
        state = change.alert.state
        if state is AlertState.PENDING:
            return True
        earlier = replace(change, alert=replace(change.alert, state=AlertState.PENDING))
        return state is AlertState.FIRING and not self._wants(earlier)

    def _remember(self, seq: int, change: str) -> None:
        self._unnoted[seq] = change
        if len(self._unnoted) > self.MAX_REMEMBERED:
            self._unnoted.pop(next(iter(self._unnoted)))

    def _publish(self, **changes: object) -> None:
        self._health = replace(self._health, **changes)  # type: ignore[arg-type]
        self._stats.output(self._health)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
