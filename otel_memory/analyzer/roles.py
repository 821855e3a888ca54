"""Which metrics the analyzer has a use for, and what each one is to it.

Owns the map from metric name to role; nothing else knows a metric by its name. Never reads a value: how the
points of a role become one series is the business of ``series``.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from otel_memory import names
from otel_memory.analyzer.model import AttributeSet


class Role(StrEnum):
    """What a series is to the analyzer."""

    MEMORY = "memory"
    """Memory in use, bytes: the series that is judged."""
    FLOOR = "floor"
    """Memory in use just after a full collection, bytes."""
    LIMIT = "limit"
    """The limit that ends the process, bytes."""
    HEAP = "heap"
    """Bytes in use in the C allocator, one series for each kind."""
    BLOCKS = "blocks"
    """Memory blocks that the Python allocator has handed out."""
    GC_GEN2 = "gc_gen2"
    """Full collections since the interpreter began."""
    REQUESTS = "requests"
    """Requests served, one series for each route or method: the count of a duration histogram."""
    OPERATION_CALLS = "operation_calls"
    """Calls of a tracked operation."""
    OPERATION_GROWTH = "operation_growth"
    """Bytes that resident memory changed by over the calls of a tracked operation."""
    START_TIME = "start_time"
    """Seconds that the process has been running: the point's time less its value is when it began."""
    BREAKDOWN = "breakdown"
    """What the resident memory consists of, bytes, one series for each part."""
    INFO = "info"
    """Says with its attributes which process this is, where the resource does not."""


class Use(NamedTuple):
    """The role of a metric. Where several metrics of one process have the same role, the lowest ``priority``
    counts and the others are set aside."""

    role: Role
    priority: int = 0


RUNTIME_LIMITS: Final = MappingProxyType({"jvm.memory.limit": "jvm_heap", "go.memory.limit": "go_memory_limit"})
"""Limits of a runtime's own heap -> what kind they are. They hold for that runtime's metrics alone."""

WITH_GARBAGE: Final = frozenset({"jvm.memory.used", "go.memory.used", "v8js.memory.heap.used"})
"""Measures of memory that hold what the next collection frees: they rise by a good part before they fall."""

_PREFERENCE: Final[dict[Role, tuple[str, ...]]] = {
    # Where a runtime says what its last collection left, that comes first: such a runtime takes all the memory that it
    # may, so the process tells little. Then comes what the kernel holds the process to, then its container's, then a
    # runtime's own heap with the garbage in it. Of the container's, the working set is what the kubelet evicts by;
    # usage includes reclaimable page cache.
    Role.MEMORY: (
        "jvm.memory.used_after_last_gc",
        "dotnet.gc.last_collection.heap.size",
        names.PROCESS_MEMORY_USAGE,
        "container.memory.working_set",
        "container.memory.usage",
        "container.memory.rss",
        "dotnet.process.memory.working_set",
        "jvm.memory.used",
        "go.memory.used",
        "v8js.memory.heap.used",
    ),
    Role.FLOOR: (names.GC_FLOOR_USAGE,),
    Role.LIMIT: (names.MEMORY_LIMIT, *RUNTIME_LIMITS),
    Role.HEAP: (names.HEAP_USAGE,),
    Role.BLOCKS: (names.PYTHON_BLOCK_COUNT,),
    Role.GC_GEN2: (names.GC_COLLECTIONS,),
    # The second and the fourth are what these were called before the conventions became stable.
    Role.REQUESTS: (
        "http.server.request.duration",
        "http.server.duration",
        "rpc.server.call.duration",
        "rpc.server.duration",
    ),
    Role.OPERATION_CALLS: (names.OPERATION_CALLS,),
    Role.OPERATION_GROWTH: (names.OPERATION_GROWTH,),
    Role.START_TIME: (names.PROCESS_UPTIME,),
    Role.BREAKDOWN: (names.MEMORY_BREAKDOWN,),
    Role.INFO: (names.PROCESS_INFO,),
}

USES: Final = MappingProxyType(
    {name: Use(role, priority) for role, preferred in _PREFERENCE.items() for priority, name in enumerate(preferred)}
)
"""Metric name -> its use."""

WANTED: Final[frozenset[str]] = frozenset(USES)
"""The metrics that decoding keeps; every other one is accepted and dropped."""

_FULL_GENERATION: Final = 2

_PARTS: Final = MappingProxyType(
    {
        "jvm.memory.used_after_last_gc": ("jvm.memory.pool.name", ("eden", "survivor", "young", "nursery")),
        "jvm.memory.used": ("jvm.memory.pool.name", ("eden", "survivor", "young", "nursery")),
        "jvm.memory.limit": ("jvm.memory.pool.name", ("eden", "survivor", "young", "nursery")),
        "v8js.memory.heap.used": ("v8js.heap.space.name", ("new_",)),
        "dotnet.gc.last_collection.heap.size": ("gc.heap.generation", ("gen0",)),
    }
)
"""Metric -> the attribute that names a part of the heap, and words in the names of those where the young objects are:
they fill and empty with every collection."""


def use_of(metric: str, attributes: AttributeSet = ()) -> Use | None:
    """The use of one series, or None where the analyzer has none.

    The attributes matter for collections (the younger generations say nothing about a leak) and for the heaps of
    runtimes: of the JVM's memory only that of its heap counts, and nowhere that of the young objects.
    """
    use = USES.get(metric)
    if use is None:
        return None
    if use.role is Role.GC_GEN2:
        return use if str(dict(attributes).get(names.CPYTHON_GC_GENERATION)) == str(_FULL_GENERATION) else None
    if metric in _PARTS:
        key, young = _PARTS[metric]
        said = dict(attributes)
        part = str(said.get(key, "")).lower()
        if any(word in part for word in young) or said.get("jvm.memory.type", "heap") != "heap":
            return None
    return use


def role_of(metric: str, attributes: AttributeSet = ()) -> Role | None:
    """The role of one series, or None where the analyzer has no use for it."""
    use = use_of(metric, attributes)
    return None if use is None else use.role
