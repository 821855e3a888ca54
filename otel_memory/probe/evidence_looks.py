"""The looks that make an evidence: two sets of readings some time apart, and a burst between them.

Owns the order of the looks and what is made of them together; each look is a module of its own. Everything here takes
milliseconds to seconds: it runs in the background, or on the thread of whoever asks for it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from otel_memory.probe import burst as bursts
from otel_memory.probe import census as censuses
from otel_memory.probe import holder_names, listing
from otel_memory.probe import holders as searches
from otel_memory.probe.added import Watched
from otel_memory.probe.burst import Burst
from otel_memory.probe.census import Census, Grown
from otel_memory.probe.cycle_labels import type_name
from otel_memory.probe.evidence import (
    EXPLAINS,
    MAX_NAMED,
    MORE_THREADS,
    Evidence,
    HolderGrowth,
    PartGrowth,
    SiteGrowth,
    TypeGrowth,
    confidence,
    judge_kind,
)
from otel_memory.probe.holder_names import referred_by_threads
from otel_memory.probe.sizes import mean_entry, mean_in_cycles
from otel_memory.probe.sources.procfs import anonymous_bytes

MAX_DESCRIPTORS: Final = 4096
_FOLLOWED_CONTAINERS: Final = 5
_FOLLOWED_SMALL: Final = 2
_FOLLOWED_TYPES: Final = 2
_SAMPLES_A_TYPE: Final = 4
_LEAST_OBJECTS: Final = 20
_LEAST_SHARE: Final = 0.005
_LEAST_HELD: Final = 0.02  # of the growth, that a container must account for to be named
_ENOUGH_HELD: Final = 0.6  # of the growth: a container that accounts for it is the answer, and no other is looked for
_OWN_CLASS: Final = 4.0
_LIBRARY_CLASS: Final = 3.0
"""Weights of a growing class: one of the program or a package, one of the standard library; builtin types have 1."""
_TELLING: Final = frozenset({"traceback", "frame", "generator", "coroutine", "async_generator"})
"""Builtin types that say something by themselves: whoever keeps one keeps a function's variables."""
_BUILTIN_SIZE: Final = 64
_LEAST_BUILTIN: Final = 0.01
_FEW: Final = 10
_LEAST_SITE: Final = 0.05  # of the growth, that a site must account for where it isn't Python's objects that grow
_LEAST_MADE: Final = 0.01  # of a container's growth, that came at a line in a burst: that makes a program slow
_OWN_HOLDER: Final = 4.0  # times as heavy as a library's is one of the program
_MORE_DESCRIPTORS: Final = 20
_MORE_SOCKETS: Final = 100
"""So many more descriptors are worth a word; sockets come and go with the clients."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings allow. ``methods`` are ``census`` and ``burst``."""

    methods: tuple[str, ...] = ("census", "burst")
    max_pause_seconds: float = 0.05
    frames: int = 2


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
    traced_bytes: int | None = None
    """Of a program that traces itself."""


def look(options: Options, stopping: Callable[[], bool] = lambda: False) -> Before:
    """Take the first set now."""
    parts, threads, descriptors = _parts(), _threads(), _descriptors()  # first: what they load is no growth
    census = None
    if "census" in options.methods:
        census = censuses.take(
            max_pause_seconds=options.max_pause_seconds, extra=referred_by_threads(), stopping=stopping
        )
    anonymous, traced = anonymous_bytes(), _traced_bytes()
    return Before(time.monotonic(), anonymous, parts, census, threads, descriptors, _full_collections(), traced)


