"""Keeps a fork from breaking the OpenTelemetry SDK's pipelines in the child.

The SDK's reader collects and exports on a thread. A fork in the middle of that (likely, when workers are forked at
start-up and export often) copies its locks held, and the child's reader then waits for ever: a worker that never
reports (opentelemetry-python, pull request 4767). The same goes for what an export holds further down: the lock of a
module that is being imported, a connection. The probe promises numbers from each worker, so it does two things. Before
the fork it waits a moment for a collection or export to end, and keeps the next from beginning. In the child it
replaces each lock of the pipeline that is held nevertheless, and drops the HTTP connections that it has in common with
its parent: two processes that write requests into one connection mix them.

Owns no SDK object and imports none; works on attributes, and a missing one is nothing to mend.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

MAX_OBJECTS: Final = 20_000
"""Objects looked at; some 0.3 µs each."""

_RLOCK: Final = type(threading.RLock())
_LOCK: Final = type(threading.Lock())
_NAMES: Final = ("_lock", "_export_lock", "_instrument_registration_lock")


def pipeline_locks(provider: object) -> list[Any]:
    """The locks that ``provider`` holds while it collects, and its readers while they export."""
    consumer = getattr(provider, "_measurement_consumer", None)
    readers = list(getattr(consumer, "_reader_storages", ()))
    locks = [getattr(consumer, "_lock", None), *(getattr(reader, "_export_lock", None) for reader in readers)]
    return [lock for lock in locks if isinstance(lock, _LOCK | _RLOCK)]


class Hold:
    """Locks held over a fork by the thread that forks."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[Any] = []

    def acquire(self, locks: Iterable[Any], timeout: float) -> bool:
        """Take as many of ``locks`` as can be had within ``timeout`` seconds altogether; whether that is all."""
        deadline = time.monotonic() + timeout
        complete = True
        for lock in locks:
            if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                self._held.append(lock)
            else:
                complete = False
        return complete

    def release(self) -> None:
        """Give back what was taken, in the parent and in the child alike."""
        while self._held:
            self._held.pop().release()


def release_orphaned_locks(provider: object) -> int:
    """Replace each lock of ``provider``'s metric pipeline that is held by a thread which the child doesn't have.

    Call it in the child, right after the fork. Returns how many there were.
    """
    return sum(_replace_if_held(found, name) for found in islice(_pipeline(provider), MAX_OBJECTS) for name in _NAMES)


def _replace_if_held(owner: Any, name: str) -> bool:
    lock = getattr(owner, name, None)
    if not isinstance(lock, _LOCK | _RLOCK):
        return False
    # A re-entrant one that the forking thread itself holds can be had, and is left to it.
    if lock.acquire(blocking=False):
        lock.release()
        return False
    setattr(owner, name, type(lock)() if isinstance(lock, _RLOCK) else threading.Lock())
    return True


def _pipeline(provider: Any) -> Iterator[object]:
    """The objects of the SDK's pipeline that have locks, from the reader down to single aggregations."""
    consumer = getattr(provider, "_measurement_consumer", None)
    if consumer is None:
        return
    yield consumer
    yield from list(getattr(provider, "_meters", {}).values())
    for reader, storage in list(getattr(consumer, "_reader_storages", {}).items()):
        yield reader
        yield getattr(reader, "_exporter", None)
        yield storage
        for matches in list(getattr(storage, "_instrument_view_instrument_matches", {}).values()):
            for match in matches:
                yield match
                for aggregation in list(getattr(match, "_attributes_aggregation", {}).values()):
                    yield aggregation
                    yield getattr(aggregation, "_reservoir", None)


def drop_shared_connections(meter_provider: object, logger_provider: object) -> int:
    """Close the idle connections of the OTLP/HTTP exporters in this process; the parent's stay open.

    Call it in the child, right after the fork. Returns how many exporters had a session. The next export connects anew.
    """
    sessions = [session for exporter in _exporters(meter_provider, logger_provider) for session in _sessions(exporter)]
    for session in sessions:
        session.close()
    return len(sessions)


def _exporters(meter_provider: Any, logger_provider: Any) -> Iterator[object]:
    consumer = getattr(meter_provider, "_measurement_consumer", None)
    for reader in list(getattr(consumer, "_reader_storages", ())):
        yield getattr(reader, "_exporter", None)
    processors = getattr(getattr(logger_provider, "_multi_log_record_processor", None), "_log_record_processors", ())
    for processor in processors:
        yield getattr(processor, "_exporter", None)
        yield getattr(getattr(processor, "_batch_processor", None), "_exporter", None)


def _sessions(exporter: Any) -> Iterator[Any]:
    """The ``requests.Session`` of an exporter: its own, or its client's, by version."""
    transport = getattr(getattr(exporter, "_client", None), "_transport", None)
    for session in (getattr(exporter, "_session", None), getattr(transport, "_session", None)):
        if hasattr(session, "adapters") and callable(getattr(session, "close", None)):
            yield session
