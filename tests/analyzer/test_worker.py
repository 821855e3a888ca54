"""The worker: requests are answered after they were processed, refused when too much waits, and nothing stops it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_memory.analyzer import worker as module
from otel_memory.analyzer.model import Decoded
from otel_memory.analyzer.receivers.base import MalformedPayload, Overloaded
from otel_memory.analyzer.stats import WORKER_ERRORS, Stats
from otel_memory.analyzer.worker import MAX_WAIT_SECONDS, Worker

EMPTY = ExportMetricsServiceRequest().SerializeToString()


class Recorder:
    """A processor that notes what it was given; it can be held up, and can be made to fail."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.ticks: list[float] = []
        self.threads: set[int] = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self.busy = threading.Event()
        self.error: Exception | None = None

    def process(self, decoded: Sequence[Decoded], received_at: float) -> None:
        self.busy.set()
        assert self.go_on.wait(10)
        self.threads.add(threading.get_ident())
        self.batches.append(len(decoded))
        if self.error is not None:
            raise self.error

    def tick(self, now: float) -> None:
        self.ticks.append(now)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def worker(recorder: Recorder) -> Iterator[Worker]:
    made = Worker(recorder, 100_000, Stats())
    made.start()
    yield made
    recorder.go_on.set()
    assert made.stop()


def test_a_request_is_answered_after_it_was_processed(worker: Worker, recorder: Recorder) -> None:
    decoded = asyncio.run(worker.submit(EMPTY, "metrics", "protobuf"))
    assert decoded.accepted == 0
    assert recorder.batches == [1]
    assert recorder.threads != {threading.get_ident()}
    assert worker.queued_bytes == 0


