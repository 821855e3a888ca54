"""What a holder is called: ``shop.users.CACHE``, ``shop.cart.Cart.lines``, ``variable 'log' of shop.jobs.poll``.

Owns the recognition of what has a name of its own, and the wording. Names are those of modules, classes, functions,
attributes and variables; keys and values are never taken.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from dataclasses import dataclass
from types import (
    AsyncGeneratorType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, Literal

from otel_memory.probe import sites
from otel_memory.probe.cycle_labels import type_name

Kind = Literal["global", "class", "instance", "cache", "closure", "default", "local", "cycle", "unknown"]

MAX_FRAMES: Final = 500
MAX_ENTRIES: Final = 20_000
_SUSPENDED: Final = (GeneratorType, CoroutineType, AsyncGeneratorType)
_LRU_CACHE: Final[type] = type(functools.lru_cache(lambda: None))
_CONTAINERS: Final = (list, tuple, set, frozenset)
_WORDS: Final[dict[str, str]] = {
    "global": "module global",
    "class": "class attribute",
    "instance": "instance attribute",
    "cache": "cache of a function",
    "closure": "closure",
    "default": "default argument",
    "local": "local variable",
}
_RANKS: Final = ("global", "cache", "class", "instance", "closure", "default", "local", "unknown", "cycle")
# A function that asks for its own variables shares their dict with whoever else asks (before CPython 3.13).
_LOOKS_AT_ITSELF: Final = frozenset({"locals", "vars", "eval", "exec", "dir"})
_OPTIMIZED: Final = 0x1  # CO_OPTIMIZED: variables are not in a dict of their own


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds: a name, of which kind, and for an instance's attribute what keeps the instance."""

    kind: Kind
    name: str
    through: str | None = None

    @property
    def rank(self) -> int:
        return _RANKS.index(self.kind)

    def __str__(self) -> str:
        text = f"{self.name} ({_WORDS[self.kind]})" if self.kind in _WORDS else self.name
        return text if self.through is None else f"{text}, kept by {self.through}"


class Step:
    """An object on the way up; ``child`` is the step below it, which it holds."""

    __slots__ = ("child", "thing")

    def __init__(self, thing: Any, child: Step | None) -> None:
        self.thing = thing
        self.child = child

    def guess(self) -> Holder:
        """The best that can be said where the search ended here."""
        near = _near(self)
        if near is not None:
            return near
        return Holder("unknown", f"a {type_name(type(self.thing))}")


class Names:
    """Recognises ends. Made anew for each search: it knows the modules and the running frames of that moment."""

    def __init__(self) -> None:
        self._modules: dict[int, str] = {}
        for name, module in list(sys.modules.items()):
            if issubclass(type(module), ModuleType) and not name.startswith("otel_memory"):
                self._modules.setdefault(id(module.__dict__), name)  # the main module of a spawned process has two
        self._locals = _locals_of_threads()

    def is_end(self, thing: object) -> bool:
        """Whether the way up doesn't go on beyond ``thing``."""
        # Frames that somebody keeps, and what is suspended, have a name but are held in turn.
        kind = type(thing)
        return issubclass(kind, (type, FunctionType, ModuleType)) or (kind is _LRU_CACHE and _is_cached_function(thing))

    def local_of(self, step: Step) -> Holder | None:
        """The variable of a running function that is bound to the step's object itself."""
        known = self._locals.get(id(step.thing))
        if known is None:
            return None
        name, function = known
        return _with_near(step, Holder("local", f"{function}: {name}"))

    def end(self, step: Step) -> Holder | None:
        """Who ``step`` is, if it has a name of its own."""
        thing, child = step.thing, step.child
        if child is None:
            return None
        kind = type(thing)
        if kind is dict:
            module = self._modules.get(id(thing))
            key = None if module is None else _key_of(thing, child.thing)
            return None if key is None else _with_near(child, Holder("global", f"{module}.{key}"))
        if issubclass(kind, type):
            below = child.child if type(child.thing) is dict and child.child is not None else child
            key = _key_of(dict(type.__dict__["__dict__"].__get__(thing)), below.thing)
            return None if key is None else _with_near(below, Holder("class", f"{type_name(thing)}.{key}"))
        if kind is FunctionType:
            return _function_end(thing, child)
        if kind is _LRU_CACHE and _is_cached_function(thing):
            return _with_near(child, Holder("cache", _function_name(thing.__wrapped__)))
        if kind is FrameType:
            return Holder("local", _variable(thing, child.thing))
        if kind in _SUSPENDED:
            frame = _frame_of(thing)
            return None if frame is None else Holder("local", _variable(frame, child.thing))
        return None


