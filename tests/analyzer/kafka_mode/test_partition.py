"""A partition's judgement is a function of its log: not of batches, commits, or who judged it before."""

from __future__ import annotations

import json
import random

import pytest

from otel_memory import names
from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.kafka.records import AssessmentRecord
from otel_memory.analyzer.model import AlertState, Decoded, Event, Payload, Verdict
from tests.analyzer.kafka_mode.world import Committed, Logged, judge, made_log, new_partition, taken_over
from tests.analyzer.made_up import MIB, MadeUp

SECONDS = 1700.0
PROCESSES = (
    MadeUp("leak", spacing=10.0, leak_per_call=400_000, limit=2048 * MIB),
    MadeUp("calm", spacing=20.0, leak_per_call=0),
    MadeUp("again", spacing=15.0, leak_per_call=400_000, restart_at=60, limit=2048 * MIB),
    MadeUp("gone", spacing=10.0, leak_per_call=400_000, limit=2048 * MIB),
)
GONE_AT, CALM_FROM, CALM_UNTIL = 70, 30, 45


def silent(process: MadeUp, index: int) -> bool:
    """``gone`` ends for good, ``calm`` comes back after it was taken for gone."""
    return (process.instance == "gone" and index >= GONE_AT) or (
        process.instance == "calm" and CALM_FROM <= index < CALM_UNTIL
    )


@pytest.fixture(scope="module")
def log() -> list[Logged]:
    return made_log(PROCESSES, SECONDS, silent=silent)


@pytest.fixture(scope="module")
def undisturbed(log: list[Logged]) -> Committed:
    return judge(log, commits=range(0, len(log), 20))


def of(committed: Committed) -> dict[str | None, AssessmentRecord]:
    records = (AssessmentRecord.from_bytes(value) for value in committed.records.values())
    return {record.assessment.process.service_instance_id: record for record in records}


def told(committed: Committed) -> list[str]:
    return [change.id for change in committed.changes]


def test_the_log_holds_what_it_is_about(undisturbed: Committed) -> None:
    last = of(undisturbed)
    assert last["leak"].assessment.verdict is Verdict.LEAKING
    assert last["calm"].assessment.verdict is Verdict.HEALTHY
    states = {change.alert.state for change in undisturbed.changes}
    assert states == {AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED}
    gone = identify(PROCESSES[3].payload(0).resource)
    assert gone is not None
    assert undisturbed.forgotten == [gone.id]
    assert "gone" not in last
    assert last["calm"].state.gone is False
    assert len(set(told(undisturbed))) == len(told(undisturbed))


@pytest.mark.parametrize("every", [1, 100_000])
def test_when_is_committed_changes_nothing(log: list[Logged], undisturbed: Committed, every: int) -> None:
    other = judge(log, commits=range(0, len(log), every))
    assert sorted(told(other)) == sorted(told(undisturbed))
    for instance, record in of(undisturbed).items():
        assert of(other)[instance].assessment == record.assessment
        assert of(other)[instance].state == record.state


def test_an_analyzer_that_is_behind_writes_less_and_judges_the_same(log: list[Logged], undisturbed: Committed) -> None:
    other = judge(log, commits=range(len(log)), behind=True)
    assert sorted(told(other)) == sorted(told(undisturbed))
    assert other.written < len(log) - 10, "else there is one for each sample"
    for instance, record in of(undisturbed).items():
        assert of(other)[instance].assessment == record.assessment
        assert of(other)[instance].state == record.state


@pytest.mark.parametrize("behind", [False, True])
def test_a_worker_that_takes_over_judges_as_one_that_was_never_disturbed(
    log: list[Logged], undisturbed: Committed, behind: bool
) -> None:
    chance = random.Random(int(behind))
    commits = sorted(chance.sample(range(len(log)), 60))
    kills = sorted(chance.sample(range(len(log)), 5))
    other = judge(log, commits=commits, kills=kills, behind=behind)
    assert sorted(told(other)) == sorted(told(undisturbed))
    assert other.forgotten == undisturbed.forgotten
    assert of(other).keys() == of(undisturbed).keys()
    for instance, record in of(undisturbed).items():
        mine, its = of(other)[instance].assessment, record.assessment
        assert (mine.verdict, mine.last_seen, mine.first_seen) == (its.verdict, its.last_seen, its.first_seen)
        assert mine.leak_score == pytest.approx(its.leak_score, abs=1e-9)
        assert mine.growth_bytes_per_second == pytest.approx(its.growth_bytes_per_second, rel=1e-6)
        assert [suspect.name for suspect in mine.suspects] == [suspect.name for suspect in its.suspects]


def test_a_record_comes_back_as_it_went(undisturbed: Committed) -> None:
    for value in undisturbed.records.values():
        assert AssessmentRecord.from_bytes(value).to_bytes() == value


def test_a_record_of_another_form_is_refused(undisturbed: Committed) -> None:
    document = json.loads(next(iter(undisturbed.records.values())))
    with pytest.raises(ValueError, match="form 99"):
        AssessmentRecord.from_bytes(json.dumps({**document, "form": 99}).encode())


def test_what_a_process_found_stands_among_its_suspects_also_after_a_takeover() -> None:
    process = MadeUp("leak", spacing=10.0, leak_per_call=400_000, limit=2048 * MIB)
    info = identify(process.payload(0).resource)
    assert info is not None
    log = made_log([process], 600.0, silent=lambda _process, _index: False)
    partition, committed = new_partition(), Committed()
    for one in log[:50]:
        partition.take(decode(one.value, "metrics", "protobuf"), one.at)
    now = log[49].at
    # The second is of a clock that is days ahead.
    for at, site in ((now, "shop/cart.py:41 add"), (now + 2 * 86400, "shop/orders.py:7 keep")):
        found = {
            names.EVIDENCE_GROWTH: 100_000.0,
            names.EVIDENCE_CONFIDENCE: 0.9,
            names.EVIDENCE_SITE: (site,),
            names.EVIDENCE_SITE_GROWTH: (95_000.0,),
        }
        event = Event(names.EVENT_EVIDENCE, at, 13, found, None)
        payload = Payload(process.payload(49).resource, (), (event,))
        assert partition.happened(Decoded([payload], 1, 0, ""), now) == {info.id: [event]}
    for one in log[50:55]:
        partition.take(decode(one.value, "metrics", "protobuf"), one.at)
    committed.take(partition.outcome(), 55, partition.now)

    def sites() -> list[str]:
        (record,) = of(committed).values()
        return [suspect.name for suspect in record.assessment.suspects if suspect.kind == "site"]

    assert sites() == ["shop/cart.py:41 add"]
    after = taken_over(log, committed)
    for one in log[55:]:
        after.take(decode(one.value, "metrics", "protobuf"), one.at)
    committed.take(after.outcome(), len(log), after.now)
    assert sites() == ["shop/cart.py:41 add"]
