"""What holds what, in words: the names of types, and through which attribute, key or cell one object holds another.

Owns the reading of objects that are no longer the program's. It runs none of the program's code (no ``__getattr__``,
``__hash__``, ``__class__``, no property, no metaclass) and never takes a value or its ``repr``: only names of types,
functions and attributes, and keys that look like such names.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    TracebackType,
)
from typing import Any, Final
from weakref import ReferenceType

from otel_memory.probe.referents import referents

MAX_NAME: Final = 100
MAX_KEY: Final = 40
MAX_NAMED_KEYS: Final = 32
"""A dict with more entries than that holds data: its keys stay unnamed."""
MAX_ITEMS: Final = 4096
"""Items of a container that are looked at."""
SUSPENDABLE: Final = (GeneratorType, CoroutineType, AsyncGeneratorType)
INTERNAL: Final = ".<internal>"
"""The label of a reference that a type written in C keeps to itself."""

Labelled = tuple[str, object]

_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
_PLAIN: Final[dict[type, str]] = {
    **{kind: kind.__name__ for kind in _SEQUENCES},
    dict: "dict",
    OrderedDict: "OrderedDict",
    defaultdict: "defaultdict",
    CellType: "cell",
}
_ATTRIBUTES: Final[dict[type, tuple[str, ...]]] = {
    MethodType: ("__self__", "__func__"),
    BuiltinMethodType: ("__self__",),
    TracebackType: ("tb_frame", "tb_next"),
    GetSetDescriptorType: ("__objclass__",),
    MemberDescriptorType: ("__objclass__",),
    partial: ("func", "args", "keywords"),
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    BaseException: ("__traceback__", "__context__", "__cause__", "args"),
}
"""Types written in C with what they hold by name, for them and their subclasses. Read through their descriptors."""

_qualname_of: Final[Callable[[type], str]] = type.__dict__["__qualname__"].__get__
_dict_of: Final[Callable[[type], Any]] = type.__dict__["__dict__"].__get__
_mro_of: Final[Callable[[type], Any]] = type.__dict__["__mro__"].__get__


def is_container(kind: type) -> bool:
    """Whether objects of exactly this type stand between two owners without being one: lists, dicts, cells."""
    return id(kind) in _CONTAINER_IDS


# Types are told apart by identity: a metaclass may have an ``__eq__`` and a ``__hash__`` of its own.
_CONTAINER_IDS: Final = frozenset(map(id, _PLAIN))
SUSPENDABLE_IDS: Final = frozenset(map(id, SUSPENDABLE))


def is_suspendable(kind: type) -> bool:
    """Whether it is a generator, a coroutine or an asynchronous generator."""
    return id(kind) in SUSPENDABLE_IDS


def type_name(kind: type) -> str:
    """``shop.cart.Node``; without the module for builtins."""
    module = _dict_of(kind).get("__module__")
    name = short_type_name(kind)
    return name if type(module) is not str or module == "builtins" else f"{module}.{name}"[:MAX_NAME]


def short_type_name(kind: type) -> str:
    """``Node``: the qualified name."""
    return _qualname_of(kind)[:MAX_NAME]


def describe(thing: object) -> str:
    """What ``thing`` is, without saying what is in it: ``Node``, ``class Node``, ``function outer.<locals>.inner``."""
    kind = type(thing)
    if kind is FunctionType:
        return f"function {thing.__qualname__}"[:MAX_NAME]  # type: ignore[attr-defined]
    if kind is FrameType:
        return f"frame of {thing.f_code.co_qualname}()"[:MAX_NAME]  # type: ignore[attr-defined]
    if is_suspendable(kind):
        return f"{kind.__name__} {thing.__qualname__}()"[:MAX_NAME]  # type: ignore[attr-defined]
    if issubclass(kind, type):
        return f"class {short_type_name(thing)}"  # type: ignore[arg-type]
    return short_type_name(kind)


class Labels:
    """Names the references of objects. Remembers what it learnt of each class, so it is to be dropped with them."""

    def __init__(self) -> None:
        self._dicts: dict[int, Callable[[object], dict[Any, Any]] | None] = {}
        self._slots: dict[int, tuple[tuple[str, Callable[[object], object]], ...]] = {}
        self._c_names: dict[int, tuple[tuple[str, Callable[[object], object]], ...]] = {}
        self._kept: dict[int, type] = {}
        """Keeps the classes whose numbers are keys above."""

    def references(self, thing: object) -> Iterator[Labelled]:
        """(label, what is held) for each reference of ``thing``; several may have one label. Skips over closure cells.

        A label is written straight after the owner's name: ``.parent``, ``['key']``, `` closure 'name'``.
        """
        kind = type(thing)
        seen: set[int] = set()
        for label, held in self._named(thing, kind):
            seen.add(id(held))
            yield label, held
        for held in referents(thing):
            if id(held) not in seen:
                yield (".__class__" if held is kind else " frame" if is_suspendable(kind) else INTERNAL), held

    def items(self, container: object, *, alone: bool) -> Iterator[Labelled]:
        """(label, item) of a container; ``alone`` where it is the owner itself and so was named before."""
        kind = type(container)
        if kind is CellType:
            yield from ((" contents", held) for held in referents(container))
        elif issubclass(kind, dict):
            yield from _dict_items(container, "" if alone or kind is dict else f"{short_type_name(kind)} ")
        else:
            base: Any = next(base for base in _SEQUENCES if issubclass(kind, base))
            label = "[]" if alone else f"[{short_type_name(kind)}]"
            try:
                for number, item in enumerate(base.__iter__(container)):
                    if number >= MAX_ITEMS:
                        return
                    yield label, item
            except RuntimeError:  # changed by another thread while it is read; only a living one can be
                return

    def _named(self, thing: Any, kind: type) -> Iterator[Labelled]:
        if kind is FunctionType:
            yield from _function(thing)
        elif kind is FrameType:
            yield from _frame(thing)
        elif issubclass(kind, type):
            yield from ((f".{key}" if _is_name(key) else ".<attribute>", held) for key, held in _dict_of(thing).items())
            yield ".__mro__", _mro_of(thing)
            return
        elif kind is ReferenceType:
            yield from ((" callback", held) for held in referents(thing))
        elif is_container(kind):
            yield from self.items(thing, alone=True)
            return
        elif issubclass(kind, (dict, *_SEQUENCES)):
            yield from self.items(thing, alone=True)
        self._learn(kind)
        for label, get in (*self._c_names[id(kind)], *self._slots[id(kind)]):
            try:
                yield label, get(thing)
            except AttributeError:  # a slot that is not set
                continue
        get_dict = self._dicts[id(kind)]
        if get_dict is not None:
            attributes = get_dict(thing)
            if type(attributes) is dict:
                try:
                    for key, held in list(attributes.items()):
                        yield (f".{key}" if _is_name(key) else ".<attribute>"), held
                except RuntimeError:
                    pass
                yield ".__dict__", attributes

    def _learn(self, kind: type) -> None:
        if id(kind) in self._kept:
            return
        get_dict: Callable[[object], dict[Any, Any]] | None = None
        slots: list[tuple[str, Callable[[object], object]]] = []
        c_names: list[tuple[str, Callable[[object], object]]] = []
        for base in _mro_of(kind):
            own = _dict_of(base)
            descriptor = own.get("__dict__")
            if get_dict is None and type(descriptor) is GetSetDescriptorType:
                get_dict = descriptor.__get__
            if id(base) in _C_TYPE_IDS:
                c_names += [(f".{name}", own[name].__get__) for name in _ATTRIBUTES[base] if name in own]
            elif "__slots__" in own:
                slots += [
                    (f".{name}" if _is_name(name) else ".<slot>", member.__get__)
                    for name, member in own.items()
                    if type(member) is MemberDescriptorType
                ]
        self._dicts[id(kind)], self._slots[id(kind)], self._c_names[id(kind)] = get_dict, tuple(slots), tuple(c_names)
        self._kept[id(kind)] = kind


_C_TYPE_IDS: Final = frozenset(map(id, _ATTRIBUTES))


def _is_name(key: object) -> bool:
    return type(key) is str and len(key) <= MAX_KEY and key.isidentifier()


def _dict_items(mapping: Any, prefix: str) -> Iterator[Labelled]:
    named = dict.__len__(mapping) <= MAX_NAMED_KEYS
    unnamed = f"[{prefix or 'dict '}value]"
    try:
        for number, (key, held) in enumerate(dict.items(mapping)):
            if number >= MAX_ITEMS:
                return
            yield (f"[{prefix}{key!r}]" if named and _is_name(key) else unnamed), held
            if type(key) is not str:
                yield f"[{prefix or 'dict '}key]", key
    except RuntimeError:
        return


def _function(function: Any) -> Iterator[Labelled]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        for held in referents(cell):
            yield f" closure '{name}'", held
    for held in tuple.__iter__(function.__defaults__ or ()):
        yield " default", held
    for name, held in dict.items(function.__kwdefaults__ or {}):
        yield f" default '{name}'", held
    yield ".__globals__", function.__globals__


def _frame(frame: Any) -> Iterator[Labelled]:
    names = frame.f_locals
    if type(names) is dict or type(names).__name__ == "FrameLocalsProxy":
        yield from ((f" local '{name}'" if _is_name(name) else " local", held) for name, held in names.items())
    if frame.f_back is not None:
        yield ".f_back", frame.f_back
