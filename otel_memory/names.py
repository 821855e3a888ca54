"""The contract between the probe and the analyzer: every metric, attribute and event name.

Imports nothing of ours. A name that the OpenTelemetry semantic conventions define is used as it is and
marked ``conventional``; a name of our own carries the prefix ``otel_memory.`` and stands here with its unit
and description. ``docs/conventions.md`` is held against this module by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SCOPE: Final = "otel_memory"
"""Name of the instrumentation scope of everything that the probe emits."""

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: ``unit`` is UCUM as OpenTelemetry uses it; ``attributes`` are the keys its points may carry."""

    name: str
    unit: str
    kind: Kind
    description: str
    attributes: tuple[str, ...] = ()
    conventional: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of our own; ``type`` is the OTLP value type, ``values`` lists the allowed ones where closed."""

    name: str
    type: Literal["string", "int", "double", "boolean", "string[]", "int[]", "double[]"]
    description: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One event: a log record whose ``event_name`` is ``name`` and whose attributes are flat.

    ``attributes`` are all that it may have, ``optional`` those among them that may be absent. ``open`` says that the
    caller may add others.
    """

    name: str
    description: str
    attributes: tuple[str, ...]
    optional: tuple[str, ...] = ()
    open: bool = False


# --- attributes: conventional keys that we use -------------------------------------------------------------
CPYTHON_GC_GENERATION: Final = "cpython.gc.generation"
PAGING_FAULT_TYPE: Final = "system.paging.fault.type"
SYSTEM_MEMORY_STATE: Final = "system.memory.state"
PROCESS_PID: Final = "process.pid"
PROCESS_RUNTIME_NAME: Final = "process.runtime.name"
PROCESS_RUNTIME_VERSION: Final = "process.runtime.version"
HOST_NAME: Final = "host.name"
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
HW_ID: Final = "hw.id"
HW_NAME: Final = "hw.name"
HW_VENDOR: Final = "hw.vendor"
HTTP_ROUTE: Final = "http.route"
HTTP_REQUEST_METHOD: Final = "http.request.method"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

CONVENTIONAL_ATTRIBUTES: Final[dict[str, Literal["string", "int", "double", "boolean", "string[]"]]] = {
    CPYTHON_GC_GENERATION: "int",
    PROCESS_PID: "int",
    SERVICE_NAME: "string",
    SERVICE_VERSION: "string",
    SERVICE_INSTANCE_ID: "string",
    EXCEPTION_TYPE: "string",
    EXCEPTION_MESSAGE: "string",
    SERVER_ADDRESS: "string",
    SERVER_PORT: "int",
}
"""Type of each conventional attribute that an event has."""

