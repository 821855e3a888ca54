"""The pipeline: what one batch does and in which order, what outlives a failing store and a restart, and bounds."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names
from otel_memory.analyzer import judgement, pipeline
from otel_memory.analyzer.alerting import AlertingSettings
from otel_memory.analyzer.attribution import Attribution
from otel_memory.analyzer.model import Alert, AlertState, Assessment, Decoded, Event, Payload, Point, Verdict
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.pipeline import Pipeline
from otel_memory.analyzer.scoring import ScoreResult, SeriesInput, score_batch
from otel_memory.analyzer.series import SeriesTable
from otel_memory.analyzer.stats import DROPPED, POINTS, STORE_ERRORS, WORKER_ERRORS, Stats
from otel_memory.analyzer.store import FILE_NAME, Outbox, Reader, Store, StoreError
from tests.analyzer.made_up import LEAKING_ROUTE, MIB, T0, MadeUp

FIRING_AT = 100
"""By then the made-up leak has a firing alert, with much to spare."""


class Readers:
    """A publisher that keeps what it was told."""

    def __init__(self) -> None:
        self.processes: dict[str, Assessment] = {}
        self.alerts: dict[str, Alert] = {}
        self.events: dict[str, list[Event]] = {}
        self.forgotten: list[str] = []
        self.calls: list[str] = []

    def publish(
        self,
        assessments: Collection[Assessment] = (),
        alerts: Collection[Alert] = (),
        *,
        events: Mapping[str, Sequence[Event]] | None = None,
        forget: Collection[str] = (),
    ) -> None:
        self.calls.append("publish")
        self.processes.update((one.process.id, one) for one in assessments)
        self.alerts.update((one.id, one) for one in alerts)
        for process_id, happened in (events or {}).items():
            self.events.setdefault(process_id, []).extend(happened)
        for process_id in forget:
            self.processes.pop(process_id, None)
            self.forgotten.append(process_id)

    @property
    def only(self) -> Assessment:
        (found,) = self.processes.values()
        return found


class MoodyStore(Store):
    """A real store that can be made to fail as a full disk does: the whole transaction, at its end."""

    failing = False
    calls: list[str]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self.calls.append("begin")
        with super().transaction():
            yield
            if self.failing:
                raise StoreError("planted", "full")
        self.calls.append("commit")


class Rig:
    """A pipeline with everything around it; ``restart`` makes another one on the same store, as after a crash."""

    def __init__(self, folder: Path | None = None, **settings: Any) -> None:
        self.folder = folder
        self.settings = settings
        self.readers = Readers()
        self.stats = Stats()
        self.told: list[tuple[AlertChange, bool]] = []
        self.store: MoodyStore | None = None
        self.pipeline = self._make()

    def _make(self) -> Pipeline:
        if self.folder is not None:
            store = MoodyStore.open(self.folder / FILE_NAME)
            assert isinstance(store, MoodyStore)
            self.store = store
            self.store.calls = self.readers.calls
        settings = {"max_processes": 100, **self.settings}
        self.table = SeriesTable(settings.pop("max_processes"))
        return Pipeline(
            self.table,
            self.readers,
            self.stats,
            store=self.store,
            outputs=("console",) if self.store is not None else (),
            on_change=self._on_change,
            **settings,
        )

    def _on_change(self, changes: Sequence[AlertChange], stored: bool) -> None:
        self.readers.calls.append("outputs")
        self.told += [(change, stored) for change in changes]

    def restart(self, now: float) -> None:
        assert self.store is not None
        self.store.close()
        self.readers.__init__()  # type: ignore[misc]
        self.pipeline = self._make()
        self.pipeline.restore(now)

    def feed(self, process: MadeUp, indices: range, received_at: float | None = None) -> None:
        for index in indices:
            at = process.time(index) if received_at is None else received_at
            self.pipeline.process([process.decoded(index)], at)

    @property
    def changes(self) -> list[AlertChange]:
        return [change for change, _ in self.told]

    @property
    def states(self) -> list[str]:
        return [change.alert.state.value for change in self.changes]

    def queued(self) -> list[str]:
        """The ids of the changes that the store's outbox holds for the output."""
        assert self.store is not None
        outbox = Outbox(self.store.path)
        try:
            return [pending.change.id for pending in outbox.due("console", 1e12)]
        finally:
            outbox.close()

    def stored_samples(self, process_id: str, series: str = "memory") -> list[float]:
        assert self.store is not None
        reader = Reader(self.store.path)
        try:
            return list(reader.series(process_id, series, points=5000).times)
        finally:
            reader.close()

    def close(self) -> None:
        if self.store is not None:
            self.store.close()


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


