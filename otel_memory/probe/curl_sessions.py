"""Sessions of curl_cffi: how many are open, closed and still in memory, and how many were let go without a close.

A session holds libcurl handles with their connections, caches and TLS state: memory that Python's allocator never sees.
Owns the hooks in ``Session`` and ``AsyncSession``, put in place when the application imports curl_cffi (never
importing it) and taken out again. Sessions are held weakly. Sessions that were made before the hooks aren't known.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe import import_hooks
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.sources import observe_metrics

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.sources import Gate, Undo

PART: Final = "curl_sessions"
MODULE: Final = "curl_cffi.requests.session"
CLASSES: Final = ("Session", "AsyncSession")
MAX_SESSIONS: Final = 100_000
"""Sessions in memory past which new ones are counted as dropped, so that what is kept of them stays bounded."""


class _Session(ref):  # type: ignore[type-arg]  # of a class of a library that need not be there
    """A session, held weakly, and whether it was closed."""

    __slots__ = ("closed", "key", "kind")

    closed: bool
    key: int
    kind: str


class Sessions:
    """The sessions that are in memory, and how many went unclosed.

    When a session goes, which may be in the middle of a garbage collection on any thread, an entry is appended and
    nothing more. ``drain`` counts those entries; only one thread may call it.
    """

    def __init__(self) -> None:
        self._alive: dict[int, _Session] = {}
        self._gone: list[_Session] = []
        self._leaked = dict.fromkeys(CLASSES, 0)
        self.dropped = 0

    def add(self, session: object, kind: str) -> None:
        if len(self._alive) >= MAX_SESSIONS:
            self.dropped += 1
            return
        entry = _Session(session, self._gone.append)
        entry.closed, entry.key, entry.kind = False, id(session), kind
        self._alive[entry.key] = entry

    def close(self, session: object) -> None:
        entry = self._alive.get(id(session))
        if entry is not None and entry() is session:
            entry.closed = True

    def drain(self) -> None:
        """Count those that have gone until now."""
        for _ in range(len(self._gone)):
            entry = self._gone.pop()
            if self._alive.get(entry.key) is entry:
                del self._alive[entry.key]
            if not entry.closed:
                self._leaked[entry.kind] += 1

    def reset_leaked(self) -> None:
        """In the child after a fork: what the parent lost is the parent's to tell."""
        self._gone.clear()
        self._leaked = dict.fromkeys(CLASSES, 0)

    @property
    def leaked(self) -> dict[str, int]:
        """Sessions let go without a close, by class."""
        return dict(self._leaked)

    def count(self) -> dict[tuple[str, bool], int]:
        """Sessions in memory by class and whether they were closed."""
        found = {(kind, closed): 0 for kind in CLASSES for closed in (False, True)}
        for each in list(self._alive.values()):
            if each() is not None:
                found[each.kind, each.closed] += 1
        return found


class CurlSessions(Feature):
    """Watches the sessions of curl_cffi from when it is imported until ``close()``."""

    part = PART

    def __init__(self, around: Surroundings) -> None:
        self._ledger = around.ledger
        self._sessions: Sessions | None = None
        self._hooked: list[tuple[type, str, Any, Any]] = []
        self._ledger.watch(PART, failures=int, drops=lambda: self._sessions.dropped if self._sessions else 0)
        self._undo = import_hooks.when_imported(MODULE, self._imported, functools.partial(self._ledger.failed, PART))

    def register(self, meter: Meter, gate: Gate) -> Undo:
        return observe_metrics(
            meter, gate, PART, {names.SESSION_COUNT: self._observe_count, names.SESSION_LEAKED: self._observe_leaked}
        )

    def tick(self, now: float) -> None:
        if self._sessions is not None:
            self._sessions.drain()

    def after_fork(self) -> None:
        if self._sessions is not None:
            self._sessions.reset_leaked()

    def close(self) -> None:
        self._undo()
        self._sessions = None
        hooked, self._hooked = self._hooked, []
        for cls, name, original, hook in reversed(hooked):
            if vars(cls).get(name) is hook:  # else somebody has hooked in after us; ours hands on what it is given
                setattr(cls, name, original)

    def status(self) -> Mapping[str, Any]:
        sessions = self._sessions
        if sessions is None:
            return {}
        found = {
            f"curl_cffi.{kind}.{'closed' if closed else 'open'}": n for (kind, closed), n in sessions.count().items()
        }
        return {**found, **{f"curl_cffi.{kind}.leaked": n for kind, n in sessions.leaked.items()}}

    def _imported(self, module: ModuleType) -> None:
        if self._sessions is None:
            self._sessions = Sessions()
        for kind in CLASSES:
            cls = getattr(module, kind)
            self._hook(cls, "__init__", functools.partial(self._after_init, kind=kind))
            self._hook(cls, "close", self._after_close)

    def _hook(self, cls: type, name: str, after: Callable[[Any], None]) -> None:
        original = vars(cls)[name]
        make = _hook_coroutine if inspect.iscoroutinefunction(original) else _hook_function
        hook = make(original, after)
        setattr(cls, name, hook)
        self._hooked.append((cls, name, original, hook))

    def _after_init(self, session: Any, kind: str) -> None:
        sessions = self._sessions
        if sessions is not None:
            self._ledger.guard(PART, lambda: sessions.add(session, kind))

    def _after_close(self, session: Any) -> None:
        sessions = self._sessions
        if sessions is not None:
            self._ledger.guard(PART, lambda: sessions.close(session))

    def _observe_count(self) -> Iterable[Observation]:
        sessions = self._sessions
        if sessions is None:
            return
        for (kind, closed), number in sessions.count().items():
            state = "closed" if closed else "open"
            yield Observation(number, {names.SESSION_TYPE: f"curl_cffi.{kind}", names.SESSION_STATE: state})

    def _observe_leaked(self) -> Iterable[Observation]:
        sessions = self._sessions
        if sessions is None:
            return
        for kind, number in sessions.leaked.items():
            yield Observation(number, {names.SESSION_TYPE: f"curl_cffi.{kind}"})


def _hook_function(original: Callable[..., Any], after: Callable[[Any], None]) -> Callable[..., Any]:
    """``original``, and then, where it went well, ``after(self)``."""

    @functools.wraps(original)
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        after(self)
        return result

    return hook


def _hook_coroutine(original: Callable[..., Any], after: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = await original(self, *args, **kwargs)
        after(self)
        return result

    return hook