# --- attributes: our own -----------------------------------------------------------------------------------
LIMIT_KIND: Final = "otel_memory.limit.kind"
HEAP_KIND: Final = "otel_memory.heap.kind"
MEMORY_PART: Final = "otel_memory.memory.part"
ALLOCATOR: Final = "otel_memory.allocator"
PSI_KIND: Final = "otel_memory.psi.kind"
PSI_SCOPE: Final = "otel_memory.psi.scope"
OPERATION_NAME: Final = "otel_memory.operation.name"
OPERATION_STATUS: Final = "otel_memory.operation.status"
OPERATION_MEMORY_BEFORE: Final = "otel_memory.operation.memory.before"
OPERATION_MEMORY_AFTER: Final = "otel_memory.operation.memory.after"
OPERATION_MEMORY_DELTA: Final = "otel_memory.operation.memory.delta"
OPERATION_MEMORY_PEAK_DELTA: Final = "otel_memory.operation.memory.peak_delta"
OPERATION_OVERLAP: Final = "otel_memory.operation.overlap"
OPERATION_TRACED: Final = "otel_memory.operation.traced.delta"
OPERATION_TRACED_PEAK: Final = "otel_memory.operation.traced.peak"
PROBE_PART: Final = "otel_memory.probe.part"
EXPORTER_SIGNAL: Final = "otel_memory.exporter.signal"
EXPORTER_REASON: Final = "otel_memory.exporter.reason"
PROBE_VERSION: Final = "otel_memory.version"
APPLICATION_COMPONENT: Final = "otel_memory.application.component"
APPLICATION_EVENT_TYPE: Final = "otel_memory.application.event.type"
EVENT_ID: Final = "otel_memory.event.id"
THRESHOLD_NAME: Final = "otel_memory.threshold.name"
THRESHOLD_METRIC: Final = "otel_memory.threshold.metric"
THRESHOLD_ATTRIBUTES: Final = "otel_memory.threshold.attributes"
THRESHOLD_COMPARISON: Final = "otel_memory.threshold.comparison"
THRESHOLD_BOUND: Final = "otel_memory.threshold.bound"
THRESHOLD_VALUE: Final = "otel_memory.threshold.value"
THRESHOLD_PEAK: Final = "otel_memory.threshold.peak"
THRESHOLD_UNIT: Final = "otel_memory.threshold.unit"
THRESHOLD_SEVERITY: Final = "otel_memory.threshold.severity"
THRESHOLD_DURATION: Final = "otel_memory.threshold.duration"
EVICTOR_NAME: Final = "otel_memory.evictor.name"
EVICTOR_OUTCOME: Final = "otel_memory.evictor.outcome"
EVICTION_TARGET: Final = "otel_memory.eviction.target"
EVICTION_FREED_HEAP: Final = "otel_memory.eviction.freed.heap"
EVICTION_FREED_RSS: Final = "otel_memory.eviction.freed.rss"
EVICTION_DURATION: Final = "otel_memory.eviction.duration"
EVICTION_ENDED: Final = "otel_memory.eviction.ended"
EVICTION_REPORT: Final = "otel_memory.eviction.report"
CLEANUP_TRIGGER: Final = "otel_memory.cleanup.trigger"
CLEANUP_AGGRESSIVE: Final = "otel_memory.cleanup.aggressive"
CLEANUP_STEP: Final = "otel_memory.cleanup.step"
CLEANUP_FREED_HEAP: Final = "otel_memory.cleanup.freed.heap"
CLEANUP_FREED_RSS: Final = "otel_memory.cleanup.freed.rss"
CLEANUP_DURATION: Final = "otel_memory.cleanup.duration"
# By step of a cleanup: an event's attributes are flat.
CLEANUP_STEP_OUTCOME: Final = {
    "evict": "otel_memory.cleanup.evict.outcome",
    "gc": "otel_memory.cleanup.gc.outcome",
    "trim": "otel_memory.cleanup.trim.outcome",
}
CLEANUP_STEP_FREED_HEAP: Final = {
    "evict": "otel_memory.cleanup.evict.freed.heap",
    "gc": "otel_memory.cleanup.gc.freed.heap",
    "trim": "otel_memory.cleanup.trim.freed.heap",
}
CLEANUP_STEP_FREED_RSS: Final = {
    "evict": "otel_memory.cleanup.evict.freed.rss",
    "gc": "otel_memory.cleanup.gc.freed.rss",
    "trim": "otel_memory.cleanup.trim.freed.rss",
}
CLEANUP_STEP_DURATION: Final = {
    "evict": "otel_memory.cleanup.evict.duration",
    "gc": "otel_memory.cleanup.gc.duration",
    "trim": "otel_memory.cleanup.trim.duration",
}
SNAPSHOT_STATUS: Final = "otel_memory.snapshot.status"
SNAPSHOT_MEMORY: Final = "otel_memory.snapshot.memory"
SNAPSHOT_UTILIZATION: Final = "otel_memory.snapshot.utilization"
SNAPSHOT_PRESSURE: Final = "otel_memory.snapshot.pressure"
SNAPSHOT_BLOCK_COUNT: Final = "otel_memory.snapshot.block.count"
SNAPSHOT_GROWTH: Final = "otel_memory.snapshot.growth"
SNAPSHOT_EVICTION_COUNT: Final = "otel_memory.snapshot.eviction.count"
LOG_MEMORY_USAGE: Final = "otel_memory.log.memory.usage"
LOG_MEMORY_DELTA: Final = "otel_memory.log.memory.delta"
PACKAGE_NAME: Final = "otel_memory.package.name"
EVIDENCE_KIND: Final = "otel_memory.evidence.kind"
EVIDENCE_GROWTH: Final = "otel_memory.evidence.growth"
EVIDENCE_WINDOW: Final = "otel_memory.evidence.window"
EVIDENCE_SITE: Final = "otel_memory.evidence.site"
EVIDENCE_SITE_GROWTH: Final = "otel_memory.evidence.site.growth"
EVIDENCE_TYPE: Final = "otel_memory.evidence.type"
EVIDENCE_TYPE_GROWTH: Final = "otel_memory.evidence.type.growth"
EVIDENCE_HOLDER: Final = "otel_memory.evidence.holder"
EVIDENCE_HOLDER_KIND: Final = "otel_memory.evidence.holder.kind"
EVIDENCE_HOLDER_CONTAINER: Final = "otel_memory.evidence.holder.container"
EVIDENCE_HOLDER_GROWTH: Final = "otel_memory.evidence.holder.growth"
EVIDENCE_HOLDER_SIZE: Final = "otel_memory.evidence.holder.size"
EVIDENCE_HOLDER_SITE: Final = "otel_memory.evidence.holder.site"
EVIDENCE_NOTE: Final = "otel_memory.evidence.note"
EVIDENCE_PYTHON_GROWTH: Final = "otel_memory.evidence.python.growth"
EVIDENCE_C_GROWTH: Final = "otel_memory.evidence.c.growth"
EVIDENCE_FREE_GROWTH: Final = "otel_memory.evidence.free.growth"
EVIDENCE_STACK_GROWTH: Final = "otel_memory.evidence.stack.growth"
EVIDENCE_MAPPED_GROWTH: Final = "otel_memory.evidence.mapped.growth"
EVIDENCE_THREAD_GROWTH: Final = "otel_memory.evidence.thread.growth"
EVIDENCE_FD_GROWTH: Final = "otel_memory.evidence.file_descriptor.growth"
EVIDENCE_BURST_DURATION: Final = "otel_memory.evidence.burst.duration"
EVIDENCE_CENSUS_DURATION: Final = "otel_memory.evidence.census.duration"
EVIDENCE_PAUSE: Final = "otel_memory.evidence.pause"
EVIDENCE_GAVE_UP: Final = "otel_memory.evidence.gave_up"
EVIDENCE_CONFIDENCE: Final = "otel_memory.evidence.confidence"
EVIDENCE_ROUND: Final = "otel_memory.evidence.round"
OBJECT_TYPE: Final = "otel_memory.object.type"
SESSION_TYPE: Final = "otel_memory.session.type"
SESSION_STATE: Final = "otel_memory.session.state"
ALERT_ID: Final = "otel_memory.alert.id"
ALERT_NAME: Final = "otel_memory.alert.name"
ALERT_STATE: Final = "otel_memory.alert.state"
ALERT_SEVERITY: Final = "otel_memory.alert.severity"
ALERT_SUMMARY: Final = "otel_memory.alert.summary"
ALERT_PROCESS_ID: Final = "otel_memory.alert.process.id"
ALERT_GROWTH: Final = "otel_memory.alert.growth"
ALERT_SCORE: Final = "otel_memory.alert.score"
ALERT_TIME_TO_LIMIT: Final = "otel_memory.alert.time_to_limit"
ALERT_SUSPECT: Final = "otel_memory.alert.suspect"
LEAK_VERDICT: Final = "otel_memory.leak.verdict"
LEAK_SUSPECT_KIND: Final = "otel_memory.leak.suspect.kind"
LEAK_SUSPECT_NAME: Final = "otel_memory.leak.suspect.name"
LEAK_PROCESS_ID: Final = "otel_memory.leak.process.id"
DIAGNOSTIC_GC_REASON: Final = "otel_memory.diagnostic_gc.reason"
DIAGNOSTIC_GC_COLLECTED_0: Final = "otel_memory.diagnostic_gc.generation0.collected"
DIAGNOSTIC_GC_COLLECTED_1: Final = "otel_memory.diagnostic_gc.generation1.collected"
DIAGNOSTIC_GC_COLLECTED_2: Final = "otel_memory.diagnostic_gc.generation2.collected"
DIAGNOSTIC_GC_FREED: Final = "otel_memory.diagnostic_gc.freed"
DIAGNOSTIC_GC_UNCOLLECTABLE: Final = "otel_memory.diagnostic_gc.uncollectable"
DIAGNOSTIC_GC_CYCLES: Final = "otel_memory.diagnostic_gc.cycle.count"
DIAGNOSTIC_GC_RSS_BEFORE: Final = "otel_memory.diagnostic_gc.rss.before"
DIAGNOSTIC_GC_RSS_AFTER: Final = "otel_memory.diagnostic_gc.rss.after"
DIAGNOSTIC_GC_HEAP_BEFORE: Final = "otel_memory.diagnostic_gc.heap.before"
DIAGNOSTIC_GC_HEAP_AFTER: Final = "otel_memory.diagnostic_gc.heap.after"
DIAGNOSTIC_GC_BLOCKS_BEFORE: Final = "otel_memory.diagnostic_gc.block.before"
DIAGNOSTIC_GC_BLOCKS_AFTER: Final = "otel_memory.diagnostic_gc.block.after"
DIAGNOSTIC_GC_DURATION: Final = "otel_memory.diagnostic_gc.duration"
DIAGNOSTIC_GC_PAUSE: Final = "otel_memory.diagnostic_gc.pause"
DIAGNOSTIC_GC_TYPES: Final = "otel_memory.diagnostic_gc.type"
DIAGNOSTIC_GC_HOLDERS: Final = "otel_memory.diagnostic_gc.holder"
DIAGNOSTIC_GC_CHAINS: Final = "otel_memory.diagnostic_gc.chain"
DIAGNOSTIC_GC_INCOMPLETE: Final = "otel_memory.diagnostic_gc.incomplete"