def is_own(name: str) -> bool:
    """Whether a holder's name is of the program itself: of a module that is neither built in nor installed."""
    module = name.partition(" ")[0].partition(":")[0].rpartition(".")[0]
    while module:
        known = sys.modules.get(module)
        if known is not None:
            file = known.__dict__.get("__file__") if issubclass(type(known), ModuleType) else None
            return module in ("__main__", "__mp_main__") or (type(file) is str and not sites.is_library(file))
        module = module.rpartition(".")[0]
    return False


def _is_cached_function(cache: Any) -> bool:
    """False for a cache that a C library keeps for itself (sqlite3's statements)."""
    return type(getattr(cache, "__wrapped__", None)) is FunctionType


def _with_near(child: Step, end: Holder) -> Holder:
    """``end`` holds ``child``: where something with a name stands between it and the target, that is the name."""
    near = _near(child)
    return end if near is None else Holder(near.kind, near.name, end.name)


def _near(step: Step | None) -> Holder | None:
    """The lowest attribute of an instance, or variable of a kept frame, from ``step`` down to the target."""
    found: Holder | None = None
    while step is not None and step.child is not None:
        thing, child = step.thing, step.child
        kind = type(thing)
        if kind is FrameType:
            found = Holder("local", _variable(thing, child.thing))
        elif kind in _SUSPENDED:
            frame = _frame_of(thing)
            found = found if frame is None else Holder("local", _variable(frame, child.thing))
        elif _is_of_a_class(kind):
            # The dict of attributes, where there is one, is a step of its own.
            value = child.child.thing if child.child and _attributes(thing) is child.thing else child.thing
            name = _attribute_of(thing, value)
            if name is not None:
                found = Holder("instance", f"{type_name(kind)}.{name}")
        step = child
    return found


def _is_of_a_class(kind: type) -> bool:
    """Whether its objects have attributes that a person would know: not the containers and the interpreter's own."""
    if issubclass(kind, (dict, MethodType, CellType, *_CONTAINERS)):
        return False
    module, _, name = type_name(kind).rpartition(".")
    return bool(module) and (module == "__main__" or not module.startswith("_")) and not name.startswith("_")


def _attributes(thing: object) -> dict[Any, Any] | None:
    for base in type.__dict__["__mro__"].__get__(type(thing)):
        descriptor = type.__dict__["__dict__"].__get__(base).get("__dict__")
        if type(descriptor) is GetSetDescriptorType:
            found = descriptor.__get__(thing)
            return found if type(found) is dict else None
    return None


def _attribute_of(thing: object, value: object) -> str | None:
    attributes = _attributes(thing)
    key = None if attributes is None else _key_of(attributes, value)
    if key is not None:
        return key
    for base in type.__dict__["__mro__"].__get__(type(thing)):
        for name, member in list(type.__dict__["__dict__"].__get__(base).items()):
            if type(member) is MemberDescriptorType:
                try:
                    if member.__get__(thing) is value:
                        return str(name)
                except AttributeError:  # not set
                    continue
    return None