def conclude(
    before: Before,
    options: Options,
    *,
    growth: float | None = None,
    window_seconds: float | None = None,
    burst_seconds: float = 0.0,
    rest_times: float = bursts.REST_TIMES,
    went_on: bool = True,
    stopping: Callable[[], bool] = lambda: False,
) -> Evidence:
    """Take the second set, then trace for ``burst_seconds`` if that isn't 0, and say what they show together.

    ``growth`` (By/s over ``window_seconds``) is what was seen to grow; measured between the two sets if not given.
    """
    # Before the census: its list of all objects would be taken for growth.
    now, anonymous, parts_now, traced_now = time.monotonic(), anonymous_bytes(), _parts(), _traced_bytes()
    threads_now, descriptors_now = _threads(), _descriptors()
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
    found = Found()
    if after is not None and before.census is not None and after.gave_up is None:
        types = grown_types(before.census.counts, after.counts, max(growth or 0.0, 0.0) * elapsed)
        found = find_holders(after, types, options, max(growth or 0.0, 0.0) * elapsed, stopping)
    watched = Watched([each.container for each, _ in found.followed if not each.is_buffer])
    holders, burst = found.holders, None
    if burst_seconds > 0 and "burst" in options.methods and not stopping():
        try:
            burst = bursts.run(
                burst_seconds,
                frames=options.frames,
                max_pause_seconds=options.max_pause_seconds,
                watched=watched,
                rest_times=rest_times,
                stopping=stopping,
            )
        finally:
            watched.let_go()
        holders = _with_sites(holders, found, burst, elapsed)
    parts = _part_growth(before.parts, parts_now, elapsed)
    threads = threads_now.total() - before.threads.total()
    descriptors = None
    if descriptors_now is not None and before.descriptors is not None:
        descriptors = descriptors_now.total() - before.descriptors.total()
    traced = burst.growth if burst is not None and burst.gave_up is None and burst.seconds > 0 else None
    if traced_now is not None and before.traced_bytes is not None:
        traced = max(traced or 0.0, (traced_now - before.traced_bytes) / elapsed)
    kind = judge_kind(growth, traced, parts, holders, threads, elapsed)
    sites = _sites(kind, burst, holders, growth)
    looks: list[Any] = [each for each in (burst, before.census, after, found.search) if each is not None]
    return Evidence(
        kind=kind,
        growth=growth,
        window_seconds=elapsed if window_seconds is None else window_seconds,
        elapsed_seconds=elapsed,
        sites=sites,
        types=types,
        holders=holders,
        notes=tuple(_notes(before, threads_now, descriptors_now, kind)),
        parts=parts,
        threads=threads,
        descriptors=descriptors,
        burst_seconds=0.0 if burst is None else burst.seconds,
        census_seconds=sum(each.duration_seconds for each in (before.census, after) if each is not None),
        pause_seconds=max((each.pause_seconds for each in looks), default=0.0),
        gave_up=tuple(dict.fromkeys(each.gave_up for each in looks if each.gave_up)),
        confidence=confidence(kind, growth, elapsed, sites, holders, parts, went_on),
    )


def _sites(
    kind: str, burst: Burst | None, holders: tuple[HolderGrowth, ...], growth: float | None
) -> tuple[SiteGrowth, ...]:
    """The lines that grow. A burst makes the program slower, and all rates lower with it: they are held against one
    another and not against the growth, unless what grows isn't Python's at all."""
    if burst is None:
        return ()
    least = 0.0 if kind in ("python", "cycles", "unknown") else _LEAST_SITE * max(growth or 0.0, 0.0)
    rates = {str(site): site.bytes_per_second for site in burst.sites}  # in the order of their weights
    # What came to a container that grows is kept for sure: those lines come first.
    first = [holder.site for holder in holders if holder.site and holder.kind != "unknown"][:1]
    for site in [site for each in burst.added for site in each if str(site) in first]:
        rates[str(site)] = max(rates.get(str(site), 0.0), site.bytes_per_second)
    ordered = sorted(rates, key=lambda name: name not in first)
    return tuple(SiteGrowth(name, rates[name]) for name in ordered if rates[name] >= least)[:MAX_NAMED]


def _with_sites(
    holders: tuple[HolderGrowth, ...], found: Found, burst: Burst, elapsed: float
) -> tuple[HolderGrowth, ...]:
    """With the line that made most of what came to each holder's containers."""
    names = [name for each, name in found.followed if not each.is_buffer]
    made: dict[str, Counter[str]] = {}  # in the order of the lines' weights
    for name, lines in zip(names, burst.added, strict=False):
        for line in lines:
            made.setdefault(name, Counter())[str(line)] += int(line.bytes_per_second)
    with_sites = []
    for holder in holders:
        site, rate = next(iter(made.get(holder.name, Counter[str]()).items()), ("", 0))
        told = rate * elapsed >= _LEAST_MADE * holder.size
        with_sites.append(replace(holder, site=site) if site and told else holder)
    return tuple(with_sites)