ATTRIBUTES: Final[dict[str, Attribute]] = {
    a.name: a
    for a in (
        Attribute(
            LIMIT_KIND,
            "string",
            "What sets the limit that will really end the process.",
            ("configured", "cgroup_v2", "cgroup_v1", "rlimit", "host"),
        ),
        Attribute(
            HEAP_KIND,
            "string",
            "Part of the C allocator's heap: blocks in its arenas, or blocks it mapped on their own.",
            ("arena", "mmap"),
        ),
        Attribute(
            MEMORY_PART,
            "string",
            "Part of the resident memory: handed out and kept by Python's allocator, the same of the C allocator, "
            "pages of files, shared memory, stacks of threads, and what remains.",
            ("python_used", "python_free", "c_used", "c_free", "file", "shared", "stack", "other"),
        ),
        Attribute(ALLOCATOR, "string", "Whose memory: Python's allocator or that of the C library.", ("python", "c")),
        Attribute(PSI_KIND, "string", "Whether some or all tasks stalled on memory.", ("some", "full")),
        Attribute(PSI_SCOPE, "string", "Whose tasks the pressure-stall information covers.", ("system", "cgroup")),
        Attribute(OPERATION_NAME, "string", "Name of the operation: module and qualified name, or the given one."),
        Attribute(OPERATION_STATUS, "string", "How the operation ended.", ("success", "error")),
        Attribute(OPERATION_MEMORY_BEFORE, "int", "Resident bytes of the process when the operation began."),
        Attribute(OPERATION_MEMORY_AFTER, "int", "Resident bytes of the process when the operation ended."),
        Attribute(OPERATION_MEMORY_DELTA, "int", "Change of resident bytes while the operation ran; may be negative."),
        Attribute(
            OPERATION_MEMORY_PEAK_DELTA,
            "int",
            "Highest resident bytes during the operation less those at its beginning, where the kernel tells.",
        ),
        Attribute(
            OPERATION_OVERLAP,
            "boolean",
            "True if other tracked operations ran at the same time, so that the delta may be theirs.",
        ),
        Attribute(OPERATION_TRACED, "int", "Python bytes that tracemalloc saw allocated and not freed."),
        Attribute(OPERATION_TRACED_PEAK, "int", "Highest Python bytes above the start that tracemalloc saw."),
        Attribute(PROBE_PART, "string", "Part of the probe that dropped or failed something."),
        Attribute(EXPORTER_SIGNAL, "string", "Whose items a Kafka exporter dropped.", ("events", "logs", "metrics")),
        Attribute(
            EXPORTER_REASON,
            "string",
            "Why a Kafka exporter dropped them.",
            (
                *("buffer_full", "spool_full", "spool_failed", "spool_damaged"),
                *("too_large", "encoding", "unusable", "shutdown"),
            ),
        ),
        Attribute(PROBE_VERSION, "string", "Version of otel-memory in the process."),
        Attribute(APPLICATION_COMPONENT, "string", "Part of the application that tells the event."),
        Attribute(APPLICATION_EVENT_TYPE, "string", "What happened, in the application's own word."),
        Attribute(EVENT_ID, "string", "The same for the crossing and the recovery of one episode."),
        Attribute(THRESHOLD_NAME, "string", "Name of the rule."),
        Attribute(THRESHOLD_METRIC, "string", "Metric that the rule reads."),
        Attribute(
            THRESHOLD_ATTRIBUTES,
            "string",
            "Which of the metric's points the rule reads, as key=value with commas between them; absent if all.",
        ),
        Attribute(
            THRESHOLD_COMPARISON,
            "string",
            "How the metric is compared with the bound.",
            ("greater_than", "percent_change", "growth_per_second", "share_of_limit"),
        ),
        Attribute(THRESHOLD_BOUND, "double", "Bound of the rule, in otel_memory.threshold.unit."),
        Attribute(THRESHOLD_VALUE, "double", "Compared value at the time of the event, in otel_memory.threshold.unit."),
        Attribute(THRESHOLD_PEAK, "double", "Highest compared value of the episode, in otel_memory.threshold.unit."),
        Attribute(THRESHOLD_UNIT, "string", "Unit of bound and value: By, s or 1, one of them with /s, or %."),
        Attribute(THRESHOLD_SEVERITY, "string", "Severity of the rule.", ("info", "warning", "critical")),
        Attribute(THRESHOLD_DURATION, "double", "Seconds from the crossing to the recovery."),
        Attribute(EVICTOR_NAME, "string", "Name that the evictor was registered under, `other` beyond the 64th."),
        Attribute(
            EVICTOR_OUTCOME,
            "string",
            "What calling the evictor came to; useless is less than 16 KiB freed.",
            ("freed", "useless", "failed", "timed_out", "skipped"),
        ),
        Attribute(EVICTION_TARGET, "int", "Bytes that were to be freed; absent where all was asked for."),
        Attribute(EVICTION_FREED_HEAP, "int", "Bytes in use by the allocators before, less those after."),
        Attribute(EVICTION_FREED_RSS, "int", "Resident bytes before, less those after."),
        Attribute(EVICTION_DURATION, "double", "Seconds that the eviction took."),
        Attribute(EVICTION_ENDED, "string", "Why it ended.", ("reached", "no_evictor_left", "useless", "stopped")),
        Attribute(EVICTION_REPORT, "string[]", "One line for each call of an evictor: name, outcome, bytes, seconds."),
        Attribute(CLEANUP_TRIGGER, "string", "What set the cleanup off.", ("manual", "periodic", "critical")),
        Attribute(CLEANUP_AGGRESSIVE, "boolean", "Whether every evictor and generation was asked and no step skipped."),
        Attribute(CLEANUP_STEP, "string", "Step of the cleanup.", ("evict", "gc", "trim")),
        Attribute(CLEANUP_FREED_HEAP, "int", "Bytes in use by the allocators before the cleanup, less those after."),
        Attribute(CLEANUP_FREED_RSS, "int", "Resident bytes before the cleanup, less those after."),
        Attribute(CLEANUP_DURATION, "double", "Seconds that the cleanup took."),
        *(
            Attribute(
                name,
                "string",
                f"What the step {step} came to; useless is less than 1 MiB freed.",
                ("freed", "useless", "failed", "skipped"),
            )
            for step, name in CLEANUP_STEP_OUTCOME.items()
        ),
        *(
            Attribute(name, "int", f"Bytes in use by the allocators before the step {step}, less those after.")
            for step, name in CLEANUP_STEP_FREED_HEAP.items()
        ),
        *(
            Attribute(name, "int", f"Resident bytes before the step {step}, less those after.")
            for step, name in CLEANUP_STEP_FREED_RSS.items()
        ),
        *(
            Attribute(name, "double", f"Seconds that the step {step} took.")
            for step, name in CLEANUP_STEP_DURATION.items()
        ),
        Attribute(
            SNAPSHOT_STATUS,
            "string",
            "How well the process is, by use of the limit and growth.",
            ("unknown", "healthy", "caution", "warning", "critical"),
        ),
        Attribute(SNAPSHOT_MEMORY, "int", "Resident bytes of the process."),
        Attribute(SNAPSHOT_UTILIZATION, "double", "Share of the limit in use: 1 is all of it."),
        Attribute(SNAPSHOT_PRESSURE, "string", "Pressure level of that use.", ("low", "medium", "high", "critical")),
        Attribute(SNAPSHOT_BLOCK_COUNT, "int", "Memory blocks that the Python allocator has handed out."),
        Attribute(SNAPSHOT_GROWTH, "double", "Growth of resident memory in By/s over the last two minutes."),
        Attribute(SNAPSHOT_EVICTION_COUNT, "int", "Calls of evictors since the process began."),
        Attribute(LOG_MEMORY_USAGE, "int", "Resident bytes of the process when the log record was made."),
        Attribute(
            LOG_MEMORY_DELTA,
            "int",
            "Change of resident bytes from the beginning of the tracked operation to the log record; may be negative.",
        ),
        Attribute(PACKAGE_NAME, "string", "Top-level name by which a Python package is imported."),
        Attribute(
            EVIDENCE_KIND,
            "string",
            "What kind of memory grows: Python's objects, its cycles that wait for the collector, the C allocator's, "
            "free memory that allocators keep, stacks of threads, or mappings past both allocators.",
            ("python", "cycles", "native", "fragmentation", "threads", "mapped", "unknown"),
        ),
        Attribute(EVIDENCE_GROWTH, "double", "Growth of resident memory that no file backs, By/s."),
        Attribute(EVIDENCE_WINDOW, "double", "Seconds over which that growth was seen."),
        Attribute(EVIDENCE_SITE, "string[]", "Growing allocation sites as file:line function, the fastest first."),
        Attribute(EVIDENCE_SITE_GROWTH, "double[]", "By/s that each site allocated and kept during the burst."),
        Attribute(EVIDENCE_TYPE, "string[]", "Types of which there are ever more objects, the first suspect first."),
        Attribute(EVIDENCE_TYPE_GROWTH, "int[]", "Objects that came to each type between two censuses."),
        Attribute(EVIDENCE_HOLDER, "string[]", "Who holds what grows: a global, an attribute, a cache, a variable."),
        Attribute(EVIDENCE_HOLDER_KIND, "string[]", "What each holder is: global, class, instance, cache, closure, …"),
        Attribute(EVIDENCE_HOLDER_CONTAINER, "string[]", "Type of the container, or of the objects, that it holds."),
        Attribute(
            EVIDENCE_HOLDER_GROWTH,
            "int[]",
            "Entries (of a buffer bytes) that came to each container; objects more of the type where a holder of "
            "single objects is named.",
        ),
        Attribute(
            EVIDENCE_HOLDER_SIZE,
            "int[]",
            "Bytes that came with them: as many times what the newest of them take, with all that only one refers to.",
        ),
        Attribute(
            EVIDENCE_HOLDER_SITE,
            "string[]",
            "The line that made most of what came to each container during the burst; empty if none was seen.",
        ),
        Attribute(EVIDENCE_NOTE, "string[]", "What else was seen: threads, descriptors, the collector's state."),
        Attribute(EVIDENCE_PYTHON_GROWTH, "double", "By/s by which memory in use in Python's own allocator grew."),
        Attribute(EVIDENCE_C_GROWTH, "double", "By/s by which memory in use in the C allocator grew."),
        Attribute(EVIDENCE_FREE_GROWTH, "double", "By/s by which memory grew that is free and kept by allocators."),
        Attribute(EVIDENCE_STACK_GROWTH, "double", "By/s by which the stacks of threads grew."),
        Attribute(EVIDENCE_MAPPED_GROWTH, "double", "By/s by which memory grew that was mapped past both allocators."),
        Attribute(EVIDENCE_THREAD_GROWTH, "int", "Threads more than when the growth was noticed."),
        Attribute(EVIDENCE_FD_GROWTH, "int", "Open file descriptors more than when the growth was noticed."),
        Attribute(EVIDENCE_BURST_DURATION, "double", "Seconds that tracemalloc was on."),
        Attribute(EVIDENCE_CENSUS_DURATION, "double", "Seconds that the censuses took, beside the program."),
        Attribute(EVIDENCE_PAUSE, "double", "Longest time in seconds that looking held the interpreter."),
        Attribute(EVIDENCE_GAVE_UP, "string[]", "Looks that were not made or not finished, and why."),
        Attribute(EVIDENCE_CONFIDENCE, "double", "How much of the growth (0 to 1) is explained by what is named."),
        Attribute(EVIDENCE_ROUND, "int", "1 for the first finding of a growth, 2 for the next one of the same growth."),
        Attribute(OBJECT_TYPE, "string", "Class whose instances are counted, those of subclasses among them."),
        Attribute(SESSION_TYPE, "string", "Class of the session.", ("curl_cffi.Session", "curl_cffi.AsyncSession")),
        Attribute(SESSION_STATE, "string", "Whether the session has been closed.", ("open", "closed")),
        Attribute(ALERT_ID, "string", "Identity of the alert: the same for the same cause."),
        Attribute(ALERT_NAME, "string", "Kind of alert.", ("memory_leak", "memory_limit_near")),
        Attribute(ALERT_STATE, "string", "State after the change.", ("pending", "firing", "resolved")),
        Attribute(ALERT_SEVERITY, "string", "Severity of the alert.", ("warning", "critical")),
        Attribute(ALERT_SUMMARY, "string", "The alert in one sentence."),
        Attribute(ALERT_PROCESS_ID, "string", "Identity of the process at the analyzer."),
        Attribute(ALERT_GROWTH, "double", "Growth in By/s when the state changed."),
        Attribute(ALERT_SCORE, "double", "Leak score (0 to 1) when the state changed."),
        Attribute(ALERT_TIME_TO_LIMIT, "double", "Estimated seconds to the limit when the state changed."),
        Attribute(ALERT_SUSPECT, "string", "First suspect, as kind:name."),
        Attribute(LEAK_VERDICT, "string", "What the analyzer holds.", ("unknown", "healthy", "watch", "leaking")),
        Attribute(
            LEAK_SUSPECT_KIND, "string", "What the suspect is.", ("operation", "route", "package", "type", "site")
        ),
        Attribute(LEAK_SUSPECT_NAME, "string", "The suspect."),
        Attribute(LEAK_PROCESS_ID, "string", "Identity of the process at the analyzer; of the resource."),
        Attribute(
            DIAGNOSTIC_GC_REASON, "string", "Why the diagnostic collection ran.", ("manual", "schedule", "growth")
        ),
        Attribute(DIAGNOSTIC_GC_COLLECTED_0, "int", "Unreachable objects found in generation 0."),
        Attribute(DIAGNOSTIC_GC_COLLECTED_1, "int", "Unreachable objects found in generation 1."),
        Attribute(DIAGNOSTIC_GC_COLLECTED_2, "int", "Unreachable objects found in generation 2."),
        Attribute(DIAGNOSTIC_GC_FREED, "int", "Unreachable objects that the collector then freed."),
        Attribute(DIAGNOSTIC_GC_UNCOLLECTABLE, "int", "Unreachable objects that it could not free."),
        Attribute(DIAGNOSTIC_GC_CYCLES, "int", "Groups of objects that held one another, as far as was looked."),
        Attribute(DIAGNOSTIC_GC_RSS_BEFORE, "int", "Resident bytes before."),
        Attribute(DIAGNOSTIC_GC_RSS_AFTER, "int", "Resident bytes after."),
        Attribute(
            DIAGNOSTIC_GC_HEAP_BEFORE, "int", "Bytes in use in the C allocator before, without pymalloc's arenas."
        ),
        Attribute(DIAGNOSTIC_GC_HEAP_AFTER, "int", "Bytes in use in the C allocator after, without pymalloc's arenas."),
        Attribute(DIAGNOSTIC_GC_BLOCKS_BEFORE, "int", "Blocks of Python's allocator in use before."),
        Attribute(DIAGNOSTIC_GC_BLOCKS_AFTER, "int", "Blocks of Python's allocator in use after."),
        Attribute(DIAGNOSTIC_GC_DURATION, "double", "Seconds from the beginning of the run to its end."),
        Attribute(DIAGNOSTIC_GC_PAUSE, "double", "Seconds of the longest time that the program stood still."),
        Attribute(
            DIAGNOSTIC_GC_TYPES, "string[]", "Types of the unreachable objects with their counts, most frequent first."
        ),
        Attribute(
            DIAGNOSTIC_GC_HOLDERS,
            "string[]",
            "How objects held others of their cycle, with counts, most frequent first.",
        ),
        Attribute(
            DIAGNOSTIC_GC_CHAINS,
            "string[]",
            "Ways round sample cycles: types with attributes, keys and containers between them.",
        ),
        Attribute(DIAGNOSTIC_GC_INCOMPLETE, "string[]", "What a bound of time or number cut short."),
    )
}

