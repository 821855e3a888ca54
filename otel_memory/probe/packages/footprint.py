"""A bounded estimate of what a loaded package's objects take, for packages whose cost nobody has measured.

An estimate, and labelled as one: it adds up ``sys.getsizeof`` over what is reachable from the package's modules, so it
sees no buffers of C libraries, no freed space, and counts what several packages share for each of them.
"""

from __future__ import annotations

import sys
import time
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import Any, Final, Literal, NamedTuple

from otel_memory.probe.packages.package_names import package_of
from otel_memory.probe.referents import referents

MAX_OBJECTS: Final = 200_000
MAX_SECONDS: Final = 0.2
MAX_ITEMS: Final = 100_000
"""A container of more items than that is counted without them."""
_BATCH: Final = 256


class Footprint(NamedTuple):
    """``size_bytes`` of a package, and how it is known."""

    size_bytes: int
    kind: Literal["live", "import", "estimated"]
    """``live``: measured by tracemalloc now. ``import``: resident memory that loading it took, measured then.
    ``estimated``: added up over its objects."""
    complete: bool = True
    """False where an estimate was ended by its bound, so that it is too small."""


def estimate(package: str, max_objects: int = MAX_OBJECTS, max_seconds: float = MAX_SECONDS) -> Footprint | None:
    """Add up the objects of the loaded modules of ``package``; None if none is loaded.

    Pauses nothing: other threads run between its steps. Modules of others, and functions and classes that belong to
    them, are not followed.
    """
    modules = [
        module for name, module in list(sys.modules.items()) if package_of(name) == package and _is_plain(module)
    ]
    if not modules:
        return None
    deadline = time.perf_counter() + max_seconds
    total, complete = 0, True
    seen: set[int] = set()
    stack: list[Any] = [module.__dict__ for module in modules]
    while stack:
        if len(seen) >= max_objects or time.perf_counter() > deadline:
            complete = False
            break
        batch = stack[-_BATCH:]
        del stack[-_BATCH:]
        fresh = [each for each in batch if id(each) not in seen and not _is_foreign(each, package)]
        for each in fresh:
            if id(each) not in seen:
                seen.add(id(each))
                total += _size(each)
        small = [each for each in fresh if not _is_huge(each)]
        complete = complete and len(small) == len(fresh)
        stack.extend(referents(*small))
    return Footprint(total, "estimated", complete)


def _is_plain(module: object) -> bool:
    """Not one that is lazy and would load when it is looked at."""
    return type(module) is ModuleType


def _is_foreign(value: object, package: str) -> bool:
    kind = type(value)
    if issubclass(kind, ModuleType | FrameType):
        return True
    if issubclass(kind, FunctionType | BuiltinFunctionType | type):
        home = value.__dict__.get("__module__") if isinstance(value, type) else getattr(value, "__module__", None)
        return isinstance(home, str) and package_of(home) != package
    return False


def _is_huge(value: object) -> bool:
    return isinstance(value, list | tuple | dict | set | frozenset) and _length(value) > MAX_ITEMS


def _length(value: Any) -> int:
    try:
        return len(value)
    except Exception:  # __len__ of somebody's subclass
        return 0


def _size(value: object) -> int:
    try:
        return sys.getsizeof(value)
    except Exception:  # __sizeof__ of somebody's class
        return 0
