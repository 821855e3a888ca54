"""What was found of a growth: its kind, the lines, types and holders that grow, and what could not be found out.

Owns the form of the finding, the judgement of its kind, and its wording. Pure: the looking is done by
``evidence_looks.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from otel_memory import names
from otel_memory.probe.units import human_bytes, human_seconds

Kind = Literal["python", "cycles", "native", "fragmentation", "threads", "mapped", "unknown"]

MAX_NAMED: Final = 5
"""Sites, types and holders that are named, each."""
EXPLAINS: Final = 0.3
"""A look names the cause where it accounts for this share of the growth."""
_LOOKS: Final = 5

_KINDS: Final[dict[Kind, str]] = {
    "python": "Python objects grow",
    "cycles": "cycles of Python objects grow and wait for the collector",
    "native": "memory in the C allocator grows that Python's allocators don't hold",
    "fragmentation": "free memory grows that the allocators keep",
    "threads": "threads grow, and their stacks with them",
    "mapped": "memory grows that was mapped past both allocators",
    "unknown": "memory grows",
}


@dataclass(frozen=True, slots=True)
class SiteGrowth:
    """A line of the program: ``name`` is ``file:line function``; what it allocated and kept, in By/s."""

    name: str
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class TypeGrowth:
    """``objects`` more of a type between two censuses."""

    name: str
    objects: int


@dataclass(frozen=True, slots=True)
class HolderGrowth:
    """Who holds what grew. ``entries``: by how many a container grew (bytes for a buffer); None where single objects
    of a growing type were followed up. ``estimated_bytes`` ranks, and isn't reported."""

    name: str
    kind: str
    what: str
    entries: int | None
    estimated_bytes: float = 0.0

    def __str__(self) -> str:
        more = f": {self.what}" + ("" if self.entries is None else f", {self.entries:+,}")
        return self.name + more


