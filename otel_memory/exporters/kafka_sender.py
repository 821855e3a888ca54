"""One thread that hands what waits to Kafka, and counts what could not be kept.

Owns the thread, its producer, the backlog and the numbers of both. Exporters with equal options share one sender, and
so one connection and one bound. A dead broker costs the application nothing: ``put`` never waits, the backlog is
bounded, the log says so once a minute.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import CallbackOptions, Observation, get_meter

from otel_memory import names
from otel_memory.exporters.backlog import Backlog, MemoryBacklog, Record, Window
from otel_memory.exporters.kafka_options import KafkaOptions
from otel_memory.exporters.kafka_producer import KafkaProducer, TooLarge, Unsent
from otel_memory.exporters.spool import Spool
from otel_memory.version import __version__

THREAD_NAME: Final = "otel-memory-kafka"
WINDOW_BYTES: Final = 2**20
"""On its way to the brokers at a time, besides what waits."""

LOG_EVERY_SECONDS: Final = 60.0
ADOPT_EVERY_SECONDS: Final = 30.0
FIRST_BACKOFF_SECONDS: Final = 0.25
MOST_BACKOFF_SECONDS: Final = 5.0
TOO_LARGE: Final = "too_large"
SHUTDOWN: Final = "shutdown"
UNUSABLE: Final = "unusable"
ENCODING: Final = "encoding"

_logger: Final = logging.getLogger("otel_memory.exporters")


class Producer(Protocol):
    """What a sender needs of ``KafkaProducer``."""

    def deliver(self, records: Sequence[Record]) -> list[Exception | None]: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class Losses:
    """Items dropped so far, by (signal, reason); of all senders of this process together."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Zero, with a new lock."""
        self._lock = threading.Lock()
        self.counts: dict[tuple[str, str], int] = {}

    def add(self, signal: str, reason: str, items: int) -> None:
        """Count ``items``."""
        with self._lock:
            self.counts[signal, reason] = self.counts.get((signal, reason), 0) + items


losses: Final = Losses()


