"""Who grows: made-up load, and real little programs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_memory import names
from otel_memory.analyzer.attribution import (
    Attribution,
    AttributionInput,
    OperationInput,
    attribute,
    attribute_series,
    compare,
    input_of,
)
from otel_memory.analyzer.attribution_fit import nnls
from otel_memory.analyzer.model import Payload, Point, ProcessInfo, Suspect
from otel_memory.analyzer.series import ProcessSeries
from otel_memory.analyzer.windows import Floats

PROGRAM = Path(__file__).with_name("attribution_program.py")
SEEDS = 60


def calls(rng: np.random.Generator, seconds: int, routes: int, *, breathing: bool = True, rate: float = 40.0) -> Floats:
    """Cumulative calls of each route: Poisson, with a load that breathes and shares that drift."""
    shares = rng.dirichlet(np.full(routes, 20.0))
    wave = np.sin(2 * np.pi * np.arange(seconds) / rng.uniform(15, 60) + rng.uniform(0, 6))
    load = rate * (1 + 0.4 * wave) if breathing else np.full(seconds, rate)
    drift = np.zeros(routes)
    counts = np.empty((seconds, routes))
    for second in range(seconds):
        drift = 0.9 * drift + 0.1 * rng.normal(size=routes) * breathing
        counts[second] = rng.poisson(load[second] * shares * np.exp(drift))
    return counts.cumsum(axis=0)


def resident(rng: np.random.Generator, seconds: int, noise: float = 400e3) -> Floats:
    """Resident bytes of a program at rest: jitter, and now and then a step that stays."""
    steps = np.where(rng.random(seconds) < 0.05, rng.normal(size=seconds) * 2 * noise, 0.0)
    return np.asarray(60e6 + steps.cumsum() + 0.5 * noise * np.abs(rng.normal(size=seconds)))


def case(
    seed: int,
    seconds: int,
    leaks: Mapping[int, float],
    *,
    routes: int = 5,
    background: float = 0.0,
    blocks_per_call: float = 0.0,
    breathing: bool = True,
    noise: float = 400e3,
) -> AttributionInput:
    rng = np.random.default_rng(seed)
    counts = calls(rng, seconds, routes, breathing=breathing)
    memory = resident(rng, seconds, noise) + background * np.arange(seconds)
    blocks = 1e5 + 300 * rng.normal(size=seconds) + (20 * rng.normal(size=seconds)).cumsum()
    for route, kept in leaks.items():
        memory = memory + kept * counts[:, route]
        blocks = blocks + blocks_per_call * counts[:, route]
    named = {f"GET /{route}": counts[:, route] for route in range(routes)}
    return AttributionInput(times=np.arange(float(seconds)), memory=memory, blocks=blocks, routes=named)


def right(found: Sequence[tuple[Suspect, ...]], name: str = "GET /0") -> float:
    """How often the first suspect is the one that leaks."""
    return sum(bool(suspects) and suspects[0].name == name for suspects in found) / len(found)


@pytest.mark.parametrize(
    ("seconds", "blocks_per_call", "at_least"),
    [
        pytest.param(30, 100, 0.97, id="small objects, half a minute"),
        pytest.param(30, 0, 0.75, id="large buffers, resident memory alone, half a minute"),
        pytest.param(60, 0, 0.9, id="large buffers, resident memory alone, a minute"),
        pytest.param(120, 0, 0.97, id="large buffers, resident memory alone, two minutes"),
    ],
)
def test_the_leaking_route_is_named_first(seconds: int, blocks_per_call: float, at_least: float) -> None:
    found = [attribute(case(seed, seconds, {0: 30e3}, blocks_per_call=blocks_per_call)) for seed in range(SEEDS)]
    assert right(found) >= at_least


def test_a_heap_that_is_measured_every_few_samples_is_no_standstill_in_between() -> None:
    """Native memory: every fifth second the heap is measured, and its last figure repeated in between."""
    found, repeated = [], []
    for seed in range(SEEDS):
        inputs = case(seed, 120, {0: 30e3}, noise=1.5e6)
        heap = 20e6 + 30e3 * inputs.routes["GET /0"]
        found.append(attribute(replace(inputs, heap=heap)))
        repeated.append(attribute(replace(inputs, heap=heap[np.arange(120) // 5 * 5])))
    assert right(found) >= 0.97
    assert right(repeated) >= 0.9


def test_what_the_process_took_to_look_at_itself_is_not_looked_at() -> None:
    """Traces cost memory wherever something is allocated, so whoever allocates most then seems to leak."""
    disturbed, left_out = [], []
    for seed in range(SEEDS):
        inputs = case(seed, 120, {0: 30e3}, noise=200e3)
        during = np.clip(np.arange(120) - 80, 0, 12)
        busy = inputs.routes["GET /1"][80 + during] - inputs.routes["GET /1"][80]
        inputs = replace(inputs, memory=inputs.memory + 400e3 * busy)
        disturbed.append(attribute(inputs))
        left_out.append(attribute(replace(inputs, left_out=(79.0, 93.0))))
    assert right(left_out) >= 0.97
    assert right(disturbed) < right(left_out)


def test_nothing_is_left_out_where_hardly_anything_would_remain() -> None:
    inputs = case(1, 60, {0: 30e3}, blocks_per_call=100)
    assert attribute(replace(inputs, left_out=(-10.0, 50.0))) == attribute(inputs) != ()


def test_confidence_is_the_probability_of_being_right() -> None:
    """Of the suspects with a confidence of about 0.6 about six in ten are right; a sure one is hardly ever wrong."""
    pairs = [
        (suspects[0].confidence, suspects[0].name == "GET /0")
        for seconds in (20, 30, 45, 60)
        for seed in range(SEEDS)
        if (suspects := attribute(case(seed, seconds, {0: 30e3})))
    ]
    sure = [ok for confidence, ok in pairs if confidence >= 0.9]
    unsure = [ok for confidence, ok in pairs if confidence < 0.7]
    assert len(sure) > 50
    assert np.mean(sure) >= 0.95
    assert len(unsure) > 20
    assert abs(np.mean(unsure) - np.mean([confidence for confidence, _ in pairs if confidence < 0.7])) < 0.2


def test_growth_that_is_not_tied_to_requests_has_no_route_for_a_culprit() -> None:
    found = [attribute(case(seed, 60, {}, background=300e3)) for seed in range(SEEDS)]
    assert sum(bool(suspects) for suspects in found) <= 0.2 * SEEDS
    assert sum(bool(suspects) and suspects[0].confidence >= 0.7 for suspects in found) <= 0.05 * SEEDS


def test_growth_that_is_not_tied_to_requests_is_said_to_be_none_of_theirs() -> None:
    found = [compare(case(seed, 60, {}, background=300e3)) for seed in range(SEEDS)]
    assert sum("not tied to requests" in each.unrelated for each in found) >= 0.7 * SEEDS
    assert not any(each.unrelated and each.suspects for each in found)
    tied = [compare(case(seed, 60, {0: 30e3})) for seed in range(SEEDS)]
    assert sum(bool(each.unrelated) for each in tied) <= 0.05 * SEEDS


def test_beside_a_background_the_route_gets_its_own_share() -> None:
    """240 kB/s by the route, 240 kB/s by something else: about a half is the route's."""
    found = [attribute(case(seed, 240, {0: 30e3}, background=240e3, blocks_per_call=100)) for seed in range(20)]
    assert right(found) == 1.0
    assert abs(np.mean([suspects[0].share for suspects in found]) - 0.5) < 0.15


