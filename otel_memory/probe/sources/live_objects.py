"""The source ``live_objects``: how many instances of chosen classes there are, at no cost to an instance.

A **census** counts exactly: it asks the garbage collector for all objects and looks at the type of each. It is dear
(some 170 ms for a million objects, a tenth or so of it in one piece), so a budget spaces it out. Between two of them
the count follows the class's **reference count**: each instance of a class made by a ``class`` statement holds one
reference to it, so what came and went since the census shows in it, for the price of a look. Other references that were
made since (a module that imports the class, a subclass) show in it too, until the next census.

Nothing is patched, no instance is touched, and nothing is kept of one. Owns no thread. A census holds all objects while
it lasts, and a process that is forked meanwhile would hold them for good: so a fork breaks a census off and waits for
that (some ms).
"""

from __future__ import annotations

import gc
import os
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final
from weakref import ReferenceType, ref

__all__ = ["ClassCount", "Uncountable", "census", "check_countable", "class_name", "family"]

CHUNK: Final = 20_000
"""Objects looked at in one piece (some 2 ms); other threads get their turn between two."""
MAX_FAMILY: Final = 1000
"""Subclasses that are counted with a class."""
MAX_BLOCKS: Final = 5_000_000
"""Memory blocks of the interpreter past which there is no census: it would stop the program for too long."""

FORK_WAIT_SECONDS: Final = 0.5
"""A fork waits so long for a census to break off, and then goes on all the same."""

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement; its instances hold a reference to it
_HAVE_GC: Final = 1 << 14  # Py_TPFLAGS_HAVE_GC: its instances are known to the garbage collector
# Without a global lock reference counts are split over the threads, and say nothing.
_COUNTS_REFERENCES: Final = hasattr(sys, "getrefcount") and not sysconfig.get_config_var("Py_GIL_DISABLED")

_allocated_blocks: Callable[[], int] | None = getattr(sys, "getallocatedblocks", None)


class Uncountable(ValueError):
    """The instances of a class can't be counted; the message says why."""


def check_countable(cls: object) -> type:
    """``cls``, if its instances can be counted.

    Raises:
        TypeError: it is no class.
        Uncountable: the garbage collector doesn't know its instances (``int``, ``str``, ``bytes`` and the like).
    """
    if not isinstance(cls, type):
        raise TypeError(f"expected a class, not {type(cls).__name__}")
    if not cls.__flags__ & _HAVE_GC:
        raise Uncountable(f"the garbage collector doesn't know instances of {class_name(cls)}: they can't be counted")
    return cls


def class_name(cls: type) -> str:
    """Module and qualified name."""
    return f"{cls.__module__}.{cls.__qualname__}"


def family(cls: type) -> list[type]:
    """The class and its subclasses, at most ``MAX_FAMILY`` of them."""
    found: dict[int, type] = {}
    waiting = [cls]
    while waiting and len(found) <= MAX_FAMILY:
        each = waiting.pop()
        if id(each) not in found:
            found[id(each)] = each
            waiting.extend(type.__subclasses__(each))
    return list(found.values())


def census(classes: Iterable[type]) -> list[int]:
    """How many instances of each class there are now, those of subclasses among them; counts exactly.

    Not seen are objects that ``gc.freeze()`` has set aside, and tuples and dicts that the garbage collector has let
    go. Objects that are garbage, but not collected yet, are seen.
    """
    families = [[id(each) for each in family(cls)] for cls in classes]
    found = None
    while found is None:
        found = _count(frozenset(chain.from_iterable(families)))
    return [sum(found[each] for each in ids) for ids in families]


class _Forks:
    """Keeps forks and censuses apart."""

    def __init__(self) -> None:
        self.after_in_child()

    def after_in_child(self) -> None:
        self.counting = threading.Lock()
        self.waiting = 0
        """Threads that are about to fork."""
        self._held: set[int] = set()

    def before(self) -> None:
        self.waiting += 1
        if self.counting.acquire(timeout=FORK_WAIT_SECONDS):
            self._held.add(threading.get_ident())

    def after_in_parent(self) -> None:
        self.waiting -= 1
        if threading.get_ident() in self._held:
            self._held.discard(threading.get_ident())
            self.counting.release()


_forks: Final = _Forks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.after_in_parent, after_in_child=_forks.after_in_child
    )


def _count(wanted: frozenset[int], just_before: Callable[[], object] = int) -> Counter[int] | None:
    """Instances by the id of their class, of those classes whose ids are wanted. None if a fork broke it off.

    ``just_before`` is called immediately before the garbage collector is asked for all objects.
    """
    with _forks.counting:
        found: Counter[int] = Counter()
        just_before()
        objects = iter(gc.get_objects())
        while chunk := list(islice(objects, CHUNK)):
            if _forks.waiting:
                return None
            found.update(filter(wanted.__contains__, map(id, map(type, chunk))))
            chunk.clear()
        return found


def too_large() -> bool:
    """Whether the interpreter has more objects than a census should look at."""
    return _allocated_blocks is not None and _allocated_blocks() > MAX_BLOCKS


Relatives = tuple[ReferenceType[type], ...]


def _references(relatives: Relatives) -> list[int]:
    """References to each class, a few of our own among them, which are always as many. Of one that is gone the number
    means nothing."""
    classes = [each() for each in relatives]
    return list(map(sys.getrefcount, classes))


def _follows(cls: type | None) -> bool:
    """Whether the reference count of a class tells of its instances."""
    return _COUNTS_REFERENCES and cls is not None and bool(cls.__flags__ & _HEAP_TYPE)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a census found, and how many references each class of the family had then."""

    count: int
    relatives: Relatives
    references: list[int]


class ClassCount:
    """Counts the instances of one class and its subclasses. Holds the class weakly."""

    def __init__(self, cls: type, name: str | None = None) -> None:
        check_countable(cls)
        self.name = name or class_name(cls)
        self._cls = ref(cls)
        self._mark: _Mark | None = None

    def relatives(self) -> Relatives:
        """The class and those of its subclasses whose reference counts tell of their instances."""
        cls = self._cls()
        return () if cls is None else tuple(ref(each) for each in family(cls) if _follows(each))

    def ids(self) -> list[int]:
        """Ids of the class and its subclasses."""
        cls = self._cls()
        return [] if cls is None else [id(each) for each in family(cls)]

    def mark(self, mark: _Mark) -> None:
        """From this census on the reference counts are followed."""
        self._mark = mark

    def read(self) -> int | None:
        """How many there are; None before the first census, 0 once the class itself is gone."""
        mark = self._mark
        if self._cls() is None:
            return 0
        if mark is None:
            return None
        now = _references(mark.relatives)
        changes = zip(mark.relatives, mark.references, now, strict=True)
        return max(0, mark.count + sum(after - before for cls, before, after in changes if cls() is not None))


def take_census(counts: Iterable[ClassCount]) -> bool:
    """One census for all of ``counts``. Returns False, and counts nothing, where the interpreter is too large.

    One that a fork breaks off leaves the counts as they were.
    """
    every = [(count, count.ids(), count.relatives()) for count in counts]
    if not every:
        return True
    if too_large():
        return False
    references: list[list[int]] = []

    def just_before() -> None:
        # At the same time as the objects: an instance made between the two would be missed until the next census.
        references.extend(_references(relatives) for _, _, relatives in every)

    found = _count(frozenset(chain.from_iterable(ids for _, ids, _ in every)), just_before)
    if found is not None:
        for (count, ids, relatives), numbers in zip(every, references, strict=True):
            count.mark(_Mark(sum(found[each] for each in ids), relatives, numbers))
    return True
