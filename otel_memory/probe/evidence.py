"""What was found of a growth: its kind, the lines, types and holders that grow, and what could not be found out.

Owns the form of the finding, the judgement of its kind, and its wording. Pure: the looking is done by
``evidence_looks.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from otel_memory import names
from otel_memory.probe.units import human_bytes, human_seconds

Kind = Literal["python", "cycles", "native", "fragmentation", "threads", "mapped", "unknown"]

MAX_NAMED: Final = 5
"""Sites, types and holders that are named, each."""
MORE_THREADS: Final = 5
"""So many more threads are worth a word."""
EXPLAINS: Final = 0.3
"""A part of memory names the kind from this share of the growth on."""

_KINDS: Final[dict[Kind, str]] = {
    "python": "Python objects",
    "cycles": "cycles of Python objects that wait for the collector",
    "native": "memory that C code allocated, not Python's allocators",
    "fragmentation": "free memory that the allocators keep",
    "threads": "stacks of threads",
    "mapped": "memory mapped past Python's and the C allocator",
    "unknown": "what could not be told",
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
    """Who holds what grew: ``entries`` (of a buffer bytes) more in a container, or ``entries`` more objects of a type
    (``single``), some of which were followed up."""

    name: str
    """With its kind in words and what keeps it, as ``holder_names.Holder`` says it."""
    kind: str
    what: str
    """The container and what is in it: ``dict of shop.Cart``; the type of single objects."""
    entries: int
    size: int = 0
    """Bytes that came with them, by the newest of them."""
    site: str = ""
    """The line that made most of what came to the container in a burst; empty if none was seen."""
    single: bool = False
    own: bool = True
    """Of the program, not of a library."""

    def sentence(self, seconds: float) -> str:
        """What it did within ``seconds``, as one would tell a colleague."""
        name, _, through = self.name.partition(", kept by ")
        name = name.partition(" (")[0]
        kept = f" (kept by {through.partition(' (')[0]})" if through else ""
        within = f"in {human_seconds(seconds)}"
        about = f" (about {human_bytes(self.size)})" if self.size > 0 else ""
        made = f"; they are made in {_call(self.site)}" if self.site else ""
        if self.kind == "cycle":
            return f"{self.entries:,} more {self.what} objects{about} {within} that only cycles hold{made}"
        if self.kind == "unknown":
            name = f"a holder without a name ({name})"
        elif self.kind == "cache":
            name = f"the cache of {name}()"
        if self.single:
            return f"{name}{kept} holds ever more {self.what} objects: {self.entries:+,}{about} {within}{made}"
        container = self.what.partition(" of ")[0].removesuffix(" (bytes)").rpartition(".")[2]
        article = "an" if container[:1].lower() in "aeiou" else "a"
        by = human_bytes(self.entries) if self.what.endswith("(bytes)") else f"{self.entries:,} entries{about}"
        return f"{name}{kept}, {article} {container}, grew by {by} {within}{made}"


def _call(site: str) -> str:
    """``shop/cart.py:41 price()`` for ``shop/cart.py:41 price``."""
    return f"{site}()" if " " in site and not site.endswith(">") else site


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
    elapsed_seconds: float = 0.0
    """Between the two looks: what ``types`` and ``holders`` grew, they grew in this time."""
    threads: int | None = None
    descriptors: int | None = None
    """By how many threads and open descriptors grew between the two looks."""
    burst_seconds: float = 0.0
    census_seconds: float = 0.0
    pause_seconds: float = 0.0
    """The longest time that looking held the interpreter in one piece."""
    gave_up: tuple[str, ...] = ()
    confidence: float = 0.0
    """How much of the growth is explained by what is named: see ``confidence``."""

    def summary(self) -> str:
        """What grows, in a few sentences."""
        seconds = human_seconds(self.window_seconds)
        rate = "Memory grew" if self.growth is None else f"Memory grew by {human_bytes(self.growth)}/s for {seconds}"
        said = [f"{rate}, mostly {_KINDS[self.kind]}" if self.kind != "unknown" else rate]
        if self.kind in ("fragmentation", "mapped") and not self.sites:
            pass  # whatever container grew along with it, it isn't that
        elif self.holders and (self.holders[0].kind != "unknown" or not self.sites):
            said.append(self.holders[0].sentence(self.elapsed_seconds))
            if self.sites and not self.holders[0].site and self.kind != "native":
                said.append(f"What stays is mostly allocated in {_call(self.sites[0].name)}")
        elif self.sites:
            said.append(f"What stays is mostly allocated in {_call(self.sites[0].name)}")
        elif self.types:
            said.append(f"There are {self.types[0].objects:,} more {self.types[0].name} objects")
        elif self.kind == "unknown":
            said.append("No look found out what it is")
        said += self.notes[:2]
        return ". ".join(("T" + each[1:] if each.startswith("the ") else each)[:400] for each in said) + "."

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
            names.EVIDENCE_HOLDER_GROWTH: [holder.entries for holder in self.holders],
            names.EVIDENCE_HOLDER_SIZE: [holder.size for holder in self.holders],
            names.EVIDENCE_HOLDER_SITE: [holder.site for holder in self.holders],
            names.EVIDENCE_NOTE: list(self.notes),
            names.EVIDENCE_PYTHON_GROWTH: self.parts.python_used,
            names.EVIDENCE_C_GROWTH: self.parts.c_used,
            names.EVIDENCE_FREE_GROWTH: _sum(self.parts.c_free, self.parts.python_free),
            names.EVIDENCE_STACK_GROWTH: self.parts.stack,
            names.EVIDENCE_MAPPED_GROWTH: self.parts.other,
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
) -> Kind:
    """What kind of growth this is: the part of memory that grew most, if it accounts for ``EXPLAINS`` of it.

    Python's share is the largest that one measure proves: its allocator's own count (which doesn't know blocks above
    512 bytes, and tells nothing while tracemalloc is on), what came to the holders, what stayed in a burst (``traced``;
    of a program made slower) or was traced by the program itself. What of the C allocator's growth Python doesn't
    account for is native.
    """
    held = max((holder.size for holder in holders), default=0) / max(elapsed, 1e-9)
    in_arenas = max(parts.python_used or 0.0, 0.0)
    python = max(in_arenas, held, traced or 0.0)
    rates: dict[Kind, float] = {
        "python": python,
        "native": (parts.c_used or 0.0) - (python - in_arenas),
        "fragmentation": (parts.c_free or 0.0) + (parts.python_free or 0.0),
        "threads": (parts.stack or 0.0) if threads is not None and threads >= MORE_THREADS else 0.0,
        "mapped": parts.other or 0.0,
    }
    least = EXPLAINS * max(growth or 0.0, 0.0)
    others = parts.python_used is not None and any(not holder.single for holder in holders)
    if max(in_arenas, held) < least <= (parts.c_used or 0.0) and others:
        # What stayed in the burst lies in the C allocator, and isn't what the growing container's objects consist of:
        # extension modules that allocate by way of Python.
        rates["python"], rates["native"] = 0.0, parts.c_used or 0.0
    kind = max(rates, key=lambda each: rates[each])
    if rates[kind] <= 0 or rates[kind] < least:
        return "unknown"
    return "cycles" if kind == "python" and holders and holders[0].kind == "cycle" else kind


def confidence(
    kind: Kind,
    growth: float | None,
    elapsed: float,
    sites: Sequence[SiteGrowth],
    holders: Sequence[HolderGrowth],
    parts: PartGrowth,
    went_on: bool = True,
) -> float:
    """How much of the growth is explained, 0 to 1.

    Of Python objects: six tenths times the share of the growth that the first holder's measured growth accounts for,
    three tenths times the share of the kind's part of memory, one tenth for a line that made them. Of anything else
    the share of the kind's part, times 0.9 where the kind says it all (free memory, stacks) and 0.5 where it doesn't
    say who; with a tenth for a container that grew along. Half of that where the growth didn't go on.
    """
    if kind == "unknown" or growth is None or growth <= 0:
        return 0.0
    of_kind = {
        "native": parts.c_used,
        "fragmentation": _sum(parts.c_free, parts.python_free),
        "threads": parts.stack,
        "mapped": parts.other,
    }.get(kind, _sum(parts.python_used, parts.c_used))
    share = _share(of_kind, growth)
    if kind in ("python", "cycles"):
        named = [holder for holder in holders[:1] if holder.kind != "unknown"]
        held = _share(max((holder.size for holder in named), default=0) / max(elapsed, 1e-9), growth)
        lines = bool(sites) or any(holder.site for holder in named)
        found = 0.6 * held + 0.3 * share + (0.1 if lines and named else 0.0)
    elif kind in ("fragmentation", "threads"):
        found = 0.9 * share
    else:
        found = 0.5 * share + (0.1 if holders and not holders[0].single else 0.0)
    return round(found if went_on else found / 2, 3)


def _share(part: float | None, whole: float) -> float:
    return min(1.0, max(0.0, part or 0.0) / whole)