# --- metrics -----------------------------------------------------------------------------------------------
PROCESS_MEMORY_USAGE: Final = "process.memory.usage"
PROCESS_MEMORY_VIRTUAL: Final = "process.memory.virtual"
PROCESS_MEMORY_UTILIZATION: Final = "process.memory.utilization"
PROCESS_PAGING_FAULTS: Final = "process.paging.faults"
PROCESS_THREAD_COUNT: Final = "process.thread.count"
PROCESS_FD_COUNT: Final = "process.unix.file_descriptor.count"
PROCESS_UPTIME: Final = "process.uptime"
GC_COLLECTIONS: Final = "cpython.gc.collections"
GC_COLLECTED_OBJECTS: Final = "cpython.gc.collected_objects"
GC_UNCOLLECTABLE_OBJECTS: Final = "cpython.gc.uncollectable_objects"
SYSTEM_MEMORY_LIMIT: Final = "system.memory.limit"
SYSTEM_MEMORY_AVAILABLE: Final = "system.memory.linux.available"
SYSTEM_MEMORY_UTILIZATION: Final = "system.memory.utilization"

PROCESS_INFO: Final = "otel_memory.process.info"
MEMORY_PEAK: Final = "otel_memory.process.memory.peak"
MEMORY_SHARED: Final = "otel_memory.process.memory.shared"
MEMORY_PRIVATE: Final = "otel_memory.process.memory.private"
MEMORY_BREAKDOWN: Final = "otel_memory.process.memory.breakdown"
MEMORY_BREAKDOWN_ERROR: Final = "otel_memory.process.memory.breakdown.error"
HEAP_FRAGMENTATION: Final = "otel_memory.heap.fragmentation"
MEMORY_LIMIT: Final = "otel_memory.process.memory.limit"
MEMORY_PRESSURE: Final = "otel_memory.process.memory.pressure"
PSI_STALL_TIME: Final = "otel_memory.psi.stall.time"
HEAP_USAGE: Final = "otel_memory.heap.usage"
PYTHON_BLOCK_COUNT: Final = "otel_memory.python.block.count"
GC_PAUSE_DURATION: Final = "otel_memory.gc.pause.duration"
GC_FLOOR_USAGE: Final = "otel_memory.gc.floor.usage"
GC_FLOOR_BLOCK_COUNT: Final = "otel_memory.gc.floor.block.count"
OPERATION_CALLS: Final = "otel_memory.operation.calls"
OPERATION_GROWTH: Final = "otel_memory.operation.growth"
OPERATION_TIME: Final = "otel_memory.operation.time"
EVICTOR_RUNS: Final = "otel_memory.evictor.runs"
EVICTOR_FREED: Final = "otel_memory.evictor.freed"
CLEANUP_RUNS: Final = "otel_memory.cleanup.runs"
CLEANUP_FREED: Final = "otel_memory.cleanup.freed"
CLEANUP_TIME: Final = "otel_memory.cleanup.time"
PACKAGE_IMPORT_TIME: Final = "otel_memory.package.import.time"
PACKAGE_IMPORT_USAGE: Final = "otel_memory.package.import.usage"
PACKAGE_IMPORT_INCLUSIVE: Final = "otel_memory.package.import.inclusive_usage"
PACKAGE_LIVE_USAGE: Final = "otel_memory.package.live.usage"
OBJECT_COUNT: Final = "otel_memory.object.count"
SESSION_COUNT: Final = "otel_memory.session.count"
SESSION_LEAKED: Final = "otel_memory.session.leaked"
HW_GPU_MEMORY_USAGE: Final = "hw.gpu.memory.usage"
HW_GPU_MEMORY_LIMIT: Final = "hw.gpu.memory.limit"
HW_GPU_MEMORY_UTILIZATION: Final = "hw.gpu.memory.utilization"
GPU_PROCESS_MEMORY_USAGE: Final = "otel_memory.gpu.process.memory.usage"
TORCH_ALLOCATED: Final = "otel_memory.torch.memory.allocated"
TORCH_RESERVED: Final = "otel_memory.torch.memory.reserved"
TORCH_PEAK: Final = "otel_memory.torch.memory.peak"
TORCH_FRAGMENTATION: Final = "otel_memory.torch.memory.fragmentation"
PROBE_TIME: Final = "otel_memory.probe.time"
PROBE_FAILURES: Final = "otel_memory.probe.failures"
PROBE_DROPPED: Final = "otel_memory.probe.dropped"
EXPORTER_DROPPED: Final = "otel_memory.exporter.dropped"
EXPORTER_QUEUE_USAGE: Final = "otel_memory.exporter.queue.usage"