# --- a batch -------------------------------------------------------------------------------------------------


def test_a_leak_is_judged_suspected_and_alerted_once(rig: Rig) -> None:
    rig.feed(MadeUp(), range(FIRING_AT))
    found = rig.readers.only
    assert found.verdict is Verdict.LEAKING
    assert found.suspects[0].name == f"GET {LEAKING_ROUTE}"
    assert found.memory_bytes == MadeUp().memory(FIRING_AT - 1)
    assert found.limit_bytes == 512 * MIB
    assert found.time_to_limit is not None
    assert found.first_seen == T0
    assert found.last_seen == T0 + FIRING_AT - 1
    assert rig.states == ["pending", "firing"]
    (alert,) = rig.readers.alerts.values()
    assert alert.state is AlertState.FIRING
    assert rig.stats.total(WORKER_ERRORS) == 0


def test_a_healthy_process_is_healthy(rig: Rig) -> None:
    rig.feed(MadeUp(leak_per_call=0), range(FIRING_AT))
    assert rig.readers.only.verdict is Verdict.HEALTHY
    assert rig.readers.only.suspects == ()
    assert rig.told == []


def test_a_batch_is_one_transaction_and_is_kept_before_anybody_is_told(kept: Rig) -> None:
    processes = [MadeUp(instance=f"i{number}") for number in range(3)]
    kept.pipeline.process([one.decoded(0) for one in processes], T0)
    assert kept.readers.calls == ["begin", "commit", "publish"]
    for index in range(1, FIRING_AT):
        kept.readers.calls.clear()
        kept.pipeline.process([one.decoded(index) for one in processes], T0 + index)
        if kept.told:
            break
    assert kept.readers.calls == ["begin", "commit", "outputs", "publish"]
    assert sorted(kept.queued()) == sorted(change.id for change in kept.changes)


def test_processes_of_one_batch_are_judged_as_if_each_came_alone(rig: Rig) -> None:
    leaking, healthy = MadeUp(instance="a"), MadeUp(instance="b", leak_per_call=0)
    alone = Rig()
    alone.feed(leaking, range(FIRING_AT))
    for index in range(FIRING_AT):
        rig.pipeline.process([leaking.decoded(index), healthy.decoded(index)], T0 + index)
    by_instance = {one.process.service_instance_id: one for one in rig.readers.processes.values()}
    assert by_instance["b"].verdict is Verdict.HEALTHY
    together, expected = by_instance["a"], alone.readers.only
    assert together.leak_score == pytest.approx(expected.leak_score)
    assert replace(together, leak_score=0.5).verdict is expected.verdict
    assert [suspect.name for suspect in together.suspects] == [suspect.name for suspect in expected.suspects]
    assert rig.states == alone.states


def test_several_payloads_of_one_process_in_a_batch_count_once_with_the_youngest(rig: Rig) -> None:
    rig.pipeline.process([MadeUp().decoded(index) for index in range(5)], T0 + 5)
    assert rig.readers.only.last_seen == T0 + 4
    assert len(rig.table.get(rig.readers.only.process.id).memory) == 5  # type: ignore[union-attr,arg-type]


def test_points_without_a_process_are_counted_and_change_nothing(rig: Rig) -> None:
    anonymous = MadeUp().payload(0)._replace(resource={"telemetry.sdk.language": "python"})
    rig.pipeline.process([Decoded([anonymous], len(anonymous.points), 2, "two were bad")], T0)
    assert rig.readers.processes == {}
    assert rig.stats.total(DROPPED, part="unidentified") == len(anonymous.points)
    assert rig.stats.total(POINTS, outcome="rejected") == 2


def test_events_are_shown_and_kept_also_before_the_first_point(kept: Rig) -> None:
    process = MadeUp()
    kept.pipeline.process([process.event(0)], T0)
    assert kept.readers.processes == {}
    kept.feed(process, range(3))
    process_id = kept.readers.only.process.id
    assert [event.name for event in kept.readers.events[process_id]] == [names.EVENT_THRESHOLD_CROSSED]
    kept.restart(T0 + 4)
    assert [event.name for event in kept.readers.events[process_id]] == [names.EVENT_THRESHOLD_CROSSED]


