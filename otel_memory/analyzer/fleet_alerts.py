"""One alert for a service of which many instances leak for one reason, in the place of one for each of them.

Owns the alert ``memory_leak_group`` and who is told of in it: while it is pending or fires, the outputs are not told of
the ``memory_leak`` of its instances (``Groups``). Whether instances are a group is ``fleet``'s to say. Event time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from otel_memory.analyzer.alerting import MEMORY_LEAK, AlertingSettings, alert_id
from otel_memory.analyzer.fleet import FleetFinding, compare
from otel_memory.analyzer.model import Alert, AlertState, Assessment
from otel_memory.analyzer.outputs.base import AlertChange, change_id
from otel_memory.analyzer.silences import Silences
from otel_memory.humanize import format_duration

MEMORY_LEAK_GROUP: Final = "memory_leak_group"
MAX_LISTED: Final = 50
"""Instances that the alert describes, ..."""
MAX_IDS: Final = 200
"""... and of which it bears the ids."""


class Groups:
    """Which processes are told of in which group's alert. One thread sets, any asks."""

    def __init__(self) -> None:
        self.waits: Callable[[Alert], bool] = lambda _alert: False
        """Whether it is still to be seen if an alert belongs to a group: outputs wait for it."""
        self._members: Mapping[str, str] = {}
        self._version = 0
        self._listeners: tuple[Callable[[], object], ...] = ()

    @property
    def version(self) -> int:
        """Grows whenever the answers may be others."""
        return self._version

    def listen(self, listener: Callable[[], object]) -> None:
        """Calls ``listener`` after each growth of ``version``; it must not block."""
        self._listeners = (*self._listeners, listener)

    def covering(self, alert: Alert) -> tuple[str, ...]:
        """The id of the alert that tells of this one, if any."""
        if alert.name != MEMORY_LEAK:
            return ()
        group = self._members.get(alert.process)
        return () if group is None else (group,)

    def assign(self, members: Mapping[str, str]) -> None:
        """Process id -> id of the group's alert, for all groups."""
        if members == self._members:
            return
        self._members = dict(members)
        self.renew()

    def renew(self) -> None:
        """Have all that waits asked for anew: an answer may be another one."""
        self._version += 1
        for listener in self._listeners:
            listener()


@dataclass(frozen=True, slots=True)
class Group:
    """The alert of one service, the ids of the processes that it tells of, and since when (s) they have been no group
    any more."""

    alert: Alert
    members: tuple[str, ...]
    apart_since: float | None = None


class FleetAlerting:
    """The alerts of all groups. ``step`` on one thread."""

    def __init__(self, settings: AlertingSettings | None = None, groups: Groups | None = None) -> None:
        self._settings = settings or AlertingSettings()
        self._groups = groups or Groups()
        self._active: dict[str, Group] = {}
        self._ended: dict[str, float] = {}

    def resume(self, alerts: Iterable[Alert]) -> None:
        """Go on from the groups' alerts among ``alerts``, as they were kept."""
        groups = [alert for alert in alerts if alert.name == MEMORY_LEAK_GROUP]
        self.go_on(
            Group(alert, tuple(filter(None, alert.annotations.get("instances", "").split(",")))) for alert in groups
        )

    def go_on(self, groups: Iterable[Group]) -> None:
        """Go on from these, which may be over."""
        for group in groups:
            service = group.alert.labels.get("service_name", "")
            if group.alert.state is not AlertState.RESOLVED:
                self._active[service] = group
            elif group.alert.ends_at is not None:
                self._ended[service] = group.alert.ends_at
        self._assign()

    @property
    def groups(self) -> tuple[Group, ...]:
        """Those whose alerts are pending or fire, with their newest figures."""
        return tuple(self._active.values())

    @property
    def active(self) -> tuple[Alert, ...]:
        """Their alerts."""
        return tuple(group.alert for group in self._active.values())

    def step(self, assessments: Collection[Assessment]) -> list[AlertChange]:
        """Compare the instances of each service now; the changes of alerts that follow from it."""
        by_id = {a.process.id: a for a in assessments}
        found = {finding.service_name: finding for finding in compare(assessments) if finding.grouped}
        newest: dict[str, float] = {}
        for a in assessments:
            service = a.process.service_name
            newest[service] = max(newest.get(service, a.last_seen), a.last_seen)
        changes: list[AlertChange] = []
        for service in sorted(found.keys() | self._active.keys()):
            # A service of which nothing is known any more is over.
            now = newest.get(service)
            group = self._active.get(service)
            changed = (
                self._begin(service, found[service], by_id, now or 0.0)
                if group is None
                else self._go_on(service, group, found.get(service), by_id, now)
            )
            if changed is not None:
                changes.append(changed)
        self._assign()
        return changes

    def _begin(
        self, service: str, finding: FleetFinding, by_id: Mapping[str, Assessment], now: float
    ) -> AlertChange | None:
        ended = self._ended.get(service)
        if ended is not None and now < ended + self._settings.cooldown_seconds:
            return None
        first = by_id[finding.leaking[0]]
        severity = self._severity(finding)
        labels = {"alertname": MEMORY_LEAK_GROUP, "severity": severity, "service_name": service}
        if finding.cause == "version" and finding.subject is not None:
            labels["service_version"] = finding.subject
        if finding.cause == "host" and finding.subject is not None:
            labels["host_name"] = finding.subject
        alert = Alert(
            id=alert_id(MEMORY_LEAK_GROUP, service),
            name=MEMORY_LEAK_GROUP,
            severity=severity,
            state=AlertState.PENDING,
            process=first.process.id,
            starts_at=now,
            ends_at=None,
            summary="",
            description="",
            labels=labels,
        )
        alert = _told(alert, finding, by_id)
        self._active[service] = Group(alert, finding.leaking)
        return _change(alert, now, first)

    def _go_on(
        self,
        service: str,
        group: Group,
        finding: FleetFinding | None,
        by_id: Mapping[str, Assessment],
        now: float | None,
    ) -> AlertChange | None:
        if finding is not None and now is not None:
            alert = _told(group.alert, finding, by_id)
            fires = alert.state is AlertState.PENDING and now - alert.starts_at >= self._settings.for_seconds
            if fires:
                alert = replace(alert, state=AlertState.FIRING, fired_at=now)
            self._active[service] = Group(alert, finding.leaking)
            return _change(alert, now, by_id.get(alert.process)) if fires else None
        since = group.apart_since if group.apart_since is not None else now
        if now is not None and since is not None and now - since < self._settings.healthy_seconds:
            self._active[service] = replace(group, apart_since=since)
            return None
        at = now if now is not None else max(group.alert.starts_at, group.alert.fired_at or 0.0)
        alert = replace(
            group.alert,
            state=AlertState.RESOLVED,
            ends_at=at,
            summary=f"{service}: its instances no longer leak together",
        )
        del self._active[service]
        self._ended[service] = at
        return _change(alert, at, by_id.get(alert.process))

    def _severity(self, finding: FleetFinding) -> Literal["warning", "critical"]:
        reach = finding.time_to_limit_seconds
        return "critical" if reach is not None and reach < self._settings.critical_seconds else "warning"

    def _assign(self) -> None:
        self._groups.assign(
            {process_id: group.alert.id for group in self._active.values() for process_id in group.members}
        )


