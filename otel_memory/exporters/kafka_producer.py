"""kafka-python's producer, made harmless for an application: bounded waits, no noise, no surprise at exit or fork.

Owns the one producer of a sender. Everything here runs on the sender's own thread, but for ``interrupt``. What
kafka-python would do by itself and an application must not feel: wait 30 s for a dead broker in the constructor
(``api_version`` is given), wait 60 s in ``send`` (one), keep records beyond any bound (what is on its way is bounded by
the window), never recover from one record that is too large (no idempotence), keep a
descriptor for each attempt to connect (``kafka_sockets``), log every attempt (its log lines of our
threads are let through only while ours are at level DEBUG), close at exit before the last records come.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from otel_memory.exporters.kafka_options import KafkaOptions

if TYPE_CHECKING:
    from otel_memory.exporters.backlog import Record

CLIENT_ID: Final = "otel-memory"
API_VERSION: Final = (2, 1)
"""What is spoken: the oldest that Kafka 4 still takes, and the first with zstd."""

MAX_BLOCK_MS: Final = 1_000
REQUEST_TIMEOUT_MS: Final = 10_000
DELIVERY_TIMEOUT_MS: Final = 15_000
RECONNECT_MAX_MS: Final = 5_000
BATCH_BYTES: Final = 128 * 2**10
CLOSE_SECONDS: Final = 1.0
REFUSED: Final = ("Authentication", "Authorization", "SSL")
"""Words in a log line of kafka-python that says why for certain."""

MISSING: Final = "pip install 'otel-memory[kafka]'"

_logger: Final = logging.getLogger("otel_memory.exporters")
_our_threads: Final[dict[int, int]] = {}
"""Thread -> the sender's thread that it works for, which may be itself."""


class Unsent(Exception):
    """The record was not handed over, because one before it was not."""


class Unreachable(Exception):
    """No broker took the record; why, in kafka-python's words."""


class TooLarge(Exception):
    """The broker, or its topic, takes no record of this size."""


class KafkaProducer:
    """``deliver`` waits for the brokers' word on every record.

    Raises:
        ImportError: kafka-python is not installed, or too old.
        Exception: what kafka-python raises on arguments that it does not take.
    """

    def __init__(self, options: KafkaOptions) -> None:
        import kafka  # type: ignore[import-untyped]

        self._kafka = kafka
        self._done = threading.Event()
        self._interrupted = False
        _quiet()
        self._owner = threading.get_ident()
        _our_threads[self._owner] = self._owner
        before = set(threading.enumerate())
        self._producer: Any = kafka.KafkaProducer(
            **options.client(),
            **_sockets(options),
            client_id=CLIENT_ID,
            api_version=API_VERSION,
            acks="all",
            enable_idempotence=False,  # one MESSAGE_TOO_LARGE of the broker would end an idempotent producer for good
            max_in_flight_requests_per_connection=1,  # or a retry overtakes
            compression_type=None if options.compression == "none" else options.compression,
            batch_size=BATCH_BYTES,
            max_block_ms=MAX_BLOCK_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            max_request_size=options.max_record_bytes + BATCH_BYTES,
            reconnect_backoff_max_ms=RECONNECT_MAX_MS,
            allow_auto_create_topics=True,
            metrics_enabled=False,
        )
        started = {thread.ident for thread in set(threading.enumerate()) - before if thread.ident}
        self._threads = {self._owner, *started}
        _our_threads.update(dict.fromkeys(started, self._owner))
        # At exit it would close before the SDK exports for the last time; the sender closes it.
        getattr(self._producer, "_unregister_cleanup", lambda: None)()
        # Not the wrapper of an instrumentation: that would make spans of ours, and put headers on the records.
        self._send = inspect.unwrap(kafka.KafkaProducer.send)

    def interrupt(self) -> None:
        """From any thread: let ``deliver`` return with what it knows."""
        self._interrupted = True
        self._done.set()

    def deliver(self, records: Sequence[Record]) -> list[Exception | None]:
        """For each record None once it is written, or why it is not (known to be)."""
        self._interrupted = False
        self._done.clear()
        futures: list[Any] = []
        errors: list[Exception | None] = []
        pending = _Countdown(self._done)
        for record in records:
            try:
                future = self._send(self._producer, record.topic, value=record.value, key=record.key)
            except Exception as error:
                errors.append(self._judged(error))
                if isinstance(errors[-1], TooLarge):
                    futures.append(None)
                    continue
                break  # most often one second was waited for a broker: not once more for each of the others
            pending.add()
            future.add_both(pending.over)
            futures.append(future)
            errors.append(None)
        pending.over()
        deadline = time.monotonic() + DELIVERY_TIMEOUT_MS / 1000 + 1
        while not pending.ended and not self._interrupted and (left := deadline - time.monotonic()) > 0:
            self._done.wait(left)
        for index, future in enumerate(futures):
            if future is None:
                continue
            if not future.is_done:
                errors[index] = TimeoutError(self._why() or "no answer from the brokers")
            elif future.failed():
                errors[index] = self._judged(future.exception)
        errors += [Unsent()] * (len(records) - len(errors))
        if not any(errors):
            _filter.words.pop(self._owner, None)
        return errors

    def _judged(self, error: Exception) -> Exception:
        known = self._kafka.errors
        too_large = (known.MessageSizeTooLargeError, known.RecordListTooLargeError)
        if isinstance(error, too_large):
            return TooLarge(str(error))
        if isinstance(error, known.KafkaTimeoutError) and (why := self._why()):
            return Unreachable(why)
        return error.with_traceback(None)

    def _why(self) -> str:
        """What kafka-python logged: its exceptions do not tell a refused login from a broker that is not there."""
        return _filter.words.get(self._owner, "")

    def close(self) -> None:
        """End it within a second; what was not delivered is the backlog's to keep."""
        producer, thread = self._producer, getattr(self._producer, "_sender", None)
        try:
            if thread is not None:
                thread.force_close()  # fails what is on its way, without which close() raises and closes nothing
                thread.join(CLOSE_SECONDS)
            producer.close(timeout=0)
        except Exception as error:
            _logger.debug("otel-memory: the Kafka producer did not close: %r", error)
        finally:
            producer._closed = True  # or its __del__ tries again, with a second's wait
            if thread is not None:
                _our_threads.pop(thread.ident, None)
                if not thread.is_alive():
                    _close_sockets(self._threads)

    def abandon(self) -> None:
        """In a forked child: leave it as it is. Its thread is not here, and its sockets are the parent's."""
        self._producer._closed = True
        _abandoned.append(self._producer)


