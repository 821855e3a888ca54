"""Generators and coroutines that a collection closes.

They are gone before the collector shows what it found: it closes them first, their frames let go of everything, and
what they held is freed on the spot. So each is noted, weakly, before the collection, and asked for after it.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter, deque
from typing import Any, Final
from weakref import ref

from otel_memory.probe.cycle_graph import MAX_CHAIN, Budget, Chain
from otel_memory.probe.cycle_labels import SUSPENDABLE_IDS, Labels, describe, is_container
from otel_memory.probe.referents import referents

MAX_WATCHED: Final = 10_000
MAX_BLOCKS: Final = 10_000_000
"""Blocks of Python's allocator beyond which the heap is too large to be listed: about a second and 40 MB."""
MAX_SEARCHED: Final = 64
"""Objects that the search for the way from a generator back to itself visits; the rest of a heap may hang on one."""
MAX_DESCRIBED: Final = 200
EACH: Final = 3
"""Generators of one function whose way round is looked for."""


class Suspended:
    """Those that were suspended when this was made. Holds none of them."""

    def __init__(self, budget: Budget) -> None:
        self.incomplete: str | None = None
        self._thread = threading.get_ident()
        self._closed: list[int] = []
        self._watched: dict[int, tuple[ref[Any], str]] = {}
        self._described: dict[str, list[str]] = {}
        blocks = getattr(sys, "getallocatedblocks", int)()
        if blocks > MAX_BLOCKS:
            self.incomplete = f"generators were not looked at: {blocks} blocks of memory are too many"
            return
        living = [thing for thing in gc.get_objects() if id(type(thing)) in SUSPENDABLE_IDS]
        described = 0
        while living:
            thing = living.pop()
            if len(self._watched) >= MAX_WATCHED or budget.over():
                self.incomplete = f"only {len(self._watched)} generators were looked at"
                return
            if not _suspended(thing):
                continue
            name = describe(thing)
            known = self._described.setdefault(name, [])
            if len(known) < EACH and described < MAX_DESCRIBED:
                described += 1
                way = _way_round(thing)
                if way:
                    known.append(way)
            watch = ref(thing, self._note)
            self._watched[id(watch)] = watch, name

    def _note(self, watch: ref[Any]) -> None:
        # Called by the collector, and when another thread comes to the end of one.
        if threading.get_ident() == self._thread:
            self._closed.append(id(watch))

    def closed(self, most: int) -> tuple[tuple[Chain, ...], int]:
        """One chain for each function whose generators the collection closed, and how many there were in all."""
        counts = Counter(self._watched[number][1] for number in self._closed if number in self._watched)
        chains = [
            Chain((self._described[name] or [name])[0][:MAX_CHAIN], count, count)
            for name, count in counts.most_common(most)
        ]
        return tuple(chains), sum(counts.values())

    def forget(self) -> None:
        """Ask no more: what ends later is not the collection's doing."""
        self._watched.clear()


def _suspended(thing: Any) -> bool:
    # Without asking for the frame: that would make an object of it.
    for state in ("gi_suspended", "cr_suspended", "ag_suspended"):
        suspended = getattr(thing, state, None)
        if suspended is not None:
            return bool(suspended)
    return not getattr(thing, "ag_running", True)  # Python 3.11 says no more of an asynchronous generator


def _way_round(start: object) -> str:
    """The shortest way from ``start`` back to it, if one is near. Reads attributes only of what lies on it."""
    came: dict[int, object] = {}
    kept: dict[int, object] = {id(start): start}
    queue: deque[object] = deque([start])
    for _ in range(MAX_SEARCHED):
        if not queue:
            return ""
        thing = queue.popleft()
        for held in referents(thing)[:MAX_SEARCHED]:
            if held is start:
                way = [thing]
                while way[-1] is not start:
                    way.append(came[id(way[-1])])
                return _written(way[::-1])
            if id(held) not in kept and gc.is_tracked(held) and type(held) is not type:
                kept[id(held)] = held
                came[id(held)] = thing
                queue.append(held)
    return ""


def _written(way: list[object]) -> str:
    labels = Labels()
    text = ""
    for number, (thing, following) in enumerate(zip(way, [*way[1:], way[0]], strict=True)):
        inside = number > 0 and is_container(type(thing))
        references = labels.items(thing, alone=False) if inside else labels.references(thing)
        label = next((label for label, held in references if held is following), "")
        if inside and text.endswith(".__dict__") and label.startswith("['"):
            text = f"{text.removesuffix('.__dict__')}.{label[2:-2]}"
        else:
            text += label if inside else f"{describe(thing)}{label}"
        if not is_container(type(following)):
            text += " -> "
    return text + describe(way[0])
