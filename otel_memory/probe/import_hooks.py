"""Tells when a module has been imported: at once where it is there already, else right after its code has run.

Owns one finder at the front of ``sys.meta_path``, there only while somebody waits for a module. It finds nothing
itself: it asks the other finders, and stands in for the loader just until the module's code begins to run. A module
that is reloaded, or imported again after it was removed, is told of again. What the module's code raises passes
through untouched; what a callback raises goes to its ``failed``.

Some modules never come by here: the script that is run (``__main__``), one that another finder claims first, one that
is being imported when somebody begins to wait. ``poll()`` tells of those; call it now and then.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final
from weakref import ReferenceType, ref

__all__ = ["MAIN", "imported", "poll", "when_imported"]

MAIN: Final = "__main__"

Imported = Callable[[ModuleType], object]
Failed = Callable[[BaseException], object]


class _Waiting:
    """Somebody who waits for a module. ``told`` is the module that it was told of last."""

    __slots__ = ("callback", "failed", "told")

    def __init__(self, callback: Imported, failed: Failed) -> None:
        self.callback = callback
        self.failed = failed
        self.told: ReferenceType[ModuleType] | None = None

    def tell(self, module: ModuleType) -> None:
        try:
            try:
                self.told = ref(module)
            except TypeError:  # something else that somebody put into sys.modules
                self.told = None
            self.callback(module)
        except Exception as error:
            self.failed(error)


_waiting: dict[str, tuple[_Waiting, ...]] = {}
_lock = threading.RLock()


class _Loader:
    """Stands in for a module's loader until the code of the module begins to run."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def __class__(self) -> type:  # who asks for a kind of loader with isinstance() is to get it
        return type(self._inner)

    @__class__.setter
    def __class__(self, _kind: type) -> None:
        raise TypeError("a stand-in keeps its class")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        create = getattr(self._inner, "create_module", None)
        module: ModuleType | None = None if create is None else create(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and getattr(spec, "loader", None) is self:
            spec.loader = self._inner
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._inner
        self._inner.exec_module(module)
        # A module may put something else into its place.
        name = module.__name__ if spec is None else spec.name
        _tell(name, sys.modules.get(name, module))


class _Finder:
    """Asks the other finders for a module that somebody waits for."""

    def __init__(self) -> None:
        self._asking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _waiting or getattr(self._asking, "name", None) == fullname:
            return None
        before = getattr(self._asking, "name", None)
        self._asking.name = fullname  # another finder of this kind would ask us again
        try:
            for finder in list(sys.meta_path):
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = None if find is None else find(fullname, path, target)
                if spec is not None:
                    if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                    return spec
            return None
        finally:
            self._asking.name = before


_finder: Final = _Finder()


def when_imported(name: str, callback: Imported, failed: Failed) -> Callable[[], None]:
    """Call ``callback(module)`` when module ``name`` has been imported, each time anew; at once where it is there.

    It is called on the importing thread. ``failed`` takes what it raises. Imports nothing. Returns how to undo it.
    """
    entry = _Waiting(callback, failed)
    with _lock:
        _waiting[name] = (*_waiting.get(name, ()), entry)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)

    def undo() -> None:
        with _lock:
            left = tuple(other for other in _waiting.get(name, ()) if other is not entry)
            if left:
                _waiting[name] = left
            else:
                _waiting.pop(name, None)
            if not _waiting and _finder in sys.meta_path:
                sys.meta_path.remove(_finder)

    module = imported(name)
    if module is not None:
        entry.tell(module)
    return undo


def poll() -> None:
    """Tell of modules that are there and were not told of yet. Costs a look-up for each module waited for."""
    for name, entries in list(_waiting.items()):
        module = imported(name)
        if module is not None:
            for entry in entries:
                told = entry.told
                if told is None or told() is not module:
                    entry.tell(module)


def imported(name: str) -> ModuleType | None:
    """The module if it is imported and its code has run. Of the script nobody knows when its code has run."""
    module = sys.modules.get(name)
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None
    return module


def _tell(name: str, module: ModuleType) -> None:
    for entry in _waiting.get(name, ()):
        entry.tell(module)


def _reset_after_fork() -> None:
    """In the child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