def test_two_leaks_are_both_named_with_their_shares() -> None:
    found = [attribute(case(seed, 200, {0: 40e3, 1: 20e3}, noise=200e3)) for seed in range(20)]
    both = [{one.name: one.share for one in suspects} for suspects in found]
    named = [shares for shares in both if {"GET /0", "GET /1"} <= set(shares)]
    assert len(named) >= 16
    assert np.mean([shares["GET /0"] > shares["GET /1"] for shares in named]) >= 0.9
    assert all(sum(shares.values()) <= 1.0001 for shares in both)


def test_routes_that_are_called_together_share_the_blame_and_say_so() -> None:
    inputs = case(3, 120, {0: 30e3}, blocks_per_call=100)
    twin = AttributionInput(
        times=inputs.times,
        memory=inputs.memory,
        blocks=inputs.blocks,
        routes={**inputs.routes, "GET /twin": inputs.routes["GET /0"]},
    )
    first, second = attribute(twin)[:2]
    assert {first.name, second.name} == {"GET /0", "GET /twin"}
    assert first.confidence <= 0.5
    assert f"called together with {second.name}, so they can not be told apart" in first.evidence


def test_under_a_constant_load_nothing_can_be_told_apart_and_nobody_is_sure() -> None:
    times = np.arange(60.0)
    routes = {f"GET /{route}": times * (route + 5) for route in range(3)}
    suspects = attribute(AttributionInput(times=times, memory=6e7 + 3e5 * times, routes=routes))
    assert all(one.confidence < 0.5 for one in suspects)


