"""The map from metric names to roles."""

import pytest

from otel_memory import names
from otel_memory.analyzer.model import AttributeSet
from otel_memory.analyzer.roles import USES, WANTED, Role, role_of, use_of


def test_every_role_has_at_least_one_metric() -> None:
    assert {use.role for use in USES.values()} == set(Role)


def test_wanted_is_what_has_a_use() -> None:
    assert set(USES) == WANTED


@pytest.mark.parametrize(
    ("metric", "role"),
    [
        (names.PROCESS_MEMORY_USAGE, Role.MEMORY),
        ("container.memory.working_set", Role.MEMORY),
        ("jvm.memory.used", Role.MEMORY),
        ("jvm.memory.used_after_last_gc", Role.MEMORY),
        ("jvm.memory.limit", Role.LIMIT),
        ("go.memory.limit", Role.LIMIT),
        (names.GC_FLOOR_USAGE, Role.FLOOR),
        (names.MEMORY_LIMIT, Role.LIMIT),
        (names.HEAP_USAGE, Role.HEAP),
        (names.PYTHON_BLOCK_COUNT, Role.BLOCKS),
        ("http.server.request.duration", Role.REQUESTS),
        ("http.server.duration", Role.REQUESTS),
        ("rpc.server.duration", Role.REQUESTS),
        (names.OPERATION_CALLS, Role.OPERATION_CALLS),
        (names.OPERATION_GROWTH, Role.OPERATION_GROWTH),
        (names.PROCESS_UPTIME, Role.START_TIME),
        (names.PROCESS_INFO, Role.INFO),
        ("system.cpu.time", None),
        ("", None),
    ],
)
def test_a_metric_has_its_role(metric: str, role: Role | None) -> None:
    assert role_of(metric) == role


def test_what_a_collection_left_goes_before_the_process_its_container_and_the_runtimes_heap() -> None:
    order = sorted((use.priority, name) for name, use in USES.items() if use.role is Role.MEMORY)
    assert [name for _, name in order] == [
        "jvm.memory.used_after_last_gc",
        "dotnet.gc.last_collection.heap.size",
        "process.memory.usage",
        "container.memory.working_set",
        "container.memory.usage",
        "container.memory.rss",
        "dotnet.process.memory.working_set",
        "jvm.memory.used",
        "go.memory.used",
        "v8js.memory.heap.used",
    ]


def test_two_metrics_of_one_role_never_share_a_priority() -> None:
    assert len({(use.role, use.priority) for use in USES.values()}) == len(USES)


@pytest.mark.parametrize(("generation", "wanted"), [(0, False), (1, False), (2, True), ("2", True), (None, False)])
def test_only_full_collections_have_a_use(generation: int | str | None, wanted: bool) -> None:
    attributes = () if generation is None else ((names.CPYTHON_GC_GENERATION, generation),)
    assert (use_of(names.GC_COLLECTIONS, attributes) is not None) is wanted


@pytest.mark.parametrize(
    ("metric", "attributes", "wanted"),
    [
        ("jvm.memory.used", (("jvm.memory.pool.name", "G1 Old Gen"), ("jvm.memory.type", "heap")), True),
        ("jvm.memory.used", (("jvm.memory.pool.name", "ZHeap"), ("jvm.memory.type", "heap")), True),
        ("jvm.memory.used", (("jvm.memory.pool.name", "G1 Eden Space"), ("jvm.memory.type", "heap")), False),
        ("jvm.memory.used", (("jvm.memory.pool.name", "PS Survivor Space"), ("jvm.memory.type", "heap")), False),
        ("jvm.memory.used", (("jvm.memory.pool.name", "ZGC Young Generation"), ("jvm.memory.type", "heap")), False),
        ("jvm.memory.used", (("jvm.memory.pool.name", "Metaspace"), ("jvm.memory.type", "non_heap")), False),
        ("jvm.memory.limit", (("jvm.memory.pool.name", "Tenured Gen"), ("jvm.memory.type", "heap")), True),
        ("jvm.memory.limit", (("jvm.memory.pool.name", "Metaspace"), ("jvm.memory.type", "non_heap")), False),
        ("v8js.memory.heap.used", (("v8js.heap.space.name", "old_space"),), True),
        ("v8js.memory.heap.used", (("v8js.heap.space.name", "new_large_object_space"),), False),
        ("dotnet.gc.last_collection.heap.size", (("gc.heap.generation", "gen2"),), True),
        ("dotnet.gc.last_collection.heap.size", (("gc.heap.generation", "gen0"),), False),
        ("go.memory.used", (("go.memory.type", "stack"),), True),
    ],
)
def test_of_a_runtimes_heap_the_part_of_the_young_objects_does_not_count(
    metric: str, attributes: AttributeSet, wanted: bool
) -> None:
    assert (use_of(metric, attributes) is not None) is wanted
