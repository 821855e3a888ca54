"""What each endpoint answers: the data, gathered from the parts that own it.

Owns the documented shapes and nothing of the measuring. Sizes are whole bytes, rates bytes per second, times seconds
since the epoch; what isn't known is None. Everything here may take milliseconds to seconds, so it is called on a
thread, never on an event loop's.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from otel_memory.probe import vitals
from otel_memory.probe.http.access import Refusal
from otel_memory.probe.reader import SOURCE

if TYPE_CHECKING:
    from otel_memory.probe.packages.lazy_loader import LazyLoader

Query = Mapping[str, str]

MAX_SNAPSHOTS: Final = 2880
TREND_SNAPSHOTS: Final = 120
"""The trend is judged over the newest of them: an hour at 30 s."""
MAX_SHOWN: Final = 100
"""Characters of what a caller sent that an error repeats."""

_BYTES: Final = frozenset(
    {"total_current_memory", "total_peak_memory", "total_memory_footprint", "current_memory_usage"}
    | {"peak_memory_usage", "memory_footprint", "average_memory_usage"}
)
"""Fields in bytes that their owners may hold as fractions."""


# --- /internal/memory -----------------------------------------------------------------------------------------


def status(_query: Query) -> dict[str, Any]:
    """The comprehensive report: use, limit, trend, thresholds, history, health, and each part of the probe."""
    from otel_memory.probe.health import health_check_sync
    from otel_memory.probe.lifecycle import running_probe

    probe = running_probe()
    return {
        **_now(),
        "probe_running": probe is not None,
        "trend": _trend(),
        "thresholds": [] if probe is None else _thresholds(),
        "history": _history(),
        "health": health_check_sync(),
        "features": _features(),
        "last_cleanup": _last_cleanup(),
    }


def metrics(_query: Query) -> dict[str, Any]:
    """A live snapshot, with the application's own gauges and counts."""
    import psutil

    from otel_memory.probe.live_objects import custom_values, live_counts

    evictions = vitals.evictions()
    return {
        **_now(),
        "system_memory_percent": psutil.virtual_memory().percent,
        "gc_collections": [each["collections"] for each in gc.get_stats()],
        "eviction_count": evictions.count,
        "evicted_bytes": evictions.freed_bytes,
        "live_objects": live_counts(),
        "custom_metrics": custom_values(),
    }


def cleanup(query: Query) -> dict[str, Any]:
    """Clean up, and the metrics afterwards. ``aggressive=true`` empties caches and collects everything."""
    from otel_memory.probe import cleanup as cleaning

    result = cleaning.cleanup(aggressive=_flag(query, "aggressive"))
    return {"result": _cleanup_result(result), "metrics": metrics({})}


def health(_query: Query) -> dict[str, Any]:
    """The health check with its reasons and recommendations."""
    from otel_memory.probe.health import health_check_sync

    return health_check_sync()


def snapshots(query: Query) -> dict[str, Any]:
    """The newest ``max`` snapshots, oldest first, and the statistics of all."""
    from otel_memory.probe.monitoring import get_metrics_sync, get_snapshots

    most = _whole(query, "max", 100, 0, MAX_SNAPSHOTS)
    return {
        "snapshots": [each.to_dict() for each in get_snapshots(most)],
        "statistics": get_metrics_sync()["profiler"],
    }


def breakdown(_query: Query) -> dict[str, Any]:
    """What the resident memory consists of."""
    from otel_memory.probe.sources.breakdown import memory_breakdown

    found = memory_breakdown()
    if found is None:
        raise Refusal(501, "not_available", "this system doesn't tell what resident memory consists of")
    return found.to_dict()


def diagnostic_gc(_query: Query) -> dict[str, Any]:
    """A garbage collection that says what it found; every thread stands still while it collects."""
    from otel_memory.probe.diagnostics import diagnostic_gc_run

    return diagnostic_gc_run().to_dict()


