"""Which package a module or a file of source code belongs to.

Owns that naming: a package goes by its top-level import name (``google.cloud.storage`` by ``google``), never by that of
its distribution, because finding that one out reads every distribution's list of files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Final

OTHER: Final = "<other>"
"""What belongs to no module that could be named: ``<string>``, code of a template, frames without a file."""
MAX_FILES: Final = 20_000


def package_of(module_name: str) -> str:
    """The top-level name of ``module_name``."""
    return module_name.partition(".")[0]


class FileNames:
    """Files to packages, remembered. ``modules`` and ``search_path`` default to those of the interpreter.

    First the files of loaded modules count (which is right for editable installations and for ``__main__``), then
    the longest directory of the search path that the file lies in.
    """

    def __init__(
        self,
        modules: Callable[[], Iterable[tuple[str, ModuleType]]] = lambda: list(sys.modules.items()),
        search_path: Callable[[], Iterable[str]] = lambda: list(sys.path),
    ) -> None:
        self._modules = modules
        self._search_path = search_path
        self._known: dict[str, str] = {}
        self._loaded = 0

    def package(self, file_name: str) -> str:
        """The package of ``file_name`` as tracemalloc names it."""
        found = self._known.get(file_name)
        if found is None:
            if len(self._known) >= MAX_FILES:
                self._known.clear()
                self._loaded = 0
            self._refresh()
            found = self._known.get(file_name)
            if found is None:
                found = self._known[file_name] = self._by_path(file_name)
        return found

    def _refresh(self) -> None:
        modules = list(self._modules())
        if len(modules) == self._loaded:
            return
        self._loaded = len(modules)
        for name, module in modules:
            # Not getattr: a module may be lazy, and would load then.
            variables = module.__dict__ if type(module) is ModuleType else {}
            file_name = variables.get("__file__")
            if isinstance(file_name, str):
                self._known.setdefault(file_name, package_of(name))

    def _by_path(self, file_name: str) -> str:
        if file_name.startswith("<frozen "):
            return package_of(file_name.removeprefix("<frozen ").rstrip(">")).lstrip("_")
        if file_name.startswith("<"):
            return OTHER
        best = ""
        for directory in self._search_path():
            prefix = os.path.join(os.path.abspath(directory), "")
            if file_name.startswith(prefix) and len(prefix) > len(best):
                best = prefix
        if not best:
            return OTHER
        top = file_name[len(best) :].split(os.sep, maxsplit=1)[0]
        return top.removesuffix(".py").partition(".")[0] or OTHER
