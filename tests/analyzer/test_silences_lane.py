"""What a lane does beside delivering: keep back what is silenced, group, give up what is refused, tell again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.outputs.base import AlertChange, Busy, Refused, notable
from otel_memory.analyzer.outputs.lane import Lane, RetryPolicy
from otel_memory.analyzer.stats import OutputHealth, Stats
from otel_memory.analyzer.store import Outbox, Store
from tests.analyzer.store_samples import T0, alert

PENDING, FIRING, RESOLVED = AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED


class Output:
    """Tells what it was given; ``errors`` are raised first."""

    name = "recording"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.got: list[tuple[str, str]] = []

    def deliver(self, change: AlertChange) -> None:
        self.deliver_group([change])

    def deliver_group(self, changes: Sequence[AlertChange]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.got += [(change.alert.id, change.alert.state.value) for change in changes]

    def close(self) -> None:
        pass


class Notable(Output):
    """Is told of what fires or fired alone, one at a time."""

    deliver_group = None  # type: ignore[assignment]

    def deliver(self, change: AlertChange) -> None:
        Output.deliver_group(self, [change])

    def wants(self, change: AlertChange) -> bool:
        return notable(change)


class Grouped(Output):
    group_seconds = 10.0

    def __init__(self, *errors: Exception) -> None:
        super().__init__(*errors)
        self.sizes: list[int] = []

    def group_of(self, change: AlertChange) -> str:
        return change.alert.labels.get("service_name", "")

    def deliver_group(self, changes: Sequence[AlertChange]) -> None:
        super().deliver_group(changes)
        self.sizes.append(len(changes))


class Repeated(Output):
    repeat_seconds = 60.0

    def __init__(self) -> None:
        super().__init__()
        self.repeats: list[list[str]] = []

    def repeat(self, alerts: Sequence[Alert]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.repeats.append([one.summary for one in alerts])


class Silenced:
    """Alerts by id."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.version = 0

    def now(self, *ids: str) -> None:
        self.ids = set(ids)
        self.version += 1

    def silencing(self, alert: Alert) -> tuple[str, ...]:
        return ("s",) if alert.id in self.ids else ()


class Bench:
    def __init__(self, path: Path) -> None:
        self.store = Store.open(path / "analyzer.db")
        self.outbox = Outbox(self.store.path)
        self.now = time.time()
        """The outbox notes the real time at which a change came in."""
        self.silences = Silenced()
        self.stats = Stats()
        self.firing: list[Alert] = []

        self.done: list[str] = []
        """Ids of the changes that are done with."""

    def lane(self, output: Output, **policy: float) -> Lane:
        return Lane(
            output,
            self.outbox,
            self.stats,
            policy=RetryPolicy(**policy),  # type: ignore[arg-type]
            clock=lambda: self.now,
            chance=lambda: 0.0,
            silences=self.silences,
            firing=lambda: self.firing,
            told=lambda _output, _alert, change: self.done.append(change),
        )

    def record(self, number: int, state: AlertState, at: float = T0, service: str = "shop") -> None:
        one = replace(alert(number, state), labels={"service_name": service}, fired_at=None if state is PENDING else T0)
        with self.store.transaction():
            self.store.record_alert_change(one, at, outputs=["recording"])
        # A change of later than now would mean that the clock was set back.
        self.now = max(self.now, time.time())

    @property
    def health(self) -> OutputHealth:
        (only,) = self.stats.outputs()
        return only


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.outbox.close()
    made.store.close()


# --- silences ----------------------------------------------------------------------------------------------


def test_what_is_silenced_is_held_while_others_go_and_told_when_the_silence_ends(bench: Bench) -> None:
    output = Output()
    lane = bench.lane(output)
    bench.silences.now("alert-1")
    bench.record(1, FIRING)
    bench.record(2, FIRING)
    lane.drain()
    assert output.got == [("alert-2", "firing")]
    assert (bench.health.held, bench.health.pending, bench.health.failed) == (1, 0, 0)
    bench.silences.now()
    lane.drain()
    assert output.got[1:] == [("alert-1", "firing")]
    assert (bench.health.held, bench.health.delivered) == (0, 2)


