"""Operations named in a setting are measured without touching the code: ``OTEL_PYTHON_MEMORY_OPERATIONS``.

Owns the feature: what a name in the setting reaches, what of it is put in place when its module is imported, and how
that is taken back. How a call is measured is ``operation_wrappers``'; when a module has come is ``import_hooks``'.
Nothing is imported for it, and no name that is wrong keeps a module from being imported.
"""

from __future__ import annotations

import difflib
import fnmatch
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from otel_memory.probe import import_hooks
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.operation_wrappers import is_measuring, measured_in, set_measuring
from otel_memory.probe.operations import monitor_memory

if TYPE_CHECKING:
    from collections.abc import Callable

PART: Final = "wrapping"
SETTING: Final = "OTEL_PYTHON_MEMORY_OPERATIONS"
SPECIAL: Final = frozenset({"__call__"})
"""The methods with two underscores on both sides that a pattern reaches; each other one has to be named."""
PATIENCE_SECONDS: Final = 60.0
"""So long names in the script that is run may be missing: nobody says when its code has run."""

_logger: Final = logging.getLogger("otel_memory.probe")
_ORIGINAL: Final = "_otel_memory_original"

_wrappers: WeakKeyDictionary[Any, ReferenceType[Any]] = WeakKeyDictionary()
"""The wrapper that a function was given once, as long as somebody holds it: a second probe puts the same in place, so
that those who imported it by name are measured again too."""


@dataclass(frozen=True, slots=True)
class Target:
    """One name of the setting: ``package.module:function``, ``…:Class.method``, ``…:Class.*`` or ``…:*``."""

    module: str
    owners: tuple[str, ...]
    """Classes from the outside to the inside; none for a function of the module."""
    pattern: str
    """Name of the function, or a pattern with ``*``."""

    def __str__(self) -> str:
        return f"{self.module}:{'.'.join((*self.owners, self.pattern))}"

    @property
    def many(self) -> bool:
        """Whether it is a pattern, which may well match nothing that can be measured."""
        return "*" in self.pattern

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that ``text``, valid by ``setting_forms.operations``, names."""
        module, _, path = text.partition(":")
        *owners, pattern = path.split(".")
        return cls(module, tuple(owners), pattern)


class NotReached(Exception):
    """A target names nothing that can be measured; the message says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A wrapper of ours in its place. All weak: a module that is unloaded goes, with its classes and functions."""

    owner: ReferenceType[Any]
    name: str
    wrapper: ReferenceType[Any]

    def take_back(self) -> None:
        """The original is put back, unless somebody has put something else there or wrapped ours: then ours measures
        no more, but hands its calls on."""
        owner, wrapper = self.owner(), self.wrapper()
        if wrapper is None:
            return
        set_measuring(wrapper, False)
        installed = None if owner is None else vars(owner).get(self.name)
        if installed is not None and _function(installed) is wrapper:
            setattr(owner, self.name, getattr(installed, _ORIGINAL, wrapper.__wrapped__))


class Wrapping(Feature):
    """Measures the operations that the setting names, from when their modules are imported until ``close()``."""

    part = PART

    def __init__(self, around: Surroundings) -> None:
        self._ledger = around.ledger
        self._lock = threading.RLock()
        self._placed: list[_Placed] = []
        self._targets: dict[str, list[Target]] = {}
        self._told: set[Target] = set()
        self._problems: dict[str, str] = {}
        self._began: float | None = None
        self._patient = True
        for text in around.settings.operations:
            target = Target.parse(text)
            self._targets.setdefault(target.module, []).append(target)
        self._undo: list[Callable[[], None]] = [
            import_hooks.when_imported(module, partial(self._imported, module), self._failed)
            for module in self._targets
        ]

    def tick(self, now: float) -> None:
        """See to what the import hook can't tell."""
        self._began = now if self._began is None else self._began
        import_hooks.poll()
        if import_hooks.MAIN in self._targets and self._patient:
            self._patient = now - self._began < PATIENCE_SECONDS
            script = import_hooks.imported(import_hooks.MAIN)
            if script is not None:
                self._imported(import_hooks.MAIN, script)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def close(self) -> None:
        for undo in self._undo:
            undo()
        with self._lock:
            placed, self._placed = self._placed, []
        for each in reversed(placed):
            self._ledger.guard(PART, each.take_back)

    def status(self) -> Mapping[str, Any]:
        with self._lock:
            wrapped = [name for each in self._placed if (name := _shown(each)) is not None]
        waiting = [str(target) for module, targets in self._targets.items() for target in targets if not _is_in(module)]
        return {"operations": sorted(set(wrapped)), "not_imported": waiting, "problems": dict(self._problems)}

    def _failed(self, error: BaseException) -> None:
        self._ledger.failed(PART, error)

    def _imported(self, name: str, module: ModuleType) -> None:
        with self._lock:
            self._placed = [each for each in self._placed if each.wrapper() is not None]
            for target in self._targets[name]:
                try:
                    self._place(module, target)
                except NotReached as error:
                    if name != import_hooks.MAIN or not self._patient:
                        self._tell(target, str(error))
                except Exception as error:
                    self._ledger.failed(PART, error)

    def _tell(self, target: Target, problem: str) -> None:
        if target in self._told:
            return
        self._told.add(target)
        self._problems[str(target)] = problem
        _logger.warning("otel-memory: %s: %s: %s. The others are measured.", SETTING, target, problem)

    def _place(self, module: ModuleType, target: Target) -> None:
        owner = _owner(module, target)
        if not target.many:
            self._wrap(owner, target.pattern, _one(owner, target))
            return
        found = False
        for name, raw in _matching(owner, module, target.pattern):
            found = True
            try:
                self._wrap(owner, name, raw)
            except NotReached:  # a class that lets nothing be set says so for each of its methods
                continue
        if not found:
            raise NotReached(f"{_described(owner)} defines no function that {target.pattern} stands for")

    def _wrap(self, owner: Any, name: str, raw: Any) -> None:
        ours = measured_in(_function(raw))
        if ours is not None:
            # Decorated in the code, or wrapped before: measured once is enough. One of a probe that was stopped, which
            # somebody had wrapped in turn by then, measures again.
            if not is_measuring(ours):
                set_measuring(ours, True)
                self._placed.append(_Placed(ref(owner), name, ref(ours)))
            return
        wrapper = _wrapper_for(_function(raw))
        installed = wrapper
        if isinstance(raw, (classmethod, staticmethod)):
            installed = type(raw)(wrapper)
            setattr(installed, _ORIGINAL, raw)  # these objects have a namespace of their own
        try:
            setattr(owner, name, installed)
        except (AttributeError, TypeError) as error:
            raise NotReached(f"{_described(owner)} lets nothing be set ({error})") from None
        self._placed.append(_Placed(ref(owner), name, ref(wrapper)))


