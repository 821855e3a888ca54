"""The sampler: one tick with the time as an argument, and the beat of its thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe.ledger import LOG_EVERY_SECONDS, MAX_PARTS, Ledger
from otel_memory.probe.rules import parse_rule
from otel_memory.probe.sampler import PATIENCE_SECONDS, THREAD_NAME, Read, Sampler, Ticker, next_deadline
from otel_memory.probe.sources import Observe, one
from otel_memory.probe.thresholds import Crossing

RSS = names.PROCESS_MEMORY_USAGE
RULE = parse_rule("big=rss>100:cooldown=0")


def observers(readers: dict[str, Read]) -> Callable[[str], Observe | None]:
    """What observes each metric that there is a reader for."""

    def observer(metric: str) -> Observe | None:
        read = readers.get(metric)
        return None if read is None else lambda: one(read())

    return observer


class Memory:
    """A fake process: its readings, and what was told of them."""

    def __init__(self) -> None:
        self.rss: float | None = 50.0
        self.told: list[tuple[str, str, int]] = []
        self.ledger = Ledger(clock=lambda: 0.0, logger=logging.getLogger("test.silent"))

    def tell(self, crossing: Crossing, event_id: str, time_ns: int) -> None:
        self.told.append((crossing.kind, event_id, time_ns))

    def sampler(self, *rules: str, readers: dict[str, Read] | None = None, **kwargs: object) -> Sampler:
        return Sampler(
            [parse_rule(text) for text in rules] or [RULE],
            observers({RSS: lambda: self.rss} if readers is None else readers),
            kwargs.pop("limit", lambda: None),  # type: ignore[arg-type]
            kwargs.pop("tell", self.tell),  # type: ignore[arg-type]
            self.ledger,
            wall_ns=lambda: 42,
            **kwargs,  # type: ignore[arg-type]
        )


@pytest.fixture
def memory() -> Memory:
    return Memory()


def fail() -> float | None:
    raise OSError("gone")


def test_a_crossing_and_its_recovery_are_told_with_one_id_and_the_time_of_day(memory: Memory) -> None:
    sampler = memory.sampler()
    for now, memory.rss in enumerate([50.0, 150.0, 160.0, 40.0]):
        sampler.tick(float(now))
    (crossed, crossed_id, at), (recovered, recovered_id, _) = memory.told
    assert (crossed, recovered) == ("crossed", "recovered")
    assert crossed_id == recovered_id
    assert at == 42


def test_ids_differ_between_episodes_rules_and_processes(memory: Memory) -> None:
    one, other = memory.sampler(), memory.sampler()
    small = parse_rule("small=rss>1")
    ids = [one.event_id(RULE, 1), one.event_id(RULE, 2), one.event_id(small, 1), other.event_id(RULE, 1)]
    assert len(set(ids)) == 4
    assert one.event_id(RULE, 1) == ids[0]


def test_a_failed_reading_is_a_gap_and_counted(memory: Memory) -> None:
    fds = parse_rule("fds>10").metric
    sampler = memory.sampler("big=rss>100", "fds>10", readers={RSS: fail, fds: lambda: 11.0})
    sampler.tick(1.0)
    assert [kind for kind, _, _ in memory.told] == ["crossed"], "the other metric has its turn"
    assert memory.ledger.failures == {RSS: 1}


def test_each_part_has_its_turn_when_another_fails(memory: Memory) -> None:
    done: list[str] = []
    sampler = memory.sampler(
        refresh=[("process", fail), ("heap", lambda _now: done.append("heap"))],
        drains=[("gc", fail), ("more", lambda: done.append("more"))],
    )
    memory.rss = 150
    sampler.tick(1.0)
    assert done == ["heap", "more"]
    assert [kind for kind, _, _ in memory.told] == ["crossed"]
    assert memory.ledger.failures == {"process": 1, "gc": 1}


def test_an_event_that_can_not_be_told_is_counted_and_its_recovery_still_told(memory: Memory) -> None:
    def tell(crossing: Crossing, event_id: str, time_ns: int) -> None:
        if crossing.kind == "crossed":
            raise OSError("no way")
        memory.tell(crossing, event_id, time_ns)

    sampler = memory.sampler(tell=tell)
    for now, memory.rss in enumerate([150.0, 40.0]):
        sampler.tick(float(now))
    assert [kind for kind, _, _ in memory.told] == ["recovered"]
    assert memory.ledger.failures == {"thresholds": 1}


def test_only_what_a_rule_asks_about_is_read(memory: Memory) -> None:
    sampler = memory.sampler("big=rss>100", readers={RSS: lambda: 1.0, names.PROCESS_FD_COUNT: fail}, limit=fail)
    sampler.tick(1.0)
    assert memory.ledger.failures == {}


def test_a_rule_about_what_nobody_emits_is_told_once(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    there: dict[str, Read] = {}
    sampler = memory.sampler("big=rss>100", "fds>10", "more=fds>20", readers=there)
    there[RSS] = lambda: 150.0
    for now in range(5):
        sampler.tick(float(now))
    assert [kind for kind, _, _ in memory.told] == ["crossed"], "the other rules are judged"
    assert memory.ledger.failures == {}
    (record,) = caplog.records
    assert f"{names.PROCESS_FD_COUNT} is emitted by nothing" in record.getMessage()
    assert "fds>10, more" in record.getMessage()
    there[names.PROCESS_FD_COUNT] = lambda: 30.0  # a feature brings it in later
    sampler.tick(9.0)
    assert [kind for kind, _, _ in memory.told] == ["crossed"] * 3


def test_a_subject_without_a_value_is_told_after_a_while(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    values: dict[str, float | None] = {RSS: None, names.PROCESS_FD_COUNT: 1.0}
    sampler = memory.sampler("rss>100", "fds>10", readers={name: lambda name=name: values[name] for name in values})  # type: ignore[misc]
    sampler.tick(0.0)
    sampler.tick(PATIENCE_SECONDS - 1)
    values[names.PROCESS_FD_COUNT] = None  # one that has had a value has a gap, and nothing is said
    assert caplog.records == []
    sampler.tick(PATIENCE_SECONDS)
    sampler.tick(3 * PATIENCE_SECONDS)
    (record,) = caplog.records
    assert f"{RSS} has had no value" in record.getMessage()


def test_a_rule_reads_the_points_with_its_attributes_their_sum_or_their_highest_share(memory: Memory) -> None:
    generation, kind = names.CPYTHON_GC_GENERATION, names.LIMIT_KIND
    points = {
        names.GC_COLLECTED_OBJECTS: [Observation(number * 10, {generation: number}) for number in (1, 2, 3)],
        names.PROCESS_MEMORY_UTILIZATION: [Observation(0.3, {kind: "host"}), Observation(0.5, {kind: "rlimit"})],
    }
    told: list[tuple[str, float]] = []
    sampler = Sampler(
        [
            parse_rule(f"{names.GC_COLLECTED_OBJECTS}>1"),
            parse_rule(f"second={names.GC_COLLECTED_OBJECTS}{{{generation}=2}}>1"),
            parse_rule(f"none={names.GC_COLLECTED_OBJECTS}{{{generation}=7}}>1"),
            parse_rule("limit>10%"),
        ],
        lambda name: lambda: points[name],
        lambda: None,
        lambda crossing, _id, _ns: told.append((crossing.rule.name, crossing.value)),
        memory.ledger,
    )
    sampler.tick(0.0)
    assert told == [(f"{names.GC_COLLECTED_OBJECTS}>1", 60), ("second", 20), ("limit>10%", 0.5)]


def test_rules_change_while_it_runs_and_what_stays_goes_on(memory: Memory) -> None:
    sampler = memory.sampler()
    memory.rss = 150
    sampler.tick(0.0)
    small = parse_rule("small=rss>10")
    sampler.set_rules([RULE, small])
    sampler.tick(1.0)
    sampler.set_rules([RULE])
    memory.rss = 1
    sampler.tick(2.0)
    assert [kind for kind, _, _ in memory.told] == ["crossed", "crossed", "recovered"]
    assert memory.told[0][1] == memory.told[2][1]
    assert sampler.rules == (RULE,)


def test_a_rule_that_comes_back_has_ids_of_its_own(memory: Memory) -> None:
    sampler = memory.sampler()
    memory.rss = 150
    for now in range(4):
        sampler.set_rules([RULE] if now % 2 == 0 else [])
        sampler.tick(float(now))
    ids = [event_id for _, event_id, _ in memory.told]
    assert len(ids) == len(set(ids)) == 2


def test_a_longer_window_goes_on_with_the_readings_that_are_there(memory: Memory) -> None:
    sampler = memory.sampler("rss>1/s:window=60s", readers={RSS: lambda: sampler.ticks * 100.0})
    for now in range(50):
        sampler.tick(float(now))
    memory.told.clear()
    sampler.set_rules([parse_rule("long=rss>1/s:window=90s")])
    sampler.tick(50.0)
    assert [kind for kind, _, _ in memory.told] == ["crossed"], "50 s of readings are more than half the window"


def test_processor_time_adds_up_over_ticks(memory: Memory) -> None:
    beats = iter([1.0, 1.25, 5.0, 5.5])
    sampler = memory.sampler(cpu=lambda: next(beats))
    sampler.tick(1.0)
    sampler.tick(2.0)
    assert sampler.cpu_seconds == 0.75


def test_calls_into_the_sdk_hold_the_lock_that_a_fork_waits_for(memory: Memory) -> None:
    def free() -> bool:
        seen: list[bool] = []

        def look() -> None:
            seen.append(sampler.calling_out.acquire(blocking=False))
            if seen[0]:
                sampler.calling_out.release()

        other = threading.Thread(target=look)
        other.start()
        other.join()
        return seen[0]

    during: dict[str, bool] = {}
    sampler = memory.sampler(
        tell=lambda *_: during.update(tell=free()),
        refresh=[("process", lambda _now: during.update(refresh=free()))],
    )
    sampler.tick(0.0)
    assert during == {"refresh": True}
    sampler = memory.sampler(
        tell=lambda *_: during.update(tell=free()), drains=[("gc", lambda: during.update(drain=free()))]
    )
    memory.rss = 150
    sampler.tick(1.0)
    assert during == {"refresh": True, "drain": False, "tell": False}


# --- the beat -----------------------------------------------------------------------------------------------


@given(st.floats(0, 1e6), st.floats(0, 1e5), st.sampled_from([0.1, 1.0, 7.5]))
def test_the_next_beat_is_the_first_on_the_grid_after_now(deadline: float, late: float, interval: float) -> None:
    now = deadline + late
    following = next_deadline(deadline, now, interval)
    assert now - 1e-6 <= following <= now + interval + 1e-6
    beats = (following - deadline) / interval
    assert beats == pytest.approx(round(beats), abs=1e-4), "it stays on the grid"


def test_before_its_time_a_beat_stays_where_it_is() -> None:
    assert next_deadline(10.0, 9.5, 1.0) == 10.0


class Beat:
    """A clock that a thread's ticks move; it stops the ticker after ``ticks``."""

    def __init__(self, costs: list[float]) -> None:
        self.now = 100.0
        self.costs = costs
        self.at: list[float] = []
        self.done = threading.Event()

    def tick(self, now: float) -> None:
        self.at.append(now)
        if len(self.at) > len(self.costs):
            self.done.set()
            return
        self.now += self.costs[len(self.at) - 1]

    def clock(self) -> float:
        return self.now


