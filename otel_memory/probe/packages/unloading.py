"""Taking a package out of the interpreter's modules, and what that freed, measured.

Owns which packages may be taken out. Python can't unload: what still refers to a module, one of its functions or
classes keeps them, and a shared library stays mapped for good. So the result says what is still alive.
"""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import Final

from otel_memory.probe import reader
from otel_memory.probe.packages.import_hook import read_heap
from otel_memory.probe.packages.package_names import package_of

_NEVER: Final = frozenset({"__main__", "otel_memory", "opentelemetry", "psutil"})

MAX_NAMES: Final = 100


@dataclass(frozen=True, slots=True)
class Unloading:
    """What ``unload`` did. Sizes in bytes; None could not be read."""

    package_name: str
    unloaded: bool
    message: str
    modules_removed: int = 0
    modules_still_alive: tuple[str, ...] = ()
    """Those that something still refers to (at most 100 are named): their memory isn't freed."""
    extension_modules: tuple[str, ...] = ()
    """Their shared libraries stay mapped."""
    memory_before: int | None = None
    memory_after: int | None = None
    heap_before: int | None = None
    heap_after: int | None = None
    objects_collected: int = 0

    @property
    def memory_freed(self) -> int | None:
        """Resident bytes less than before, negative if more. Other threads' memory is among it, and what the
        allocator keeps for later is not."""
        return _less(self.memory_before, self.memory_after)

    @property
    def heap_freed(self) -> int | None:
        """Bytes in use in the C allocator (pymalloc's arenas not among it) less than before: freed, if perhaps kept by
        the allocator."""
        return _less(self.heap_before, self.heap_after)


def _less(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else before - after


def unload(name: str, *, force: bool = False) -> Unloading:
    """Remove ``name`` and its submodules from ``sys.modules``, and measure what that freed.

    Collects garbage before and after, which stops the program for 100 ms each at a million objects. Refused without
    ``force`` where extension modules are among them: many can't be loaded a second time.
    """
    modules: dict[str, ModuleType] = {
        key: value for key, value in list(sys.modules.items()) if key == name or key.startswith(f"{name}.")
    }
    if name not in modules:
        return Unloading(name, False, f"{name} is not loaded.")
    top = package_of(name)
    if top in _NEVER or top in sys.stdlib_module_names:
        return Unloading(name, False, f"{name} is needed by the interpreter or by the probe, and stays.")
    extensions = tuple(sorted(key for key, value in modules.items() if _is_extension(value)))
    if extensions and not force:
        message = (
            f"{name} has {len(extensions)} extension modules ({extensions[0]} …): their libraries are never unloaded, "
            "and many can't be loaded again in this process. Give force=True to remove the Python part all the same."
        )
        return Unloading(name, False, message, extension_modules=extensions)
    gc.collect()  # what is garbage already isn't the package's
    before, heap_before = reader.read_rss(), read_heap()
    references = {key: weakref.ref(value) for key, value in modules.items()}
    for key, value in modules.items():
        # A parent keeps its submodules as attributes.
        parent, _, child = key.rpartition(".")
        holder = sys.modules.get(parent)
        if holder is not None and parent not in modules and vars(holder).get(child) is value:
            delattr(holder, child)
        sys.modules.pop(key, None)
    count = len(modules)
    modules.clear()
    del value
    collected = gc.collect()
    alive = tuple(sorted(key for key, reference in references.items() if reference() is not None))
    after, heap_after = reader.read_rss(), read_heap()
    message = f"{count} modules of {name} were removed"
    if alive:
        message += f"; {len(alive)} are kept alive by references elsewhere, so their memory is not freed"
    if extensions:
        message += f"; the libraries of {len(extensions)} extension modules stay mapped"
    return Unloading(
        name,
        True,
        f"{message}.",
        count,
        alive[:MAX_NAMES],
        extensions,
        before,
        after,
        heap_before,
        heap_after,
        collected,
    )


def has_extensions(name: str) -> bool:
    """Whether one of the loaded modules of ``name`` is an extension module."""
    return any(package_of(key) == package_of(name) and _is_extension(value) for key, value in list(sys.modules.items()))


def _is_extension(module: object) -> bool:
    file_name = module.__dict__.get("__file__") if type(module) is ModuleType else None
    return isinstance(file_name, str) and file_name.endswith(tuple(EXTENSION_SUFFIXES))
