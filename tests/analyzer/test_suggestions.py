"""What is suggested about what was measured."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from otel_memory import names
from otel_memory.analyzer.model import (
    Assessment,
    AttributeValue,
    Event,
    ProcessInfo,
    Suspect,
    TimeToLimit,
    Trend,
    Verdict,
)
from otel_memory.analyzer.suggestion_shapes import GUIDE, SHAPES
from otel_memory.analyzer.suggestions import merged, ranked, suggest

MIB = 2**20
LEAKING = Assessment(
    process=ProcessInfo("0123456789abcdef", "shop"),
    first_seen=0.0,
    last_seen=3600.0,
    memory_bytes=400 * MIB,
    limit_bytes=512 * MIB,
    limit_kind="cgroup_v2",
    verdict=Verdict.LEAKING,
    leak_score=0.95,
    trend=Trend.INCREASING,
    growth_bytes_per_second=40_000.0,
    time_to_limit=TimeToLimit(2900.0, 2600.0, 3300.0),
    leaking_since=1200.0,
)
HEALTHY = replace(LEAKING, verdict=Verdict.HEALTHY, leak_score=0.02, time_to_limit=None)


def found(kind: str = "python", **more: AttributeValue) -> Event:
    attributes: dict[str, AttributeValue] = {
        names.EVIDENCE_KIND: kind,
        names.EVIDENCE_GROWTH: 40_000.0,
        names.EVIDENCE_WINDOW: 90.0,
        names.EVIDENCE_CONFIDENCE: 1.0,
    }
    attributes |= {getattr(names, f"EVIDENCE_{name.upper()}"): value for name, value in more.items()}
    return Event(names.EVENT_EVIDENCE, 3000.0, 13, attributes, "Memory grows.")


def held(name: str, kind: str, container: str = "dict", entries: int = 900, **more: AttributeValue) -> Event:
    return found(holder=(name,), holder_kind=(kind,), holder_container=(container,), holder_growth=(entries,), **more)


@pytest.mark.parametrize(
    ("event", "shape", "subject"),
    [
        (held("shop.users.profile (cache of a function)", "cache"), "unbounded_cache", "shop.users.profile"),
        (held("shop.prices._CACHE (module global)", "global"), "unbounded_cache", "shop.prices._CACHE"),
        (held("shop.audit.ROWS (module global)", "global", "list"), "module_container", "shop.audit.ROWS"),
        (held("shop.Reports.rows (class attribute)", "class", "list"), "module_container", "shop.Reports.rows"),
        (
            held("shop.Hub.sessions (instance attribute), kept by shop.hub", "instance"),
            "instance_container",
            "shop.Hub.sessions",
        ),
        (held("shop.bus._listeners (module global)", "global", "list"), "listeners", "shop.bus._listeners"),
        (
            found(site=("<frozen importlib._bootstrap_external>:757",), site_growth=(30_000.0,)),
            "import_cost",
            "imports",
        ),
        (held("sys.modules (module global)", "global", type=("module",), type_growth=(40,)), "import_cost", "imports"),
        (
            held("logging.Logger.handlers (instance attribute)", "instance", "list"),
            "logging_handlers",
            "logging.Logger.handlers",
        ),
        (held("shop.make.<locals>.done (closure)", "closure", "list"), "closures", "shop.make.<locals>.done"),
        (
            held("shop.failed (module global)", "global", "list", type=("traceback", "frame")),
            "tracebacks",
            "shop.failed",
        ),
        (held("shop.keep (module global)", "global", "list", type=("coroutine",)), "tasks", "shop.keep"),
        (held("shop.seen (module global)", "global", "Context"), "contextvars", "shop.seen"),
        (found("cycles", type=("shop.Node",)), "cycles", "shop.Node"),
        (found("threads", thread_growth=40), "threads", "threads"),
        (found("native", type=("sqlite3.Statement",), type_growth=(80,)), "native", "the C allocator"),
        (found("fragmentation"), "fragmentation", "the allocators"),
        (found("mapped"), "mapped", "mapped memory"),
        (found("unknown", fd_growth=30), "descriptors", "open files and sockets"),
        (found(type=("shop.Order",), type_growth=(500,)), "objects", "shop.Order"),
        (found(type=("_asyncio.Task",), type_growth=(500,)), "tasks", "_asyncio.Task"),
    ],
)
def test_a_shape_is_recognised_from_what_the_process_found(event: Event, shape: str, subject: str) -> None:
    first = suggest(LEAKING, [event])[0]
    assert (first.shape, first.subject) == (shape, subject)
    assert first.severity == "high"
    assert first.link == f"{GUIDE}#{shape.replace('_', '-')}"


def test_a_suggestion_tells_what_was_measured_and_what_it_would_save() -> None:
    event = held(
        "shop.users.profile (cache of a function)",
        "cache",
        entries=12_400,
        site=("shop/users.py:41 profile",),
        site_growth=(30_000.0,),
    )
    first = suggest(LEAKING, [event])[0]
    assert first.message == (
        "The cache of shop.users.profile took 12,400 more entries while memory grew for 90 s; "
        "allocated at shop/users.py:41 profile"
    )
    assert "maxsize" in first.recommendation
    assert first.growth_bytes_per_second == pytest.approx(30_000.0)
    assert "75 %" in first.effect
    assert first.processes == (LEAKING.process.id,)


def test_what_came_to_a_holder_is_told_in_bytes_with_the_line_that_made_it() -> None:
    event = held(
        "shop.audit.ROWS (module global)",
        "global",
        "list",
        holder_size=(1_800_000,),
        holder_site=("shop/audit.py:12 note",),
    )
    first = suggest(LEAKING, [event])[0]
    assert first.message == (
        "shop.audit.ROWS, a list, took 900 more entries (1.8 MB) while memory grew for 90 s; "
        "made at shop/audit.py:12 note"
    )
    assert first.growth_bytes_per_second == pytest.approx(20_000.0)
    assert "50 %" in first.effect


def test_the_first_of_several_holders_stands_first() -> None:
    event = found(
        holder=("a.FIRST (module global)", "b.SECOND (module global)"),
        holder_kind=("global", "global"),
        holder_container=("list", "list"),
        holder_growth=(900, 20),
    )
    assert [one.subject for one in suggest(LEAKING, [event])] == ["a.FIRST", "b.SECOND"]


def test_an_old_finding_is_not_taken_for_what_grows_now() -> None:
    old = held("a.FIRST (module global)", "global")._replace(time=10.0)
    assert [one.shape for one in suggest(LEAKING, [old])] == ["unknown_cause"]


def test_without_a_finding_the_route_is_told() -> None:
    suspect = Suspect("route", "/cart", 30_000.0, 0.75, 0.9, "each call of /cart kept 40 kB")
    first = suggest(replace(LEAKING, suspects=(suspect,)), [])[0]
    assert (first.shape, first.subject, first.message) == (
        "per_request",
        "route /cart",
        "Each call of /cart kept 40 kB",
    )
    assert first.growth_bytes_per_second == pytest.approx(30_000.0)


def test_a_holder_makes_the_route_no_suggestion_of_its_own() -> None:
    suspect = Suspect("route", "/cart", 30_000.0, 0.75, 0.9, "each call of /cart kept 40 kB")
    told = suggest(replace(LEAKING, suspects=(suspect,)), [held("a.FIRST (module global)", "global")])
    assert [one.shape for one in told] == ["module_container"]


def test_a_collection_that_freed_much_names_cycles() -> None:
    attributes: dict[str, AttributeValue] = {
        names.DIAGNOSTIC_GC_HEAP_BEFORE: 90 * MIB,
        names.DIAGNOSTIC_GC_HEAP_AFTER: 20 * MIB,
        names.DIAGNOSTIC_GC_TYPES: ("shop.Node", "dict"),
        names.DIAGNOSTIC_GC_UNCOLLECTABLE: 0,
    }
    event = Event(names.EVENT_DIAGNOSTIC_GC, 3000.0, 9, attributes, None)
    assert [(one.shape, one.subject) for one in suggest(LEAKING, [event])] == [("cycles", "shop.Node")]
    left = event._replace(attributes={**attributes, names.DIAGNOSTIC_GC_UNCOLLECTABLE: 4})
    assert [one.shape for one in suggest(LEAKING, [left])] == ["uncollectable"]
    little = event._replace(attributes={**attributes, names.DIAGNOSTIC_GC_HEAP_AFTER: 90 * MIB - 5})
    assert [one.shape for one in suggest(LEAKING, [little])] == ["unknown_cause"]


def test_free_memory_is_called_fragmentation_only_where_it_is_measured() -> None:
    used = {"python_used": 300 * MIB, "c_used": 60 * MIB, "c_free": 40 * MIB}
    assert "fragmentation" not in [one.shape for one in suggest(replace(LEAKING, breakdown=used), [])]
    free = {**used, "c_free": 200 * MIB}
    assert "fragmentation" in [one.shape for one in suggest(replace(LEAKING, breakdown=free), [])]


def test_a_limit_that_is_not_known_is_worth_a_word() -> None:
    unlimited = replace(LEAKING, limit_bytes=None, limit_kind=None, time_to_limit=None)
    told = suggest(unlimited, [held("a.FIRST (module global)", "global")])
    assert [(one.shape, one.severity) for one in told] == [("module_container", "high"), ("no_limit", "low")]


def test_a_healthy_process_needs_nothing_unless_it_is_full() -> None:
    assert suggest(HEALTHY, [held("a.FIRST (module global)", "global")]) == ()
    full = replace(HEALTHY, memory_bytes=500 * MIB)
    assert [(one.shape, one.severity) for one in suggest(full, [])] == [("near_limit", "medium")]


def test_a_watched_process_gets_nothing_of_high_severity() -> None:
    watched = replace(LEAKING, verdict=Verdict.WATCH)
    told = suggest(watched, [held("a.FIRST (module global)", "global")])
    assert [one.severity for one in told] == ["medium"]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {names.EVIDENCE_HOLDER: "no list", names.EVIDENCE_SITE: (1, 2), names.EVIDENCE_GROWTH: "much"},
        {names.EVIDENCE_HOLDER: ("a", "b"), names.EVIDENCE_HOLDER_GROWTH: (1,), names.EVIDENCE_KIND: True},
        {names.EVIDENCE_HOLDER: ("",), names.EVIDENCE_HOLDER_KIND: ("global",)},
    ],
)
def test_a_malformed_finding_harms_nobody(attributes: dict[str, AttributeValue]) -> None:
    event = Event(names.EVENT_EVIDENCE, 3000.0, 13, attributes, None)
    assert all(one.message for one in suggest(LEAKING, [event]))


def test_the_same_cause_in_many_instances_is_one_suggestion() -> None:
    event = held("a.FIRST (module global)", "global")
    instances = [replace(LEAKING, process=ProcessInfo(f"{number:016x}", "shop")) for number in range(40)]
    other = replace(LEAKING, process=ProcessInfo("f" * 16, "billing"))
    told = merged([one for a in (*instances, other) for one in suggest(a, [event])])
    assert [(one.service_name, len(one.processes)) for one in told] == [("shop", 40), ("billing", 1)]
    assert told[0].growth_bytes_per_second == pytest.approx(40 * 40_000.0)


def test_the_gravest_comes_first() -> None:
    event = held("a.FIRST (module global)", "global")
    slow = replace(LEAKING, time_to_limit=TimeToLimit(9e6, 8e6, None), growth_bytes_per_second=1e6)
    told = ranked([*suggest(slow, [event]), *suggest(LEAKING, [event])])
    assert [one.severity for one in told] == ["high", "medium"]


def test_every_shape_has_its_heading_in_the_guide() -> None:
    text = (Path(__file__).parents[2] / GUIDE).read_text("utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.M)}
    assert headings == {shape.link.partition("#")[2] for shape in SHAPES.values()}