def test_missed_beats_are_skipped_and_never_made_up_for() -> None:
    """The clock jumps by an hour in the first tick, as when the process was stopped; then it ticks on the grid."""
    beat = Beat([3600.25])
    ticker = Ticker(beat.tick, 0.05, beat.clock)
    ticker.start()
    # The fake clock stands still while the thread waits for its next beat: move it there.
    for _ in range(200):
        if beat.done.wait(0.01):
            break
        beat.now += 0.05
    assert beat.done.is_set()
    assert ticker.stop(2)
    assert beat.at[0] == 100.0
    assert beat.at[1] >= 3700.25
    assert len([at for at in beat.at if at < 3700.25]) == 1


def _names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_the_thread_is_a_daemon_with_a_name_and_is_gone_after_stop() -> None:
    ticked = threading.Event()
    ticker = Ticker(lambda _: ticked.set(), 60)
    ticker.start()
    assert ticked.wait(5), "the first tick is at once"
    (thread,) = [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
    assert thread.daemon
    assert ticker.stop(5)
    assert THREAD_NAME not in _names()
    assert ticker.stop(5), "stopping again does nothing"


def test_a_ticker_that_never_started_has_ended() -> None:
    assert Ticker(lambda _: None, 1).stop(0)


def test_a_tick_that_hangs_does_not_hold_up_the_stop() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang(_: float) -> None:
        entered.set()
        leave.wait(10)

    ticker = Ticker(hang, 60)
    ticker.start()
    assert entered.wait(5)
    assert not ticker.stop(0.05)
    leave.set()
    assert ticker.stop(5)


def test_a_tick_may_stop_its_own_thread() -> None:
    result: list[bool] = []
    stopped = threading.Event()

    def tick(_: float) -> None:
        result.append(ticker.stop(5))
        stopped.set()

    ticker = Ticker(tick, 60)
    ticker.start()
    assert stopped.wait(5)
    assert result == [True]
    assert ticker.stop(5)


# --- the ledger ---------------------------------------------------------------------------------------------


def _logged(caplog: pytest.LogCaptureFixture) -> int:
    return len([record for record in caplog.records if record.name == "otel_memory.probe"])


def test_a_failing_part_is_logged_once_in_ten_minutes_and_always_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    ledger = Ledger(clock=lambda: now[0])
    for now[0] in (0.0, 1.0, LOG_EVERY_SECONDS - 1):
        ledger.failed("gc", OSError("gone"))
    assert _logged(caplog) == 1
    assert "gc failed: OSError: gone" in caplog.text
    ledger.failed("heap", OSError("gone"))
    assert _logged(caplog) == 2, "another part has a line of its own"
    now[0] = LOG_EVERY_SECONDS
    ledger.failed("gc", OSError("gone"))
    assert _logged(caplog) == 3
    assert ledger.failures == {"gc": 4, "heap": 1}


def test_parts_are_bounded() -> None:
    ledger = Ledger(logger=logging.getLogger("test.silent"))
    for number in range(MAX_PARTS + 10):
        ledger.failed(f"part {number}", OSError())
    assert len(ledger.failures) == MAX_PARTS + 1
    assert ledger.failures["other"] == 10


def test_what_parts_count_themselves_is_added() -> None:
    ledger = Ledger(logger=logging.getLogger("test.silent"))
    ledger.watch("gc", failures=lambda: 2, drops=lambda: 5)
    ledger.watch("operations", failures=lambda: 0, drops=lambda: 0)
    ledger.failed("gc", OSError())
    assert ledger.failures == {"gc": 3}
    assert ledger.drops == {"gc": 5}
    (failure,), (drop,) = ledger.observe_failures(), ledger.observe_drops()
    assert (failure.value, failure.attributes) == (3, {names.PROBE_PART: "gc"})
    assert (drop.value, drop.attributes) == (5, {names.PROBE_PART: "gc"})


def test_a_log_handler_that_raises_hurts_nobody() -> None:
    class Raises(logging.Logger):
        def warning(self, *_: object, **__: object) -> None:
            raise RuntimeError

    ledger = Ledger(logger=Raises("raises"))
    ledger.failed("gc", OSError())
    assert ledger.failures == {"gc": 1}


def test_guard_says_whether_it_went_well() -> None:
    ledger = Ledger(logger=logging.getLogger("test.silent"))
    good: Callable[[], object] = lambda: None  # noqa: E731
    assert ledger.guard("a", good)
    assert not ledger.guard("a", fail)


@pytest.fixture(autouse=True)
def _silent() -> None:
    logging.getLogger("test.silent").setLevel(logging.CRITICAL + 1)