def _wrapper_for(fn: Any) -> Any:
    known = _wrappers.get(fn)
    wrapper = None if known is None else known()
    if wrapper is None:
        wrapper = monitor_memory(fn)
        _wrappers[fn] = ref(wrapper)
    set_measuring(wrapper, True)
    return wrapper


def _shown(placed: _Placed) -> str | None:
    wrapper = placed.wrapper()
    return None if wrapper is None else f"{wrapper.__module__}.{wrapper.__qualname__}"


def _is_in(module: str) -> bool:
    return import_hooks.imported(module) is not None


def _function(raw: Any) -> Any:
    """The function in a classmethod or staticmethod object; anything else is itself."""
    return raw.__func__ if isinstance(raw, (classmethod, staticmethod)) else raw


def _described(owner: Any) -> str:
    return f"class {owner.__qualname__}" if isinstance(owner, type) else f"module {owner.__name__}"


def _missing(owner: Any, name: str) -> NotReached:
    close = difflib.get_close_matches(name, list(vars(owner)), n=3, cutoff=0.6)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    return NotReached(f"{_described(owner)} has no {name}{meant}")


def _owner(module: ModuleType, target: Target) -> Any:
    """The module or class that ``target``'s function stands in."""
    owner: Any = module
    for name in target.owners:
        if name not in vars(owner):
            raise _missing(owner, name)
        inner = vars(owner)[name]
        if not isinstance(inner, type):
            raise NotReached(f"{name} is no class but {type(inner).__name__}; write the function's own name")
        owner = inner
    return owner


def _one(owner: Any, target: Target) -> Any:
    """What ``target`` names, as it stands in its owner's namespace, if it can be measured."""
    name = target.pattern
    if name not in vars(owner):
        if isinstance(owner, type):
            for base in owner.__mro__[1:]:
                if name in vars(base):
                    home = f"{base.__module__}:{base.__qualname__}.{name}"
                    raise NotReached(f"{_described(owner)} inherits it; write {home}")
        raise _missing(owner, name)
    raw = vars(owner)[name]
    if isinstance(_function(raw), FunctionType):
        return raw
    if isinstance(raw, type):
        raise NotReached(f"it is a class; write {target}.* for its methods")
    if isinstance(raw, property):
        raise NotReached("it is a property; put @monitor_memory below @property instead")
    if callable(_function(raw)):
        kind = type(_function(raw)).__name__
        raise NotReached(f"it is no function of Python code but {kind}, whose calls can't be measured from outside")
    raise NotReached(f"it is no function but {type(raw).__name__}")


def _matching(owner: Any, module: ModuleType, pattern: str) -> Iterator[tuple[str, Any]]:
    """The functions of Python code that ``owner`` defines itself and ``pattern`` stands for. Names that begin with an
    underscore only if the pattern does."""
    for name, raw in list(vars(owner).items()):
        if not isinstance(_function(raw), FunctionType) or not fnmatch.fnmatchcase(name, pattern):
            continue
        if name.startswith("_") and name not in SPECIAL and not (pattern.startswith("_") and not _special(name)):
            continue
        if owner is module and raw.__module__ != module.__name__:
            continue  # imported from elsewhere
        yield name, raw


def _special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