METRICS: Final[dict[str, Metric]] = {
    m.name: m
    for m in (
        Metric(PROCESS_MEMORY_USAGE, "By", "updowncounter", "The amount of physical memory in use.", conventional=True),
        Metric(
            PROCESS_MEMORY_VIRTUAL, "By", "updowncounter", "The amount of committed virtual memory.", conventional=True
        ),
        Metric(
            PROCESS_MEMORY_UTILIZATION,
            "1",
            "gauge",
            "Physical memory in use as a share of the limit that will really end the process.",
            (LIMIT_KIND,),
            conventional=True,
        ),
        Metric(
            PROCESS_PAGING_FAULTS,
            "{fault}",
            "counter",
            "Number of page faults the process has made.",
            (PAGING_FAULT_TYPE,),
            conventional=True,
        ),
        Metric(PROCESS_THREAD_COUNT, "{thread}", "updowncounter", "Process threads count.", conventional=True),
        Metric(
            PROCESS_FD_COUNT,
            "{file_descriptor}",
            "updowncounter",
            "Number of unix file descriptors in use by the process.",
            conventional=True,
        ),
        Metric(PROCESS_UPTIME, "s", "gauge", "The time the process has been running.", conventional=True),
        Metric(
            GC_COLLECTIONS,
            "{collection}",
            "counter",
            "The number of times a generation was collected since interpreter start (or since the fork).",
            (CPYTHON_GC_GENERATION,),
            conventional=True,
        ),
        Metric(
            GC_COLLECTED_OBJECTS,
            "{object}",
            "counter",
            "Objects collected inside a generation since interpreter start (or since the fork).",
            (CPYTHON_GC_GENERATION,),
            conventional=True,
        ),
        Metric(
            GC_UNCOLLECTABLE_OBJECTS,
            "{object}",
            "counter",
            "Objects found to be uncollectable inside a generation since interpreter start (or since the fork).",
            (CPYTHON_GC_GENERATION,),
            conventional=True,
        ),
        Metric(SYSTEM_MEMORY_LIMIT, "By", "updowncounter", "Total memory of the host.", conventional=True),
        Metric(
            SYSTEM_MEMORY_AVAILABLE,
            "By",
            "updowncounter",
            "An estimate of how much memory is available for starting new applications, without swapping.",
            conventional=True,
        ),
        Metric(
            SYSTEM_MEMORY_UTILIZATION,
            "1",
            "gauge",
            "Share of the host's memory in use.",
            (SYSTEM_MEMORY_STATE,),
            conventional=True,
        ),
        Metric(
            PROCESS_INFO,
            "1",
            "gauge",
            "Always 1; says which process this is where the resource does not.",
            (PROCESS_PID, PROCESS_RUNTIME_NAME, PROCESS_RUNTIME_VERSION, HOST_NAME, PROBE_VERSION),
        ),
        Metric(MEMORY_PEAK, "By", "gauge", "Highest physical memory in use since the process began or was forked."),
        Metric(MEMORY_SHARED, "By", "gauge", "Resident memory that other processes map too (slow cadence)."),
        Metric(MEMORY_PRIVATE, "By", "gauge", "Resident memory that only this process maps (slow cadence)."),
        Metric(
            MEMORY_BREAKDOWN,
            "By",
            "gauge",
            "Resident memory by what it is; the parts add up to it (slow cadence).",
            (MEMORY_PART,),
        ),
        Metric(
            MEMORY_BREAKDOWN_ERROR,
            "By",
            "gauge",
            "Bytes of the breakdown that may stand in another part than their own.",
        ),
        Metric(
            HEAP_FRAGMENTATION,
            "1",
            "gauge",
            "Share of an allocator's resident memory that it keeps and has not handed out.",
            (ALLOCATOR,),
        ),
        Metric(
            MEMORY_LIMIT, "By", "gauge", "The limit that will really end the process, and what sets it.", (LIMIT_KIND,)
        ),
        Metric(
            MEMORY_PRESSURE,
            "1",
            "gauge",
            "Pressure level from use in % of the limit: 0 low, 1 medium, 2 high, 3 critical.",
        ),
        Metric(
            PSI_STALL_TIME,
            "s",
            "counter",
            "Time that tasks stalled for want of memory (pressure-stall information of the kernel).",
            (PSI_KIND, PSI_SCOPE),
        ),
        Metric(
            HEAP_USAGE,
            "By",
            "gauge",
            "Bytes in use in the C allocator, pymalloc's arenas not among them.",
            (HEAP_KIND,),
        ),
        Metric(PYTHON_BLOCK_COUNT, "{block}", "gauge", "Memory blocks that the Python allocator has handed out."),
        Metric(
            GC_PAUSE_DURATION,
            "s",
            "histogram",
            "Time that the program stood still for one collection; a sample where there are more than 255 a reading.",
            (CPYTHON_GC_GENERATION,),
        ),
        Metric(GC_FLOOR_USAGE, "By", "gauge", "Physical memory in use just after the last full collection seen."),
        Metric(
            GC_FLOOR_BLOCK_COUNT, "{block}", "gauge", "Python memory blocks in use just after the last full collection."
        ),
        Metric(
            OPERATION_CALLS, "{call}", "counter", "Calls of a tracked operation.", (OPERATION_NAME, OPERATION_STATUS)
        ),
        Metric(
            OPERATION_GROWTH,
            "By",
            "updowncounter",
            "Sum of the changes of resident memory over the calls of a tracked operation.",
            (OPERATION_NAME,),
        ),
        Metric(OPERATION_TIME, "s", "counter", "Sum of the durations of a tracked operation.", (OPERATION_NAME,)),
        Metric(EVICTOR_RUNS, "{run}", "counter", "Calls of evictors.", (EVICTOR_NAME, EVICTOR_OUTCOME)),
        Metric(EVICTOR_FREED, "By", "counter", "Memory freed by evictors, as measured around them.", (EVICTOR_NAME,)),
        Metric(CLEANUP_RUNS, "{run}", "counter", "Cleanups.", (CLEANUP_TRIGGER,)),
        Metric(CLEANUP_FREED, "By", "counter", "Memory freed by the steps of cleanups, as measured.", (CLEANUP_STEP,)),
        Metric(CLEANUP_TIME, "s", "counter", "Time that the steps of cleanups took.", (CLEANUP_STEP,)),
        Metric(
            PACKAGE_IMPORT_TIME,
            "s",
            "gauge",
            "Time that executing a package's own modules took when they were imported; the 20 largest.",
            (PACKAGE_NAME,),
        ),
        Metric(
            PACKAGE_IMPORT_USAGE,
            "By",
            "gauge",
            "Change of resident memory while a package's own modules were imported; the 20 largest.",
            (PACKAGE_NAME,),
        ),
        Metric(
            PACKAGE_IMPORT_INCLUSIVE,
            "By",
            "gauge",
            "Change of resident memory while a package was imported, with all that it imported first; the 20 largest.",
            (PACKAGE_NAME,),
        ),
        Metric(
            PACKAGE_LIVE_USAGE,
            "By",
            "gauge",
            "Live bytes that a package's code allocated, while tracemalloc is on; the 20 largest.",
            (PACKAGE_NAME,),
        ),
        Metric(
            OBJECT_COUNT,
            "{object}",
            "gauge",
            "Live instances of a class that the application chose to count.",
            (OBJECT_TYPE,),
        ),
        Metric(
            SESSION_COUNT,
            "{session}",
            "gauge",
            "Sessions of a client library that are in memory, by whether they were closed.",
            (SESSION_TYPE, SESSION_STATE),
        ),
        Metric(
            SESSION_LEAKED,
            "{session}",
            "counter",
            "Sessions of a client library that were let go without having been closed.",
            (SESSION_TYPE,),
        ),
        Metric(
            HW_GPU_MEMORY_USAGE,
            "By",
            "updowncounter",
            "GPU memory used.",
            (HW_ID, HW_NAME, HW_VENDOR),
            conventional=True,
        ),
        Metric(
            HW_GPU_MEMORY_LIMIT,
            "By",
            "updowncounter",
            "Size of the GPU memory.",
            (HW_ID, HW_NAME, HW_VENDOR),
            conventional=True,
        ),
        Metric(
            HW_GPU_MEMORY_UTILIZATION,
            "1",
            "gauge",
            "Fraction of GPU memory used.",
            (HW_ID, HW_NAME, HW_VENDOR),
            conventional=True,
        ),
        Metric(
            GPU_PROCESS_MEMORY_USAGE,
            "By",
            "gauge",
            "GPU memory that the driver counts for this process.",
            (HW_ID, HW_NAME, HW_VENDOR),
        ),
        Metric(TORCH_ALLOCATED, "By", "gauge", "GPU memory in use by torch tensors.", (HW_ID, HW_NAME)),
        Metric(
            TORCH_RESERVED,
            "By",
            "gauge",
            "GPU memory that torch's caching allocator holds, in use or not.",
            (HW_ID, HW_NAME),
        ),
        Metric(
            TORCH_PEAK,
            "By",
            "gauge",
            "Highest GPU memory in use by torch tensors so far, or since torch's own mark was reset.",
            (HW_ID, HW_NAME),
        ),
        Metric(
            TORCH_FRAGMENTATION,
            "1",
            "gauge",
            "Share of the GPU memory held by torch's caching allocator that no tensor uses.",
            (HW_ID, HW_NAME),
        ),
        Metric(PROBE_TIME, "s", "counter", "Processor time that the probe's own thread has used."),
        Metric(PROBE_FAILURES, "{failure}", "counter", "Readings and actions of the probe that failed.", (PROBE_PART,)),
        Metric(
            PROBE_DROPPED,
            "{item}",
            "counter",
            "Items that the probe dropped because a bound was reached.",
            (PROBE_PART,),
        ),
        Metric(
            EXPORTER_DROPPED,
            "{item}",
            "counter",
            "Data points and log records that the Kafka exporters dropped.",
            (EXPORTER_SIGNAL, EXPORTER_REASON),
        ),
        Metric(
            EXPORTER_QUEUE_USAGE, "By", "updowncounter", "What waits for Kafka, in memory and in the spool together."
        ),
    )
}