@pytest.mark.parametrize(
    ("told", "silenced", "after"),
    [
        # Of what happened in the dark only the last is told, ...
        ([PENDING], [FIRING, RESOLVED], [RESOLVED]),
        ([PENDING, FIRING], [RESOLVED], [RESOLVED]),
        ([], [PENDING, FIRING], [FIRING]),
        # ... and nothing of what began and ended in it.
        ([], [PENDING, FIRING, RESOLVED], []),
        ([], [PENDING, RESOLVED], []),
        # A new episode behind the old one.
        ([PENDING, FIRING], [RESOLVED, PENDING, FIRING], [FIRING]),
    ],
)
def test_after_a_silence_only_where_things_stand_is_told(
    bench: Bench, told: list[AlertState], silenced: list[AlertState], after: list[AlertState]
) -> None:
    output = Output()
    lane = bench.lane(output)
    for index, state in enumerate(told):
        bench.record(1, state, T0 + index)
    lane.drain()
    bench.silences.now("alert-1")
    for index, state in enumerate(silenced):
        bench.record(1, state, T0 + 10 + index)
        lane.drain()
    assert len(output.got) == len(told)
    bench.silences.now()
    lane.drain()
    lane.drain()
    assert [state for _, state in output.got[len(told) :]] == [state.value for state in after]
    assert (bench.health.held, bench.health.pending) == (0, 0)
    assert bench.done[-1] == f"alert-1.{silenced[-1].value}.{round((T0 + 10 + len(silenced) - 1) * 1000)}"


def test_an_output_that_hears_of_no_pending_alert_hears_nothing_of_an_episode_in_the_dark(bench: Bench) -> None:
    output = Notable()
    lane = bench.lane(output)
    bench.silences.now("alert-1")
    for index, state in enumerate((PENDING, FIRING, RESOLVED)):
        bench.record(1, state, T0 + index)
        lane.drain()
    bench.silences.now()
    lane.drain()
    assert output.got == []
    assert bench.outbox.pending("recording") == 0


def test_what_is_held_does_not_pile_up(bench: Bench) -> None:
    lane = bench.lane(Output())
    bench.silences.now("alert-1")
    for index in range(30):
        bench.record(1, (PENDING, FIRING, RESOLVED)[index % 3], T0 + index)
        lane.drain()
    lane.drain()
    assert bench.outbox.pending("recording") <= 3


def test_what_is_held_over_a_restart_is_told_if_the_silence_has_ended_meanwhile(bench: Bench) -> None:
    bench.silences.now("alert-1")
    bench.record(1, FIRING)
    bench.lane(Output()).drain()
    bench.silences.now()
    output = Output()
    again = bench.lane(output)
    again.drain()
    # The lane has not seen the silence change; it looks again after a while.
    bench.now += Lane.HELD_SECONDS + 1
    again.drain()
    assert output.got == [("alert-1", "firing")]


# --- refusals ----------------------------------------------------------------------------------------------


def test_what_is_refused_is_given_up_at_once_and_counted(bench: Bench) -> None:
    output = Output(Refused("HTTP status 400"))
    lane = bench.lane(output)
    bench.record(1, FIRING)
    bench.record(2, FIRING)
    lane.drain()
    assert output.got == [("alert-2", "firing")]
    assert (bench.health.abandoned, bench.health.failed, bench.health.pending) == (1, 1, 0)
    assert bench.health.last_error == "Refused: HTTP status 400"


def test_who_asks_to_wait_is_waited_for_within_bounds(bench: Bench) -> None:
    lane = bench.lane(Output(Busy("x", 42.0), Busy("x", 1e6)), longest_seconds=100)
    bench.record(1, FIRING)
    again = lane.drain()
    assert again == pytest.approx(bench.now + 42)
    assert again is not None
    bench.now = again
    assert lane.drain() == pytest.approx(bench.now + 100)


