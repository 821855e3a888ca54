"""What objects refer to, asked in a way that harms no interpreter.

Owns the one workaround: CPython 3.12.0 to 3.12.5 count objects that are already freed among what the module
``_asyncio`` refers to (gh-122695). ``gc.get_referents`` of that module brings them back to life and frees them a second
time; after that asyncio hands out one iterator twice, and the next call fills all memory. So a module is never asked:
it stands for its namespace, which is all that other modules refer to.
"""

from __future__ import annotations

import gc
from types import ModuleType
from typing import Any, Final

__all__ = ["referents"]

_MODULE: Final = id(ModuleType)


def referents(*things: object) -> list[Any]:
    """``gc.get_referents(*things)``, but of a module its namespace alone."""
    if _MODULE not in map(id, map(type, things)):  # by id: a type may have an `__eq__` of the program's
        return gc.get_referents(*things)
    found = gc.get_referents(*[thing for thing in things if type(thing) is not ModuleType])
    found += [vars(thing) for thing in things if type(thing) is ModuleType]
    return found