# --- metrics that the analyzer sends of the processes that it judges ---------------------------------------
ANALYZER_SCOPE: Final = "otel_memory.analyzer"
"""Name of the instrumentation scope of what the analyzer says of others."""
LEAK_SCORE: Final = "otel_memory.leak.score"
LEAK_STATUS: Final = "otel_memory.leak.status"
LEAK_GROWTH: Final = "otel_memory.leak.growth"
LEAK_TIME_TO_LIMIT: Final = "otel_memory.leak.time_to_limit"
LEAK_TIME_TO_LIMIT_LOW: Final = "otel_memory.leak.time_to_limit_low"
LEAK_SUSPECT_GROWTH: Final = "otel_memory.leak.suspect_growth"

ANALYZER_METRICS: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric(LEAK_SCORE, "1", "gauge", "How much the memory looks like a leak, 0 to 1."),
        Metric(
            LEAK_STATUS, "1", "gauge", "1 for the verdict that the analyzer holds, 0 for the others.", (LEAK_VERDICT,)
        ),
        Metric(LEAK_GROWTH, "By/s", "gauge", "How fast the memory grows, its ups and downs aside."),
        Metric(LEAK_TIME_TO_LIMIT, "s", "gauge", "Estimated time until memory in use reaches the limit."),
        Metric(LEAK_TIME_TO_LIMIT_LOW, "s", "gauge", "Lower end of the 80 % interval of the time to the limit."),
        Metric(
            LEAK_SUSPECT_GROWTH,
            "By/s",
            "gauge",
            "Growth that one of the first suspects explains.",
            (LEAK_SUSPECT_KIND, LEAK_SUSPECT_NAME),
        ),
    )
}