def _key_of(mapping: dict[Any, Any], value: object) -> str | None:
    if len(mapping) > MAX_ENTRIES:
        return None
    try:
        for key, held in dict.items(mapping):
            if held is value and type(key) is str:
                return key
    except RuntimeError:  # changed while it is read
        return None
    return None


def _function_name(function: FunctionType) -> str:
    module = function.__module__
    return f"{module}.{function.__qualname__}" if type(module) is str else function.__qualname__


def _function_end(function: FunctionType, child: Step) -> Holder | None:
    held, name = child.thing, _function_name(function)
    if held is function.__globals__ and child.child is not None:  # of code that is no module: runpy, exec
        key = _key_of(held, child.child.thing)
        module = held.get("__name__")
        return None if key is None else _with_near(child.child, Holder("global", f"{module}.{key}"))
    if held is function.__closure__ and child.child is not None:
        cells, variables = function.__closure__ or (), function.__code__.co_freevars
        for variable, cell in zip(variables, cells, strict=False):
            if cell is child.child.thing:
                below = child.child.child or child.child
                return _with_near(below, Holder("closure", f"{name}: {variable}"))
    if held is function.__defaults__ or held is function.__kwdefaults__:
        return _with_near(child, Holder("default", name))
    attributes = function.__dict__
    value = child.child.thing if held is attributes and child.child is not None else held
    key = _key_of(attributes, value)
    return None if key is None else _with_near(child, Holder("class", f"{name}.{key}"))


# --- variables of functions that run or wait ------------------------------------------------------------------


def _locals_of_threads() -> dict[int, tuple[str, str]]:
    """(variable, function) by the id of its value, for every function that runs in another thread."""
    found: dict[int, tuple[str, str]] = {}
    own = threading.get_ident()
    count = 0
    for ident, top in list(sys._current_frames().items()):
        frame: FrameType | None = None if ident == own else top
        while frame is not None and count < MAX_FRAMES:
            count += 1
            if not sites.is_ours(frame.f_code.co_filename) and frame.f_code.co_name != "<module>":
                name = _frame_name(frame)
                for variable, value in _variables(frame):
                    found.setdefault(id(value), (variable, name))
            frame = frame.f_back
    return found


def _variables(frame: FrameType) -> list[tuple[str, Any]]:
    """The local variables; leaves nothing behind that would keep them alive."""
    code: CodeType = frame.f_code
    if not code.co_flags & _OPTIMIZED or frame.f_trace is not None or _LOOKS_AT_ITSELF.intersection(code.co_names):
        return []
    names = frame.f_locals
    try:
        return list(names.items())
    except RuntimeError:
        return []
    finally:
        if type(names) is dict:  # before 3.13 a snapshot, which the frame would keep
            names.clear()


def _variable(frame: FrameType, value: object) -> str:
    name = next((name for name, held in _variables(frame) if held is value), None)
    return _frame_name(frame) if name is None else f"{_frame_name(frame)}: {name}"


def _frame_name(frame: FrameType) -> str:
    module = frame.f_globals.get("__name__")
    return f"{module}.{frame.f_code.co_qualname}" if type(module) is str else frame.f_code.co_qualname


def _frame_of(suspended: Any) -> FrameType | None:
    for name in ("gi_frame", "cr_frame", "ag_frame"):
        frame: FrameType | None = getattr(suspended, name, None)
        if frame is not None:
            return frame
    return None


def referred_by_threads() -> list[Any]:
    """What the running functions of other threads are bound to, for a census: containers that only they know."""
    own = threading.get_ident()
    values: list[Any] = []
    count = 0
    for ident, top in list(sys._current_frames().items()):
        frame: FrameType | None = None if ident == own else top
        while frame is not None and count < MAX_FRAMES:
            count += 1
            if not sites.is_ours(frame.f_code.co_filename):
                values += [value for _, value in _variables(frame) if not gc.is_tracked(value)]
            frame = frame.f_back
    return values
