"""The view: what readers see while the worker publishes."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.analyzer.model import AlertState, Assessment, Event, Verdict
from otel_memory.analyzer.view import SORTS, BadCursor, View
from tests.analyzer.store_samples import MIB, T0, alert, assessment, process


def fleet(*scores: float | None) -> View:
    view = View()
    view.publish([assessment(number, leak_score=score) for number, score in enumerate(scores, start=1)])
    return view


def numbers(found: list[Assessment]) -> list[int]:
    return [int(a.process.id, 16) for a in found]


def test_the_newest_judgement_of_a_process_is_the_one_that_is_seen() -> None:
    view = View()
    view.publish([assessment(1, leak_score=0.1), assessment(2)])
    view.publish([assessment(1, leak_score=0.7)])
    found = view.process(process(1).id)
    assert found is not None
    assert found.leak_score == 0.7
    assert view.process("nobody") is None


def test_a_state_once_taken_does_not_change() -> None:
    view = fleet(0.1)
    before = view.state
    view.publish([assessment(2)], [alert()])
    assert len(before.processes) == 1
    assert len(before.alerts) == 0
    assert len(view.state.processes) == 2


def test_the_worst_come_first_and_the_unknown_last() -> None:
    assert numbers(fleet(0.2, None, 0.9, 0.5).processes().items) == [3, 4, 1, 2]


def test_absent_values_are_last_in_both_directions() -> None:
    view = fleet(0.2, None, 0.9)
    assert numbers(view.processes(sort="leak_score").items) == [1, 3, 2]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"service": "shop"}, [1, 3]),
        ({"service": "sho"}, []),
        ({"verdict": Verdict.HEALTHY}, [2]),
        ({"q": "BILL"}, [2]),
        ({"q": "instance-3"}, [3]),
        ({"q": "1003"}, [3]),
        ({"q": "nothing"}, []),
        ({"service": "shop", "q": "instance-1"}, [1]),
    ],
)
def test_filters_hold_together(filters: dict[str, str], expected: list[int]) -> None:
    view = View()
    billing = replace(assessment(2, verdict=Verdict.HEALTHY), process=process(2, service_name="Billing"))
    view.publish([assessment(1), billing, assessment(3)])
    assert numbers(view.processes(**filters, sort="first_seen").items) == expected  # type: ignore[arg-type]


@given(
    st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=30),
    st.integers(1, 7),
    st.sampled_from(SORTS),
)
def test_pages_together_are_the_list(scores: list[float | None], limit: int, sort: str) -> None:
    view = fleet(*scores)
    whole = numbers(view.processes(sort=sort, limit=1000).items)
    seen: list[int] = []
    cursor = None
    while True:
        page = view.processes(sort=sort, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        seen += numbers(page.items)
        cursor = page.next
        if cursor is None:
            break
    assert seen == whole
    assert sorted(seen) == list(range(1, len(scores) + 1))


def test_a_process_that_goes_between_pages_hides_no_other() -> None:
    view = fleet(0.9, 0.8, 0.7, 0.6)
    first = view.processes(limit=2)
    view.publish(forget=[process(1).id, process(2).id])
    assert numbers(view.processes(limit=2, cursor=first.next).items) == [3, 4]


@pytest.mark.parametrize("cursor", ["", "!!", "bm9uc2Vuc2U", "WzEsMiwzXQ", "WyItbGVha19zY29yZSIsWzFdLCJhIl0", "é" * 5])
def test_a_cursor_from_elsewhere_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        fleet(0.1).processes(cursor=cursor)


def test_a_cursor_for_another_order_is_refused() -> None:
    view = fleet(0.1, 0.2)
    cursor = view.processes(limit=1).next
    with pytest.raises(BadCursor, match="another sort order"):
        view.processes(limit=1, sort="service_name", cursor=cursor)


def test_leaks_are_those_at_or_above_the_threshold_worst_first() -> None:
    assert numbers(fleet(0.5, 0.49, None, 0.9).leaks(0.5)) == [4, 1]


def test_alerts_come_by_state_then_youngest_first() -> None:
    view = View()
    view.publish(
        alerts=[
            alert(1, AlertState.RESOLVED),
            alert(2, starts_at=T0),
            alert(3, AlertState.PENDING),
            alert(4, starts_at=T0 + 9),
        ]
    )
    assert [found.id for found in view.alerts()] == ["alert-4", "alert-2", "alert-3", "alert-1"]
    assert [found.id for found in view.alerts(AlertState.PENDING)] == ["alert-3"]


def test_the_summary_counts_and_adds() -> None:
    view = View()
    view.publish(
        [
            assessment(1),
            assessment(2, growth_bytes_per_second=10.0, time_to_limit=None),
            assessment(3, verdict=Verdict.HEALTHY, memory_bytes=None, growth_bytes_per_second=99.0),
        ],
        [alert()],
    )
    summary = view.summary()
    assert summary.processes == {Verdict.UNKNOWN: 0, Verdict.HEALTHY: 1, Verdict.WATCH: 0, Verdict.LEAKING: 2}
    assert summary.alerts[AlertState.FIRING] == 1
    assert summary.memory_bytes == 200 * MIB
    assert summary.growth_bytes_per_second == 50_010.0
    assert summary.time_to_limit_seconds == 6291.5


def test_of_nothing_the_totals_are_absent() -> None:
    summary = View().summary()
    assert (summary.memory_bytes, summary.growth_bytes_per_second, summary.time_to_limit_seconds) == (0, None, None)


def test_events_are_bounded_and_newest_first() -> None:
    view = View()
    events = [Event("e", T0 + number, 9, {}, None) for number in range(View.MAX_EVENTS + 20)]
    view.publish(events={"a": events[:50]})
    view.publish(events={"a": events[50:]})
    assert view.events("a") == events[:19:-1]
    assert view.events("b") == []


def test_what_is_forgotten_is_gone_with_its_events_and_resolved_alerts() -> None:
    view = View()
    view.publish(
        [assessment(1), assessment(2)],
        [alert(1, AlertState.RESOLVED), alert(2, AlertState.RESOLVED), alert(1, id="other")],
        events={process(1).id: [Event("e", T0, 9, {}, None)]},
    )
    view.publish(forget=[process(1).id])
    assert view.process(process(1).id) is None
    assert view.events(process(1).id) == []
    assert {found.id for found in view.alerts()} == {"alert-2", "other"}, "a firing alert is not forgotten"
    assert ("process", process(1).id) not in view.state.changed


def test_of_too_many_alerts_the_oldest_resolved_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "MAX_ALERTS", 3)
    view = View()
    view.publish(
        alerts=[alert(1, starts_at=T0 - 99)]
        + [alert(number, AlertState.RESOLVED, starts_at=T0 + number) for number in range(2, 7)]
    )
    assert {found.id for found in view.alerts()} == {"alert-1", "alert-5", "alert-6"}


def test_of_too_many_processes_those_not_seen_for_longest_go() -> None:
    view = View(max_processes=3)
    event = Event("e", T0, 9, {}, None)
    for number in range(1, 6):
        view.publish([assessment(number, last_seen=T0 + number)], events={process(number).id: [event]})
    assert numbers(view.processes(sort="last_seen").items) == [3, 4, 5]
    assert view.events(process(1).id) == []
    view.publish(events={f"unknown {number}": [event] for number in range(10)})
    assert sum(bool(view.events(f"unknown {number}")) for number in range(10)) == 3


def test_a_listener_is_told_what_changed_until_it_goes() -> None:
    view, told = View(), []
    state, undo = view.listen(lambda *call: told.append(call))
    view.publish([assessment()])
    undo()
    view.publish([assessment(2)])
    assert state.generation == 0
    assert told == [(1, [assessment()], ())]


def test_readers_see_whole_states_while_the_worker_publishes() -> None:
    """Two processes are always published together with the same score; no reader ever sees them differ."""
    view, done, torn = View(), threading.Event(), []

    def read() -> None:
        while not done.is_set():
            if len({a.leak_score for a in view.processes().items}) > 1:
                torn.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        view.publish([assessment(1, leak_score=float(number)), assessment(2, leak_score=float(number))])
    done.set()
    reader.join()
    assert torn == []


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize("text", ["[" * 1400, '["-leak_score",NaN,"a"]', '["-leak_score",true,"a"]'])
def test_a_cursor_that_was_tampered_with_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        fleet(0.1).processes(cursor=cursor_of(text))