# --- events ------------------------------------------------------------------------------------------------
EVENT_THRESHOLD_CROSSED: Final = "otel_memory.threshold.crossed"
EVENT_THRESHOLD_RECOVERED: Final = "otel_memory.threshold.recovered"
EVENT_APPLICATION: Final = "otel_memory.application"
EVENT_ERROR: Final = "otel_memory.error"
EVENT_EVICTION: Final = "otel_memory.eviction"
EVENT_CLEANUP: Final = "otel_memory.cleanup"
EVENT_SNAPSHOT: Final = "otel_memory.snapshot"
EVENT_EVIDENCE: Final = "otel_memory.evidence"
EVENT_ALERT: Final = "otel_memory.alert.changed"
EVENT_DIAGNOSTIC_GC: Final = "otel_memory.diagnostic_gc"
EVENT_HTTP_LISTENING: Final = "otel_memory.http.listening"

_THRESHOLD = (
    EVENT_ID,
    THRESHOLD_NAME,
    THRESHOLD_METRIC,
    THRESHOLD_ATTRIBUTES,
    THRESHOLD_COMPARISON,
    THRESHOLD_BOUND,
    THRESHOLD_VALUE,
    THRESHOLD_UNIT,
    THRESHOLD_SEVERITY,
    PROCESS_PID,
)

