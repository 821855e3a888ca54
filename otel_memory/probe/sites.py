"""What a file and a line are called: the function around them, and a path short enough to read.

Looks into what is loaded and opens no file, so that the names are those of the code that runs, not of what a
deployment has put in its place since. Owns no state.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

_DEEPEST: Final = 4
_MOST_OBJECTS: Final = 20_000

_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SAMPLES: Final = os.path.join(_OURS, "demo", "")


@functools.cache
def _library_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {os.path.join(paths[key], "") for key in ("stdlib", "platstdlib", "purelib", "platlib") if paths.get(key)}
    return tuple(roots)


def is_ours(path: str) -> bool:
    """Whether a file belongs to this package; the sample programs of its demo are programs like any other."""
    return path.startswith(_OURS) and not path.startswith(_SAMPLES)


def is_library(path: str) -> bool:
    """Whether a file belongs to the standard library or to an installed package; also what is no file at all."""
    return path.startswith(("<", *_library_roots())) and not path.startswith(_SAMPLES)


def short_path(path: str) -> str:
    """The path below the folder that it was imported from."""
    if path.startswith("<"):
        return path
    below = [
        root
        for root in {*_library_roots(), *(os.path.join(os.path.abspath(p), "") for p in sys.path)}
        if len(root) > 1 and path.startswith(root)
    ]
    return path[len(max(below, key=len)) :] if below else path


def function_at(path: str, line: int) -> str | None:
    """Qualified name of the function around ``line`` of the file ``path``, ``<module>`` outside of all; None where no
    loaded module comes from that file."""
    module = _module_of(path)
    if module is None:
        return None
    best: tuple[int, str] | None = None
    for code in _codes(module, path):
        lines = [number for _, _, number in code.co_lines() if number]
        if lines and min(code.co_firstlineno, *lines) <= line <= max(lines):
            size = max(lines) - code.co_firstlineno
            if best is None or size < best[0]:
                best = size, code.co_qualname
    return "<module>" if best is None else best[1]


def _module_of(path: str) -> ModuleType | None:
    for module in list(sys.modules.values()):
        if issubclass(type(module), ModuleType):
            file = module.__dict__.get("__file__")
            if isinstance(file, str) and (file == path or os.path.abspath(file) == path):
                return module
    return None


def _codes(module: ModuleType, path: str) -> list[CodeType]:
    """The code of every function that hangs below the module: in classes, closures and wrappers too."""
    found: list[CodeType] = []
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(value, 0) for value in list(module.__dict__.values())]
    while waiting and len(seen) < _MOST_OBJECTS:
        value, depth = waiting.pop()
        if id(value) in seen or depth > _DEEPEST:
            continue
        seen.add(id(value))
        kind = type(value)
        if kind is CodeType:
            if value.co_filename == path:
                found.append(value)
            waiting += [(inner, depth) for inner in value.co_consts if type(inner) is CodeType]
        elif kind is FunctionType:
            waiting.append((value.__code__, depth))
            waiting += [(inner, depth + 1) for inner in value.__dict__.values()]
            for cell in value.__closure__ or ():
                try:
                    waiting.append((cell.cell_contents, depth + 1))
                except ValueError:  # empty as yet
                    continue
        elif issubclass(kind, type):
            if type.__dict__["__dict__"].__get__(value).get("__module__") == module.__name__:
                waiting += [(inner, depth + 1) for inner in list(type.__dict__["__dict__"].__get__(value).values())]
        elif kind in (staticmethod, classmethod):
            waiting.append((value.__func__, depth))
        elif kind is property:
            waiting += [(inner, depth + 1) for inner in (value.fget, value.fset, value.fdel)]
        else:
            # Decorators that follow the custom: functools.cache, partial objects, wrapt.
            inner = _wrapped(value)
            if inner is not None:
                waiting.append((inner, depth + 1))
    return found


def _wrapped(value: object) -> object | None:
    if type(value) is functools.partial:
        return value.func
    if type(value).__module__ in ("functools", "wrapt", "wrapt.wrappers", "wrapt.proxies"):
        wrapped: object | None = getattr(value, "__wrapped__", None)
        return wrapped
    return None
