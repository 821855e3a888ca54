"""What the instances of one service have in common that leak: a version, a host, a moment, the code.

Owns the reasoning over many processes. Pure: takes the latest judgement of each process, wherever it was made, and
compares those that leak with those that don't. A difference is told only where chance would hardly make it (Fisher's
exact test, one-sided: Fisher, Statistical Methods for Research Workers, 1934, §21.02).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from otel_memory.analyzer.model import Assessment, Verdict
from otel_memory.humanize import format_duration, format_rate

Cause = Literal["version", "host", "moment", "all", "one", "some"]

CHANCE: Final = 0.01
"""A split that chance makes more often is not told; held against the number of groups that were compared."""
MOSTLY: Final = 0.8
SELDOM: Final = 0.2
"""Share of instances that leak, from which (up to which) all but a few (only a few) of them are said to."""
FEWEST: Final = 3
"""Instances that a group has at least."""
TOGETHER_SECONDS: Final = 120.0
TOGETHER_SHARE: Final = 0.05
"""Growth began at the same moment where the beginnings are spread by no more than that, or that share of their age."""
APART: Final = 5.0
"""... and the instances were started at times that are spread so many times wider."""
SEEN_SHARE: Final = 0.5
"""A healthy instance speaks against a leak once it was seen for so much of the time that the leaking ones needed."""


@dataclass(frozen=True, slots=True)
class FleetFinding:
    """How the leak of one service is spread.

    ``leaking`` are the ids of the processes that leak, those of the group that the cause is about first, ``healthy``
    how many of the service's others don't. ``subject`` is the version or host. ``since`` (s) is when the first began
    to grow, ``growth_bytes_per_second`` that of all together, ``time_to_limit_seconds`` the soonest estimate;
    ``confidence`` 0-1. ``suspect`` is what most of them suspect first.
    """

    service_name: str
    cause: Cause
    subject: str | None
    leaking: tuple[str, ...]
    healthy: int
    summary: str
    since: float | None
    growth_bytes_per_second: float | None
    time_to_limit_seconds: float | None
    suspect: str | None
    confidence: float

    @property
    def grouped(self) -> bool:
        """Whether it is one matter for all its instances, to be told once."""
        return self.cause in ("version", "host", "moment", "all") and len(self.leaking) >= FEWEST


def compare(assessments: Iterable[Assessment]) -> list[FleetFinding]:
    """One finding for each service with several instances of which one or more leak; the most instances first."""
    services: dict[str, list[Assessment]] = defaultdict(list)
    for one in assessments:
        services[one.process.service_name].append(one)
    found = [finding for name in services if (finding := _of_service(name, services[name])) is not None]
    return sorted(found, key=lambda each: (-len(each.leaking), each.service_name))


def _of_service(name: str, instances: Sequence[Assessment]) -> FleetFinding | None:
    leaking = sorted((a for a in instances if a.verdict is Verdict.LEAKING), key=lambda a: a.process.id)
    if not leaking:
        return None
    needed = statistics.median(a.last_seen - a.first_seen for a in leaking)
    healthy = [
        a for a in instances if a.verdict is Verdict.HEALTHY and a.last_seen - a.first_seen >= SEEN_SHARE * needed
    ]
    if len(leaking) + len(healthy) < FEWEST:
        return None
    for look in (_by_version, _by_host, _by_moment, _by_share):
        told = look(leaking, healthy)
        if told is not None:
            cause, subject, group, sentence, confidence = told
            return _finding(name, cause, subject, group, leaking, len(healthy), sentence, confidence)
    raise AssertionError("the last look always tells something")


_Told = tuple[Cause, str | None, Sequence[Assessment], str, float]


def _by_version(leaking: Sequence[Assessment], healthy: Sequence[Assessment]) -> _Told | None:
    split = _split(leaking, healthy, lambda a: a.process.service_version)
    if split is None:
        return None
    version = split.value
    before = _version_before(version, (*leaking, *healthy))
    since = f"it came with {version}" if before is None else f"it came with {version}, after {before}"
    return (
        "version",
        version,
        split.group,
        f"{split.counted(f' of version {version}')} others: {since}",
        split.confidence,
    )


def _by_host(leaking: Sequence[Assessment], healthy: Sequence[Assessment]) -> _Told | None:
    split = _split(leaking, healthy, lambda a: a.process.host_name)
    if split is None:
        return None
    counted = split.counted(f" on host {split.value}")
    sentence = f"{counted} elsewhere: look at what is special about that host, or reaches it alone"
    return "host", split.value, split.group, sentence, split.confidence


def _by_moment(leaking: Sequence[Assessment], healthy: Sequence[Assessment]) -> _Told | None:
    began = [a.leaking_since for a in leaking if a.leaking_since is not None]
    if len(began) < FEWEST or len(began) < MOSTLY * len(leaking):
        return None
    middle = statistics.median(began)
    spread = statistics.median(abs(each - middle) for each in began)
    age = statistics.median(a.last_seen - a.first_seen for a in leaking)
    if spread > max(TOGETHER_SECONDS, TOGETHER_SHARE * age):
        return None
    starts = [a.first_seen for a in leaking]
    apart = statistics.median(abs(each - statistics.median(starts)) for each in starts)
    if apart < APART * max(spread, TOGETHER_SECONDS / APART):
        return None  # they were started together: that they grow from then on says nothing
    ran = statistics.median(a.leaking_since - a.first_seen for a in leaking if a.leaking_since is not None)
    sentence = (
        f"{_count(len(leaking), len(leaking) + len(healthy))}, and all from the same moment on, though they were "
        f"started at different times and had run for about {format_duration(max(ran, 0.0))}: something changed then "
        "(configuration, input, a service that they call)"
    )
    return "moment", None, leaking, sentence, 0.9


def _by_share(leaking: Sequence[Assessment], healthy: Sequence[Assessment]) -> _Told:
    of = len(leaking) + len(healthy)
    share = len(leaking) / of
    counted = _count(len(leaking), of)
    if share >= MOSTLY:
        return "all", None, leaking, f"{counted}: it is in what they share, the code or its configuration", 0.9
    if share <= SELDOM:
        return "one", None, leaking, f"{counted}: look at the input or the host of {_those(len(leaking))}", 0.8
    return "some", None, leaking, f"{counted}; neither version, host nor time tells them apart", 0.5


class _Split(NamedTuple):
    """A group that leaks where the others don't. ``group`` are those of ``of`` instances with ``value`` that leak,
    ``elsewhere`` is how many of the ``others`` do; ``confidence`` is one less the probability by chance."""

    value: str
    group: Sequence[Assessment]
    of: int
    elsewhere: int
    others: int
    confidence: float

    def counted(self, which: str) -> str:
        """How many leak here and there; ends where the others are to be named."""
        return f"{_count(len(self.group), self.of, which)} and {_few(self.elsewhere, self.others)}"


def _split(
    leaking: Sequence[Assessment], healthy: Sequence[Assessment], key: Callable[[Assessment], str | None]
) -> _Split | None:
    with_leak = Counter(value for a in leaking if (value := key(a)) is not None)
    without = Counter(value for a in healthy if (value := key(a)) is not None)
    groups = with_leak.keys() | without.keys()
    if len(groups) < 2:
        return None
    total, leaks = with_leak.total() + without.total(), with_leak.total()
    best: tuple[float, str] | None = None
    for value, hits in with_leak.items():
        size = hits + without[value]
        if hits < MOSTLY * size or leaks - hits > SELDOM * (total - size):
            continue
        chance = min(1.0, _by_chance(hits, size, leaks, total) * len(groups))
        if chance <= CHANCE and (best is None or chance < best[0]):
            best = chance, value
    if best is None:
        return None
    chance, value = best
    group = [a for a in leaking if key(a) == value]
    of = with_leak[value] + without[value]
    return _Split(value, group, of, len(leaking) - len(group), len(leaking) + len(healthy) - of, 1 - chance)


def _by_chance(hits: int, size: int, leaks: int, total: int) -> float:
    """Probability that of ``leaks`` among ``total`` at least ``hits`` fall into a group of ``size`` by chance."""
    ways = math.comb(total, leaks)
    most = min(size, leaks)
    return sum(math.comb(size, n) * math.comb(total - size, leaks - n) for n in range(hits, most + 1)) / ways


def _version_before(version: str, instances: Iterable[Assessment]) -> str | None:
    first: dict[str, float] = {}
    for a in instances:
        known = a.process.service_version
        if known is not None:
            first[known] = min(first.get(known, math.inf), a.first_seen)
    earlier = [(at, other) for other, at in first.items() if other != version and at <= first[version]]
    return max(earlier)[1] if earlier else None


def _finding(
    name: str,
    cause: Cause,
    subject: str | None,
    group: Sequence[Assessment],
    leaking: Sequence[Assessment],
    healthy: int,
    sentence: str,
    confidence: float,
) -> FleetFinding:
    inside = {a.process.id for a in group}
    ordered = [*group, *(a for a in leaking if a.process.id not in inside)]
    rates = [a.growth_bytes_per_second for a in ordered if a.growth_bytes_per_second is not None]
    began = [a.leaking_since for a in ordered if a.leaking_since is not None]
    reaches = [a.time_to_limit.estimate for a in ordered if a.time_to_limit is not None]
    suspects = Counter(f"{a.suspects[0].kind} {a.suspects[0].name}" for a in ordered if a.suspects)
    suspect = suspects.most_common(1)[0] if suspects else None
    summary = f"{name}: {sentence}"
    if rates and sum(rates) > 0:
        summary += f". Together they grow {format_rate(sum(rates))}"
    if suspect is not None and suspect[1] > len(ordered) / 2:
        summary += f"; {suspect[1]} of them suspect {suspect[0]}"
    return FleetFinding(
        service_name=name,
        cause=cause,
        subject=subject,
        leaking=tuple(a.process.id for a in ordered),
        healthy=healthy,
        summary=summary,
        since=min(began, default=None),
        growth_bytes_per_second=sum(rates) if rates else None,
        time_to_limit_seconds=min(reaches, default=None),
        suspect=None if suspect is None else suspect[0],
        confidence=round(confidence, 4),
    )


def _count(hits: int, of: int, which: str = "") -> str:
    if hits == of:
        return f"all {of} instances{which} leak" if of > 1 else f"the only instance{which} leaks"
    return f"{hits} of {of} instances{which} {'leaks' if hits == 1 else 'leak'}"


def _few(hits: int, of: int) -> str:
    return f"none of the {of}" if hits == 0 else f"{hits} of the {of}"


def _those(count: int) -> str:
    return "that one" if count == 1 else f"those {count}"
