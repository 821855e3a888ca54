"""What a process found of its own growth, read from its ``otel_memory.evidence`` event; and whom that makes suspect.

Owns the reading: an event comes from outside, and what is missing or malformed in it is left out. Pure.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from otel_memory import names
from otel_memory.analyzer.feeds import NO_ROUTE
from otel_memory.analyzer.model import AttributeValue, Suspect
from otel_memory.analyzer.series import OTHER
from otel_memory.humanize import format_bytes, format_rate

OF_FINDINGS: Final = frozenset({"site", "type"})
"""Kinds of suspects that come from findings."""
MOST_SUSPECTS: Final = 5
MOST_SITES: Final = 2
LEAST_SHARE: Final = 0.03
"""A line that made less of the growth says nothing: every process allocates something while it is looked at."""
REST_OF_A_BURST: Final = 5.0
"""A burst is spread over this many times what it traces (docs/evidence.md), ..."""
LOOK_MARGIN_SECONDS: Final = 3.0
"""... and its traces take memory themselves, until a little later."""
LONGEST_LOOK_SECONDS: Final = 60.0
MOST_TIMES_THE_GROWTH: Final = 3.0
"""A leak that is traced for a second may well show so many times its usual rate. What shows more is something that
was at work just then, and is freed again."""
TYPE_WEIGHT: Final = 0.6
"""A type alone says less than a line: its share of the growth isn't measured."""
TRACED_WEIGHT: Final = 0.7
"""What a line made while it was traced may be freed a moment later, other than what was found to be held; ..."""
LIBRARY_WEIGHT: Final = 0.5
"""... and a line of the standard library, such as a server's read from a socket, works for whoever called it."""
_WORDS: Final = re.compile(r"^(?P<name>.*?)(?: \((?P<kind>[a-z ]+)\))?(?:, kept by (?P<through>.*))?$")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds what grows: ``entries`` more in a ``container`` of a ``kind`` (global, class, cache, …)."""

    name: str
    kind: str
    container: str
    entries: int
    through: str = ""
    size: float = 0.0
    """Bytes that came to it; 0 where that was not measured."""
    site: str = ""
    """The line that made them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An evidence event, read."""

    kind: str
    growth: float | None
    window: float | None
    sites: tuple[tuple[str, float], ...]
    types: tuple[tuple[str, int], ...]
    holders: tuple[Holder, ...]
    notes: tuple[str, ...]
    threads: int
    descriptors: int
    confidence: float
    looked_seconds: float = 0.0
    """How long the process looked at itself, in which it took memory for that."""

    def looked(self, at: float) -> tuple[float, float]:
        """From when to when the look lasted that the process told of ``at`` a time (s)."""
        return at - self.looked_seconds - LOOK_MARGIN_SECONDS, at + LOOK_MARGIN_SECONDS

    @property
    def site_share(self) -> float | None:
        """The share of the growth that came from the first site."""
        if not self.sites or not self.growth or self.growth <= 0:
            return None
        return min(self.sites[0][1] / self.growth, 1.0)

    @property
    def filled(self) -> str:
        """Where what grows was allocated."""
        return f"; allocated at {self.sites[0][0]}" if self.sites else ""

    def share_of(self, holder: Holder) -> float | None:
        """The share of the growth that came to a holder; None where that was not measured."""
        if holder.size <= 0 or not self.growth or self.growth <= 0 or not self.window:
            return None
        return min(holder.size / (self.growth * self.window), 1.0)


def read_finding(attributes: Mapping[str, AttributeValue]) -> Finding:
    """The finding that the attributes of an event describe."""

    def texts(name: str) -> tuple[str, ...]:
        value = attributes.get(name)
        return tuple(str(one) for one in value) if isinstance(value, tuple) else ()

    def numbers(name: str, count: int) -> tuple[float, ...]:
        value = attributes.get(name)
        known = tuple(float(one) for one in value if not isinstance(one, str)) if isinstance(value, tuple) else ()
        return (known + (0.0,) * count)[:count]

    def number(name: str) -> float | None:
        value = attributes.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    sites, types, held = texts(names.EVIDENCE_SITE), texts(names.EVIDENCE_TYPE), texts(names.EVIDENCE_HOLDER)
    kinds = texts(names.EVIDENCE_HOLDER_KIND) + ("unknown",) * len(held)
    containers = texts(names.EVIDENCE_HOLDER_CONTAINER) + ("",) * len(held)
    entries = numbers(names.EVIDENCE_HOLDER_GROWTH, len(held))
    sizes = numbers(names.EVIDENCE_HOLDER_SIZE, len(held))
    made = texts(names.EVIDENCE_HOLDER_SITE) + ("",) * len(held)
    holders = []
    for text, kind, container, more, size, site in zip(held, kinds, containers, entries, sizes, made, strict=False):
        parts = _WORDS.match(text)
        name, through = (parts["name"], parts["through"] or "") if parts else (text, "")
        holders.append(Holder(name, kind, container, int(more), through, size, site))
    return Finding(
        kind=str(attributes.get(names.EVIDENCE_KIND, "unknown")),
        growth=number(names.EVIDENCE_GROWTH),
        window=number(names.EVIDENCE_WINDOW),
        sites=tuple(zip(sites, numbers(names.EVIDENCE_SITE_GROWTH, len(sites)), strict=True)),
        types=tuple(
            (name, int(more)) for name, more in zip(types, numbers(names.EVIDENCE_TYPE_GROWTH, len(types)), strict=True)
        ),
        holders=tuple(holders),
        notes=texts(names.EVIDENCE_NOTE),
        threads=int(number(names.EVIDENCE_THREAD_GROWTH) or 0),
        descriptors=int(number(names.EVIDENCE_FD_GROWTH) or 0),
        confidence=number(names.EVIDENCE_CONFIDENCE) or 0.0,
        looked_seconds=_look(number(names.EVIDENCE_BURST_DURATION), number(names.EVIDENCE_CENSUS_DURATION)),
    )


def _look(burst: float | None, census: float | None) -> float:
    took = REST_OF_A_BURST * (burst or 0.0) + (census or 0.0)
    return min(max(took, 0.0), LONGEST_LOOK_SECONDS) if math.isfinite(took) else 0.0


def suspects_of(finding: Finding) -> tuple[Suspect, ...]:
    """The lines and types that the process found to grow, with who holds what they made."""
    if finding.growth is None or finding.growth <= 0:
        return ()
    held = _held(finding)
    found = [
        Suspect("site", holder.site, share * finding.growth, share, finding.confidence, _made(holder))
        for holder in finding.holders
        if holder.site and (share := finding.share_of(holder)) is not None
    ][:MOST_SITES]
    measured = {one.name for one in found}
    for name, rate in finding.sites[:MOST_SITES]:
        if rate < LEAST_SHARE * finding.growth or name in measured:
            continue
        # Who holds what a line makes is known of the first one at best.
        whose = held if not found else ""
        share, sure = _share(rate / finding.growth), TRACED_WEIGHT * finding.confidence
        if _of_the_library(name):
            sure *= LIBRARY_WEIGHT
        found.append(Suspect("site", name, rate, share, sure, f"{_traced(rate)}{whose}"))
    if not found and finding.types:
        name, more = finding.types[0]
        sure = TYPE_WEIGHT * finding.confidence
        holder = _holder(finding)
        if holder is not None and "." not in name:
            # A list or a dict is anybody's.
            name = f"{holder.name} ({name})"
        text = f"{more:,} more of them between two counts{held}"
        found.append(Suspect("type", name, sure * finding.growth, sure, sure, text))
    return tuple(found)


def merged(suspects: Sequence[Suspect], found: Sequence[Suspect]) -> tuple[Suspect, ...]:
    """Those that the calls explain and those that the process found, the surest large ones first; where they say
    equally much, the line before the route that leads to it. Calls that have no name come last: they lead nowhere."""
    everyone = sorted(
        [*found, *suspects],
        key=lambda one: (_nameless(one), -round(one.share * one.confidence, 1), one.kind not in OF_FINDINGS),
    )
    return tuple(everyone[:MOST_SUSPECTS])


def _nameless(suspect: Suspect) -> bool:
    return suspect.kind == "route" and suspect.name.endswith((NO_ROUTE, OTHER))


def _of_the_library(site: str) -> bool:
    """Whether a line belongs to Python's standard library, by the name of its module."""
    return site.partition(":")[0].partition("/")[0].removesuffix(".py") in sys.stdlib_module_names


def _share(times: float) -> float:
    """The share of the growth that a line is credited with which was traced to make so many times of it."""
    return min(times, 1.0) if times <= MOST_TIMES_THE_GROWTH else MOST_TIMES_THE_GROWTH / times


def _traced(rate: float) -> str:
    return f"allocated there and kept while it was traced: {format_rate(rate)}"


def _made(holder: Holder) -> str:
    through = f" (kept by {holder.through})" if holder.through else ""
    return f"made what {holder.name}{through} took: {holder.entries:,} entries, {format_bytes(holder.size)}"


def _holder(finding: Finding) -> Holder | None:
    """Who holds what grows, if that is known."""
    return next((holder for holder in finding.holders if holder.kind not in ("unknown", "cycle")), None)


def _held(finding: Finding) -> str:
    known = _holder(finding)
    if known is None:
        return ""
    more = f", {known.entries:,} entries more" if known.entries > 0 else ""
    through = f" (kept by {known.through})" if known.through else ""
    return f"; held by {known.name}{through}{more}"