def test_one_step_of_a_cache_that_loads_blames_nobody_for_long() -> None:
    """30 MB in one second, on top of a leak of 30 kB a call."""
    found = []
    for seed in range(SEEDS):
        inputs = case(seed, 60, {0: 30e3}, blocks_per_call=100)
        inputs.memory[25:] += 30e6
        found.append(attribute(inputs))
    assert right(found) >= 0.95


def test_the_evidence_has_the_figures_and_shares_are_of_the_given_growth() -> None:
    times = np.arange(120.0)
    rng = np.random.default_rng(1)
    leaking, other = rng.poisson(40, 120).cumsum(), rng.poisson(40, 120).cumsum()
    inputs = AttributionInput(
        times=times,
        memory=6e7 + 10_000.0 * leaking,
        routes={"GET /leak": leaking.astype(float), "GET /": other.astype(float)},
        growth_bytes_per_second=800_000.0,
    )
    (suspect,) = attribute(inputs)
    rate = (leaking[-1] - leaking[0]) / 119
    assert suspect.kind == "route"
    assert suspect.growth_bytes_per_second == pytest.approx(800_000.0, rel=0.02)
    assert suspect.share == pytest.approx(1.0, abs=0.02)
    kept = 800_000.0 / rate / 1000
    assert suspect.evidence.startswith(f"each call of GET /leak kept {kept:.1f} kB; {rate:.0f} calls/s explain ")
    assert suspect.evidence.endswith(" % of the growth")


def test_an_operation_and_its_route_both_appear_the_route_first() -> None:
    inputs = case(5, 60, {0: 30e3}, blocks_per_call=100)
    counts = inputs.routes["GET /0"]
    with_operation = AttributionInput(
        times=inputs.times,
        memory=inputs.memory,
        blocks=inputs.blocks,
        routes=inputs.routes,
        operations={
            "shop.cart.load": OperationInput(counts, counts * 28e3),
            "shop.page.render": OperationInput(inputs.routes["GET /1"], inputs.routes["GET /1"] * 100.0),
        },
    )
    suspects = attribute(with_operation)
    assert [(one.kind, one.name) for one in suspects[:2]] == [("route", "GET /0"), ("operation", "shop.cart.load")]
    assert "measured around its calls" in suspects[1].evidence
    assert all(one.name != "shop.page.render" for one in suspects)


def test_an_operation_that_measured_growth_is_named_without_any_route() -> None:
    """One call every few seconds: too few for a regression, but the growth was measured around them."""
    rng = np.random.default_rng(2)
    counts = (rng.random(60) < 0.3).cumsum().astype(float)
    inputs = AttributionInput(
        times=np.arange(60.0),
        memory=resident(rng, 60) + 1e6 * counts,
        operations={"jobs.load": OperationInput(counts, 1e6 * counts)},
    )
    (suspect,) = attribute(inputs)
    assert (suspect.kind, suspect.name) == ("operation", "jobs.load")
    assert suspect.confidence > 0.5


