"""Where a partition begins that arrives: how far back, and what if the log has lost what was to come."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from otel_memory.analyzer.kafka.arrival import Arrival, arrivals
from otel_memory.analyzer.kafka.client import TopicPartition
from otel_memory.analyzer.kafka.records import Mark
from otel_memory.analyzer.stats import KAFKA_RECORDS, Stats

PLACE = TopicPartition("otlp_metrics", 0)


class Found(NamedTuple):
    offset: int


class Log:
    """A partition that holds the offsets ``begin`` to ``end``, one record a second; record 0 was at 1000 s."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end

    def beginning_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.begin)

    def end_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.end)

    def offsets_for_times(
        self, times: dict[TopicPartition, int], timeout_ms: int
    ) -> dict[TopicPartition, Found | None]:
        found = {place: max(self.begin, -(-at // 1000) - 1000) for place, at in times.items()}
        return {place: Found(offset) if offset < self.end else None for place, offset in found.items()}


def arrival(log: Log, offset: int | None, mark: Mark | None, stats: Stats | None = None) -> Arrival:
    (one,) = arrivals(log, {PLACE: (offset, mark)}, 100.0, stats or Stats())
    return one


def mark(origin: int, at: float | None) -> Mark:
    return Mark(origin, at, "a")


def test_one_that_nobody_has_read_begins_at_its_beginning() -> None:
    assert arrival(Log(7, 500), None, None) == Arrival(PLACE, 7, 7, 7, None)


def test_the_reach_before_the_committed_moment_is_replayed() -> None:
    kept = mark(0, 1400.0)
    assert arrival(Log(0, 500), 401, kept) == Arrival(PLACE, 0, 300, 401, kept)


@pytest.mark.parametrize(("begin", "origin", "start"), [(0, 350, 350), (380, 0, 380), (380, 350, 380)])
def test_but_not_what_the_log_has_lost_nor_what_was_there_before_the_group(begin: int, origin: int, start: int) -> None:
    kept = mark(origin, 1400.0)
    assert arrival(Log(begin, 500), 401, kept) == Arrival(PLACE, origin, start, 401, kept)


def test_an_offset_that_somebody_else_has_set_is_a_new_beginning() -> None:
    assert arrival(Log(0, 500), 401, None) == Arrival(PLACE, 401, 401, 401, None)


def test_what_is_gone_before_it_was_read_is_counted_and_the_state_goes_on() -> None:
    stats, kept = Stats(), mark(0, 1400.0)
    assert arrival(Log(450, 500), 401, kept, stats) == Arrival(PLACE, 0, 450, 450, kept)
    assert stats.total(KAFKA_RECORDS, outcome="lost") == 49


def test_a_log_that_ends_before_the_offset_is_another_one() -> None:
    stats = Stats()
    assert arrival(Log(0, 10), 401, mark(0, 1400.0), stats) == Arrival(PLACE, 0, 0, 0, None)
    assert stats.total(KAFKA_RECORDS, outcome="lost") == 0


def test_a_mark_is_read_as_it_was_written() -> None:
    for one in (mark(3, 1400.25), mark(0, None)):
        assert Mark.from_text(one.to_text()) == one
    for text in (None, "", "somebody's", "[]", '{"origin": 1}'):
        assert Mark.from_text(text) is None