def evidence(query: Query) -> dict[str, Any]:
    """What grows in this process, and who holds it: looks for ``seconds`` (2), with tracemalloc on meanwhile."""
    from otel_memory.probe.evidence_looks import capture_evidence

    return asdict(capture_evidence(_number(query, "seconds", 2.0, 0.1, 10.0)))


def _now() -> dict[str, Any]:
    from otel_memory.probe.profiler import running_feature

    feature = running_feature()
    reading = (vitals.own_sources() if feature is None else feature.sources).read()
    process = SOURCE.read()  # now, not the sampler's last: a cleanup may just have changed it
    used = process.virtual_bytes if reading.limit_kind == "rlimit" else process.rss_bytes
    return {
        "timestamp": reading.timestamp,
        "pid": os.getpid(),
        "process_memory_bytes": process.rss_bytes,
        "virtual_bytes": process.virtual_bytes,
        "limit_bytes": reading.limit_bytes,
        "limit_kind": reading.limit_kind,
        "utilization": used / reading.limit_bytes if used is not None and reading.limit_bytes else None,
        "pressure": None if reading.pressure is None else reading.pressure.name.lower(),
        "heap_objects": reading.heap_objects,
    }


def _trend() -> dict[str, Any]:
    from otel_memory.probe.monitoring import get_snapshots
    from otel_memory.probe.packages import history as histories
    from otel_memory.probe.profiler import running_feature, running_profiler

    known = [(each.timestamp, each.rss_bytes) for each in get_snapshots(TREND_SNAPSHOTS) if each.rss_bytes is not None]
    feature, profiler = running_feature(), running_profiler()
    trend = feature.trend if feature is not None else None if profiler is None else profiler.trend
    growth = None if trend is None else trend.growth()
    return {
        "direction": histories.trend(known) if len(known) >= histories.LEAST_READINGS else None,
        "direction_over_seconds": known[-1][0] - known[0][0] if len(known) >= histories.LEAST_READINGS else None,
        "growth_bytes_per_second": None if growth is None else growth.per_second,
        "growth_over_seconds": None if growth is None else growth.span_seconds,
    }


def _thresholds() -> list[dict[str, Any]]:
    from otel_memory.probe.lifecycle import running_probe

    probe, now = running_probe(), time.monotonic()
    return [
        {
            "name": rule.name,
            "metric": str(rule.subject),
            "comparison": rule.comparison,
            "bound": rule.bound,
            "unit": rule.unit,
            "severity": rule.severity,
            "state": "unknown" if not state.judged else "ok" if state.episode is None else "crossed",
            "crossed_seconds_ago": None if state.episode is None else max(0.0, now - state.episode.started_at),
            "peak": None if state.episode is None else state.episode.peak,
        }
        for rule, state in (() if probe is None else probe.standings())
    ]


def _history() -> dict[str, Any]:
    from otel_memory.probe.profiler import running_profiler

    profiler = running_profiler()
    if profiler is None:
        return {"count": 0, "statistics": None}
    statistics = profiler.get_statistics()
    return {"count": statistics["current_snapshot_count"], "statistics": statistics}


def _features() -> dict[str, Any]:
    from otel_memory.probe.lifecycle import running_probe

    probe = running_probe()
    found: dict[str, Any] = {}
    for feature in () if probe is None else probe.features:
        try:
            found[feature.part] = dict(feature.status())
        except Exception as error:  # one part's fault doesn't hide the others
            found[feature.part] = {"error": f"{type(error).__name__}: {error}"}
    return found


def _last_cleanup() -> dict[str, Any] | None:
    from otel_memory.probe import cleanup as cleaning

    last = cleaning.last_result()
    return None if last is None else _cleanup_result(last)