def capture_evidence(seconds: float = 2.0, *, frames: int = 2, max_pause_seconds: float = 0.05) -> Evidence:
    """Look now, for ``seconds``: what grows in this process, and who holds it.

    Half of the time it only waits; in the other half it traces allocations. Blocks the calling thread for a little more
    than that time, so never call it on an event loop's; other threads go on, slower by what tracemalloc costs. Works
    with and without a running probe, and emits nothing.

    Raises:
        ValueError: ``seconds`` is not above 0 and at most 60.
    """
    if not 0 < seconds <= 60:
        raise ValueError(f"seconds={seconds!r}: expected more than 0 and at most 60")
    options = Options(max_pause_seconds=max_pause_seconds, frames=frames)
    before = look(options)
    time.sleep(seconds / 2)
    return conclude(before, options, burst_seconds=seconds / 2, rest_times=0.0)


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


@dataclass(frozen=True, slots=True)
class Found:
    """The holders; the containers that were followed up, each with its holder's name; and what the search cost."""

    holders: tuple[HolderGrowth, ...] = ()
    followed: tuple[tuple[Grown, str], ...] = ()
    search: searches.Search | None = None


def find_holders(
    after: Census,
    types: tuple[TypeGrowth, ...],
    options: Options,
    grown_bytes: float,
    stopping: Callable[[], bool] = lambda: False,
) -> Found:
    """Who holds the containers that grew, and some of the newest objects of the types that grew."""
    least = _LEAST_HELD * grown_bytes
    names = {each.name for each in types}
    containers = [each for each in after.grown if each.estimated_bytes >= least][:_FOLLOWED_CONTAINERS]
    if sum(each.estimated_bytes for each in containers) < EXPLAINS * grown_bytes:
        # Objects may own memory that isn't Python's: what holds more than plain values counts whatever its size.
        others = [each for each in after.grown if each.estimated_bytes < least]
        containers += [each for each in others if _may_own(each.what.partition(" of ")[2], names)][:_FOLLOWED_SMALL]
    find = partial(searches.find, max_pause_seconds=options.max_pause_seconds, stopping=stopping, objects=after.objects)
    costs: list[searches.Search] = []
    found: list[HolderGrowth] = []
    if containers:
        targets = listing.Kept(each.container for each in containers)
        costs.append(find(targets))
        targets.clear()
        found = [
            HolderGrowth(
                *(str(holder), holder.kind, each.what, each.entries, each.estimated_bytes),
                own=holder_names.is_own(holder.name),
            )
            for each, holder in zip(containers, costs[0].holders, strict=True)
        ]
    followed = tuple((each, holder.name) for each, holder in zip(containers, found, strict=True))
    if (
        max((each.size for each in found if each.kind != "unknown"), default=0) < _ENOUGH_HELD * grown_bytes
        or not found
    ):
        found += _holders_of_objects(types, find, costs, {each.name for each in found})
    usable = [each for each in found if not each.name.startswith("otel_memory.") and each.entries > 0]
    merged = _merged(usable)
    # Without a name only what accounts for a good part is worth telling, and only where nothing has a name.
    nameless = [each for each in merged if each.kind == "unknown" and each.size >= EXPLAINS * grown_bytes]
    merged = [each for each in merged if each.kind != "unknown"] or nameless
    # What has a name comes before what has none; a cycle is an answer of its own where nothing else holds anything.
    merged.sort(
        key=lambda each: (
            each.kind == "unknown",
            each.kind == "cycle" and bool(containers),
            -each.size * (_OWN_HOLDER if each.own else 1.0),
        )
    )
    pause = max((each.pause_seconds for each in costs), default=0.0)
    gave_up = next((each.gave_up for each in costs if each.gave_up), None)
    return Found(tuple(merged[:MAX_NAMED]), followed, searches.Search((), pause, gave_up))


