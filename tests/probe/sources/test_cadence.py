"""When readings are made anew, and how work is spaced out by its cost."""

from __future__ import annotations

import pytest

from otel_memory.probe.sources.cadence import Budget, Latest


def test_a_reading_is_handed_out_again_while_it_is_fresh_and_made_anew_after(clock):
    values = iter(range(10))
    latest = Latest(lambda: next(values), 1.0, clock)
    assert [latest(), latest()] == [0, 0]
    clock.now += 0.999
    assert latest() == 0
    clock.now += 0.001
    assert latest() == 1


def test_reading_on_purpose_renews_what_is_handed_out_and_dropping_forgets_it(clock):
    values = iter(range(10))
    latest = Latest(lambda: next(values), 1.0, clock)
    assert [latest(), latest.read(), latest()] == [0, 1, 1]
    latest.drop()
    assert latest() == 2


def test_a_failed_reading_is_not_kept(clock):
    def fails():
        raise ZeroDivisionError

    latest = Latest(fails, 1.0, clock)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            latest()


@pytest.mark.parametrize(
    ("cost", "wait", "why"),
    [
        (0.001, 10.0, "cheap work comes at the interval"),
        (0.005, 10.0, "5 ms in 10 s are the share exactly"),
        (0.02, 40.0, "20 ms are 0.05 % of 40 s"),
    ],
)
def test_work_takes_at_most_its_share_of_the_time(clock, cost, wait, why):
    spent = iter([0.0, cost])
    budget = Budget(10.0, share=0.0005, clock=clock, cost_clock=lambda: next(spent))
    assert budget.due()
    assert budget.run(lambda: "done") == "done"
    clock.now += wait - 0.001
    assert not budget.due(), why
    clock.now += 0.002
    assert budget.due(), why


def test_work_that_raises_has_cost_as_well(clock):
    spent = iter([0.0, 1.0])
    budget = Budget(1.0, share=0.5, clock=clock, cost_clock=lambda: next(spent))
    with pytest.raises(ZeroDivisionError):
        budget.run(lambda: 1 / 0)
    clock.now += 1.5
    assert not budget.due()
    budget.reset()
    assert budget.due()
