"""Verdicts and alerts in event time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_memory.analyzer import alert_texts
from otel_memory.analyzer.alerting import (
    MEMORY_LEAK,
    MEMORY_LIMIT_NEAR,
    AlertingSettings,
    AlertingState,
    Step,
    active,
    alert_id,
    step,
)
from otel_memory.analyzer.model import (
    Alert,
    AlertState,
    Assessment,
    ProcessInfo,
    Suspect,
    TimeToLimit,
    Trend,
    Verdict,
)

MIB = 1 << 20
PROCESS = ProcessInfo("p1", "shop", service_instance_id="a1", host_name="box", pid=7)
SUSPECT = Suspect("route", "GET /cart", 1.1e6, 0.93, 0.97, "each call of GET /cart kept 30.0 kB")
PENDING, FIRING, RESOLVED = AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED


def assess(
    time: float,
    score: float | None,
    *,
    memory: int = 200 * MIB,
    limit: int | None = 512 * MIB,
    seconds: float | None = None,
    process: ProcessInfo = PROCESS,
) -> Assessment:
    return Assessment(
        process=process,
        first_seen=0.0,
        last_seen=time,
        memory_bytes=memory,
        limit_bytes=limit,
        limit_kind="cgroup_v2",
        verdict=Verdict.UNKNOWN,
        leak_score=score,
        trend=Trend.INCREASING,
        growth_bytes_per_second=1.2e6,
        time_to_limit=None if seconds is None else TimeToLimit(seconds, seconds * 0.8, seconds * 1.3),
        reasons=("the floor rises steadily",),
        suspects=(SUSPECT,),
    )


class Live:
    """Steps one process through assessments, and keeps what came out."""

    def __init__(self, settings: AlertingSettings | None = None, state: AlertingState | None = None) -> None:
        # Half of the default, so that the stories of the tests are short ones.
        self.settings = settings or AlertingSettings(leak_seconds=4.0, young_seconds=0.0)
        self.state = state
        self.changes: list[tuple[float, Alert]] = []
        self.verdicts: list[Verdict] = []

    def step(self, assessment: Assessment, now: float | None = None, *, gone: bool = False) -> Step:
        now = assessment.last_seen if now is None else now
        result = step(self.state, assessment, now, self.settings, gone=gone)
        self.state = result.state
        self.changes += [(now, alert) for alert in result.changes]
        self.verdicts.append(result.verdict)
        return result

    def run(self, scores: Iterable[float | None], start: float = 1.0, spacing: float = 1.0) -> float:
        """The time after the last one."""
        for score in scores:
            self.step(assess(start, score))
            start += spacing
        return start

    def states(self, name: str = MEMORY_LEAK) -> list[AlertState]:
        return [alert.state for _, alert in self.changes if alert.name == name]


def test_one_high_score_decides_nothing() -> None:
    live = Live()
    live.run([0.1] * 20 + [0.99] + [0.1] * 20)
    assert set(live.verdicts) == {Verdict.HEALTHY}
    assert live.changes == []


def test_the_verdict_goes_from_unknown_over_watch_to_leaking() -> None:
    live = Live()
    live.run([None, None, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert live.verdicts == [Verdict.UNKNOWN] * 4 + [Verdict.WATCH] * 2 + [Verdict.LEAKING]


def test_a_middling_score_that_lasts_is_to_be_watched_and_not_leaking() -> None:
    live = Live()
    live.run([0.2] + [0.6] * 100)
    assert live.verdicts[-1] is Verdict.WATCH
    assert live.changes == []


@pytest.mark.parametrize(("spacing", "longest"), [(1.0, 8.0), (10.0, 60.0), (60.0, 300.0)])
def test_it_takes_as_many_samples_whatever_their_spacing(spacing: float, longest: float) -> None:
    """With a sample a minute five of them, not five seconds' worth; and no longer than that either."""
    live = Live()
    live.run([0.1] * 10 + [0.95] * 10, spacing=spacing)
    leaking = live.verdicts.index(Verdict.LEAKING)
    assert leaking == 14
    assert (leaking - 10) * spacing <= longest


def test_high_scores_count_although_some_in_between_are_only_doubtful() -> None:
    live = Live()
    live.run([0.9, 0.7, 0.9, 0.7, 0.9, 0.7, 0.9, 0.7, 0.9])
    assert live.verdicts[-1] is Verdict.LEAKING


def test_a_leak_is_over_only_when_the_score_stayed_low() -> None:
    live = Live()
    after = live.run([0.9] * 10)
    after = live.run([0.2, 0.2, 0.6] * 15, after)
    assert set(live.verdicts[5:]) == {Verdict.LEAKING}
    live.run([0.2] * 40, after)
    assert live.verdicts[-1] is Verdict.HEALTHY
    assert live.verdicts[-12] is Verdict.LEAKING


