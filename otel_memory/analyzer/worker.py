"""The one thread that owns all mutable state of the judging, and the bounded queue before it.

Receivers hand in bytes and wait for the outcome; the thread takes all that waits, decodes it, and lets the
pipeline process it as one batch, so that many small requests share one store transaction. What is refused is
refused with the reason; a request is answered only after it was processed.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from otel_memory.analyzer.decode import MalformedPayload, decode
from otel_memory.analyzer.model import Decoded
from otel_memory.analyzer.receivers.base import Encoding, Overloaded, Signal
from otel_memory.analyzer.stats import QUEUE_DEPTH, WORKER_ERRORS, Stats

_logger = logging.getLogger(__name__)

MAX_BATCH: Final = 256
MAX_BATCH_BYTES: Final = 4 * 2**20
"""Points take several times the bytes that they came in: what waits is decoded in parts."""
OVERHEAD_BYTES: Final = 512
"""What a request takes in the queue beside its body."""
MAX_WAIT_SECONDS: Final = 5.0
"""Requests are refused while the oldest has waited longer: the SDKs give up after 10 s, and would send it again."""
TICK_SECONDS: Final = 1.0
RETRY_AFTER_SECONDS: Final = 2.0


class Processor(Protocol):
    """What the worker drives; both are called on its thread only."""

    def process(self, decoded: Sequence[Decoded], received_at: float) -> None:
        """Take one batch; ``received_at`` is wall time in seconds since the epoch."""

    def tick(self, now: float) -> None:
        """Called about once a second, also when nothing comes in."""


class _Request(NamedTuple):
    at: float
    body: bytes
    signal: Signal
    encoding: Encoding
    done: Callable[[Decoded | BaseException], None]


class Worker:
    """Runs a processor on a thread of its own behind a queue that is bounded in bytes."""

    def __init__(
        self,
        processor: Processor,
        queue_bytes: int,
        stats: Stats,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processor = processor
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._max_bytes = queue_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._clock = clock
        self._timer = timer
        self._oldest: float | None = None
        """When the oldest request of those being processed came in."""
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="otel-memory-worker", daemon=True)
        self._stopping = False
        self._stats = stats

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """Process what waits, but begin nothing new after half of ``timeout`` seconds: what is left is refused.

        False if the thread did not end in that time. Idempotent.
        """
        with self._lock:
            # Under the lock, so that no request can come in behind the mark of the end and wait for ever.
            if not self._stopping:
                self._give_up_at = self._timer() + timeout / 2
                self._queue.put(None)
            self._stopping = True
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are being processed."""
        return self._bytes

    async def submit(self, body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
        """Hand in one request and wait until it was processed.

        Raises:
            Overloaded: too much waits already.
            MalformedPayload: the bytes are no such request.
        """
        size = len(body) + OVERHEAD_BYTES
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Decoded] = loop.create_future()

        def settle(outcome: Decoded | BaseException) -> None:
            if future.done():
                # The sender went away meanwhile.
                return
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        def done(outcome: Decoded | BaseException) -> None:
            with self._lock:
                self._bytes -= size
            try:
                loop.call_soon_threadsafe(settle, outcome)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                return

        now = self._timer()
        with self._lock:
            late = self._oldest is not None and now - self._oldest > MAX_WAIT_SECONDS
            if self._stopping or late or self._bytes + size > self._max_bytes:
                raise Overloaded(RETRY_AFTER_SECONDS)
            self._bytes += size
            self._queue.put(_Request(now, body, signal, encoding, done))
        return await future

    def _run(self) -> None:
        ticked = self._clock()
        while True:
            batch, last = self._take()
            self._stats.set(QUEUE_DEPTH, len(batch) + self._queue.qsize())
            if batch:
                self._oldest = batch[0].at
                self._process(batch)
                self._oldest = None
            now = self._clock()
            # A clock that was set back must not stop the ticks.
            if now - ticked >= TICK_SECONDS or now < ticked:
                ticked = now
                self._guard(lambda at=now: self._processor.tick(at))  # type: ignore[misc]
            if last:
                return

    def _take(self) -> tuple[list[_Request], bool]:
        """All that waits, up to a bound; waits for the first. True with it once the end was asked for."""
        batch: list[_Request] = []
        taken = 0
        try:
            item = self._queue.get(timeout=TICK_SECONDS)
            while item is not None:
                batch.append(item)
                taken += len(item.body)
                if len(batch) >= MAX_BATCH or taken >= MAX_BATCH_BYTES:
                    return batch, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _process(self, batch: list[_Request]) -> None:
        if self._timer() > self._give_up_at:
            for request in batch:
                request.done(Overloaded(RETRY_AFTER_SECONDS))
            return
        outcomes: list[Decoded | BaseException] = []
        for request in batch:
            try:
                outcomes.append(decode(request.body, request.signal, request.encoding))
            except MalformedPayload as error:
                outcomes.append(error)
            except Exception as error:
                _logger.exception("decoding failed in a way that it should not")
                outcomes.append(MalformedPayload(f"{type(error).__name__} while decoding"))
        decoded = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
        if decoded:
            self._guard(lambda: self._processor.process(decoded, self._clock()))
        for request, outcome in zip(batch, outcomes, strict=True):
            request.done(outcome)

    def _guard(self, step: Callable[[], None]) -> None:
        """Whatever the processor raises, the thread goes on."""
        try:
            step()
        except Exception:
            self._stats.add(WORKER_ERRORS)
            _logger.exception("processing failed; the analyzer goes on")
