"""Payloads in, windows of a process out."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest

from otel_memory import names
from otel_memory.analyzer.feeds import NO_ROUTE, route_of
from otel_memory.analyzer.model import AttributeValue, Payload, Point, PointKind, ProcessInfo
from otel_memory.analyzer.series import OTHER, Bounds, ProcessSeries, SeriesTable

RESOURCE = {"service.name": "shop", "service.instance.id": "a1"}
T0 = 1_000_000.0


def point(
    metric: str,
    time: float,
    value: float,
    kind: PointKind = "gauge",
    start: float | None = None,
    **attributes: AttributeValue,
) -> Point:
    return Point(
        metric, tuple(sorted((k.replace("__", "."), v) for k, v in attributes.items())), time, start, value, kind
    )


def memory(time: float, value: float) -> Point:
    return point(names.PROCESS_MEMORY_USAGE, time, value)


def request(time: float, count: float, route: str = "/", status: int = 200, start: float = 1.0) -> Point:
    return point(
        "http.server.request.duration",
        time,
        count,
        "sum",
        start,
        http__request__method="GET",
        http__route=route,
        http__response__status_code=status,
    )


def payload(*points: Point) -> Payload:
    return Payload(RESOURCE, points, ())


def series_of(*payloads: Iterable[Point], bounds: Bounds | None = None) -> ProcessSeries:
    series = ProcessSeries(ProcessInfo("id", "shop"), bounds=bounds or Bounds())
    for points in payloads:
        series.add(payload(*points))
    return series


def values(window: object) -> list[float]:
    return window.arrays()[1].tolist()  # type: ignore[attr-defined, no-any-return]


def test_add_says_whether_memory_has_a_new_sample() -> None:
    series = ProcessSeries(ProcessInfo("id", "shop"))
    assert not series.add(payload(request(T0, 1)))
    assert series.add(payload(memory(T0, 1)))
    assert not series.add(payload(memory(T0, 1)))
    assert not series.add(payload(memory(T0 - 5, 1)))
    assert series.add(payload(memory(T0 + 1, 1)))
    assert series.dropped.late == 2
    assert (series.first_seen, series.last_seen) == (T0, T0 + 1)


def test_attribute_sets_of_a_level_are_summed_at_each_time() -> None:
    def pools(time: float, *sizes: int) -> list[Point]:
        return [point("jvm.memory.used", time, size, jvm__memory__pool__name=f"p{i}") for i, size in enumerate(sizes)]

    series = series_of(pools(T0, 10, 20, 30), pools(T0 + 1, 11, 21, 31))
    assert series.memory is not None
    assert values(series.memory) == [60.0, 63.0]


def test_a_sum_that_comes_in_two_requests_is_whole_and_never_dips() -> None:
    def kind(time: float, name: str, size: float) -> Point:
        return point(names.HEAP_USAGE, time, size, otel_memory__heap__kind=name)

    series = series_of(
        [kind(T0, "arena", 100), kind(T0, "mmap", 50)], [kind(T0 + 1, "arena", 110)], [kind(T0 + 1, "mmap", 60)]
    )
    assert series.heap is not None
    assert values(series.heap) == [150.0, 170.0]
    _, floor = series.heap.arrays(1)
    assert floor.tolist() == [150.0]


def test_a_pool_that_vanished_no_longer_counts() -> None:
    def pool(time: float, name: str, size: float) -> Point:
        return point("jvm.memory.used", time, size, jvm__memory__pool__name=name)

    series = series_of(
        [pool(T0, "a", 1), pool(T0, "b", 10)], *([pool(T0 + second, "a", 1)] for second in (1.0, 2.0, 3.0))
    )
    assert series.memory is not None
    assert values(series.memory) == [11.0, 11.0, 1.0, 1.0]


def test_the_parts_of_resident_memory_are_those_of_the_newest_report() -> None:
    def part(time: float, name: str, size: float) -> Point:
        return point(names.MEMORY_BREAKDOWN, time, size, otel_memory__memory__part=name)

    assert series_of([memory(T0, 5)]).breakdown is None
    series = series_of(
        [part(T0, "python_used", 10), part(T0, "c_free", 3), part(T0, "file", -1)],
        [part(T0 + 1, "python_used", 12), part(T0 + 1, "file", 4)],
    )
    assert series.breakdown == {"python_used": 12, "file": 4}
    series.add(payload(part(T0 - 5, "python_used", 99)))
    assert series.breakdown == {"python_used": 12, "file": 4}
    many = series_of([part(T0, f"part {index}", index) for index in range(100)])
    assert len(many.breakdown or {}) == 16


def test_of_several_sources_the_best_one_is_judged_whatever_came_first() -> None:
    series = series_of([point("container.memory.usage", T0, 999)], [memory(T0 + 1, 5)])
    assert series.memory is not None
    assert values(series.memory) == [5.0]
    assert series.memory_metric == names.PROCESS_MEMORY_USAGE


def test_a_source_that_fell_silent_gives_way_to_the_next() -> None:
    series = series_of([memory(T0, 5)], [point("container.memory.usage", T0 + 1000, 999)])
    assert series.memory_metric == "container.memory.usage"


def test_requests_are_counted_by_route_over_all_status_codes() -> None:
    series = series_of(
        [request(T0, 5, "/a"), request(T0, 1, "/a", 500), request(T0, 7, "/b")],
        [request(T0 + 1, 9, "/a"), request(T0 + 1, 2, "/a", 500), request(T0 + 1, 7, "/b")],
    )
    assert {name: values(window) for name, window in series.routes.items()} == {"GET /a": [6, 11], "GET /b": [7, 7]}
    assert series.requests is not None
    assert values(series.requests) == [13.0, 18.0]


def test_a_request_under_an_old_and_a_new_name_counts_once() -> None:
    """An SDK in the middle of a migration sends both; the new one counts, also where the old one came first."""

    def old(time: float, count: float) -> Point:
        return point("http.server.duration", time, count, "sum", 1.0, http__method="GET", http__target="/a")

    series = series_of([old(T0, 5), request(T0, 5, "/a")], [old(T0 + 1, 9), request(T0 + 1, 9, "/a")])
    assert {name: values(window) for name, window in series.routes.items()} == {"GET /a": [5, 9]}
    assert series.requests is not None
    assert values(series.requests)[-1] == 9


def test_calls_of_a_route_that_was_never_seen_before_are_counted_from_zero() -> None:
    series = series_of([request(T0, 5, "/a")], [request(T0 + 1, 6, "/a"), request(T0 + 1, 3, "/new")])
    assert series.routes["GET /new"].arrays()[0].tolist() == [T0, T0 + 1]
    assert values(series.routes["GET /new"]) == [0.0, 3.0]


def test_routes_beyond_the_bound_are_counted_together() -> None:
    series = series_of([request(T0, 1, f"/r{i}") for i in range(10)], bounds=Bounds(routes=3))
    assert set(series.routes) == {"GET /r0", "GET /r1", "GET /r2", OTHER}
    assert values(series.routes[OTHER]) == [7.0]
    assert series.dropped.folded == 7
    assert series.dropped.total == 0


def test_attribute_sets_beyond_the_bound_are_dropped_and_counted() -> None:
    series = series_of([memory(T0, 1)], [request(T0, 1, f"/r{i}") for i in range(10)], bounds=Bounds(attribute_sets=4))
    assert series.dropped.overflow == 7
    assert series.requests is not None
    assert values(series.requests) == [3.0]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"http.request.method": "GET", "http.route": "/cart"}, "GET /cart"),
        ({"http.method": "POST", "http.target": "/cart"}, "POST /cart"),
        ({"http.request.method": "GET"}, f"GET {NO_ROUTE}"),
        ({}, NO_ROUTE),
        ({"rpc.service": "shop.Cart", "rpc.method": "Add"}, "rpc shop.Cart/Add"),
        ({"rpc.method": "shop.Cart/Add"}, "rpc shop.Cart/Add"),
    ],
)
def test_routes_are_named_as_people_write_them(attributes: dict[str, AttributeValue], name: str) -> None:
    assert route_of(attributes) == name


def test_operations_have_calls_of_every_status_and_growth_that_may_fall() -> None:
    def operation(time: float, ok: float, failed: float, growth: float) -> list[Point]:
        name = {"otel_memory__operation__name": "jobs.load"}
        return [
            point(names.OPERATION_CALLS, time, ok, "sum", 1.0, **name, otel_memory__operation__status="success"),
            point(names.OPERATION_CALLS, time, failed, "sum", 1.0, **name, otel_memory__operation__status="error"),
            point(names.OPERATION_GROWTH, time, growth, "gauge", 1.0, **name),
        ]

    series = series_of(operation(T0, 3, 1, 5000), operation(T0 + 1, 5, 1, 4000))
    (found,) = series.operations.items()
    assert found[0] == "jobs.load"
    assert values(found[1].calls) == [4.0, 6.0]
    assert values(found[1].growth) == [5000.0, 4000.0]


def test_only_full_collections_count() -> None:
    series = series_of([point(names.GC_COLLECTIONS, T0, g, "sum", 1.0, cpython__gc__generation=g) for g in (0, 1, 2)])
    assert series.gc_gen2 is not None
    assert values(series.gc_gen2) == [2.0]


def test_counts_stay_monotone_over_a_restart_of_the_process() -> None:
    series = series_of([request(T0, 100, start=T0 - 50)], [request(T0 + 10, 4, start=T0 + 5)])
    assert series.requests is not None
    assert values(series.requests) == [100.0, 104.0]
    assert series.lives == (T0 - 50, T0 + 5)


def test_one_restart_is_one_new_life_however_many_counters_it_resets() -> None:
    series = series_of(
        [request(T0, 100, "/a", start=T0 - 50), request(T0, 50, "/b", start=T0 - 50)],
        [request(T0 + 10, 4, "/a", start=T0 + 5)],
        [request(T0 + 40, 1, "/b", start=T0 + 30), request(T0 + 40, 9, "/a", start=T0 + 5)],
    )
    assert series.lives == (T0 - 50, T0 + 5)


def test_a_restart_is_recognised_by_the_uptime_and_not_by_its_jitter() -> None:
    def sample(time: float, uptime: float) -> list[Point]:
        return [memory(time, 1.0), point(names.PROCESS_UPTIME, time, uptime)]

    series = series_of(sample(T0, 10.0), sample(T0 + 1, 10.6), sample(T0 + 2, 12.5), sample(T0 + 20, 3.0))
    assert series.lives == (T0 - 10, T0 + 17)
    column = series.covariates()["start_time"]
    assert column.tolist() == [T0 - 10] * 3 + [T0 + 17]


def test_covariates_stand_at_the_times_of_memory() -> None:
    series = series_of(
        [memory(T0, 1)],
        [memory(T0 + 1, 1), request(T0 + 1.02, 5)],
        [memory(T0 + 2, 1)],
        [memory(T0 + 3, 1), request(T0 + 3.02, 9)],
    )
    column = series.covariate("requests")
    assert column is not None
    assert math.isnan(column[0])
    assert column[1:].tolist() == [5.0, 5.0, 9.0], "a clock that is read a moment later is the same moment"
    assert set(series.covariates()) == {"requests"}
    assert series.covariate("heap") is None


def test_the_limit_of_a_runtimes_heap_holds_for_that_heap_alone() -> None:
    def heap(time: float, size: float) -> Point:
        return point("jvm.memory.used_after_last_gc", time, size, jvm__memory__pool__name="G1 Old Gen")

    def limit(time: float, size: float, pool: str = "G1 Old Gen") -> Point:
        return point("jvm.memory.limit", time, size, jvm__memory__pool__name=pool)

    series = series_of([heap(T0, 50), limit(T0, 512), limit(T0, 9999, "Eden")], [heap(T0 + 1, 51), limit(T0 + 1, 512)])
    assert (series.memory_metric, series.limit_bytes, series.limit_kind) == (
        "jvm.memory.used_after_last_gc",
        512,
        "jvm_heap",
    )
    resident = series_of([memory(T0, 50), limit(T0, 512)], [memory(T0 + 1, 50), limit(T0 + 1, 512)])
    assert resident.limit_bytes is None
    harder = point(names.MEMORY_LIMIT, T0 + 2, 100, otel_memory__limit__kind="cgroup_v2")
    series.add(payload(harder))
    series.add(payload(limit(T0 + 3, 512)))
    assert (series.limit_bytes, series.limit_kind) == (100, "cgroup_v2")


def test_the_limit_and_what_sets_it() -> None:
    def limit(time: float, value: float, kind: str) -> Point:
        return point(names.MEMORY_LIMIT, time, value, otel_memory__limit__kind=kind)

    series = series_of([limit(T0, 512, "cgroup_v2")])
    assert (series.limit_bytes, series.limit_kind) == (512, "cgroup_v2")
    series.add(payload(limit(T0 + 1, 256, "configured")))
    series.add(payload(limit(T0 - 9, 1024, "host")))
    assert (series.limit_bytes, series.limit_kind) == (256, "configured")


def test_points_complete_what_the_resource_leaves_open() -> None:
    info = point(
        names.PROCESS_INFO, T0, 1, process__pid=7, process__runtime__name="cpython", process__runtime__version="3.12"
    )
    series = series_of([memory(T0, 1), info])
    assert (series.info.pid, series.info.runtime, series.info.id) == (7, "cpython 3.12", "id")


@pytest.mark.parametrize(
    ("bad", "counter"),
    [
        (memory(T0 + 90_000, 1), "future"),
        (memory(math.inf, 1), "invalid"),
        (memory(math.nan, 1), "invalid"),
        (memory(0.0, 1), "invalid"),
        (memory(T0 + 2, math.nan), "invalid"),
        (memory(T0 + 2, math.inf), "invalid"),
    ],
)
def test_points_that_can_not_be_are_counted_and_harm_nothing(bad: Point, counter: str) -> None:
    series = ProcessSeries(ProcessInfo("id", "shop"))
    series.add(payload(memory(T0, 1), bad, memory(T0 + 1, 2)), now=T0)
    assert series.memory is not None
    assert values(series.memory) == [1.0, 2.0]
    assert getattr(series.dropped, counter) == series.dropped.total == 1


def test_a_payload_with_several_times_is_taken_in_their_order() -> None:
    series = ProcessSeries(ProcessInfo("id", "shop"))
    series.add(payload(memory(T0 + 1, 2), memory(T0, 1), request(T0 + 1, 8, "/a"), request(T0, 5, "/a")))
    assert series.memory is not None
    assert values(series.memory) == [1.0, 2.0]
    assert values(series.routes["GET /a"]) == [5.0, 8.0]


def kept(series: ProcessSeries) -> dict[str, tuple[list[float], list[float]]]:
    """What a store would have kept of a series."""
    windows = {"memory": series.memory, "requests": series.requests, "heap": series.heap}
    windows |= {f"route:{name}": window for name, window in series.routes.items()}
    return {key: window.since(-math.inf) for key, window in windows.items() if window is not None}


def test_a_restored_series_goes_on_as_if_nothing_had_happened() -> None:
    def sample(second: int) -> list[Point]:
        return [memory(T0 + second, 100.0 + second), request(T0 + second, 3 * second, "/a"),
                request(T0 + second, second, "/a", 500), request(T0 + second, 2 * second, "/b")]  # fmt: skip

    live = series_of(*(sample(second) for second in range(1, 9)))
    before = series_of(*(sample(second) for second in range(1, 5)))
    table = SeriesTable()
    restored = table.restore(before.info, kept(before))
    for second in range(5, 9):
        restored.add(payload(*sample(second)))
    assert kept(restored) == kept(live)
    assert (restored.first_seen, restored.last_seen) == (live.first_seen, live.last_seen)


def test_after_a_restore_a_process_that_restarted_meanwhile_counts_on() -> None:
    before = series_of([memory(T0, 1), request(T0, 100, "/a")])
    restored = SeriesTable().restore(before.info, kept(before))
    restored.add(
        payload(memory(T0 + 60, 1), request(T0 + 60, 7, "/a", start=T0 + 50), point(names.PROCESS_UPTIME, T0 + 60, 20))
    )
    assert values(restored.routes["GET /a"]) == [100.0, 107.0]
    start = restored.covariates()["start_time"]
    assert start[0] != start[1] == T0 + 40


def test_the_table_makes_room_by_the_one_that_was_silent_longest() -> None:
    table = SeriesTable(max_processes=2)
    one, two, three = ({"service.name": name} for name in ("one", "two", "three"))
    first = table.of(one)
    table.of(two)
    assert table.of(one) is first
    assert table.of(three) is not None
    assert table.evicted == 1
    assert first is not None
    assert {series.info.service_name for series in table} == {"one", "three"}
    assert table.get(first.info.id) is first
    assert first.info.id in table
    assert len(table) == 2


def test_the_table_forgets_the_idle() -> None:
    table = SeriesTable()
    for name, time in (("old", T0), ("new", T0 + 100)):
        series = table.of({"service.name": name})
        assert series is not None
        series.add(Payload({"service.name": name}, [memory(time, 1)], ()))
    (gone,) = table.remove_idle_since(T0 + 50)
    assert gone not in table
    assert [series.info.service_name for series in table] == ["new"]


def test_payloads_of_nobody_are_counted() -> None:
    table = SeriesTable()
    assert table.of({"host.name": "box"}) is None
    assert table.unidentified == 1
    with pytest.raises(ValueError, match="max_processes"):
        SeriesTable(0)


def test_the_bytes_of_a_process_stay_bounded() -> None:
    series = ProcessSeries(ProcessInfo("id", "shop"))
    for second in range(0, 20_000, 60):
        series.add(payload(memory(T0 + second, 1), *(request(T0 + second, second, f"/r{i}") for i in range(5))))
    windows = 7
    assert 0 < series.nbytes <= windows * 3 * 16 * 288
    assert np.diff(series.memory.arrays()[0]).max() == 60  # type: ignore[union-attr]


@pytest.mark.parametrize("metric", [names.PROCESS_MEMORY_USAGE, names.MEMORY_LIMIT, names.PYTHON_BLOCK_COUNT])
@pytest.mark.parametrize("value", [2.0**63, 1e299, -(2.0**63)])
def test_a_size_that_no_integer_holds_is_no_sample(metric: str, value: float) -> None:
    series = series_of([point(metric, T0, value)])
    assert series.dropped.invalid == 1
    assert series.memory is None
    assert series.limit_bytes is None


def test_a_level_below_zero_is_no_sample() -> None:
    series = series_of([memory(T0, 5.0)], [memory(T0 + 1, -5.0)])
    assert series.dropped.invalid == 1
    assert values(series.memory) == [5.0]


def test_a_level_sent_as_increments_is_not_taken_for_the_level() -> None:
    series = series_of([point(names.PROCESS_MEMORY_USAGE, T0, 3e6, "delta", T0 - 1)])
    assert series.dropped.invalid == 1
    assert series.memory is None


def test_load_that_memory_follows_is_seen_at_coarser_levels_although_samples_fall_anywhere_in_their_buckets() -> None:
    series = ProcessSeries(ProcessInfo("id", "shop"))
    done = 0.0
    for second in range(900):
        rate = 20.0 + 15.0 * math.sin(second / 150)
        done += rate
        # The least of each bucket of 15 s stands at a different place in each one.
        dip = -3e6 if second % 15 == (second // 15 * 7) % 15 else 0.0
        series.add(payload(memory(T0 + second, 1e8 + 1e6 * rate + dip), request(T0 + second, done)))
    assert series.memory is not None
    times, _ = series.memory.arrays(1)
    requests = series.covariate("requests", 1)
    assert requests is not None
    # Nothing is known before the first request sample of a bucket.
    times, requests = times[1:], requests[1:]
    rates = np.diff(requests) / np.diff(times)
    truth = 20.0 + 15.0 * np.sin((times[1:] + times[:-1] - 2 * T0) / 300)
    assert np.abs(rates - truth).max() < 1.0
