"""To be asked to end is noted, and answered where it does no harm."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from otel_memory.demo.signals import Interrupted, Signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        # Whoever runs the tests (nohup, a background shell) may ignore some of them.
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_raises_nothing_where_it_comes_and_is_found_at_the_next_check(number: int) -> None:
    with Signals() as signals:
        signals.check()
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert signals.count == 2
        with pytest.raises(Interrupted):
            signals.check()
        with pytest.raises(Interrupted):
            signals.pause(0)


def test_a_pause_ends_soon_after_the_signal() -> None:
    with Signals() as signals:
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        with pytest.raises(Interrupted):
            signals.pause(30)
        timer.join()
    assert time.monotonic() - began < 5


def test_the_handlers_of_before_are_given_back() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in NUMBERS]
    with Signals():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_once_asked_to_end_a_further_ctrl_c_does_not_interrupt_the_exit() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert signals.count == 1


def test_a_signal_that_was_ignored_on_purpose_stays_ignored() -> None:
    """As nohup does with SIGHUP, and a shell with SIGINT for what runs in its background."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signals.check()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
