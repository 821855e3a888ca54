"""Which changes of alerts the outputs have got, as it is kept beside the judgement, and which of them are owed.

Owns what a worker that takes over processes has to tell: the outbox of the one before went with its disk. An alert
says by its times which changes it went through, so of each output only the last one that it got is kept. What was
delivered, but not noted before a kill, is delivered again, with the same id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

from otel_memory.analyzer.model import Alert, AlertState, Assessment
from otel_memory.analyzer.outputs.base import AlertChange, change_id

EVERY: Final = "*"
"""In the place of an output's name: what was told before this was kept."""
OWED_SECONDS: Final = 24 * 3600.0
"""What an output has not got for so long it will not get any more (``RetryPolicy``)."""

Told = Mapping[str, Mapping[str, str]]
"""Output -> name of the alert -> id of the last change that the output has got, or need not get."""

Owed = tuple[AlertChange, tuple[str, ...]]
"""A change, and the outputs that have not got it."""


class Deliveries:
    """Of the alerts of some processes. For one thread."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, dict[str, str]]] = {}

    def resume(self, process_id: str, told: Told | None, alerts: Collection[Alert]) -> None:
        """Take over what was kept; None where nobody kept it, and so nothing is owed."""
        if told is None:
            told = {EVERY: {alert.name: changes_of(alert)[-1].id for alert in alerts}} if alerts else {}
        if told:
            self._told[process_id] = {output: dict(names) for output, names in told.items()}

    def note(self, process_id: str, name: str, output: str, change: str) -> None:
        """``output`` has got the change with the id ``change``."""
        self._told.setdefault(process_id, {}).setdefault(output, {})[name] = change

    def of(self, process_id: str) -> Told:
        """What is to be kept of a process."""
        return self._told.get(process_id, {})

    def forget(self, process_id: str) -> None:
        """It is gone."""
        self._told.pop(process_id, None)

    def owed(
        self, alert: Alert, assessment: Assessment | None, outputs: Collection[str], since: float
    ) -> Iterator[Owed]:
        """The changes that outputs have not got, oldest first; none that is older than ``since`` (s)."""
        told = self._told.get(alert.process, {})
        every = told.get(EVERY, {}).get(alert.name)
        last = {output: told.get(output, {}).get(alert.name, every) for output in outputs}
        yield from owed(alert, assessment, last, since)


def owed(alert: Alert, assessment: Assessment | None, last: Mapping[str, str | None], since: float) -> Iterator[Owed]:
    """As ``Deliveries.owed``; ``last``: output -> id of the last change that it has got, None where it has none."""
    changes = changes_of(alert, assessment)
    places = {change.id: place for place, change in enumerate(changes)}
    for place, change in enumerate(changes):
        lacking = tuple(output for output, got in last.items() if places.get(got or "", -1) < place)
        if lacking and change.at >= since:
            yield change, lacking


def changes_of(alert: Alert, assessment: Assessment | None = None) -> list[AlertChange]:
    """The changes that the alert has gone through in its present episode, the last one as it is."""
    passed = [(AlertState.PENDING, alert.starts_at)]
    if alert.fired_at is not None:
        passed.append((AlertState.FIRING, alert.fired_at))
    if alert.state is AlertState.RESOLVED and alert.ends_at is not None:
        passed.append((AlertState.RESOLVED, alert.ends_at))
    changes = []
    for state, at in passed:
        then = replace(
            alert,
            state=state,
            ends_at=alert.ends_at if state is AlertState.RESOLVED else None,
            fired_at=None if state is AlertState.PENDING else alert.fired_at,
        )
        changes.append(AlertChange(change_id(then, at), at, then, assessment))
    return changes