def test_a_doubt_that_never_grows_ends() -> None:
    live = Live()
    live.run([0.9] * 10 + [0.45] * 120)
    assert live.verdicts[50] is Verdict.LEAKING
    assert live.verdicts[-1] is Verdict.HEALTHY
    assert live.verdicts[-20] is Verdict.HEALTHY
    assert live.states() == [PENDING, FIRING, RESOLVED]


def test_an_alert_is_pending_then_firing_then_resolved() -> None:
    live = Live(AlertingSettings(young_seconds=0, for_seconds=10, leak_seconds=4))
    live.run([0.9] * 30 + [0.1] * 60)
    assert live.states() == [PENDING, FIRING, RESOLVED]
    (pending_at, pending), (firing_at, firing), (resolved_at, resolved) = live.changes
    assert pending_at == 5.0
    assert firing_at == 15.0
    assert pending.starts_at == firing.starts_at == resolved.starts_at == 5.0
    assert (pending.ends_at, firing.ends_at, resolved.ends_at) == (None, None, resolved_at)
    assert {alert.id for _, alert in live.changes} == {alert_id(MEMORY_LEAK, "p1")}


def test_the_id_depends_on_name_and_process_alone() -> None:
    assert len(alert_id(MEMORY_LEAK, "p1")) == 16
    assert int(alert_id(MEMORY_LEAK, "p1"), 16)
    assert len({alert_id(name, one) for name in (MEMORY_LEAK, MEMORY_LIMIT_NEAR) for one in ("p1", "p2")}) == 4


def test_the_longer_a_process_was_healthy_the_longer_a_leak_must_hold() -> None:
    """A sixth of what was seen, of at most 256 samples: 43 s at one sample a second."""
    young, old = Live(), Live()
    young.run([0.1] * 30 + [0.9] * 10)
    old.run([0.1] * 600 + [0.9] * 40)
    assert young.verdicts[-1] is Verdict.LEAKING
    assert old.verdicts[-1] is Verdict.WATCH
    old.run([0.9] * 10, 640)
    assert old.verdicts[-1] is Verdict.LEAKING


def test_a_leak_that_will_soon_meet_the_limit_is_not_waited_for() -> None:
    live = Live()
    live.run([0.1] * 600)
    for second in range(601, 612):
        live.step(assess(second, 0.9, seconds=60.0))
    assert live.verdicts[-1] is Verdict.LEAKING


@pytest.mark.parametrize(("seconds", "first"), [(None, 75), (3600.0, 75), (1200.0, 60), (60.0, 53)])
def test_a_young_process_is_given_time_unless_its_limit_is_near(seconds: float | None, first: int) -> None:
    live = Live(AlertingSettings())
    for second in range(1, 100):
        live.step(assess(second, 0.95, seconds=seconds))
    assert live.verdicts.index(Verdict.LEAKING) + 1 == first


def test_what_a_high_score_left_behind_begins_no_leak() -> None:
    """It filled a cache, and is merely doubtful by the time that it could be called one."""
    live = Live(AlertingSettings())
    live.run([0.95] * 60 + [0.6] * 60)
    assert set(live.verdicts[-60:]) == {Verdict.WATCH}


def test_what_has_stopped_to_grow_is_healthy_sooner_than_what_only_grows_less() -> None:
    stopped, slower = Live(), Live()
    for live, trend in ((stopped, Trend.STABLE), (slower, Trend.INCREASING)):
        after = live.run([0.9] * 10)
        for second in range(40):
            live.step(replace(assess(after + second, 0.45), trend=trend))
    assert stopped.verdicts[-1] is Verdict.HEALTHY
    assert slower.verdicts[-1] is Verdict.LEAKING


def test_a_new_episode_has_the_same_id_and_a_new_start() -> None:
    live = Live(AlertingSettings(young_seconds=0, cooldown_seconds=60))
    live.run([0.9] * 20 + [0.1] * 120 + [0.9] * 60)
    assert live.states() == [PENDING, FIRING, RESOLVED, PENDING, FIRING]
    first, second = live.changes[0][1], live.changes[3][1]
    assert first.id == second.id
    assert first.starts_at < second.starts_at


def test_flapping_is_damped_by_the_cooldown() -> None:
    live = Live(AlertingSettings(young_seconds=0, cooldown_seconds=300, leak_share=0))
    live.run(([0.9] * 20 + [0.1] * 40) * 20)
    pendings = [at for at, alert in live.changes if alert.state is PENDING]
    resolved = [at for at, alert in live.changes if alert.state is RESOLVED]
    assert len(pendings) > 1, "a leak that comes back is told again"
    assert all(start - end >= 300 for start, end in zip(pendings[1:], resolved, strict=False))


