"""The looks that make an evidence: two sets of readings some time apart, and a burst between them.

Owns the order of the looks and what is made of them together; each look is a module of its own. Everything here takes
milliseconds to seconds: it runs in the background, or on the thread of whoever asks for it.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from otel_memory.probe import burst as bursts
from otel_memory.probe import census as censuses
from otel_memory.probe import holders as searches
from otel_memory.probe import listing
from otel_memory.probe.burst import Burst
from otel_memory.probe.census import Census
from otel_memory.probe.cycle_labels import type_name
from otel_memory.probe.evidence import (
    MAX_NAMED,
    Evidence,
    HolderGrowth,
    PartGrowth,
    SiteGrowth,
    TypeGrowth,
    confidence,
    judge_kind,
)
from otel_memory.probe.holder_names import referred_by_threads

MAX_DESCRIPTORS: Final = 4096
_FOLLOWED_CONTAINERS: Final = 5
_FOLLOWED_TYPES: Final = 2
_SAMPLES_A_TYPE: Final = 3
_LEAST_OBJECTS: Final = 20
_LEAST_SHARE: Final = 0.005
_LEAST_HELD: Final = 0.02  # of the growth, that a container must account for to be named
_OWN_CLASS: Final = 4.0
_LIBRARY_CLASS: Final = 3.0
"""Weights of a growing class: one of the program or a package, one of the standard library; builtin types have 1."""
_TELLING: Final = frozenset({"traceback", "frame", "generator", "coroutine", "async_generator"})
"""Builtin types that say something by themselves: whoever keeps one keeps a function's variables."""
_BUILTIN_SIZE: Final = 64
_LEAST_BUILTIN: Final = 0.01
_FEW: Final = 10
_LEAST_SITE: Final = 0.05  # of the growth, that a site must account for to be named
_MORE: Final = 5
"""So many more threads or descriptors are worth a word."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings allow. ``methods`` are ``census`` and ``burst``."""

    methods: tuple[str, ...] = ("census", "burst")
    max_pause_seconds: float = 0.05
    frames: int = 4


@dataclass(frozen=True, slots=True)
class Before:
    """The first set of readings."""

    at: float
    anonymous_bytes: int | None
    parts: Any
    census: Census | None
    threads: Counter[str]
    descriptors: Counter[str] | None
    full_collections: int