def _holders_of_objects(
    types: tuple[TypeGrowth, ...],
    find: Callable[[listing.Kept], searches.Search],
    costs: list[searches.Search],
    known: set[str],
) -> list[HolderGrowth]:
    """Who holds some of the objects of the types that grew most."""
    objects_of = {each.name: each.objects for each in types[:_FOLLOWED_TYPES]}
    samples = _newest(list(objects_of))
    if not samples:
        return []
    sampled = [name for name, _ in samples]
    targets = listing.Kept(thing for _, thing in samples)
    costs.append(find(targets))
    targets.clear()
    holders = costs[-1].holders
    in_cycles = {name for name, holder in zip(sampled, holders, strict=True) if holder.kind == "cycle"}
    sizes_of: dict[str, float] = {}
    for name in objects_of:
        things = listing.Kept(thing for sample, thing in samples if sample == name)
        sizes_of[name] = mean_in_cycles(things) if name in in_cycles else mean_entry([(thing,) for thing in things])
        things.clear()
    samples.clear()
    votes = Counter(zip(sampled, holders, strict=True))
    order = list(objects_of)
    found: list[HolderGrowth] = []
    for (name, holder), count in sorted(votes.items(), key=lambda vote: (order.index(vote[0][0]), -vote[1])):
        if str(holder) not in known:
            known.add(str(holder))
            objects = objects_of[name] * count // sampled.count(name)
            size, own = int(objects * sizes_of[name]), holder_names.is_own(holder.name)
            found.append(HolderGrowth(str(holder), holder.kind, name, objects, size, single=True, own=own))
    return found


def _may_own(type_name_: str, grown: set[str]) -> bool:
    return type_name_ in grown or "." in type_name_


def _merged(found: list[HolderGrowth]) -> list[HolderGrowth]:
    merged: dict[str, HolderGrowth] = {}
    for each in found:
        known = merged.get(each.name)
        if known is None:
            merged[each.name] = each
        elif not each.single:
            merged[each.name] = replace(known, entries=known.entries + each.entries, size=known.size + each.size)
    return list(merged.values())


def _newest(type_names: list[str]) -> list[tuple[str, Any]]:
    """Of each type, with its name, some of the objects that have survived collections."""
    if not type_names:
        return []
    wanted = dict.fromkeys(type_names, _SAMPLES_A_TYPE)
    kinds: dict[type, str | None] = {}
    found: list[tuple[str, Any]] = listing.Kept()
    with contextlib.suppress(listing.Interrupted), listing.Listing() as objects:
        for chunk in objects:
            for thing in chunk:
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
            if not wanted:
                break
    return found


# --- the rest of the process ----------------------------------------------------------------------------------


def _parts() -> Any:
    try:
        from otel_memory.probe.sources import breakdown
    except ImportError:  # Windows: no resource module
        return None
    # What tracemalloc keeps of a program that traces itself lies in the C allocator, and is no growth of the program.
    traces = tracemalloc.get_tracemalloc_memory() if tracemalloc.is_tracing() else 0
    found = breakdown.memory_breakdown()
    return found and replace(found, c_used=found.c_used and found.c_used - traces)


def _traced_bytes() -> int | None:
    return tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else None


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
    if threads.total() - before.threads.total() >= MORE_THREADS:
        most, more = (threads - before.threads).most_common(1)[0]
        notes.append(
            f"Threads grew from {before.threads.total()} to {threads.total()}; {more} of the new ones run {most}"
        )
    if descriptors is not None and before.descriptors is not None:
        first, last = before.descriptors.total(), descriptors.total()
        most, more = max((descriptors - before.descriptors).items(), key=lambda each: each[1], default=("", 0))
        if last - first >= _MORE_DESCRIPTORS and more >= (_MORE_SOCKETS if most == "socket" else 1):
            notes.append(f"Open descriptors grew from {first} to {last}; {more} of the new ones are {most}s")
    if kind == "cycles" or not gc.isenabled():
        if not gc.isenabled():
            notes.append("The garbage collector is switched off (gc.disable), so cycles are never freed")
        elif _full_collections() == before.full_collections:
            notes.append(
                f"There was no full collection between the two looks (gc.get_threshold() is {gc.get_threshold()})"
            )
    if sys.flags.dev_mode:
        notes.append("Python's development mode is on, which makes memory larger")
    return notes