class Sender:
    """``clock`` is monotonic seconds. Starts with its thread, so that a program that soon ends has it at its end."""

    def __init__(
        self,
        options: KafkaOptions,
        make_producer: Callable[[KafkaOptions], Producer] = KafkaProducer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self._make_producer = make_producer
        self._clock = clock
        self.backlog: Backlog = (
            Spool(Path(options.spool_path), options.spool_max_bytes, self.dropped)
            if options.spool_path
            else MemoryBacklog(options.max_buffer_bytes, self.dropped)
        )
        self._producer: Producer | None = None
        self._logged_at: float | None = None
        self.last_error: Exception | None = None
        """Why the last window failed; None if it did not."""
        self._fresh_state()
        self._users = 0
        self._patience = options.flush_timeout
        _senders.add(self)
        self._start()

    def _fresh_state(self) -> None:
        self._wake = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._closing = False
        self._hurry = 0
        self._put_count = 0
        self._dropped_items = 0
        self._told_dropped = 0

    # --- for exporters ---

    def put(self, records: Iterable[Record]) -> bool:
        """Keep ``records``; never waits for a broker. Whether there was room for all of them."""
        kept = True
        for record in records:
            if self._closing:
                self.dropped(record.signal, SHUTDOWN, record.items)
                kept = False
            else:
                kept &= self.backlog.put(record)
        with self._wake:
            self._put_count += 1
            self._wake.notify_all()
        self._start()
        return kept

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits any more, at most ``timeout`` seconds. Whether that is so."""
        deadline = self._clock() + timeout
        with self._wake:
            self._hurry += 1
            self._wake.notify_all()
            while self.backlog.waiting[1]:
                left = deadline - self._clock()
                if left <= 0 or self._thread is None or not self._thread.is_alive():
                    return False
                self._wake.wait(min(left, 0.5))
        return True

    def close(self, timeout: float) -> None:
        """Flush and end, within ``timeout`` seconds and a little. What is left in memory is dropped."""
        if self.last_error is not None and self.options.spool_path:
            timeout = min(timeout, 0.1)  # no broker, and nothing is lost
        self.flush(timeout)
        with self._wake:
            self._closing = True
            thread, producer = self._thread, self._producer
            self._wake.notify_all()
        if producer is not None:
            producer.interrupt()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(2.0)
        lost = self.backlog.abandon(SHUTDOWN)
        if lost or self._dropped_items != self._told_dropped:
            self._tell(at_once=True)

    def release(self, timeout: float) -> None:
        """One of its exporters ends: flush; the last one closes it.

        All of them together wait for brokers that do not answer no longer than the option ``flush_timeout``.
        """
        timeout = max(0.0, min(timeout, self._patience))
        started = self._clock()
        with _registry_lock:
            self._users -= 1
            last = self._users <= 0
            if last:
                _shared.pop(self.options, None)
        if last:
            self.close(timeout)
        elif not self.flush(timeout):
            self._patience -= self._clock() - started

    def dropped(self, signal: str, reason: str, items: int) -> None:
        """Count ``items`` that will never arrive."""
        losses.add(signal, reason, items)
        self._dropped_items += items

    def after_fork(self) -> None:
        """In the child: what waits is the parent's; the thread starts with the child's first record."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.abandon()
        self.backlog.after_fork()
        closing = self._closing
        self._fresh_state()
        self._closing = closing

    # --- the thread ---

    def _start(self) -> None:
        if self._started():
            return
        with self._wake:
            if self._started():
                return
            thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # the interpreter ends
            self._thread = thread

    def _started(self) -> bool:
        return self._thread is not None or self._closing

    def _run(self) -> None:
        # What an instrumentation of the application sees of this thread is not the application's.
        with suppress_instrumentation():
            adopted_at: float | None = None
            failures = 0
            while not self._closing:
                try:
                    now = self._clock()
                    if isinstance(self.backlog, Spool) and (
                        adopted_at is None or now - adopted_at >= ADOPT_EVERY_SECONDS
                    ):
                        adopted_at = now
                        self.backlog.adopt()
                    if self._producer is None:
                        self._producer = self._make_producer(self.options)
                    window = self.backlog.take(WINDOW_BYTES)
                    if window is None:
                        self._sleep_until_put()
                        continue
                    failures = 0 if self._deliver(window) else failures + 1
                except Exception as error:
                    self.last_error = error.with_traceback(None)
                    failures += 1
                if failures:
                    self._tell()
                    # kafka-python's thread takes 3 % of a core for as long as it has something for brokers that are
                    # gone, and never tries a refused login again.
                    self._end_producer()
                    self._back_off(failures)
            self._end_producer()

    def _deliver(self, window: Window) -> bool:
        """Whether all of ``window`` is done with."""
        producer = self._producer
        assert producer is not None
        done = 0
        errors: list[Exception | None] = []
        try:
            errors = producer.deliver(window.records)
            for record, error in zip(window.records, errors, strict=True):
                if error is not None and not isinstance(error, TooLarge):
                    break
                done += 1
                if error is not None:
                    self.dropped(record.signal, TOO_LARGE, record.items)
        finally:
            self.backlog.settle(window, done)
            with self._wake:
                self._wake.notify_all()
        reasons = [error for error in errors[done:] if error is not None and not isinstance(error, Unsent)]
        self.last_error = reasons[0] if reasons else None
        if self._dropped_items != self._told_dropped:
            self._tell()
        return done == len(window.records)

    def _sleep_until_put(self) -> None:
        with self._wake:
            seen = self._put_count
            if not self.backlog.waiting[1] and not self._closing:
                self._wake.wait_for(lambda: self._put_count != seen or self._closing, ADOPT_EVERY_SECONDS)

    def _back_off(self, failures: int) -> None:
        seconds = min(MOST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10))
        with self._wake:
            hurry = self._hurry
            self._wake.wait_for(lambda: self._closing or self._hurry != hurry, seconds)

    def _end_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _tell(self, at_once: bool = False) -> None:
        """Say what is wrong; at most once a minute."""
        now = self._clock()
        if not at_once and self._logged_at is not None and now - self._logged_at < LOG_EVERY_SECONDS:
            return
        self._logged_at = now
        dropped, self._told_dropped = self._dropped_items - self._told_dropped, self._dropped_items
        error = self.last_error
        _logger.warning(
            "otel-memory: Kafka at %s: %s; %d bytes wait, %d data points and log records were dropped since the last "
            "such line (counted in %s; told at most once a minute)",
            self.options.bootstrap_servers,
            "not everything could be kept" if error is None else f"{type(error).__name__}: {error}",
            self.backlog.waiting[1],
            dropped,
            names.EXPORTER_DROPPED,
        )


# --- one sender for equal options, and what all of them count -------------------------------------------------------

_senders: Final[weakref.WeakSet[Sender]] = weakref.WeakSet()
_shared: Final[dict[KafkaOptions, Sender]] = {}
_registry_lock = threading.Lock()
_registered = False


def shared(options: KafkaOptions) -> Sender:
    """The sender for ``options``, which ``release`` gives back."""
    with _registry_lock:
        sender = _shared.get(options)
        if sender is None:
            sender = _shared[options] = Sender(options)
        sender._users += 1
        return sender


def register_metrics() -> None:
    """Once. The SDK binds them to the meter provider that the application sets, also later."""
    global _registered
    if _registered:
        return
    _registered = True
    meter = get_meter(names.SCOPE, __version__)
    dropped, queue = names.METRICS[names.EXPORTER_DROPPED], names.METRICS[names.EXPORTER_QUEUE_USAGE]
    meter.create_observable_counter(dropped.name, [_observe_losses], dropped.unit, dropped.description)
    meter.create_observable_up_down_counter(queue.name, [_observe_queue], queue.unit, queue.description)


def _observe_losses(_: CallbackOptions) -> list[Observation]:
    return [
        Observation(items, {names.EXPORTER_SIGNAL: signal, names.EXPORTER_REASON: reason})
        for (signal, reason), items in list(losses.counts.items())
    ]


def _observe_queue(_: CallbackOptions) -> list[Observation]:
    senders = list(_senders)
    return [Observation(sum(sender.backlog.waiting[1] for sender in senders))] if senders else []


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    losses.reset()
    for sender in list(_senders):
        sender.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