def test_a_process_that_restarts_for_long_has_its_alert_resolved() -> None:
    live = Live()
    after = live.run([0.9] * 30)
    after = live.run([None] * 40, after)
    assert live.states() == [PENDING, FIRING], "a short gap in the judgement ends nothing"
    live.run([None] * 60, after)
    assert live.states() == [PENDING, FIRING, RESOLVED]
    assert live.verdicts[-1] is Verdict.UNKNOWN


def test_a_process_that_is_gone_has_its_alerts_resolved_once() -> None:
    live = Live()
    for second in range(1, 31):
        live.step(assess(second, 0.9, memory=500 * MIB, seconds=20.0))
    last = assess(30, 0.9, memory=500 * MIB, seconds=20.0)
    assert len(active(live.state, last)) == 2
    live.step(last, 4000.0, gone=True)
    live.step(last, 4001.0, gone=True)
    assert live.states() == live.states(MEMORY_LIMIT_NEAR) == [PENDING, FIRING, RESOLVED]
    assert live.verdicts[-1] is Verdict.UNKNOWN
    assert active(live.state, last) == ()
    summary = live.changes[-1][1].summary
    assert summary == "shop is gone; it was last seen with 98 % of its limit in use and may have been ended by it"


def test_the_passing_of_time_alone_fires_a_pending_alert_but_judges_nothing() -> None:
    live = Live()
    live.run([0.9] * 5)
    assert live.states() == [PENDING]
    live.step(assess(5.0, 0.9), 16.0)
    assert live.states() == [PENDING, FIRING]
    again = Live()
    for now in range(5, 50):
        again.step(assess(5.0, 0.9), float(now))
    assert set(again.verdicts) == {Verdict.UNKNOWN}, "one sample counts once, however often it is looked at"


@pytest.mark.parametrize(
    ("memory", "score", "seconds", "near"),
    [
        (480, 0.1, None, True),
        (440, 0.1, None, False),
        (300, 0.95, 600.0, True),
        (300, 0.95, 1000.0, False),
        (300, 0.6, 600.0, False),
        (100, 0.95, 600.0, False),
    ],
    ids=["in use", "not yet", "soon", "not soon", "soon by a leak that isn't sure", "soon from far away"],
)
def test_the_limit_is_near_in_use_or_in_time(memory: int, score: float, seconds: float | None, near: bool) -> None:
    live = Live()
    for second in range(1, 40):
        live.step(assess(second, score, memory=memory * MIB, seconds=seconds))
    assert live.states(MEMORY_LIMIT_NEAR) == ([PENDING, FIRING] if near else [])


def test_near_the_limit_ends_with_hysteresis() -> None:
    live = Live()
    for second in range(1, 400):
        used = 465 if second < 50 else 450 if second < 200 else 300
        live.step(assess(second, 0.1, memory=used * MIB))
    assert live.states(MEMORY_LIMIT_NEAR) == [PENDING, FIRING, RESOLVED]
    assert live.changes[-1][0] > 200 + 29


def test_without_a_limit_nothing_is_near() -> None:
    live = Live()
    for second in range(1, 40):
        live.step(assess(second, 0.9, limit=None))
    assert live.states(MEMORY_LIMIT_NEAR) == []


@pytest.mark.parametrize(("seconds", "severity"), [(240.0, "critical"), (7200.0, "warning"), (None, "warning")])
def test_a_leak_is_critical_if_it_reaches_the_limit_soon(seconds: float | None, severity: str) -> None:
    live = Live()
    for second in range(1, 20):
        live.step(assess(second, 0.9, seconds=seconds))
    assert {alert.severity for _, alert in live.changes if alert.name == MEMORY_LEAK} == {severity}
    assert {alert.severity for _, alert in live.changes if alert.name == MEMORY_LIMIT_NEAR} <= {"critical"}


def test_the_summary_says_how_fast_when_and_who() -> None:
    live = Live()
    for second in range(1, 30):
        live.step(assess(second, 0.9, memory=480 * MIB, seconds=240.0))
    fired = {alert.name: alert for _, alert in live.changes if alert.state is FIRING}
    leak, near = fired[MEMORY_LEAK], fired[MEMORY_LIMIT_NEAR]
    assert leak.summary == (
        "shop leaks 72.0 MB/min and reaches its limit of 512 MiB in 4 min; first suspect: route GET /cart"
    )
    assert near.summary == "shop is near its limit of 512 MiB: 94 % in use, reached in 4 min"
    assert "instance a1, host box, pid 7" in leak.description
    assert "The floor rises steadily." in leak.description
    assert "Route GET /cart: each call of GET /cart kept 30.0 kB." in leak.description
    assert leak.suspects == (SUSPECT,)