EVENTS: Final[dict[str, Event]] = {
    e.name: e
    for e in (
        Event(
            EVENT_THRESHOLD_CROSSED,
            "A reading went over the bound of a threshold rule.",
            _THRESHOLD,
            optional=(THRESHOLD_ATTRIBUTES,),
        ),
        Event(
            EVENT_THRESHOLD_RECOVERED,
            "A reading that was over the bound came back under it.",
            (*_THRESHOLD, THRESHOLD_PEAK, THRESHOLD_DURATION),
            optional=(THRESHOLD_ATTRIBUTES,),
        ),
        Event(
            EVENT_APPLICATION,
            "An event of the application's own, told by StructuredLogger; its fields are attributes too.",
            (APPLICATION_COMPONENT, APPLICATION_EVENT_TYPE, PROCESS_PID),
            open=True,
        ),
        Event(
            EVENT_ERROR,
            "A part of the probe failed; the application is not affected. Of each part at most one in ten minutes.",
            (PROBE_PART, EXCEPTION_TYPE, EXCEPTION_MESSAGE, PROCESS_PID),
        ),
        Event(
            EVENT_EVICTION,
            "Evictors were called, and this is what they freed.",
            (
                *(EVICTION_TARGET, EVICTION_FREED_HEAP, EVICTION_FREED_RSS, EVICTION_DURATION),
                *(EVICTION_ENDED, EVICTION_REPORT, PROCESS_PID),
            ),
            optional=(EVICTION_TARGET, EVICTION_FREED_HEAP, EVICTION_FREED_RSS),
        ),
        Event(
            EVENT_CLEANUP,
            "A cleanup ran, and this is what each of its steps freed.",
            (
                *(CLEANUP_TRIGGER, CLEANUP_AGGRESSIVE, CLEANUP_FREED_HEAP, CLEANUP_FREED_RSS, CLEANUP_DURATION),
                *CLEANUP_STEP_OUTCOME.values(),
                *CLEANUP_STEP_FREED_HEAP.values(),
                *CLEANUP_STEP_FREED_RSS.values(),
                *CLEANUP_STEP_DURATION.values(),
                PROCESS_PID,
            ),
            optional=(
                *(CLEANUP_FREED_HEAP, CLEANUP_FREED_RSS),
                *CLEANUP_STEP_FREED_HEAP.values(),
                *CLEANUP_STEP_FREED_RSS.values(),
                *CLEANUP_STEP_DURATION.values(),
            ),
        ),
        Event(
            EVENT_DIAGNOSTIC_GC,
            "A diagnostic garbage collection ran: what it found, through what that hung together, what it freed.",
            (
                *(DIAGNOSTIC_GC_REASON, DIAGNOSTIC_GC_COLLECTED_0, DIAGNOSTIC_GC_COLLECTED_1),
                *(DIAGNOSTIC_GC_COLLECTED_2, DIAGNOSTIC_GC_FREED, DIAGNOSTIC_GC_UNCOLLECTABLE, DIAGNOSTIC_GC_CYCLES),
                *(DIAGNOSTIC_GC_RSS_BEFORE, DIAGNOSTIC_GC_RSS_AFTER, DIAGNOSTIC_GC_HEAP_BEFORE),
                *(DIAGNOSTIC_GC_HEAP_AFTER, DIAGNOSTIC_GC_BLOCKS_BEFORE, DIAGNOSTIC_GC_BLOCKS_AFTER),
                *(DIAGNOSTIC_GC_DURATION, DIAGNOSTIC_GC_PAUSE, DIAGNOSTIC_GC_TYPES, DIAGNOSTIC_GC_HOLDERS),
                *(DIAGNOSTIC_GC_CHAINS, DIAGNOSTIC_GC_INCOMPLETE, PROCESS_PID),
            ),
            optional=(
                *(DIAGNOSTIC_GC_RSS_BEFORE, DIAGNOSTIC_GC_RSS_AFTER, DIAGNOSTIC_GC_HEAP_BEFORE),
                *(DIAGNOSTIC_GC_HEAP_AFTER, DIAGNOSTIC_GC_BLOCKS_BEFORE, DIAGNOSTIC_GC_BLOCKS_AFTER),
                *(DIAGNOSTIC_GC_TYPES, DIAGNOSTIC_GC_HOLDERS, DIAGNOSTIC_GC_CHAINS, DIAGNOSTIC_GC_INCOMPLETE),
            ),
        ),
        Event(
            EVENT_HTTP_LISTENING,
            "The endpoints of this process are served at this address from now on.",
            (SERVER_ADDRESS, SERVER_PORT, PROCESS_PID),
        ),
        Event(
            EVENT_SNAPSHOT,
            "A snapshot of the process's memory.",
            (
                SNAPSHOT_STATUS,
                SNAPSHOT_MEMORY,
                SNAPSHOT_UTILIZATION,
                SNAPSHOT_PRESSURE,
                SNAPSHOT_BLOCK_COUNT,
                SNAPSHOT_GROWTH,
                SNAPSHOT_EVICTION_COUNT,
                PROCESS_PID,
            ),
            optional=(
                *(SNAPSHOT_MEMORY, SNAPSHOT_UTILIZATION, SNAPSHOT_PRESSURE, SNAPSHOT_BLOCK_COUNT, SNAPSHOT_GROWTH),
            ),
        ),
        Event(
            EVENT_EVIDENCE,
            "Memory grows, and this was found of what grows and who holds it.",
            (
                EVENT_ID,
                EVIDENCE_ROUND,
                EVIDENCE_KIND,
                EVIDENCE_GROWTH,
                EVIDENCE_WINDOW,
                EVIDENCE_SITE,
                EVIDENCE_SITE_GROWTH,
                EVIDENCE_TYPE,
                EVIDENCE_TYPE_GROWTH,
                EVIDENCE_HOLDER,
                EVIDENCE_HOLDER_KIND,
                EVIDENCE_HOLDER_CONTAINER,
                EVIDENCE_HOLDER_GROWTH,
                EVIDENCE_HOLDER_SIZE,
                EVIDENCE_HOLDER_SITE,
                EVIDENCE_NOTE,
                EVIDENCE_PYTHON_GROWTH,
                EVIDENCE_C_GROWTH,
                EVIDENCE_FREE_GROWTH,
                EVIDENCE_STACK_GROWTH,
                EVIDENCE_MAPPED_GROWTH,
                EVIDENCE_THREAD_GROWTH,
                EVIDENCE_FD_GROWTH,
                EVIDENCE_BURST_DURATION,
                EVIDENCE_CENSUS_DURATION,
                EVIDENCE_PAUSE,
                EVIDENCE_GAVE_UP,
                EVIDENCE_CONFIDENCE,
                PROCESS_PID,
            ),
            optional=(
                *(EVIDENCE_GROWTH, EVIDENCE_SITE, EVIDENCE_SITE_GROWTH, EVIDENCE_TYPE, EVIDENCE_TYPE_GROWTH),
                *(EVIDENCE_HOLDER, EVIDENCE_HOLDER_KIND, EVIDENCE_HOLDER_CONTAINER, EVIDENCE_HOLDER_GROWTH),
                *(EVIDENCE_HOLDER_SIZE, EVIDENCE_HOLDER_SITE, EVIDENCE_NOTE, EVIDENCE_PYTHON_GROWTH),
                *(EVIDENCE_C_GROWTH, EVIDENCE_FREE_GROWTH, EVIDENCE_STACK_GROWTH, EVIDENCE_MAPPED_GROWTH),
                *(EVIDENCE_THREAD_GROWTH, EVIDENCE_FD_GROWTH, EVIDENCE_GAVE_UP),
            ),
        ),
        Event(
            EVENT_ALERT,
            "An alert of the analyzer changed its state.",
            (
                ALERT_ID,
                ALERT_NAME,
                ALERT_STATE,
                ALERT_SEVERITY,
                ALERT_SUMMARY,
                ALERT_PROCESS_ID,
                ALERT_GROWTH,
                ALERT_SCORE,
                ALERT_TIME_TO_LIMIT,
                ALERT_SUSPECT,
                SERVICE_NAME,
                SERVICE_INSTANCE_ID,
            ),
            optional=(
                *(ALERT_GROWTH, ALERT_SCORE, ALERT_TIME_TO_LIMIT, ALERT_SUSPECT),
                *(SERVICE_NAME, SERVICE_INSTANCE_ID),
            ),
        ),
    )
}