_abandoned: Final[list[Any]] = []


class _Countdown:
    """Sets an event once all that was added is over, and what it began with."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event
        self._lock = threading.Lock()
        self._left = 1

    def add(self) -> None:
        with self._lock:
            self._left += 1

    def over(self, *_: object) -> None:
        with self._lock:
            self._left -= 1
            ended = self._left == 0
        if ended:
            self._event.set()

    @property
    def ended(self) -> bool:
        return self._left == 0


class _OurThreads(logging.Filter):
    """Drops kafka-python's log lines that come from our threads; the sender tells what matters, once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[int, str] = {}
        """By sender's thread: the error that was logged since all was well."""

    def filter(self, record: logging.LogRecord) -> bool:
        owner = _our_threads.get(record.thread or 0)
        if owner is None:
            return True
        if record.levelno >= logging.ERROR:
            # A refused login or certificate is afterwards told as a lost connection and a closed socket, too.
            message = record.getMessage().rpartition(">: ")[2]
            if any(word in message for word in REFUSED) or not any(
                word in self.words.get(owner, "") for word in REFUSED
            ):
                self.words[owner] = message
        return _logger.isEnabledFor(logging.DEBUG)


_filter: Final = _OurThreads()


def _sockets(options: KafkaOptions) -> dict[str, Any]:
    try:
        from otel_memory import kafka_sockets
    except ImportError:
        return {}  # a kafka-python that has no such place any more
    found: dict[str, Any] = {"proxy_url": kafka_sockets.URL}
    if options.security_protocol.endswith("SSL"):
        found["ssl_context"] = kafka_sockets.tls(options.ssl_cafile, options.ssl_certfile, options.ssl_keyfile)
    return found


def _close_sockets(threads: Collection[int]) -> None:
    try:
        from otel_memory.kafka_sockets import close_all
    except ImportError:
        return
    close_all(threads)


def _quiet() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name == "kafka" or name.startswith("kafka."):
            logging.getLogger(name).addFilter(_filter)  # once: a filter that is there is not added again