def test_memory_that_operations_free_after_their_calls_does_not_make_them_suspects() -> None:
    """Each call ends 300 kB higher, all of it freed later: measured growth of many times the process's growth."""
    inputs = case(7, 60, {0: 30e3}, blocks_per_call=100)
    bystander = inputs.routes["GET /3"]
    suspects = attribute(
        AttributionInput(
            times=inputs.times,
            memory=inputs.memory,
            blocks=inputs.blocks,
            routes=inputs.routes,
            operations={
                "leaks": OperationInput(inputs.routes["GET /0"], inputs.routes["GET /0"] * 30e3),
                "frees": OperationInput(bystander, bystander * 300e3),
            },
        )
    )
    assert [one.name for one in suspects] == ["GET /0", "leaks"]


@pytest.mark.parametrize(
    "inputs",
    [
        AttributionInput(times=np.arange(5.0), memory=np.arange(5.0), routes={"GET /": np.arange(5.0)}),
        AttributionInput(times=np.arange(50.0), memory=np.full(50, 1e8), routes={"GET /": np.arange(50.0)}),
        AttributionInput(times=np.arange(50.0), memory=1e8 - np.arange(50.0), routes={"GET /": np.arange(50.0)}),
        AttributionInput(times=np.arange(50.0), memory=np.arange(50.0), routes={}),
        AttributionInput(times=np.arange(50.0), memory=np.arange(50.0), routes={"GET /": np.full(50, 7.0)}),
        AttributionInput(times=np.arange(50.0), memory=np.full(50, np.nan), routes={"GET /": np.arange(50.0)}),
        AttributionInput(
            times=np.arange(50.0),
            memory=np.full(50, 1e8),
            routes={"GET /": np.arange(50.0)},
            growth_bytes_per_second=1.0,
        ),
    ],
    ids=["too short", "flat", "falling", "no routes", "never called", "unknown", "growth elsewhere"],
)
def test_there_is_no_suspect_where_nothing_can_be_said(inputs: AttributionInput) -> None:
    assert attribute(inputs) == ()