def _cleanup_result(result: Any) -> dict[str, Any]:
    return {
        **{name: value for name, value in asdict(result).items() if name != "eviction"},
        "freed_bytes": result.freed_bytes,
        "evictors": [] if result.eviction is None else [asdict(each) for each in result.eviction.evictors],
    }


# --- /api/packages/memory -------------------------------------------------------------------------------------


def summary(_query: Query) -> dict[str, Any]:
    """All packages together."""
    return _loader().get_memory_usage_summary()


def package(_query: Query, package_name: str) -> dict[str, Any]:
    """One package."""
    found = _loader().get_package_memory_info(package_name)
    if found is None:
        shown = package_name if len(package_name) <= MAX_SHOWN else package_name[:MAX_SHOWN] + "…"
        raise Refusal(
            *(404, "unknown_package"),
            f"package {shown!r} is not watched; get_lazy_loader().register(name) watches one, and "
            "POST update-metrics finds those that take most",
        )
    return found


def leaks(query: Query) -> dict[str, Any]:
    """The packages whose leak score is at least ``threshold``, worst first."""
    from otel_memory.probe.packages.memory_monitor import LEAK_THRESHOLD

    threshold = _number(query, "threshold", LEAK_THRESHOLD, 0.0, 1.0, above=True)
    found = _loader().detect_memory_leaks(threshold)
    return {"leaks": found, "total_leaks": len(found), "threshold": threshold, "detection_time": time.time()}


def suggestions(_query: Query) -> dict[str, Any]:
    """What could be done, the most severe first."""
    found = _loader().get_memory_optimization_suggestions()
    severities = [each["severity"] for each in found]
    return {
        "suggestions": list(found),
        "total_suggestions": len(found),
        **{f"{severity}_severity": severities.count(severity) for severity in ("high", "medium", "low")},
        "generation_time": time.time(),
    }


def garbage_collection(_query: Query) -> dict[str, Any]:
    """A full garbage collection; every thread stands still meanwhile."""
    return _loader().force_garbage_collection()


def update_metrics(_query: Query) -> dict[str, Any]:
    """Measure all packages anew."""
    _loader().update_all_memory_metrics()
    return {"message": "Memory metrics updated for all packages", "update_time": time.time()}


def _loader() -> LazyLoader:
    from otel_memory.probe.packages.lazy_loader import get_lazy_loader

    return get_lazy_loader()


# --- what callers send, and JSON ------------------------------------------------------------------------------


def _wrong(name: str, given: str, expected: str) -> Refusal:
    shown = given if len(given) <= MAX_SHOWN else given[:MAX_SHOWN] + "…"
    return Refusal(422, "invalid_parameter", f"{name}={shown!r}: expected {expected}")


def _number(query: Query, name: str, default: float, least: float, most: float, *, above: bool = False) -> float:
    given = query.get(name)
    if given is None:
        return default
    expected = f"a number {'above' if above else 'from'} {least:g} {'and at most' if above else 'to'} {most:g}"
    try:
        value = float(given)
    except ValueError:
        raise _wrong(name, given, expected) from None
    if not (least < value if above else least <= value) or not value <= most:
        raise _wrong(name, given, expected)
    return value


def _whole(query: Query, name: str, default: int, least: int, most: int) -> int:
    given = query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) <= 9 and least <= int(given) <= most):
        raise _wrong(name, given, f"a whole number from {least} to {most}")
    return int(given)


def _flag(query: Query, name: str) -> bool:
    given = query.get(name, "false").lower()
    if given not in ("true", "false", "1", "0"):
        raise _wrong(name, given, "true or false")
    return given in ("true", "1")


def for_json(value: Any, key: str = "") -> Any:
    """``value`` as JSON has it: bytes whole, nothing that is not a number, text that can be encoded."""
    if isinstance(value, Mapping):
        return {_text(str(name)): for_json(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [for_json(inner) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value) if key in _BYTES else value
    if value is None or isinstance(value, bool | int):
        return value
    return _text(value if isinstance(value, str) else str(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