def test_an_event_from_far_ahead_is_dropped_and_counted(kept: Rig) -> None:
    process = MadeUp()
    kept.pipeline.process([process.event(0)], T0 - 3 * 86400)
    assert kept.readers.events == {}
    assert kept.stats.total(DROPPED, part="future events") == 1


def test_points_older_than_known_ones_are_counted_and_judge_nothing_again(kept: Rig) -> None:
    kept.feed(MadeUp(), range(FIRING_AT))
    before, told = kept.readers.only, len(kept.told)
    kept.feed(MadeUp(), range(30, 40), received_at=T0 + FIRING_AT)
    assert kept.readers.only == before
    assert len(kept.told) == told
    kept.pipeline.tick(T0 + FIRING_AT)
    assert kept.stats.total(DROPPED, part="late points") > 0
    assert len(kept.stored_samples(before.process.id)) == FIRING_AT


def test_a_process_that_restarts_under_its_instance_id_stays_one_process_with_a_second_life(rig: Rig) -> None:
    process = MadeUp(leak_per_call=0, restart_at=50)
    rig.feed(process, range(90))
    found = rig.readers.only
    assert found.first_seen == T0
    assert found.verdict is Verdict.HEALTHY
    assert found.memory_bytes == process.memory(89)
    series = rig.table.get(found.process.id)
    assert series is not None
    assert len(series.lives) == 2
    (requests,) = [window for name, window in series.routes.items() if name == f"GET {LEAKING_ROUTE}"]
    _, counted = requests.arrays()
    assert (counted[1:] >= counted[:-1]).all()


def test_the_alert_of_a_leak_ends_after_the_restart_that_cures_it(rig: Rig) -> None:
    rig.feed(MadeUp(), range(FIRING_AT))
    cured = MadeUp(restart_at=FIRING_AT, leak_per_call=0)
    rig.feed(cured, range(FIRING_AT, FIRING_AT + 110))
    assert rig.states == ["pending", "firing", "resolved"]
    assert rig.readers.only.verdict in (Verdict.HEALTHY, Verdict.UNKNOWN)