def test_a_route_that_appears_later_counts_as_not_called_before() -> None:
    inputs = case(11, 90, {0: 30e3}, blocks_per_call=100)
    late = inputs.routes["GET /4"].copy()
    late[:40] = np.nan
    blocks = None if inputs.blocks is None else inputs.blocks
    suspects = attribute(
        AttributionInput(
            times=inputs.times, memory=inputs.memory, blocks=blocks, routes={**inputs.routes, "GET /4": late}
        )
    )
    assert suspects[0].name == "GET /0"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(13, 60),
    st.sampled_from([0.0, 1.0, 1e9]),
    st.sampled_from([0.0, 1e3, 1e12]),
)
def test_suspects_are_well_formed_whatever_comes_in(
    seed: int, routes: int, seconds: int, noise: float, kept: float
) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (seconds, routes)).cumsum(axis=0).astype(float)
    memory = 1e8 + noise * rng.normal(size=seconds) + kept * counts[:, 0] + 10.0 * np.arange(seconds)
    memory[rng.random(seconds) < 0.05] = np.nan
    inputs = AttributionInput(
        times=np.cumsum(rng.uniform(0.5, 30, seconds)),
        memory=memory,
        routes={str(route): counts[:, route] for route in range(routes)},
        growth_bytes_per_second=1000.0,
    )
    suspects = attribute(inputs)
    assert suspects == attribute(inputs)
    assert sum(one.share for one in suspects) <= 1.001
    for one in suspects:
        assert 0 < one.share <= 1
        assert 0 < one.confidence <= 1
        assert 0 < one.growth_bytes_per_second <= 1000.0
        assert one.name in one.evidence
        assert "nan" not in one.evidence


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_nnls_meets_the_conditions_of_optimality(seed: int, size: int) -> None:
    """Karush, Kuhn and Tucker: x >= 0, gradient >= 0, and one of the two zero in each coordinate."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size + 10, size))
    gram, moments = matrix.T @ matrix, matrix.T @ rng.normal(size=size + 10)
    x = nnls(gram, moments)
    gradient = gram @ x - moments
    assert (x >= 0).all()
    assert (gradient >= -1e-6).all()
    assert np.abs(gradient * x).max() < 1e-6


@given(st.integers(0, 2**32), st.integers(2, 5))
def test_nnls_of_columns_that_repeat_or_say_nothing_stays_finite(seed: int, size: int) -> None:
    """Steps of 0/0 must not become NaN (and a warning is an error here)."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(20, size))
    matrix[:, 0] = matrix[:, -1]
    matrix[:, size // 2] = 0
    target = -matrix[:, 0] if seed % 2 else matrix.sum(axis=1)
    x = nnls(matrix.T @ matrix + 1e-9 * np.eye(size), matrix.T @ target)
    assert np.isfinite(x).all()
    assert (x >= 0).all()


def sampled(leak: str, seed: int, seconds: int) -> AttributionInput:
    command = [sys.executable, str(PROGRAM), leak, str(seed), str(seconds)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    found = json.loads(ran.stdout)
    return AttributionInput(
        times=np.array(found["times"], float),
        memory=np.array(found["memory"], float),
        blocks=np.array(found["blocks"], float),
        heap=np.array(found["heap"], float) if found["heap"] else None,
        routes={f"GET /{name}": np.array(counts, float) for name, counts in found["routes"].items()},
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("leak", ["objects", "buffers", "mixed", "strings", "rare"])
def test_a_real_program_has_its_leaking_route_named_first_after_half_a_minute(leak: str) -> None:
    inputs = sampled(leak, 1, 45)
    suspects = attribute(inputs)
    assert suspects
    assert suspects[0].name == f"GET /{leak}", suspects
    assert suspects[0].confidence >= 0.7
    assert suspects[0].share >= 0.6


def fed(seconds: int, spacing: float = 1.0, restart_at: int | None = None) -> ProcessSeries:
    """A process that leaks 30 kB a call of GET /0, through the points that a probe sends."""
    rng = np.random.default_rng(4)
    counts = calls(rng, seconds, 3, rate=40 * spacing)
    memory = resident(rng, seconds, 100e3)
    series = ProcessSeries(ProcessInfo("id", "shop"))
    begun, base = 999_990.0, np.zeros(3)
    for index in range(seconds):
        time = 1_000_000.0 + spacing * index
        if index == restart_at:
            begun, base = time - 0.5, counts[index - 1]
        mine = counts[index] - base
        points = [
            Point(names.PROCESS_MEMORY_USAGE, (), time, None, memory[index] + 30e3 * mine[0], "gauge"),
            Point(names.PROCESS_UPTIME, (), time, None, time - begun, "gauge"),
        ]
        for route, number in enumerate(mine):
            attributes = (("http.request.method", "GET"), ("http.route", f"/{route}"))
            points.append(Point("http.server.request.duration", attributes, time, begun, float(number), "sum"))
        series.add(Payload({}, points, ()))
    return series


def test_the_windows_of_a_process_lead_to_its_suspect() -> None:
    first = attribute_series(fed(90), 400e3).suspects[0]
    assert (first.kind, first.name) == ("route", "GET /0")
    assert first.growth_bytes_per_second == pytest.approx(400e3, rel=0.1)


def test_only_the_present_life_of_a_process_counts() -> None:
    series = fed(120, restart_at=60)
    inputs = input_of(series)
    assert inputs is not None
    assert len(inputs.times) == 60
    assert attribute_series(series).suspects[0].name == "GET /0"


def test_what_was_before_the_growth_is_left_aside_where_enough_remains() -> None:
    series = fed(90)
    cut, whole = input_of(series, since=1_000_050.0), input_of(series, since=1_000_089.0)
    assert cut is not None
    assert whole is not None
    assert (len(cut.times), len(whole.times)) == (40, 90)


def test_a_process_without_memory_has_no_input() -> None:
    assert input_of(ProcessSeries(ProcessInfo("id", "shop"))) is None
    assert attribute_series(ProcessSeries(ProcessInfo("id", "shop"))) == Attribution()