@dataclass(frozen=True, slots=True)
class PartGrowth:
    """Bytes per second by which each part of resident memory grew between the two looks. None: not measured."""

    python_used: float | None = None
    python_free: float | None = None
    c_used: float | None = None
    c_free: float | None = None
    stack: float | None = None
    other: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One finding. Rates are By/s, durations s. Whatever could not be measured is None or empty, and ``gave_up`` says
    why."""

    kind: Kind
    growth: float | None
    """Of resident memory that no file backs, over ``window_seconds``."""
    window_seconds: float
    sites: tuple[SiteGrowth, ...] = ()
    types: tuple[TypeGrowth, ...] = ()
    holders: tuple[HolderGrowth, ...] = ()
    notes: tuple[str, ...] = ()
    """What grew beside: threads, descriptors; the state of the collector."""
    parts: PartGrowth = PartGrowth()
    traced_growth: float | None = None
    """Of all Python memory that stayed, as a burst saw it."""
    threads: int | None = None
    descriptors: int | None = None
    """By how many threads and open descriptors grew between the two looks."""
    burst_seconds: float = 0.0
    census_seconds: float = 0.0
    pause_seconds: float = 0.0
    """The longest time that looking held the interpreter in one piece."""
    gave_up: tuple[str, ...] = ()
    confidence: float = 0.0
    """Share of five independent looks that name the same cause: growth that went on, site, type, holder, parts."""

    def summary(self) -> str:
        """What grows, in one or two sentences."""
        rate = (
            "" if self.growth is None else f" by {human_bytes(self.growth)}/s over {human_seconds(self.window_seconds)}"
        )
        text = f"Memory grows{rate}: {_KINDS[self.kind]}."
        firsts = [
            *(f"allocated at {site.name}" for site in self.sites[:1]),
            *(f"most new objects {each.name} ({each.objects:+,})" for each in self.types[:1]),
            *(f"held by {holder.name}" for holder in self.holders[:1]),
            *self.notes[:2],
        ]
        return text + (f" {'; '.join(firsts)[:400]}." if firsts else "")

    def attributes(self) -> dict[str, str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]]:
        """As an event bears it: flat, lists that belong together of equal length."""
        found: dict[str, str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float] | None] = {
            names.EVIDENCE_KIND: self.kind,
            names.EVIDENCE_GROWTH: self.growth,
            names.EVIDENCE_WINDOW: self.window_seconds,
            names.EVIDENCE_SITE: [site.name for site in self.sites],
            names.EVIDENCE_SITE_GROWTH: [site.bytes_per_second for site in self.sites],
            names.EVIDENCE_TYPE: [each.name for each in self.types],
            names.EVIDENCE_TYPE_GROWTH: [each.objects for each in self.types],
            names.EVIDENCE_HOLDER: [holder.name for holder in self.holders],
            names.EVIDENCE_HOLDER_KIND: [holder.kind for holder in self.holders],
            names.EVIDENCE_HOLDER_CONTAINER: [holder.what for holder in self.holders],
            names.EVIDENCE_HOLDER_GROWTH: [holder.entries or 0 for holder in self.holders],
            names.EVIDENCE_NOTE: list(self.notes),
            names.EVIDENCE_PYTHON_GROWTH: self.traced_growth,
            names.EVIDENCE_C_GROWTH: self.parts.c_used,
            names.EVIDENCE_FREE_GROWTH: _sum(self.parts.c_free, self.parts.python_free),
            names.EVIDENCE_THREAD_GROWTH: self.threads,
            names.EVIDENCE_FD_GROWTH: self.descriptors,
            names.EVIDENCE_BURST_DURATION: self.burst_seconds,
            names.EVIDENCE_CENSUS_DURATION: self.census_seconds,
            names.EVIDENCE_PAUSE: self.pause_seconds,
            names.EVIDENCE_GAVE_UP: list(self.gave_up),
            names.EVIDENCE_CONFIDENCE: self.confidence,
        }
        return {name: value for name, value in found.items() if value is not None and value != []}


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def judge_kind(
    growth: float | None,
    traced: float | None,
    parts: PartGrowth,
    holders: Sequence[HolderGrowth],
    threads: int | None,
    elapsed: float,
    sites: Sequence[SiteGrowth] = (),
) -> Kind:
    """What kind of growth this is, from what was measured of it.

    Python's memory is known best from a burst (``traced``); without one, from its blocks and from what the growing
    containers hold. Of the rest, the part of resident memory that grew most.
    """
    least = EXPLAINS * (growth if growth is not None and growth > 0 else 0.0)
    held = sum(holder.estimated_bytes for holder in holders if holder.entries is not None) / max(elapsed, 1e-9)
    python = (traced if traced is not None else max(parts.python_used or 0.0, held)) if least else (traced or held)
    if threads is not None and threads >= 5 and (parts.stack or 0.0) >= max(least, python):
        return "threads"
    if python > 0 and python >= least:
        return "cycles" if holders and holders[0].kind == "cycle" else "python"
    others: dict[Kind, float] = {
        "native": parts.c_used or 0.0,
        "fragmentation": (parts.c_free or 0.0) + (parts.python_free or 0.0),
        "threads": parts.stack or 0.0,
        "mapped": parts.other or 0.0,
    }
    kind = max(others, key=lambda each: others[each])
    return kind if others[kind] > max(0.0, least) else "unknown"


def confidence(
    kind: Kind,
    growth: float | None,
    went_on: bool,
    sites: Sequence[SiteGrowth],
    types: Sequence[TypeGrowth],
    holders: Sequence[HolderGrowth],
    parts: PartGrowth,
) -> float:
    """The share of the looks that speak for the kind."""
    least = EXPLAINS * (growth or 0.0)
    of_kind: Mapping[Kind, float | None] = {
        "python": _sum(parts.python_used, parts.c_used),
        "cycles": _sum(parts.python_used, parts.c_used),
        "native": parts.c_used,
        "fragmentation": _sum(parts.c_free, parts.python_free),
        "threads": parts.stack,
        "mapped": parts.other,
    }
    held_in_python = kind in ("python", "cycles")
    looks = (
        went_on,
        bool(sites) and sites[0].bytes_per_second >= least if held_in_python else not sites or kind != "unknown",
        bool(types) or not held_in_python,
        bool(holders) or not held_in_python,
        (of_kind.get(kind) or 0.0) > least,
    )
    return sum(looks) / _LOOKS