def test_suspects_stay_while_the_verdict_does(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.feed(MadeUp(), range(FIRING_AT))
    suspects = rig.readers.only.suspects
    assert suspects
    calm = ScoreResult(0.4, 0.0, None, rig.readers.only.trend, ("calm for a moment",))
    monkeypatch.setattr(judgement, "score_batch", lambda inputs: [calm for _ in inputs])
    rig.feed(MadeUp(), range(FIRING_AT, FIRING_AT + 1))
    assert rig.readers.only.verdict is Verdict.LEAKING
    assert rig.readers.only.suspects == suspects


def test_alerts_that_go_on_get_new_figures_but_are_no_change(rig: Rig) -> None:
    rig.feed(MadeUp(), range(FIRING_AT))
    (before,) = rig.readers.alerts.values()
    rig.feed(MadeUp(), range(FIRING_AT, FIRING_AT + 15))
    (after,) = rig.readers.alerts.values()
    assert after.annotations["memory_bytes"] != before.annotations["memory_bytes"]
    assert (after.id, after.starts_at, after.state) == (before.id, before.starts_at, before.state)
    assert len(rig.told) == 2


def test_attribution_is_bounded_in_a_batch_and_reaches_everybody(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[str] = []
    monkeypatch.setattr(pipeline, "attribute_series", lambda series, *_: sought.append(series.info.id) or Attribution())
    processes = [MadeUp(instance=f"i{number}") for number in range(3 * pipeline.MAX_ATTRIBUTIONS)]
    for index in range(55):
        before = len(sought)
        rig.pipeline.process([one.decoded(index) for one in processes], T0 + index)
        assert len(sought) - before <= pipeline.MAX_ATTRIBUTIONS
    assert len(set(sought)) == len(processes)


# --- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_no_score(rig: Rig, monkeypatch: pytest.MonkeyPatch, broken: float) -> None:
    def scored(inputs: Sequence[SeriesInput]) -> list[ScoreResult]:
        return [replace(result, score=broken) for result in score_batch(inputs)]

    monkeypatch.setattr(judgement, "score_batch", scored)
    rig.feed(MadeUp(), range(30))
    assert rig.readers.only.leak_score is None
    assert rig.readers.only.growth_bytes_per_second is None
    assert rig.readers.only.verdict is Verdict.UNKNOWN
    assert rig.readers.only.memory_bytes is not None


def test_a_process_that_can_not_be_scored_costs_nobody_else_a_turn(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def scored(inputs: Sequence[SeriesInput]) -> list[ScoreResult]:
        if any(one.values.max(initial=0) > 400 * MIB for one in inputs):
            raise ZeroDivisionError("planted")
        return score_batch(inputs)

    monkeypatch.setattr(judgement, "score_batch", scored)
    poison, leaking = MadeUp(instance="poison", base=450 * MIB), MadeUp(instance="leaking")
    for index in range(FIRING_AT):
        rig.pipeline.process([poison.decoded(index), leaking.decoded(index)], T0 + index)
    by_instance = {one.process.service_instance_id: one for one in rig.readers.processes.values()}
    assert by_instance["leaking"].verdict is Verdict.LEAKING
    assert by_instance["poison"].verdict is Verdict.UNKNOWN
    assert by_instance["poison"].memory_bytes == poison.memory(FIRING_AT - 1)
    assert rig.stats.total(WORKER_ERRORS) == FIRING_AT
    assert len([record for record in caplog.records if "the others go on" in record.message]) == 5


def test_attribution_that_fails_costs_no_verdict(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(pipeline, "attribute_series", failing)
    rig.feed(MadeUp(), range(FIRING_AT))
    assert rig.readers.only.verdict is Verdict.LEAKING
    assert rig.states == ["pending", "firing"]
    assert rig.stats.total(WORKER_ERRORS) > 0


def test_a_payload_that_can_not_be_taken_costs_no_other(rig: Rig) -> None:
    broken = Payload({"service.name": "x"}, [Point("process.memory.usage", (), "soon", None, 1.0, "gauge")], ())  # type: ignore[arg-type]
    rig.pipeline.process([Decoded([broken, MadeUp().payload(0)], 2, 0, "")], T0)
    assert rig.readers.only.process.service_instance_id == "made-up-1"
    assert rig.stats.total(WORKER_ERRORS) == 1


# --- a store that fails and comes back -----------------------------------------------------------------------


def test_while_the_store_fails_judgement_goes_on_and_changes_go_out_at_once(kept: Rig) -> None:
    assert kept.store is not None
    kept.feed(MadeUp(), range(50))
    kept.store.failing = True
    kept.feed(MadeUp(), range(50, FIRING_AT))
    assert kept.readers.only.verdict is Verdict.LEAKING
    assert [(change.alert.state.value, stored) for change, stored in kept.told] == [
        ("pending", False),
        ("firing", False),
    ]
    assert kept.stats.total(STORE_ERRORS, kind="full") > 0
    assert kept.queued() == []


def test_nothing_is_lost_when_the_store_comes_back_and_nothing_is_told_twice(kept: Rig) -> None:
    assert kept.store is not None
    process = MadeUp()
    kept.feed(process, range(50))
    kept.store.failing = True
    kept.feed(process, range(50, FIRING_AT))
    kept.pipeline.process([process.event(FIRING_AT)], T0 + FIRING_AT)
    kept.store.failing = False
    kept.feed(process, range(FIRING_AT, FIRING_AT + 5))
    assert kept.queued() == [], "what the outputs have been handed must not be queued as well"
    assert len(kept.told) == 2
    process_id = kept.readers.only.process.id
    assert kept.stored_samples(process_id) == [T0 + index for index in range(FIRING_AT + 5)]
    reader = Reader(kept.store.path)
    assert [change.alert.state.value for change in reader.alert_changes()] == ["firing", "pending"]
    reader.close()
    kept.restart(T0 + FIRING_AT + 5)
    assert [alert.state for alert in kept.readers.alerts.values()] == [AlertState.FIRING]
    assert len(kept.readers.events[process_id]) == 1
    kept.feed(process, range(FIRING_AT + 5, FIRING_AT + 10))
    assert len(kept.told) == 2


def test_what_a_process_sent_last_is_kept_though_it_falls_silent_while_the_store_fails(kept: Rig) -> None:
    assert kept.store is not None
    kept.store.failing = True
    kept.feed(MadeUp(), range(10))
    kept.store.failing = False
    kept.pipeline.tick(T0 + 20)
    process_id = kept.readers.only.process.id
    assert kept.stored_samples(process_id) == [T0 + index for index in range(10)]
    kept.restart(T0 + 21)
    assert kept.readers.only.process.id == process_id


def test_a_failing_store_is_not_tried_at_every_batch(kept: Rig) -> None:
    assert kept.store is not None
    kept.store.failing = True
    for index in range(40):
        kept.pipeline.process([MadeUp().decoded(index)], T0 + index / 10)
    assert kept.readers.calls.count("begin") == 2


def test_a_store_that_can_not_keep_house_is_counted(kept: Rig) -> None:
    assert kept.store is not None
    kept.store.failing = True
    kept.pipeline.tick(T0)
    assert kept.stats.total(STORE_ERRORS, kind="full") == 1


# --- restart -------------------------------------------------------------------------------------------------


def _outcome(rig: Rig) -> tuple[object, ...]:
    found = rig.readers.only
    alerts = sorted((alert.id, alert.state.value, alert.starts_at) for alert in rig.readers.alerts.values())
    return (
        found.process,
        found.verdict,
        found.trend,
        found.first_seen,
        found.last_seen,
        found.memory_bytes,
        found.limit_bytes,
        [suspect.name for suspect in found.suspects][:1],
        alerts,
        [change.id for change in rig.changes],
    )


_RANDOM = random.Random(20)


@pytest.mark.parametrize(
    ("cut", "leak", "restart_at"),
    [(cut, _RANDOM.choice([0, 15_000, 40_000]), _RANDOM.choice([None, None, 40, 85])) for cut in (1, 17, 39, 41)]
    + [(_RANDOM.randrange(45, 95), 40_000, None) for _ in range(4)],
)
def test_a_restart_in_between_changes_no_verdict_no_alert_and_tells_nothing_twice(
    tmp_path: Path, cut: int, leak: int, restart_at: int | None
) -> None:
    """Half the payloads, a start on the same store, the other half: as if nothing had happened."""
    process = MadeUp(leak_per_call=leak, restart_at=restart_at)
    through = Rig(tmp_path / "through")
    through.feed(process, range(100))
    halved = Rig(tmp_path / "halved")
    halved.feed(process, range(cut))
    halved.restart(T0 + cut)
    halved.feed(process, range(cut, 100))
    assert _outcome(halved) == _outcome(through)
    expected, found = through.readers.only, halved.readers.only
    assert found.leak_score == (None if expected.leak_score is None else pytest.approx(expected.leak_score, abs=0.02))
    through.close()
    halved.close()


def test_after_a_restart_everything_is_shown_before_anything_comes_in(kept: Rig) -> None:
    kept.feed(MadeUp(), range(FIRING_AT))
    before, alerts = kept.readers.only, dict(kept.readers.alerts)
    kept.restart(T0 + FIRING_AT + 30)
    assert kept.readers.only == before
    assert kept.readers.alerts.keys() == alerts.keys()
    assert len(kept.told) == 2


def test_a_state_of_alerts_that_can_not_be_read_costs_no_start(kept: Rig, caplog: pytest.LogCaptureFixture) -> None:
    assert kept.store is not None
    kept.feed(MadeUp(), range(5))
    with kept.store.transaction():
        kept.store.save_alert_state(kept.readers.only.process.id, '{"form": 99}')
    kept.restart(T0 + 6)
    assert "begins anew" in caplog.text
    kept.feed(MadeUp(), range(5, 8))
    assert kept.readers.only.last_seen == T0 + 7


def test_an_alert_of_a_process_that_died_while_the_analyzer_was_down_ends_soon_after_its_start(kept: Rig) -> None:
    kept.feed(MadeUp(), range(FIRING_AT))
    late = T0 + 5 * 3600
    kept.restart(late)
    kept.pipeline.tick(late)
    assert kept.states == ["pending", "firing"], "it may only be slow to come back"
    kept.pipeline.tick(late + pipeline.RETURN_SECONDS + 20)
    assert kept.states == ["pending", "firing", "resolved"]
    kept.restart(late + 200)
    kept.pipeline.tick(late + 400)
    assert len(kept.told) == 3


def test_an_alert_goes_on_when_the_analyzer_was_down_for_longer_than_a_process_may_be_silent(kept: Rig) -> None:
    kept.settings["idle_seconds"] = 60.0
    kept.feed(MadeUp(), range(FIRING_AT))
    started = next(iter(kept.readers.alerts.values())).starts_at
    kept.restart(T0 + FIRING_AT + 300)
    kept.pipeline.tick(T0 + FIRING_AT + 301)
    kept.feed(MadeUp(), range(FIRING_AT + 302, FIRING_AT + 330))
    kept.pipeline.tick(T0 + FIRING_AT + 340)
    assert kept.states == ["pending", "firing"]
    assert next(iter(kept.readers.alerts.values())).starts_at == started
    assert kept.readers.only.verdict is Verdict.LEAKING


def test_a_large_fleet_gets_a_shorter_past_back_that_ends_with_its_last_sample(rig: Rig) -> None:
    rig.feed(MadeUp(), range(3))
    assert rig.pipeline._restore_from(T0 + 3) == T0 + 3 - pipeline.RESTORE_SECONDS
    fleet = Rig()
    for index in range(2):
        fleet.pipeline.process([MadeUp(instance=f"i{n}").decoded(index) for n in range(90)], T0 + index)
    down = 1800.0
    span = T0 + 1 - fleet.pipeline._restore_from(T0 + down)
    assert pipeline.LEAST_RESTORE_SECONDS <= span < pipeline.RESTORE_SECONDS
    assert fleet.pipeline._restore_from(T0 + 86400.0) == T0 + 86400.0 - pipeline.RESTORE_SECONDS


# --- processes that end --------------------------------------------------------------------------------------


def test_a_silent_process_is_ended_and_after_long_forgotten(kept: Rig) -> None:
    kept.feed(MadeUp(), range(FIRING_AT))
    process_id = kept.readers.only.process.id
    silent = T0 + FIRING_AT + 3700
    kept.pipeline.tick(silent)
    assert kept.states == ["pending", "firing", "resolved"]
    gone = kept.readers.only
    assert (gone.verdict, gone.leak_score, gone.suspects) == (Verdict.UNKNOWN, None, ())
    assert gone.memory_bytes is not None
    assert "silent" in gone.reasons[0] or "sent nothing" in gone.reasons[0]
    assert process_id not in kept.table
    kept.restart(silent + 1)
    assert kept.readers.only.leak_score is None
    kept.pipeline.tick(silent + pipeline.FORGET_SECONDS)
    assert kept.readers.processes == {}
    assert kept.readers.forgotten == [process_id]
    assert len(kept.told) == 3


def test_a_process_that_comes_back_is_the_same_one(rig: Rig) -> None:
    rig.feed(MadeUp(leak_per_call=0), range(40))
    rig.pipeline.tick(T0 + 40 + 3700)
    later = 40 + 3800
    rig.feed(MadeUp(leak_per_call=0), range(later, later + 40))
    assert rig.readers.only.first_seen == T0
    assert rig.readers.only.verdict is Verdict.HEALTHY
    rig.pipeline.tick(T0 + later + 45)
    assert rig.readers.only.verdict is Verdict.HEALTHY


def test_a_sender_whose_clock_is_hours_slow_is_not_taken_for_silent(rig: Rig) -> None:
    for index in range(FIRING_AT):
        now = T0 + index + 7200
        rig.pipeline.process([MadeUp().decoded(index)], now)
        rig.pipeline.tick(now)
    assert rig.readers.only.verdict is Verdict.LEAKING
    assert rig.states == ["pending", "firing"]


def test_a_sender_whose_clock_is_put_back_begins_anew_and_is_judged_again(kept: Rig) -> None:
    ahead = MadeUp(begin=T0 + 7200)
    for index in range(FIRING_AT):
        kept.pipeline.process([ahead.decoded(index)], T0 + index)
    assert kept.states == ["pending", "firing"]
    right = MadeUp(begin=T0 + FIRING_AT, leak_per_call=0)
    kept.feed(right, range(60))
    assert kept.states == ["pending", "firing", "resolved"]
    assert kept.readers.only.verdict is Verdict.HEALTHY
    assert kept.readers.only.last_seen == T0 + FIRING_AT + 59
    # A restart finds the samples of the wrong times, and gets over them again.
    kept.restart(T0 + FIRING_AT + 60)
    kept.feed(right, range(60, 110))
    assert kept.readers.only.verdict is Verdict.HEALTHY
    assert kept.readers.only.last_seen == T0 + FIRING_AT + 109


def test_a_request_that_is_repeated_by_a_sender_whose_clock_is_ahead_is_no_clock_put_back(rig: Rig) -> None:
    ahead = MadeUp(begin=T0 + 7200)
    for index in range(FIRING_AT):
        rig.pipeline.process([ahead.decoded(index)], T0 + index)
    rig.pipeline.process([ahead.decoded(FIRING_AT - 10)], T0 + FIRING_AT)
    assert rig.readers.only.verdict is Verdict.LEAKING


def test_when_the_machines_own_clock_is_put_back_time_goes_on(rig: Rig) -> None:
    rig.pipeline.tick(T0 + 7200)
    rig.feed(MadeUp(), range(20))
    rig.pipeline.tick(T0 + 20)
    assert rig.readers.only.process.id in rig.table
    rig.pipeline.tick(T0 + 20 + 3700)
    assert rig.readers.only.process.id not in rig.table


# --- bounds --------------------------------------------------------------------------------------------------


def test_more_processes_than_windows_keep_their_alerts_and_are_counted(tmp_path: Path) -> None:
    rig = Rig(max_processes=2)
    rig.feed(MadeUp(instance="leaking"), range(FIRING_AT))
    for number in range(5):
        rig.feed(MadeUp(instance=f"other-{number}"), range(FIRING_AT, FIRING_AT + 1))
    rig.pipeline.tick(T0 + FIRING_AT + 1)
    assert len(rig.table) == 2
    assert rig.stats.total(DROPPED, part="evicted processes") == 4
    assert rig.states == ["pending", "firing"]
    rig.pipeline.tick(T0 + FIRING_AT + 3700)
    assert rig.states == ["pending", "firing", "resolved"]


def test_remembered_processes_are_bounded_and_those_that_go_end_their_alerts() -> None:
    rig = Rig(max_processes=50, max_known=20)
    rig.feed(MadeUp(instance="leaking"), range(FIRING_AT))
    for number in range(100):
        rig.feed(MadeUp(instance=f"other-{number}"), range(FIRING_AT, FIRING_AT + 1), T0 + FIRING_AT + number)
    assert len(rig.pipeline._known) <= 20
    assert len(rig.readers.processes) <= 20
    assert rig.states == ["pending", "firing", "resolved"]
    assert rig.stats.total(DROPPED, part="remembered processes") >= 81


def test_while_the_store_fails_what_is_owed_is_bounded(kept: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from otel_memory.analyzer import keeper

    monkeypatch.setattr(keeper, "MAX_OWED_PROCESSES", 10)
    assert kept.store is not None
    kept.store.failing = True
    for number in range(30):
        process = MadeUp(instance=f"i{number}")
        kept.pipeline.process([process.decoded(0), *[process.event(index) for index in range(150)]], T0)
    assert kept.stats.total(DROPPED, part="processes that the store missed") > 0
    assert kept.stats.total(DROPPED, part="events that the store missed") == 30 * 50
    kept.store.failing = False
    kept.pipeline.tick(T0 + 60)
    assert kept.store.sizes().processes == 10


def test_the_settings_of_alerting_are_used() -> None:
    rig = Rig(alerting=AlertingSettings(for_seconds=0.0))
    rig.feed(MadeUp(), range(FIRING_AT - 10))
    assert rig.states == ["pending", "firing"]


def test_what_the_process_found_stands_among_its_suspects_also_after_a_restart(kept: Rig) -> None:
    process = MadeUp()
    attributes = {
        names.EVIDENCE_GROWTH: 100_000.0,
        names.EVIDENCE_CONFIDENCE: 0.9,
        names.EVIDENCE_SITE: ("shop/cart.py:41 add",),
        names.EVIDENCE_SITE_GROWTH: (95_000.0,),
    }

    def named() -> list[str]:
        return [suspect.name for suspect in kept.readers.only.suspects]

    kept.feed(process, range(FIRING_AT - 20))
    event = Event(names.EVENT_EVIDENCE, process.time(FIRING_AT - 20), 13, attributes, None)
    payload = Payload(process.payload(FIRING_AT - 20).resource, (), (event,))
    kept.pipeline.process([Decoded([payload], 1, 0, "")], event.time)
    kept.feed(process, range(FIRING_AT - 20, FIRING_AT))
    assert set(named()) >= {"shop/cart.py:41 add", f"GET {LEAKING_ROUTE}"}
    before = named()
    kept.restart(process.time(FIRING_AT))
    assert named() == before
    kept.feed(process, range(FIRING_AT, FIRING_AT + 3))
    assert named().count("shop/cart.py:41 add") == 1