def _told(alert: Alert, finding: FleetFinding, by_id: Mapping[str, Assessment]) -> Alert:
    """The alert with what is known now; its labels and its process stay, they are its identity."""
    listed = [by_id[process_id] for process_id in finding.leaking[:MAX_LISTED] if process_id in by_id]
    named = "; ".join(_named(a) for a in listed)
    more = len(finding.leaking) - len(listed)
    sentences = [f"{finding.summary}.", f"Leaking: {named}{f' and {more} more' if more else ''}."]
    if finding.time_to_limit_seconds is not None:
        sentences.insert(1, f"The first reaches its limit in about {format_duration(finding.time_to_limit_seconds)}.")
    description = " ".join(sentences)
    annotations = {
        "summary": finding.summary,
        "description": description,
        "cause": finding.cause,
        "instances": ",".join(finding.leaking[:MAX_IDS]),
        "instance_count": str(len(finding.leaking)),
        "healthy_count": str(finding.healthy),
    }
    if finding.subject is not None:
        annotations["subject"] = finding.subject
    if finding.growth_bytes_per_second is not None:
        annotations["growth_bytes_per_second"] = f"{finding.growth_bytes_per_second:.0f}"
    if finding.time_to_limit_seconds is not None:
        annotations["time_to_limit_seconds"] = f"{finding.time_to_limit_seconds:.0f}"
    first = by_id.get(finding.leaking[0])
    suspects = () if first is None else first.suspects
    if finding.suspect is not None:
        annotations["first_suspect"] = finding.suspect
    return replace(alert, summary=finding.summary, description=description, suspects=suspects, annotations=annotations)


def _named(assessment: Assessment) -> str:
    process = assessment.process
    parts = [process.service_instance_id or process.id]
    parts += [f"on {process.host_name}"] if process.host_name else []
    return " ".join(parts)


def _change(alert: Alert, at: float, assessment: Assessment | None) -> AlertChange:
    return AlertChange(change_id(alert, at), at, alert, assessment)


class Held:
    """What keeps an alert from being told of: silences, and the group that tells of it. For readers."""

    def __init__(self, silences: Silences, groups: Groups) -> None:
        self._silences = silences
        self._groups = groups

    @property
    def version(self) -> int:
        """Grows whenever the answers may be others."""
        return self._silences.version + self._groups.version

    def silencing(self, alert: Alert) -> tuple[str, ...]:
        """The ids of the silences in force for this alert, and of the group's alert that tells of it."""
        return (*self._silences.silencing(alert), *self._groups.covering(alert))


class HeldBack(Held):
    """The same for outputs: they wait also until it is known whether a group tells of an alert."""

    def silencing(self, alert: Alert) -> tuple[str, ...]:
        """The ids, or what else there is to wait for."""
        found = super().silencing(alert)
        return found if found or not self._groups.waits(alert) else ("to be compared with other instances",)
