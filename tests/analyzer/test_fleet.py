"""How the leak of a service is spread over its instances."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from otel_memory.analyzer.fleet import FleetFinding, _by_chance, compare
from otel_memory.analyzer.model import Assessment, ProcessInfo, Suspect, TimeToLimit, Trend, Verdict

HOUR = 3600.0


def instance(
    number: int,
    verdict: Verdict = Verdict.HEALTHY,
    *,
    version: str | None = "1.0",
    host: str | None = None,
    started: float = 0.0,
    since: float | None = None,
    last_seen: float = 10 * HOUR,
    service: str = "shop",
) -> Assessment:
    leaks = verdict is Verdict.LEAKING
    return Assessment(
        process=ProcessInfo(f"{number:016x}", service, version, f"{service}-{number}", host or f"host-{number}"),
        first_seen=started,
        last_seen=last_seen,
        memory_bytes=10**8,
        limit_bytes=10**9,
        limit_kind="cgroup_v2",
        verdict=verdict,
        leak_score=0.95 if leaks else 0.02,
        trend=Trend.INCREASING if leaks else Trend.STABLE,
        growth_bytes_per_second=1000.0 if leaks else None,
        time_to_limit=TimeToLimit(5000.0 + number, 4000.0, 6000.0) if leaks else None,
        leaking_since=(started + 60.0 if since is None else since) if leaks else None,
        suspects=(Suspect("route", "/cart", 900.0, 0.9, 0.9, "kept"),) if leaks else (),
    )


def only(assessments: list[Assessment]) -> FleetFinding:
    (found,) = compare(assessments)
    return found


def test_a_version_is_named_and_the_one_before_it() -> None:
    """Thirty instances, two versions, one of which leaks: one finding."""
    old = [instance(n, version="2.4.0") for n in range(15)]
    new = [instance(n, Verdict.LEAKING, version="2.4.1", started=HOUR) for n in range(15, 30)]
    found = only([*old, *new])
    assert (found.cause, found.subject, len(found.leaking), found.healthy) == ("version", "2.4.1", 15, 15)
    assert found.summary == (
        "shop: all 15 instances of version 2.4.1 leak and none of the 15 others: it came with 2.4.1, after 2.4.0. "
        "Together they grow 900 kB/min; 15 of them suspect route /cart"
    )
    assert found.grouped
    assert found.growth_bytes_per_second == 15_000.0
    assert found.time_to_limit_seconds == 5015.0
    assert found.since == HOUR + 60


def test_a_version_with_an_outlier_or_two_is_still_named() -> None:
    mixed = [instance(n, Verdict.LEAKING if n == 3 else Verdict.HEALTHY, version="1") for n in range(12)]
    mixed += [instance(n, Verdict.HEALTHY if n == 13 else Verdict.LEAKING, version="2") for n in range(12, 24)]
    found = only(mixed)
    assert (found.cause, found.subject) == ("version", "2")
    assert found.leaking[-1] == f"{3:016x}"


def test_two_against_two_says_nothing_about_versions() -> None:
    few = [instance(n, version="1") for n in range(2)]
    few += [instance(n, Verdict.LEAKING, version="2") for n in range(2, 4)]
    assert only(few).cause == "some"


def test_an_old_version_that_leaks_came_with_nothing() -> None:
    old = [instance(n, Verdict.LEAKING, version="1") for n in range(8)]
    new = [instance(n, version="2", started=HOUR) for n in range(8, 16)]
    found = only([*old, *new])
    assert (found.cause, found.subject) == ("version", "1")
    assert "after" not in found.summary


def test_a_host_is_named() -> None:
    there = [instance(n, Verdict.LEAKING, host="node-7", started=n * HOUR / 10) for n in range(5)]
    elsewhere = [instance(n, host=f"node-{n % 4}") for n in range(10, 26)]
    found = only([*there, *elsewhere])
    assert (found.cause, found.subject) == ("host", "node-7")
    assert "all 5 instances on host node-7 leak and none of the 16 elsewhere" in found.summary


def test_a_common_moment_is_told_where_the_starts_differ() -> None:
    apart = [instance(n, Verdict.LEAKING, started=n * HOUR, since=8 * HOUR + n) for n in range(6)]
    found = only(apart)
    assert found.cause == "moment"
    assert "something changed then" in found.summary


def test_instances_that_were_started_together_have_no_common_moment() -> None:
    together = [instance(n, Verdict.LEAKING, started=n * 5.0, since=60.0 + n * 5.0) for n in range(6)]
    assert only(together).cause == "all"


def test_all_of_them_is_the_code() -> None:
    found = only([instance(n, Verdict.LEAKING, started=n * HOUR / 3) for n in range(6)])
    assert (found.cause, found.grouped) == ("all", True)
    assert "all 6 instances leak" in found.summary


def test_one_of_many_is_its_input_or_its_host() -> None:
    found = only([instance(0, Verdict.LEAKING), *(instance(n) for n in range(1, 30))])
    assert (found.cause, found.grouped, found.healthy) == ("one", False, 29)
    assert "1 of 30 instances leaks" in found.summary


def test_some_is_said_where_nothing_tells_them_apart() -> None:
    found = only([instance(n, Verdict.LEAKING if n % 2 else Verdict.HEALTHY) for n in range(10)])
    assert (found.cause, found.confidence) == ("some", 0.5)


def test_a_healthy_instance_counts_once_it_was_seen_for_long_enough() -> None:
    leaking = [instance(n, Verdict.LEAKING, started=n * HOUR / 3) for n in range(4)]
    young = [instance(n, started=9.9 * HOUR) for n in range(4, 30)]
    found = only([*leaking, *young])
    assert (found.cause, found.healthy) == ("all", 0)


@pytest.mark.parametrize("verdict", [Verdict.WATCH, Verdict.UNKNOWN])
def test_those_that_are_not_judged_count_neither_way(verdict: Verdict) -> None:
    leaking = [instance(n, Verdict.LEAKING, started=n * HOUR / 3) for n in range(4)]
    assert only([*leaking, *(instance(n, verdict) for n in range(4, 30))]).cause == "all"


def test_a_lone_process_or_a_healthy_service_is_no_matter_of_the_fleet() -> None:
    assert compare([instance(0, Verdict.LEAKING), instance(1)]) == []
    assert compare([instance(n) for n in range(10)]) == []
    assert compare([]) == []


def test_services_are_judged_by_themselves_and_the_widest_comes_first() -> None:
    shop = [instance(n, Verdict.LEAKING, started=n * HOUR / 3) for n in range(4)]
    mail = [instance(n, Verdict.LEAKING, service="mail", started=n * HOUR / 3) for n in range(10, 17)]
    assert [each.service_name for each in compare([*shop, *mail])] == ["mail", "shop"]


def test_what_is_not_known_harms_nobody() -> None:
    bare = [
        replace(
            instance(n, Verdict.LEAKING, version=None),
            growth_bytes_per_second=None,
            time_to_limit=None,
            leaking_since=None,
            suspects=(),
        )
        for n in range(5)
    ]
    found = only(bare)
    assert (found.growth_bytes_per_second, found.time_to_limit_seconds, found.since, found.suspect) == (None,) * 4


def test_the_order_of_the_instances_does_not_matter() -> None:
    mixed = [instance(n, version="1") for n in range(9)]
    mixed += [instance(n, Verdict.LEAKING, version="2") for n in range(9, 18)]
    assert compare(mixed) == compare(mixed[::-1])


def test_chance_is_the_hypergeometric_tail() -> None:
    assert _by_chance(3, 3, 3, 6) == pytest.approx(1 / math.comb(6, 3))
    assert _by_chance(0, 3, 3, 6) == pytest.approx(1.0)
    # Fisher's tea: all four of four guessed right, of eight cups.
    assert _by_chance(4, 4, 4, 8) == pytest.approx(1 / 70)
