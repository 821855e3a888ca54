"""Server-sent events: from the worker's publications to browsers, without ever growing.

Owns the subscriptions. A slow consumer costs at most one pending entry for each process and alert, up to a bound: of
several changes of the same one it gets the latest. Never blocks the worker: waking the event loop is all it does.

Ids are ``<run>-<generation>``. A consumer that comes back with the last id it saw gets what changed since; from
another run, everything.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final, NamedTuple

from fastapi.sse import format_sse_event

from otel_memory.analyzer.api_schemas import AlertModel, ProcessModel
from otel_memory.analyzer.model import Alert, Assessment
from otel_memory.analyzer.view import State, View

HEARTBEAT_SECONDS: Final = 15.0
RETRY_MILLISECONDS: Final = 2000
MAX_PENDING: Final = 20_000
MAX_BATCH: Final = 500
MAX_SUBSCRIBERS: Final = 100


class TooManySubscribers(Exception):
    """Every place is taken."""


class Batch(NamedTuple):
    """What a consumer is to be told, and the generation that it knows then (None while more is to come)."""

    items: list[Assessment | Alert]
    generation: int | None


class Subscription:
    """One consumer. ``next`` belongs to its event loop; the rest may come from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_pending: int = MAX_PENDING) -> None:
        self._loop = loop
        self._max = max_pending
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str], Assessment | Alert] = {}
        self._generation = 0
        self._ready = asyncio.Event()
        self._signalled = False
        self.dropped = 0
        self.closed = False

    def offer(self, generation: int, assessments: Collection[Assessment], alerts: Collection[Alert]) -> None:
        """Takes a publication in; beyond the bound the entry that waited longest is dropped and counted."""
        with self._lock:
            if self.closed:
                return
            for assessment in assessments:
                self._put(("process", assessment.process.id), assessment)
            for alert in alerts:
                self._put(("alert", alert.id), alert)
            self._generation = generation
            wake = bool(self._pending) and not self._signalled
            self._signalled = self._signalled or wake
        if wake:
            self._wake()

    def prefill(self, generation: int, assessments: Collection[Assessment], alerts: Collection[Alert]) -> None:
        """Takes in what was published before; what came by ``offer`` in the meantime is newer and stays."""
        with self._lock:
            for assessment in assessments:
                if ("process", assessment.process.id) not in self._pending:
                    self._put(("process", assessment.process.id), assessment)
            for alert in alerts:
                if ("alert", alert.id) not in self._pending:
                    self._put(("alert", alert.id), alert)
            self._generation = max(self._generation, generation)
        self._wake()

    def close(self) -> None:
        """Ends the consumer's stream. Idempotent."""
        with self._lock:
            self.closed = True
            self._pending.clear()
        self._wake()

    async def next(self, timeout_seconds: float) -> Batch | None:
        """What is pending, waiting for it at most so long; None on timeout or when closed."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ready.wait()
        except TimeoutError:
            return None
        with self._lock:
            if self.closed:
                return None
            keys = list(self._pending)[:MAX_BATCH]
            items = [self._pending.pop(key) for key in keys]
            whole = not self._pending
            if whole:
                self._ready.clear()
                self._signalled = False
            return Batch(items, self._generation if whole else None)

    def _put(self, key: tuple[str, str], item: Assessment | Alert) -> None:
        if key not in self._pending and len(self._pending) >= self._max:
            del self._pending[next(iter(self._pending))]
            self.dropped += 1
        self._pending[key] = item

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:
            # The loop is closed: nobody reads this any more.
            self.closed = True


class Broker:
    """Subscriptions to one view. ``close`` ends every stream: call it before the HTTP server is stopped."""

    def __init__(
        self,
        view: View,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        silencing: Callable[[Alert], Sequence[str]] = lambda _alert: (),
    ) -> None:
        """``silencing`` says which silences are in force for an alert."""
        self._view = view
        self._silencing = silencing
        self._heartbeat = heartbeat_seconds
        self._run = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._open: set[Subscription] = set()
        self._dropped = 0
        self._closed = False

    @property
    def subscribers(self) -> int:
        """Streams that are open."""
        return len(self._open)

    @property
    def dropped(self) -> int:
        """Updates that slow consumers did not get, over all time."""
        with self._lock:
            return self._dropped + sum(subscription.dropped for subscription in self._open)

    def subscribe(self) -> Subscription:
        """A place on the running event loop, to be given back by ``release``. Raises TooManySubscribers."""
        subscription = Subscription(asyncio.get_running_loop())
        with self._lock:
            if self._closed or len(self._open) >= MAX_SUBSCRIBERS:
                raise TooManySubscribers
            self._open.add(subscription)
        return subscription

    async def stream(self, subscription: Subscription, last_event_id: str | None = None) -> AsyncIterator[bytes]:
        """The events of one consumer as bytes, until it goes or the broker is closed."""
        state, unlisten = self._view.listen(subscription.offer)
        try:
            missed = self._missed(state, last_event_id)
            if missed is not None:
                subscription.prefill(state.generation, *missed)
            yield format_sse_event(comment="otel-memory", retry=RETRY_MILLISECONDS)
            while not subscription.closed:
                batch = await subscription.next(self._heartbeat)
                if batch is not None:
                    yield self._render(batch)
                elif not subscription.closed:
                    yield format_sse_event(comment="still here")
        finally:
            unlisten()

    def release(self, subscription: Subscription) -> None:
        """Gives a place back. Idempotent."""
        with self._lock:
            if subscription in self._open:
                self._open.remove(subscription)
                self._dropped += subscription.dropped

    def close(self) -> None:
        """Ends every stream and takes no more. Idempotent, from any thread."""
        with self._lock:
            self._closed = True
            subscriptions = list(self._open)
        for subscription in subscriptions:
            subscription.close()

    def _missed(self, state: State, last_event_id: str | None) -> tuple[list[Assessment], list[Alert]] | None:
        if last_event_id is None:
            return None
        run, _, number = last_event_id.partition("-")
        known = int(number) if run == self._run and number.isascii() and number.isdigit() else 0
        fresh = [key for key, generation in state.changed.items() if generation > known]
        return (
            [state.processes[name] for kind, name in fresh if kind == "process"],
            [state.alerts[name] for kind, name in fresh if kind == "alert"],
        )

    def _render(self, batch: Batch) -> bytes:
        parts = []
        for index, item in enumerate(batch.items, start=1):
            event, model = (
                ("process", ProcessModel.of(item))
                if isinstance(item, Assessment)
                else ("alert", AlertModel.of(item, self._silencing(item)))
            )
            last = index == len(batch.items) and batch.generation is not None
            parts.append(
                format_sse_event(
                    data_str=model.model_dump_json(),
                    event=event,
                    id=f"{self._run}-{batch.generation}" if last else None,
                )
            )
        return b"".join(parts)