def test_since_when_an_output_fails_is_told_until_it_does_not(bench: Bench) -> None:
    lane = bench.lane(Output(ConnectionError("a"), ConnectionError("b")))
    bench.record(1, FIRING)
    began = bench.now
    for _ in range(2):
        again = lane.drain()
        assert bench.health.failing_since == began
        assert again is not None
        bench.now = again
    lane.drain()
    assert bench.health.failing_since is None


# --- groups ------------------------------------------------------------------------------------------------


def test_what_comes_within_the_time_goes_together_by_group(bench: Bench) -> None:
    output = Grouped()
    lane = bench.lane(output)
    bench.record(1, FIRING, service="shop")
    bench.record(2, FIRING, service="cart")
    again = lane.drain()
    assert output.got == []
    assert again is not None
    assert bench.now < again <= bench.now + 11
    bench.record(3, FIRING, service="shop")
    lane.drain()
    assert output.got == []
    bench.now = again + 1
    lane.drain()
    assert sorted(output.sizes) == [1, 2]
    assert sorted(number for number, _ in output.got) == ["alert-1", "alert-2", "alert-3"]


def test_a_full_group_waits_for_nothing(bench: Bench) -> None:
    output = Grouped()
    lane = bench.lane(output)
    for number in range(Lane.MAX_GROUP + 1):
        bench.record(number, FIRING)
    lane.drain()
    assert output.sizes[0] == Lane.MAX_GROUP
    bench.now += 20
    lane.drain()
    assert sum(output.sizes) == Lane.MAX_GROUP + 1


def test_a_group_fails_and_is_tried_again_as_a_whole(bench: Bench) -> None:
    output = Grouped(ConnectionError("away"))
    lane = bench.lane(output)
    bench.record(1, FIRING)
    bench.record(2, FIRING)
    bench.now += 20
    again = lane.drain()
    assert output.got == []
    assert again is not None
    bench.now = again
    lane.drain()
    assert output.sizes == [2]
    assert (bench.health.failed, bench.health.delivered) == (1, 2)


# --- telling again -----------------------------------------------------------------------------------------


def test_what_fires_is_told_again_with_its_newest_figures_until_it_ends(bench: Bench) -> None:
    output = Repeated()
    lane = bench.lane(output)
    bench.record(1, FIRING)
    bench.record(2, RESOLVED)
    lane.drain()
    assert len(output.got) == 2
    told = len(output.repeats)
    bench.firing = [replace(alert(1, FIRING), summary="newest")]
    bench.now += 61
    again = lane.drain()
    assert output.repeats[told:] == [["newest"]]
    assert again == pytest.approx(bench.now + 60)
    bench.now += 30
    lane.drain()
    assert len(output.repeats) == told + 1, "not before its time"
    output.errors.append(ConnectionError("away"))
    bench.record(1, RESOLVED, T0 + 100)
    bench.now += 61
    lane.drain()
    assert len(output.repeats) == told + 1, "its end waits to be told"
    bench.firing = []
    bench.now += 61
    lane.drain()
    assert len(output.repeats) == told + 1, "it is over"


def test_what_is_silenced_is_not_told_again_and_a_failed_repeat_waits_for_the_next(bench: Bench) -> None:
    output = Repeated()
    lane = bench.lane(output)
    bench.record(1, FIRING)
    bench.firing = [alert(1, FIRING)]
    lane.drain()
    told = len(output.repeats)
    assert told == 1
    bench.silences.now("alert-1")
    bench.now += 61
    lane.drain()
    assert len(output.repeats) == told
    bench.silences.now()
    output.errors.append(ConnectionError("away"))
    lane.drain()
    assert len(output.repeats) == told
    assert bench.health.failed == 1
    bench.now += 61
    lane.drain()
    assert len(output.repeats) == told + 1
