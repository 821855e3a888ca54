"""What waits for Kafka in memory: its bound, who goes first, and that everything is accounted for."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_memory.exporters.backlog import BUFFER_FULL, OVERHEAD, MemoryBacklog, Record

EVENTS, LOGS, METRICS = range(3)


def record(lane: int, number: int, size: int = 100) -> Record:
    return Record(lane, "t", b"k", number.to_bytes(4) + bytes(max(0, size - OVERHEAD - 4)), 1)


def number(each: Record) -> int:
    return int.from_bytes(each.value[:4])


class Dropped(Counter[tuple[str, str]]):
    def __call__(self, signal: str, reason: str, items: int) -> None:
        self[signal, reason] += items


def test_the_most_urgent_go_first_and_the_oldest_of_them() -> None:
    backlog = MemoryBacklog(100_000, Dropped())
    for at, lane in enumerate([METRICS, LOGS, EVENTS, METRICS, EVENTS]):
        backlog.put(record(lane, at))
    window = backlog.take(100_000)
    assert window is not None
    assert [number(each) for each in window.records] == [2, 4, 1, 0, 3]
    assert backlog.take(100_000) is None
    backlog.settle(window, 1)
    again = backlog.take(100_000)
    assert again is not None
    assert [number(each) for each in again.records] == [4, 1, 0, 3]


def test_past_the_bound_the_oldest_metrics_go_and_events_last() -> None:
    dropped = Dropped()
    backlog = MemoryBacklog(10 * 1000, dropped)
    for at in range(15):
        assert backlog.put(record(METRICS, at, 1000))
    assert dropped == {("metrics", BUFFER_FULL): 5}
    for at in range(15, 22):
        assert backlog.put(record(EVENTS, at, 1000))
    assert dropped == {("metrics", BUFFER_FULL): 12}
    window = backlog.take(100_000)
    assert window is not None
    assert [number(each) for each in window.records] == [*range(15, 22), 12, 13, 14]


def test_a_record_that_can_not_be_kept_pushes_nothing_out() -> None:
    dropped = Dropped()
    backlog = MemoryBacklog(10 * 1000, dropped)
    for at in range(8):
        backlog.put(record(EVENTS, at, 1000))
    for at in range(8, 10):
        backlog.put(record(METRICS, at, 1000))
    assert not backlog.put(record(METRICS, 99, 3000)), "with all the metrics gone there would be room for two only"
    assert not backlog.put(record(EVENTS, 99, 11_000))
    assert dropped == {("metrics", BUFFER_FULL): 1, ("events", BUFFER_FULL): 1}
    assert backlog.waiting == (10, 10_000)


ACTIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 2), st.integers(OVERHEAD + 4, 3000)),
    st.tuples(st.just("send"), st.integers(1, 5000), st.integers(0, 20)),
)


@given(st.lists(ACTIONS, max_size=60))
@settings(max_examples=200, deadline=None)
def test_what_was_put_is_sent_or_dropped_or_waits(actions: list[tuple[str, int, int]]) -> None:
    dropped = Dropped()
    backlog = MemoryBacklog(8000, dropped)
    put = sent = 0
    for name, first, second in actions:
        if name == "put":
            backlog.put(record(first, put, second))
            put += 1
        elif window := backlog.take(first):
            count = min(second, len(window.records))
            backlog.settle(window, count)
            sent += count
        records, size = backlog.waiting
        assert put == sent + dropped.total() + records
        assert 0 <= size <= 8000
    left, _ = backlog.waiting
    assert backlog.abandon("shutdown") == left
    assert backlog.waiting == (0, 0)
    assert put == sent + dropped.total()


def test_a_child_begins_with_nothing() -> None:
    backlog = MemoryBacklog(8000, Dropped())
    backlog.put(record(EVENTS, 1))
    backlog._lock.acquire()  # as another thread of the parent may hold it at the fork
    backlog.after_fork()
    assert backlog.waiting == (0, 0)
    assert backlog.put(record(EVENTS, 2))