def test_what_waits_is_processed_as_one_batch(worker: Worker, recorder: Recorder) -> None:
    async def run() -> None:
        recorder.go_on.clear()
        first = asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf"))
        await asyncio.to_thread(recorder.busy.wait, 10)
        others = [asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf")) for _ in range(5)]
        await asyncio.sleep(0)
        recorder.go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert recorder.batches == [1, 5]


def test_malformed_bytes_are_refused_and_the_others_of_the_batch_are_not(worker: Worker) -> None:
    async def run() -> list[Decoded | BaseException]:
        return await asyncio.gather(
            worker.submit(b"\xff\xff", "metrics", "protobuf"),
            worker.submit(b"{", "logs", "json"),
            worker.submit(EMPTY, "metrics", "protobuf"),
            return_exceptions=True,
        )

    first, second, third = asyncio.run(run())
    assert isinstance(first, MalformedPayload)
    assert isinstance(second, MalformedPayload)
    assert isinstance(third, Decoded)


def test_past_the_bound_senders_are_told_to_wait(worker: Worker, recorder: Recorder) -> None:
    async def run() -> Decoded:
        recorder.go_on.clear()
        waiting = asyncio.ensure_future(worker.submit(b"{}", "metrics", "json"))
        await asyncio.to_thread(recorder.busy.wait, 10)
        with pytest.raises(Overloaded) as refused:
            await worker.submit(b" " * 100_000, "metrics", "json")
        assert refused.value.retry_after_seconds > 0
        recorder.go_on.set()
        await waiting
        return await worker.submit(EMPTY, "metrics", "protobuf")

    assert asyncio.run(run()).rejected == 0


def test_a_failing_processor_is_counted_and_the_next_request_is_taken(recorder: Recorder) -> None:
    stats = Stats()
    worker = Worker(recorder, 100_000, stats)
    worker.start()
    recorder.error = RuntimeError("planted")
    asyncio.run(worker.submit(EMPTY, "metrics", "protobuf"))
    recorder.error = None
    asyncio.run(worker.submit(EMPTY, "metrics", "protobuf"))
    assert worker.alive
    assert worker.stop()
    assert stats.total(WORKER_ERRORS) == 1
    assert recorder.batches == [1, 1]


def test_stop_processes_what_waits_and_then_refuses(worker: Worker, recorder: Recorder) -> None:
    async def run() -> None:
        recorder.go_on.clear()
        waiting = [asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf")) for _ in range(3)]
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(asyncio.to_thread(worker.stop))
        recorder.go_on.set()
        await asyncio.gather(*waiting)
        assert await stopping
        with pytest.raises(Overloaded):
            await worker.submit(EMPTY, "metrics", "protobuf")

    asyncio.run(run())
    assert sum(recorder.batches) == 3
    assert not worker.alive


def test_a_sender_that_went_away_disturbs_nobody(worker: Worker, recorder: Recorder) -> None:
    async def run() -> None:
        recorder.go_on.clear()
        gone = asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf"))
        await asyncio.to_thread(recorder.busy.wait, 10)
        gone.cancel()
        recorder.go_on.set()
        await worker.submit(EMPTY, "metrics", "protobuf")

    asyncio.run(run())
    assert worker.queued_bytes == 0


def test_time_passes_without_requests(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    ticked = threading.Event()
    monkeypatch.setattr(recorder, "tick", lambda now: ticked.set())
    now = iter(range(0, 100_000, 5))
    worker = Worker(recorder, 100_000, Stats(), clock=lambda: float(next(now)))
    worker.start()
    assert ticked.wait(10)
    assert worker.stop()


def test_a_batch_is_bounded_in_bytes_too(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded points take several times the bytes that they came in."""
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 100)
    worker = Worker(recorder, 100_000, Stats())
    worker.start()

    async def run() -> None:
        recorder.go_on.clear()
        first = asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf"))
        await asyncio.to_thread(recorder.busy.wait, 10)
        large = b'{"resourceMetrics": []' + b" " * 100 + b"}"
        others = [asyncio.ensure_future(worker.submit(large, "metrics", "json")) for _ in range(3)]
        await asyncio.sleep(0)
        recorder.go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert worker.stop()
    assert recorder.batches == [1, 1, 1, 1]


def test_while_the_oldest_request_waits_too_long_new_ones_are_refused(recorder: Recorder) -> None:
    """The SDKs give up after 10 s and would send again what is still being processed."""
    now = [0.0]
    worker = Worker(recorder, 100_000, Stats(), timer=lambda: now[0])
    worker.start()

    async def run() -> None:
        recorder.go_on.clear()
        slow = asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf"))
        await asyncio.to_thread(recorder.busy.wait, 10)
        now[0] = MAX_WAIT_SECONDS + 1
        with pytest.raises(Overloaded):
            await worker.submit(EMPTY, "metrics", "protobuf")
        recorder.go_on.set()
        await slow
        for _ in range(1000):
            try:
                await worker.submit(EMPTY, "metrics", "protobuf")
                return
            except Overloaded:
                await asyncio.sleep(0.001)
        raise AssertionError("it never took a request again")

    asyncio.run(run())
    assert worker.stop()
    assert recorder.batches == [1, 1]


def test_at_the_end_what_can_not_be_processed_in_time_is_refused_and_not_forgotten(recorder: Recorder) -> None:
    now = [0.0]
    worker = Worker(recorder, 100_000, Stats(), timer=lambda: now[0])
    worker.start()

    async def run() -> list[Decoded | BaseException]:
        recorder.go_on.clear()
        waiting = [asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf"))]
        await asyncio.to_thread(recorder.busy.wait, 10)
        waiting += [asyncio.ensure_future(worker.submit(EMPTY, "metrics", "protobuf")) for _ in range(3)]
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(asyncio.to_thread(worker.stop, 4.0))
        while not worker._stopping:  # noqa: ASYNC110 it is set on another thread
            await asyncio.sleep(0.001)
        now[0] = 3.0
        recorder.go_on.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert await stopping
        return outcomes

    first, *others = asyncio.run(run())
    assert isinstance(first, Decoded)
    assert [type(outcome) for outcome in others] == [Overloaded] * 3
    assert worker.queued_bytes == 0


def test_stop_may_be_called_again_and_before_a_start(recorder: Recorder) -> None:
    worker = Worker(recorder, 100_000, Stats())
    assert worker.stop()
    assert worker.stop()
