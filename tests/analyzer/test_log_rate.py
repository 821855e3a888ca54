"""A log that an outage does not fill."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from otel_memory.analyzer.log_rate import MAX_KINDS, SECONDS, OncePerMinute


class Log:
    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.addFilter(OncePerMinute("chatty", ("Kafka: begins anew",), clock=lambda: self.now))
        for name in ("chatty", "ours"):
            logger = logging.getLogger(name)
            logger.addHandler(self.handler)
            logger.propagate = False

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    for name in ("chatty", "ours"):
        logging.getLogger(name).removeHandler(made.handler)
        logging.getLogger(name).propagate = True


def test_of_one_kind_a_line_a_minute_that_says_how_many_there_were(log: Log) -> None:
    chatty = logging.getLogger("chatty.connection")
    for number in range(10):
        chatty.warning("<conn %d>: connect attempt failed: %s", number, "refused")
        log.now += 1
    chatty.warning("<conn %d>: login failed", 3)
    chatty.error("<conn %d>: connect attempt failed: %s", 3, "refused")
    log.now = SECONDS
    chatty.warning("<conn %d>: connect attempt failed: %s", 11, "refused")
    assert log.lines == [
        "<conn 0>: connect attempt failed: refused",
        "<conn 3>: login failed",
        "<conn 3>: connect attempt failed: refused",
        "<conn 11>: connect attempt failed: refused (9 more like it were left out)",
    ]


def test_what_is_written_into_the_text_itself_makes_no_new_kind(log: Log) -> None:
    for number in range(5):
        logging.getLogger("chatty").warning(f"task at 0x{number:012x} ran for 0.{number}s")
    assert len(log.lines) == 1


def test_others_pass(log: Log) -> None:
    ours = logging.getLogger("ours")
    for number in range(3):
        ours.warning("a record %d can't be decoded", number)
        ours.warning("Kafka: begins anew after %s", number)
    assert log.lines == [
        "a record 0 can't be decoded",
        "Kafka: begins anew after 0",
        "a record 1 can't be decoded",
        "a record 2 can't be decoded",
    ]


def test_kinds_are_bounded(log: Log) -> None:
    chatty = logging.getLogger("chatty")
    for number in range(MAX_KINDS + 1):
        chatty.warning("kind " + "x" * number)
    chatty.warning("kind ")
    assert len(log.lines) == MAX_KINDS + 2