def test_labels_are_identity_and_figures_are_annotations() -> None:
    """Labels that change make another alert of it at the receiver."""
    live = Live()
    for second in range(1, 90):
        score = 0.9 if second < 40 else 0.1
        live.step(replace(assess(second, score, memory=(200 + second) * MIB), growth_bytes_per_second=second * 1e4))
    labels = [alert.labels for _, alert in live.changes]
    assert len(labels) == 3
    assert labels[0] == labels[1] == labels[2]
    assert labels[0] == {
        "alertname": "memory_leak",
        "severity": "warning",
        "process_id": "p1",
        "service_name": "shop",
        "service_instance_id": "a1",
        "host_name": "box",
    }
    first, last = live.changes[0][1].annotations, live.changes[-1][1].annotations
    assert first["leak_score"] == "0.900"
    assert last["leak_score"] == "0.100"
    assert first["first_suspect"] == "route:GET /cart"
    assert int(first["memory_bytes"]) == 205 * MIB


def test_what_is_active_is_told_with_the_latest_figures() -> None:
    live = Live()
    live.run([0.9] * 20)
    (alert,) = active(live.state, replace(assess(21.0, 0.9), growth_bytes_per_second=5e6))
    assert alert.state is FIRING
    assert alert.summary.startswith("shop leaks 300 MB/min")
    assert active(None, assess(1.0, 0.9)) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"leak_score": 0.4},
        {"healthy_score": 0.6},
        {"clear_utilization": 0.95},
        {"clear_seconds": 10.0},
        {"for_seconds": -1.0},
        {"leak_evaluations": 0},
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).partition("_")[0]):
        AlertingSettings(**wrong)  # type: ignore[arg-type]


def test_a_state_of_an_unknown_form_is_refused() -> None:
    kept = AlertingState().to_dict()
    with pytest.raises(ValueError, match="form 99"):
        AlertingState.from_dict({**kept, "form": 99})
    with pytest.raises(KeyError):
        AlertingState.from_dict({})


SCORES = st.one_of(st.none(), st.sampled_from([0.0, 0.2, 0.34, 0.4, 0.5, 0.7, 0.8, 1.0]))
RUNS = st.lists(
    st.tuples(SCORES, st.integers(1, 60), st.sampled_from([1.0, 1.0, 7.0, 60.0, 900.0]), st.integers(100, 512)),
    max_size=25,
)


def samples(runs: Sequence[tuple[float | None, int, float, int]]) -> list[Assessment]:
    time, found = 0.0, []
    for score, count, spacing, used in runs:
        for _ in range(count):
            time += spacing
            found.append(assess(time, score, memory=used * MIB, seconds=800.0 if used > 400 else None))
    return found


@settings(max_examples=60, deadline=None)
@given(RUNS, st.data())
def test_a_restart_in_between_changes_nothing_and_replay_says_nothing_twice(
    runs: list[tuple[float | None, int, float, int]], data: st.DataObject
) -> None:
    """Killed anywhere, with the state as JSON, and with input from before the kill coming in again."""
    inputs = samples(runs)
    live, restarted = Live(), Live()
    for one in inputs:
        live.step(one)
    cut = data.draw(st.integers(0, len(inputs)))
    for one in inputs[:cut]:
        restarted.step(one)
    if restarted.state is not None:
        restarted.state = AlertingState.from_dict(json.loads(json.dumps(restarted.state.to_dict())))
    for one in inputs[max(cut - 5, 0) :]:
        restarted.step(one)
    assert restarted.changes == live.changes
    assert restarted.state == live.state


@settings(max_examples=60, deadline=None)
@given(RUNS)
def test_alerts_go_through_their_states_in_order(runs: list[tuple[float | None, int, float, int]]) -> None:
    live = Live()
    for one in samples(runs):
        live.step(one)
    for name in (MEMORY_LEAK, MEMORY_LIMIT_NEAR):
        episodes: dict[float, list[AlertState]] = {}
        for at, alert in live.changes:
            if alert.name == name:
                episodes.setdefault(alert.starts_at, []).append(alert.state)
                assert (alert.ends_at == at) if alert.state is RESOLVED else alert.ends_at is None
        allowed = ([PENDING], [PENDING, FIRING], [PENDING, FIRING, RESOLVED], [PENDING, RESOLVED])
        assert all(states in allowed for states in episodes.values())
        ended = [states[-1] is RESOLVED for states in episodes.values()]
        assert all(ended[:-1]), "one episode at a time"


def test_the_summary_of_a_leak_names_no_growth_while_there_is_none() -> None:
    falling = replace(assess(0.0, 0.9), growth_bytes_per_second=-9000.0)
    summary, _ = alert_texts.leak(falling, AlertState.FIRING, gone=False)
    assert "leaks" in summary
    assert "-" not in summary