def anonymous_bytes(path: str = "/proc/self/statm", page_size: int | None = None) -> int | None:
    """Resident bytes that no file and no shared memory backs; None where the system doesn't tell."""
    try:
        with open(path, "rb", buffering=0) as file:
            fields = file.read(128).split()
        return (int(fields[1]) - int(fields[2])) * (page_size or os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def look(options: Options, stopping: Callable[[], bool] = lambda: False) -> Before:
    """Take the first set now."""
    parts, threads, descriptors = _parts(), _threads(), _descriptors()  # first: what they load is no growth
    census = None
    if "census" in options.methods:
        census = censuses.take(
            max_pause_seconds=options.max_pause_seconds, extra=referred_by_threads(), stopping=stopping
        )
    return Before(time.monotonic(), anonymous_bytes(), parts, census, threads, descriptors, _full_collections())


def conclude(
    before: Before,
    options: Options,
    *,
    growth: float | None = None,
    window_seconds: float | None = None,
    burst_seconds: float = 0.0,
    went_on: bool = True,
    stopping: Callable[[], bool] = lambda: False,
) -> Evidence:
    """Take the second set, with a burst of ``burst_seconds`` if that isn't 0, and say what they show together.

    ``growth`` (By/s over ``window_seconds``) is what was seen to grow; measured between the two sets if not given.
    """
    burst: Burst | None = None
    if burst_seconds > 0 and "burst" in options.methods:
        burst = bursts.run(
            burst_seconds, frames=options.frames, max_pause_seconds=options.max_pause_seconds, stopping=stopping
        )
    # Before the census: its list of all objects would be taken for growth.
    now, anonymous, parts_now = time.monotonic(), anonymous_bytes(), _parts()
    elapsed = max(now - before.at, 1e-3)
    if growth is None and anonymous is not None and before.anonymous_bytes is not None:
        growth = (anonymous - before.anonymous_bytes) / elapsed
    after: Census | None = None
    if before.census is not None and before.census.gave_up is None:
        after = censuses.take(
            max_pause_seconds=options.max_pause_seconds,
            previous=before.census,
            extra=referred_by_threads(),
            stopping=stopping,
        )
    types: tuple[TypeGrowth, ...] = ()
    held: tuple[HolderGrowth, ...] = ()
    search: searches.Search | None = None
    if after is not None and before.census is not None and after.gave_up is None:
        types = grown_types(before.census.counts, after.counts, max(growth or 0.0, 0.0) * elapsed)
        held, search = _holders(after, types, options, growth, elapsed, stopping)
    parts = _part_growth(before.parts, parts_now, elapsed)
    least = _LEAST_SITE * max(growth or 0.0, 0.0)
    sites = tuple(
        SiteGrowth(str(site), site.bytes_per_second)
        for site in (() if burst is None else burst.sites)
        if site.bytes_per_second >= least
    )
    threads_now, descriptors_now = _threads(), _descriptors()
    threads = threads_now.total() - before.threads.total()
    descriptors = None
    if descriptors_now is not None and before.descriptors is not None:
        descriptors = descriptors_now.total() - before.descriptors.total()
    traced = burst.growth if burst is not None and burst.gave_up is None and burst.seconds > 0 else None
    kind = judge_kind(growth, traced, parts, held, threads, elapsed)
    gave_up = [each.gave_up for each in (burst, before.census, after, search) if each is not None and each.gave_up]
    return Evidence(
        kind=kind,
        growth=growth,
        window_seconds=elapsed if window_seconds is None else window_seconds,
        sites=sites,
        types=types,
        holders=held,
        notes=tuple(_notes(before, threads_now, descriptors_now, kind)),
        parts=parts,
        traced_growth=traced,
        threads=threads,
        descriptors=descriptors,
        burst_seconds=0.0 if burst is None else burst.seconds,
        census_seconds=sum(each.duration_seconds for each in (before.census, after) if each is not None),
        pause_seconds=max(
            (each.pause_seconds for each in (burst, before.census, after, search) if each is not None), default=0.0
        ),
        gave_up=tuple(dict.fromkeys(gave_up)),
        confidence=confidence(kind, growth, went_on, sites, types, held, parts),
    )


def capture_evidence(seconds: float = 2.0, *, frames: int = 4, max_pause_seconds: float = 0.05) -> Evidence:
    """Look now, for ``seconds``: what grows in this process, and who holds it.

    Blocks the calling thread for a little more than that time, so never call it on an event loop's; other threads go
    on, slower by what tracemalloc costs. Works with and without a running probe, and emits nothing.

    Raises:
        ValueError: ``seconds`` is not above 0 and at most 60.
    """
    if not 0 < seconds <= 60:
        raise ValueError(f"seconds={seconds!r}: expected more than 0 and at most 60")
    options = Options(max_pause_seconds=max_pause_seconds, frames=frames)
    return conclude(look(options), options, burst_seconds=seconds)


# --- types and holders ----------------------------------------------------------------------------------------


def grown_types(before: dict[str, int], after: dict[str, int], grown_bytes: float = 0.0) -> tuple[TypeGrowth, ...]:
    """The types of which there are more, when memory grew by ``grown_bytes``.

    Classes of the program and of libraries come before the builtin types that come with every object, unless those
    are ten times as many; a builtin type must also be worth a share of the growth.
    """
    grown = [
        TypeGrowth(name, count - before.get(name, 0))
        for name, count in after.items()
        if count - before.get(name, 0) >= max(_LEAST_OBJECTS, _LEAST_SHARE * before.get(name, 0))
        and not name.startswith("otel_memory.")
        and (_weight(name) > 1 or (count - before.get(name, 0)) * _BUILTIN_SIZE >= _LEAST_BUILTIN * grown_bytes)
    ]
    most = max((each.objects for each in grown), default=0)
    grown.sort(
        key=lambda each: (
            _weight(each.name) == 1 or each.objects * _FEW < most,
            -each.objects * _weight(each.name),
        )
    )
    return tuple(grown[:MAX_NAMED])


def _weight(type_name_: str) -> float:
    top = type_name_.partition(".")[0]
    if type_name_ in _TELLING:
        return _LIBRARY_CLASS
    if top == type_name_ or (top.startswith("_") and top != "__main__"):
        return 1.0
    return _LIBRARY_CLASS if top in sys.stdlib_module_names else _OWN_CLASS


def _holders(
    after: Census,
    types: tuple[TypeGrowth, ...],
    options: Options,
    growth: float | None,
    elapsed: float,
    stopping: Callable[[], bool],
) -> tuple[tuple[HolderGrowth, ...], searches.Search | None]:
    least = _LEAST_HELD * max(growth or 0.0, 0.0) * elapsed
    containers = [each for each in after.grown if each.estimated_bytes >= least][:_FOLLOWED_CONTAINERS]
    samples = _newest([each.name for each in types[:_FOLLOWED_TYPES]])
    targets: list[Any] = [each.container for each in containers] + [thing for _, thing in samples]
    if not targets:
        return (), None
    sampled = [name for name, _ in samples]
    del samples
    search = searches.find(targets, max_pause_seconds=options.max_pause_seconds, stopping=stopping)
    found: list[HolderGrowth] = []
    for each, holder in zip(containers, search.holders, strict=False):
        found.append(HolderGrowth(str(holder), holder.kind, each.what, each.entries, each.estimated_bytes))
    del targets
    votes = Counter(
        (str(holder), holder.kind, name)
        for name, holder in zip(sampled, search.holders[len(containers) :], strict=True)
    )
    known = {holder.name for holder in found}
    found += [
        HolderGrowth(text, kind, name, None) for (text, kind, name), _ in votes.most_common() if text not in known
    ]
    usable = [each for each in found if not each.name.startswith("otel_memory.")]
    # What has a name comes before what has none; a cycle is an answer of its own where nothing else holds anything.
    usable.sort(key=lambda each: (each.kind == "unknown", each.kind == "cycle" and bool(containers)))
    return tuple(_merged(usable)[:MAX_NAMED]), search


def _merged(found: list[HolderGrowth]) -> list[HolderGrowth]:
    merged: dict[str, HolderGrowth] = {}
    for each in found:
        known = merged.get(each.name)
        if known is None:
            merged[each.name] = each
        elif known.entries is not None and each.entries is not None:
            merged[each.name] = HolderGrowth(
                *(known.name, known.kind, known.what, known.entries + each.entries),
                known.estimated_bytes + each.estimated_bytes,
            )
    return list(merged.values())


def _newest(type_names: list[str]) -> list[tuple[str, Any]]:
    """Some of the youngest objects of each type, with its name."""
    if not type_names:
        return []
    wanted = dict.fromkeys(type_names, _SAMPLES_A_TYPE)
    kinds: dict[type, str | None] = {}
    found: list[tuple[str, Any]] = []
    objects: list[Any] = gc.get_objects()
    while objects and wanted:
        chunk = objects[-listing.CHUNK :]
        del objects[-listing.CHUNK :]
        for thing in reversed(chunk):
            kind = type(thing)
            if kind not in kinds:
                name = type_name(kind)
                kinds[kind] = name if name in wanted else None
            known = kinds[kind]
            if known is not None and known in wanted:
                found.append((known, thing))
                wanted[known] -= 1
                if not wanted[known]:
                    del wanted[known]
        del chunk
    while objects:
        del objects[-listing.CHUNK * 10 :]
    return found


# --- the rest of the process ----------------------------------------------------------------------------------


def _parts() -> Any:
    try:
        from otel_memory.probe.sources import breakdown
    except ImportError:  # Windows: no resource module
        return None
    return breakdown.memory_breakdown()


def _part_growth(before: Any, after: Any, elapsed: float) -> PartGrowth:
    def rate(name: str) -> float | None:
        first, last = getattr(before, name, None), getattr(after, name, None)
        return None if first is None or last is None else (last - first) / elapsed

    return PartGrowth(
        **{name: rate(name) for name in ("python_used", "python_free", "c_used", "c_free", "stack", "other")}
    )


def _full_collections() -> int:
    return int(gc.get_stats()[-1]["collections"])


def _threads() -> Counter[str]:
    """Threads by the function that they run."""
    found: Counter[str] = Counter()
    for thread in threading.enumerate():
        if thread.name.startswith("otel-memory"):
            continue
        target = thread.__dict__.get("_target")
        name = getattr(target, "__qualname__", None)
        module = getattr(target, "__module__", None)
        found[f"{module}.{name}" if isinstance(name, str) and isinstance(module, str) else type_name(type(thread))] += 1
    return found


def _descriptors() -> Counter[str] | None:
    """Open descriptors by what they are; never a path."""
    folder = "/proc/self/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return None
    found: Counter[str] = Counter()
    for index, number in enumerate(numbers):
        if index >= MAX_DESCRIPTORS:
            found["others"] = len(numbers) - index
            break
        try:
            target = os.readlink(f"{folder}/{number}")
        except OSError:
            continue
        found["file" if target.startswith("/") else target.partition(":")[0]] += 1
    return found


def _notes(before: Before, threads: Counter[str], descriptors: Counter[str] | None, kind: str) -> list[str]:
    notes = []
    if threads.total() - before.threads.total() >= _MORE:
        most, more = (threads - before.threads).most_common(1)[0]
        notes.append(
            f"threads grew from {before.threads.total()} to {threads.total()}, {more} of the new ones run {most}"
        )
    if descriptors is not None and before.descriptors is not None:
        first, last = before.descriptors.total(), descriptors.total()
        if last - first >= _MORE:
            most, more = (descriptors - before.descriptors).most_common(1)[0]
            notes.append(f"open descriptors grew from {first} to {last}, {more} of the new ones are a {most}")
    if kind == "cycles" or not gc.isenabled():
        if not gc.isenabled():
            notes.append("the garbage collector is switched off (gc.disable): cycles are never freed")
        elif _full_collections() == before.full_collections:
            notes.append(f"no full collection between the two censuses (gc.get_threshold() is {gc.get_threshold()})")
    if sys.flags.dev_mode:
        notes.append("Python's development mode is on, which makes memory larger")
    return notes
