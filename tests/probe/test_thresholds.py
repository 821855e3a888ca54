"""Rules: their text form, what they compare, and that crossings and recoveries alternate whatever the readings do."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory import names
from otel_memory.probe.readings import MAX_READINGS, Reading, Ring, robust_line
from otel_memory.probe.rules import MAX_RULES, parse_rule, parse_rules
from otel_memory.probe.thresholds import BUILT_IN, Crossing, Rule, State, evaluate

RSS = names.PROCESS_MEMORY_USAGE
MB = 1e6
LEVEL = Rule("level", RSS, "greater_than", 100, clear=0.8, cooldown_seconds=0)


def run(rule: Rule, readings: list[tuple[float, float | None]], limit: float | None = None) -> list[Crossing]:
    """All crossings and recoveries over ``readings`` (time, value or None)."""
    ring, state, told = Ring(rule.window_seconds), State(), []
    for time, value in readings:
        ring.add(time, value)
        state, crossing = evaluate(rule, state, ring, limit, time)
        if crossing is not None:
            told.append(crossing)
    return told


def every_second(values: list[float | None]) -> list[tuple[float, float | None]]:
    return [(float(second), value) for second, value in enumerate(values)]


def kinds(crossings: list[Crossing]) -> list[tuple[str, float]]:
    return [(crossing.kind, crossing.time) for crossing in crossings]


# --- the text form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rss>512MiB", Rule("rss>512MiB", RSS, "greater_than", 2**29)),
        ("rss>512MiB:critical", Rule("rss>512MiB", RSS, "greater_than", 2**29, severity="critical")),
        ("rss > 1 GB", Rule("rss>1GB", RSS, "greater_than", 10**9)),
        ("RSS+20%/10min", Rule("RSS+20%/10min", RSS, "percent_change", 20, window_seconds=600, clear=0.5)),
        ("rss>5MB/s", Rule("rss>5MB/s", RSS, "growth_per_second", 5e6, window_seconds=60, clear=0.5)),
        (
            "rss>60MB/min:window=2min",
            Rule("rss>60MB/min", RSS, "growth_per_second", 1e6, window_seconds=120, clear=0.5),
        ),
        ("limit>90%", Rule("limit>90%", names.PROCESS_MEMORY_UTILIZATION, "share_of_limit", 0.9, clear=0.95)),
        ("system>0.85", Rule("system>0.85", names.SYSTEM_MEMORY_UTILIZATION, "greater_than", 0.85, clear=0.95)),
        ("threads>200:info", Rule("threads>200", names.PROCESS_THREAD_COUNT, "greater_than", 200, severity="info")),
        (
            "many = fds>900 : for=30s : clear=50% : cooldown=5min",
            Rule("many", names.PROCESS_FD_COUNT, "greater_than", 900, for_seconds=30, clear=0.5, cooldown_seconds=300),
        ),
        ("heap>50%", Rule("heap>50%", names.HEAP_USAGE, "share_of_limit", 0.5, clear=0.95)),
        (
            "cpython.gc.collected_objects{cpython.gc.generation=2} > 1000/s : info",
            Rule(
                "cpython.gc.collected_objects{cpython.gc.generation=2}>1000/s",
                names.GC_COLLECTED_OBJECTS,
                "growth_per_second",
                1000,
                window_seconds=60,
                clear=0.5,
                severity="info",
                attributes={names.CPYTHON_GC_GENERATION: 2},
            ),
        ),
        (
            "checkout = otel_memory.operation.time {otel_memory.operation.name=shop:Cart.pay; = # > x} > 30s",
            Rule(
                "checkout",
                names.OPERATION_TIME,
                "greater_than",
                30,
                attributes={names.OPERATION_NAME: "shop:Cart.pay; = # > x"},
            ),
        ),
        (
            "otel_memory.psi.stall.time{otel_memory.psi.scope=cgroup,otel_memory.psi.kind=full}+10%/1h",
            Rule(
                "otel_memory.psi.stall.time{otel_memory.psi.scope=cgroup,otel_memory.psi.kind=full}+10%/1h",
                names.PSI_STALL_TIME,
                "percent_change",
                10,
                window_seconds=3600,
                clear=0.5,
                attributes={names.PSI_SCOPE: "cgroup", names.PSI_KIND: "full"},
            ),
        ),
        (
            "otel_memory.process.memory.pressure>2",
            Rule("otel_memory.process.memory.pressure>2", names.MEMORY_PRESSURE, "greater_than", 2),
        ),
        (
            "blocks>1000/s:cooldown=0",
            Rule(
                "blocks>1000/s",
                names.PYTHON_BLOCK_COUNT,
                "growth_per_second",
                1000,
                window_seconds=60,
                clear=0.5,
                cooldown_seconds=0,
            ),
        ),
    ],
)
def test_the_text_form_says_what_it_looks_like(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rss", "a rule such as"),
        ("rss<5MB", "a rule such as"),
        ("memory>5MB", "expected one of rss, virtual"),
        ("process.memory.usages>5MB", "did you mean process.memory.usage?"),
        ("cpython.gc.collected_object>5", "did you mean cpython.gc.collected_objects?"),
        ("otel_memory.gc.pause.duration>1s", "is a histogram"),
        ("rss{cpython.gc.generation=2}>1MB", "it has none"),
        ("cpython.gc.collections{generation=2}>1", "its attributes are cpython.gc.generation"),
        ("cpython.gc.collections{2}>1", "attributes such as {cpython.gc.generation=value}"),
        ("cpython.gc.collections{}>1", "attributes such as"),
        ("heap{otel_memory.heap.kind=stack}>1MB", "one of arena, mmap"),
        ("heap{otel_memory.heap.kind=arena>1MB", "attributes in one pair of braces"),
        ("heap>1MB{otel_memory.heap.kind=arena}", "attributes in one pair of braces"),
        ("fds>50%", "a count without a unit"),
        ("rss>50%/s", "a size"),
        ("rss>much", "a size"),
        ("rss>5MB/fortnight", "a rate per s, min or h"),
        ("rss+20%", "rss+20%/10min"),
        ("rss+20/10min", "rss+20%/10min"),
        ("rss+20%/soon", "a duration"),
        ("limit>150%", "a share"),
        ("limit>90%/s", "a share"),
        ("threads>5MB", "a count without a unit"),
        ("threads>0", "bound"),
        ("rss>1MB:loud", "info, warning, critical"),
        ("rss>1MB:for=ever", "a duration"),
        ("rss>1MB:window=5s", "expected one of info"),
        ("=rss>1MB", "a name before"),
        (f"{'n' * 101}=rss>1MB", "at most 100 characters"),
    ],
)
def test_an_error_quotes_the_entry_and_says_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_rules(f"rss>1GiB; {text}")
    assert f"in {text!r}" in str(raised.value)
    assert expected in str(raised.value)


def test_own_rules_come_beside_the_built_in_ones() -> None:
    assert parse_rules("rss>1MB") == (*BUILT_IN, parse_rule("rss>1MB"))


def test_none_turns_the_built_in_rules_off() -> None:
    assert parse_rules("none") == ()
    assert parse_rules("none; rss>1MB;") == (parse_rule("rss>1MB"),)


def test_a_rule_with_a_built_in_name_takes_its_place() -> None:
    rules = parse_rules("process_memory_high=rss>2GiB")
    assert len(rules) == len(BUILT_IN)
    assert [rule.bound for rule in rules if rule.name == "process_memory_high"] == [2**31]


def test_one_name_twice_and_too_many_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="stands there twice"):  # in one place; a later place takes an earlier's
        parse_rules("rss>1MB;rss > 1MB")
    with pytest.raises(ValueError, match="at most 64 rules"):
        parse_rules(";".join(f"rss>{size}" for size in range(1, MAX_RULES + 2)))


def test_built_in_rules_are_those_of_the_documentation() -> None:
    assert {(rule.comparison, rule.bound, rule.severity) for rule in BUILT_IN} == {
        ("greater_than", 2**30, "warning"),
        ("greater_than", 0.85, "warning"),
        ("percent_change", 20, "warning"),
        ("growth_per_second", 5e6, "warning"),
        ("growth_per_second", 10e6, "critical"),
        ("share_of_limit", 0.85, "warning"),
        ("share_of_limit", 0.95, "critical"),
    }
    assert len({rule.name for rule in BUILT_IN}) == len(BUILT_IN)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "caf\udce9"},
        {"metric": "nothing"},
        {"comparison": "less_than"},
        {"severity": "loud"},
        {"bound": 0},
        {"bound": float("inf")},
        {"clear": 0},
        {"clear": 1.1},
        {"for_seconds": -1},
        {"cooldown_seconds": float("nan")},
        {"comparison": "percent_change"},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match=next(iter(change)) if change != {"comparison": "percent_change"} else "window"
    ):
        replace(LEVEL, **change)  # type: ignore[arg-type]


# --- levels -------------------------------------------------------------------------------------------------


def test_a_level_crosses_once_and_recovers_only_below_the_hysteresis() -> None:
    told = run(LEVEL, every_second([50, 101, 150, 99, 85, 80, 79.9, 90]))
    assert kinds(told) == [("crossed", 1), ("recovered", 6)]
    assert told[1].peak == 150
    assert told[1].duration == 5
    assert told[0].serial == told[1].serial == 1


def test_two_episodes_have_two_serials() -> None:
    assert [c.serial for c in run(LEVEL, every_second([101, 1, 101, 1]))] == [1, 1, 2, 2]


def test_a_duration_asks_for_staying_over() -> None:
    rule = replace(LEVEL, for_seconds=3)
    assert run(rule, every_second([101, 101, 101, 99, 101, 101, 101])) == []
    assert kinds(run(rule, every_second([101, 101, 101, 101]))) == [("crossed", 3)]


def test_a_cooldown_holds_crossings_back_but_never_a_recovery() -> None:
    rule = replace(LEVEL, cooldown_seconds=10)
    told = run(rule, every_second([101, 1, 101, 1, 101, 1] + [1] * 5 + [101]))
    assert kinds(told) == [("crossed", 0), ("recovered", 1), ("crossed", 11)]


def test_a_crossing_that_outlasts_the_cooldown_is_told_then() -> None:
    rule = replace(LEVEL, cooldown_seconds=5)
    assert kinds(run(rule, every_second([101, 1] + [101] * 10))) == [("crossed", 0), ("recovered", 1), ("crossed", 5)]


def test_a_failed_reading_neither_starts_nor_ends_an_episode() -> None:
    assert run(LEVEL, every_second([None, None])) == []
    assert kinds(run(LEVEL, every_second([101, None, None, 101, None, 1]))) == [("crossed", 0), ("recovered", 5)]


def test_share_of_limit_needs_a_limit() -> None:
    rule = Rule("near", RSS, "share_of_limit", 0.9, cooldown_seconds=0)
    assert run(rule, every_second([95, 99]), limit=None) == []
    assert [c.value for c in run(rule, every_second([50, 95]), limit=100)] == [0.95]


def test_utilization_is_a_share_of_the_limit_already() -> None:
    rule = replace(parse_rule("limit>90%"), cooldown_seconds=0)
    assert [c.value for c in run(rule, every_second([0.5, 0.95]), limit=None)] == [0.95]


# --- growth -------------------------------------------------------------------------------------------------


def growth(bound: float = 5 * MB, window: float = 60) -> Rule:
    return Rule("growth", RSS, "growth_per_second", bound, window_seconds=window, clear=0.5, cooldown_seconds=0)


def test_growth_is_silent_until_half_its_window_is_filled() -> None:
    told = run(growth(), every_second([100 * MB + 8 * MB * second for second in range(40)]))
    assert kinds(told) == [("crossed", 30)]
    assert told[0].value == pytest.approx(8 * MB)


@given(st.integers(6, 130), st.integers(0, 130), st.floats(-1e9, 1e9), st.floats(0.1, 30))
def test_one_step_is_no_growth_wherever_it_stands(count: int, at: int, height: float, spacing: float) -> None:
    """A model that is loaded once, or a process that went on elsewhere after a gap."""
    readings = [Reading(spacing * t, 1e9 + (height if t >= at else 0)) for t in range(count)]
    slope, _ = robust_line(readings)
    assert slope <= 1e-6
    assert slope >= (0 if height >= 0 else height)


def test_a_gap_and_a_step_behind_it_are_no_growth_but_growth_on_both_sides_is() -> None:
    """As after SIGSTOP, where the clock of the readings goes on; a suspended machine stops that clock."""
    step = [*((float(t), 100 * MB) for t in range(25)), *((55.0 + t, 700 * MB) for t in range(60))]
    assert run(growth(), step) == []
    rising = [
        *((float(t), 100 * MB + 8 * MB * t) for t in range(20)),
        *((50.0 + t, 500 * MB + 8 * MB * t) for t in range(9)),
    ]
    assert [c.kind for c in run(growth(), rising)] == ["crossed"]


def test_two_readings_close_together_are_never_a_rate() -> None:
    assert run(growth(), [(0.0, 0.0), (0.002, 250_000.0), (40.0, 250_000.0), (40.002, 500_000.0)]) == []


def test_growth_that_ends_recovers() -> None:
    values: list[float | None] = [8 * MB * second for second in range(60)]
    values += [values[-1]] * 90
    assert [c.kind for c in run(growth(), every_second(values))] == ["crossed", "recovered"]


@pytest.mark.parametrize(
    "rule", [growth(), Rule("p", RSS, "percent_change", 20, window_seconds=60, cooldown_seconds=0)]
)
def test_a_spike_or_a_sawtooth_or_noise_is_not_growth(rule: Rule) -> None:
    generator = random.Random(7)
    spike: list[float | None] = [100 * MB] * 200
    spike[100:104] = [900 * MB] * 4
    sawtooth: list[float | None] = [100 * MB + (second % 5) * 9 * MB for second in range(200)]
    noise: list[float | None] = [100 * MB + generator.gauss(0, 5 * MB) for _ in range(200)]
    for values in (spike, sawtooth, noise):
        assert run(rule, every_second(values)) == []


def test_percent_change_measures_over_what_the_window_holds() -> None:
    rule = Rule("p", RSS, "percent_change", 20, window_seconds=600, cooldown_seconds=0)
    slow = run(rule, [(t * 10.0, 100 * MB * (1 + 0.00025 * t * 10)) for t in range(120)])  # 15 % in ten minutes
    fast = run(rule, [(t * 10.0, 100 * MB * (1 + 0.0005 * t * 10)) for t in range(120)])  # 30 % in ten minutes
    assert slow == []
    assert fast[0].kind == "crossed"
    assert fast[0].value == pytest.approx(20, abs=1)


def test_a_warm_up_that_levels_off_is_not_sustained_growth() -> None:
    """Imports and first requests take a new process from 30 to 60 MB within seconds; then it stays."""
    rule = next(rule for rule in BUILT_IN if rule.comparison == "percent_change")
    values: list[float | None] = [min(60, 30 + second) * MB for second in range(900)]
    assert run(rule, every_second(values)) == []


def test_after_a_long_gap_growth_starts_over() -> None:
    rising = [(float(t), 8 * MB * t) for t in range(60)]
    after = [(10_000.0 + t, 100 * MB) for t in range(20)]
    assert [c.kind for c in run(growth(), [*rising, *after])] == ["crossed"]


@given(st.floats(-1e7, 1e7), st.floats(1e7, 1e9), st.integers(20, 120), st.randoms(use_true_random=False))
def test_the_line_through_a_line_is_that_line_also_with_every_tenth_reading_wild(
    slope: float, level: float, count: int, generator: random.Random
) -> None:
    readings = [Reading(float(t), level + slope * t) for t in range(count)]
    for index in range(0, count, 10):
        readings[index] = Reading(readings[index].time, generator.uniform(0, 1e10))
    found, _ = robust_line(readings)
    exact, start = robust_line([Reading(float(t), level + slope * t) for t in range(count)])
    assert exact == pytest.approx(slope, rel=1e-6, abs=1)
    assert start == pytest.approx(level, rel=1e-6, abs=100)
    if count >= 80:  # each block then has at most one wild reading, which its median leaves out
        assert found == pytest.approx(slope, rel=0.35, abs=level / count / 2)


# --- the ring -----------------------------------------------------------------------------------------------


@given(st.floats(0, 86400), st.lists(st.floats(0.001, 500), max_size=1500))
def test_a_ring_is_bounded_ordered_and_holds_the_newest(seconds: float, steps: list[float]) -> None:
    ring, time = Ring(seconds), 0.0
    for step in steps:
        time += step
        ring.add(time, time)
        assert ring.latest == Reading(time, time)
    held = ring.since(float("-inf"))
    assert len(held) == len(ring) <= MAX_READINGS
    assert held == sorted(held)
    assert all(reading.time >= time - seconds for reading in held)


def test_a_ring_of_a_long_window_still_covers_it() -> None:
    ring = Ring(3600)
    for second in range(7200):
        ring.add(float(second), 1.0)
    oldest = ring.since(float("-inf"))[0]
    assert 3600 <= oldest.time <= 3620


def test_a_reading_that_is_not_newer_is_left_out() -> None:
    ring = Ring(60)
    ring.add(5.0, 1.0)
    ring.add(5.0, 2.0)
    ring.add(4.0, 3.0)
    assert ring.since(0) == [Reading(5.0, 1.0)]


# --- what holds for all readings ----------------------------------------------------------------------------

values = st.lists(st.one_of(st.none(), st.floats(0, 200)), max_size=120)
rules = st.builds(
    lambda for_seconds, clear, cooldown: replace(
        LEVEL, for_seconds=for_seconds, clear=clear, cooldown_seconds=cooldown
    ),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.floats(0.1, 1),
    st.sampled_from([0.0, 3.0, 50.0]),
)


@given(rules, values)
def test_crossings_and_recoveries_alternate_and_share_their_serial(rule: Rule, readings: list[float | None]) -> None:
    told = run(rule, every_second(readings))
    assert [c.kind for c in told] == [("crossed", "recovered")[index % 2] for index in range(len(told))]
    assert [c.serial for c in told] == [index // 2 + 1 for index in range(len(told))]
    for crossed, recovered in zip(told[::2], told[1::2], strict=False):
        assert recovered.duration == recovered.time - crossed.time
        assert recovered.peak >= crossed.value > rule.bound
        assert recovered.value < rule.clear * rule.bound
    for earlier, later in zip(told[::2], told[2::2], strict=False):
        assert later.time - earlier.time >= rule.cooldown_seconds


@given(st.lists(st.floats(80.001, 200), min_size=1, max_size=100))
def test_no_flapping_within_the_hysteresis_band(readings: list[float]) -> None:
    assert [c.kind for c in run(LEVEL, every_second([101, *readings]))] == ["crossed"]


@given(rules, st.lists(st.floats(0, 200), max_size=60), st.lists(st.integers(0, 3), min_size=60, max_size=60))
def test_gaps_change_no_decision(rule: Rule, readings: list[float], gaps: list[int]) -> None:
    whole = [(10.0 * index, reading) for index, reading in enumerate(readings)]
    broken: list[tuple[float, float | None]] = []
    for (time, value), count in zip(whole, gaps, strict=False):
        broken.append((time, value))
        broken += [(time + 1 + gap, None) for gap in range(count)]
    assert run(rule, broken) == run(rule, list(whole))


@given(values)
def test_judging_the_same_reading_again_tells_nothing_new(readings: list[float | None]) -> None:
    ring, state = Ring(0), State()
    for time, value in every_second(readings):
        ring.add(time, value)
        state, _ = evaluate(LEVEL, state, ring, None, time)
        assert evaluate(LEVEL, state, ring, None, time + 0.5) == (state, None)


# --- whatever is written, and whatever happens ---------------------------------------------------------------

words = "rss limit cpython.gc.collections > + = 5 MB % / s 10min : critical for= { } {cpython.gc.generation=2} ; # none"
fragments = st.sampled_from([*words.split(), "name", ",", "0", "é", "1e999", "nan", "\n", " ", "\x00"])


@given(st.one_of(st.text(max_size=80), st.lists(fragments, max_size=12).map("".join)))
def test_any_text_is_rules_or_a_value_error(text: str) -> None:
    try:
        rules = parse_rules(text)
    except ValueError:
        return
    assert len({rule.name for rule in rules}) == len(rules)
    for rule in rules:
        assert 0 < rule.bound < float("inf")
        assert rule.subject.metric in names.METRICS


def test_a_rule_that_is_written_as_its_name_is_read_back_the_same() -> None:
    for text in ("rss>512MiB", "heap{otel_memory.heap.kind=arena}>5MB/s", "rss+20%/10min", "limit>90%"):
        assert parse_rule(parse_rule(text).name) == parse_rule(text)


@given(
    st.sampled_from(["rss>100:cooldown=0", "rss+20%/1min", "rss>5/s:window=30s:for=3s", "heap>50%:cooldown=1min"]),
    st.lists(
        st.tuples(
            st.one_of(st.floats(0.01, 5), st.floats(-100, 100_000)),
            st.one_of(st.none(), st.floats(0, 1e12), st.integers(0, 2**62)),
        ),
        max_size=200,
    ),
)
def test_clock_jumps_gaps_and_wild_values_break_nothing(text: str, steps: list[tuple[float, float | None]]) -> None:
    rule, time, readings = parse_rule(text), 0.0, []
    for step, value in steps:
        time += step
        readings.append((time, value))
    told = run(rule, readings, limit=2**33)
    assert [c.kind for c in told] == [("crossed", "recovered")[index % 2] for index in range(len(told))]
    assert all(c.time == c.time and abs(c.value) < float("inf") and abs(c.peak) < float("inf") for c in told)


def test_a_day_of_readings_is_judged_in_bounded_memory_and_a_slow_leak_found() -> None:
    """A day of readings: breathing of 2 MB, a step of a gigabyte, then 60 MB an hour for six hours."""
    rule = Rule("slow", RSS, "growth_per_second", 10_000, window_seconds=7200, clear=0.5, cooldown_seconds=0)
    generator = random.Random(3)
    ring, state, told = Ring(rule.window_seconds), State(), []
    for second in range(0, 86_400, 10):
        leak = max(0, second - 64_800) / 3600 * 60 * MB
        ring.add(second, 200 * MB + generator.uniform(0, 2 * MB) + (1000 * MB if second > 20_000 else 0) + leak)
        state, crossing = evaluate(rule, state, ring, None, second)
        if crossing is not None:
            told.append((crossing.kind, crossing.time))
    assert len(ring) <= MAX_READINGS
    assert [kind for kind, _ in told] == ["crossed"]
    assert 64_800 < told[0][1] < 64_800 + 7200
