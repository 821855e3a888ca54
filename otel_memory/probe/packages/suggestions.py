"""What could be done about the memory of packages, and about the process. Pure: takes readings, returns sentences.

Owns the thresholds of suggestions. Sorted by severity, then by value, the largest first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypedDict

from otel_memory.probe.units import human_bytes

if TYPE_CHECKING:
    from otel_memory.probe.packages.package_info import PackageInfo

MB: Final = 1024 * 1024
LEAK_LEVELS: Final = (("high", 0.8), ("medium", 0.5), ("low", 0.25))
"""Leak score from which a suggestion has that severity."""
FOOTPRINT_LEVELS: Final = (("high", 500 * MB), ("medium", 100 * MB), ("low", 50 * MB))
"""Bytes of the footprint."""
FAILED_LEVELS: Final = (("high", 100 * MB), ("medium", 20 * MB), ("low", 1 * MB))
"""Bytes that a loading which failed has left behind."""
LOAD_TIME_LEVELS: Final = (("medium", 5.0), ("low", 1.0))
"""Seconds that a loading took."""
_ORDER: Final = {"high": 0, "medium": 1, "low": 2}


class Suggestion(TypedDict):
    """``value`` is what was compared: a score, bytes, seconds, or a share of the limit."""

    type: str
    package_name: str | None
    severity: str
    message: str
    recommendation: str
    value: float


def suggest(
    packages: Iterable[PackageInfo],
    *,
    utilization: float | None,
    pressure_levels: dict[str, float],
    has_extensions: Any,
) -> list[Suggestion]:
    """All that there is to say. ``utilization``: the process's share of its limit; ``pressure_levels``: the monitor's
    thresholds; ``has_extensions(name)``: whether a package can't be unloaded."""
    found: list[Suggestion] = []
    for package in packages:
        found.extend(_of_package(package, has_extensions))
    if utilization is not None and utilization >= pressure_levels["low"]:
        severity = (
            "high"
            if utilization >= pressure_levels["high"]
            else ("medium" if utilization >= pressure_levels["medium"] else "low")
        )
        found.append(
            Suggestion(
                type="memory_pressure",
                package_name=None,
                severity=severity,
                message=f"The process uses {utilization:.0%} of its memory limit",
                recommendation="Free caches, load heavy packages only where they are needed, or raise the limit",
                value=utilization,
            )
        )
    return sorted(found, key=lambda each: (_ORDER[each["severity"]], -each["value"]))


def _of_package(package: PackageInfo, has_extensions: Any) -> Iterable[Suggestion]:
    name, metrics = package.name, package.memory_metrics
    score = metrics.memory_leak_score
    severity = _severity(score, LEAK_LEVELS)
    if severity:
        rate = human_bytes(metrics.memory_growth_rate)
        yield Suggestion(
            type="memory_leak",
            package_name=name,
            severity=severity,
            message=f"Package '{name}' shows signs of memory leak (score: {score:.2f}, growing by {rate}/s)",
            recommendation="Look at what its code allocates and who keeps it; consider reloading until that is mended",
            value=score,
        )
    footprint = metrics.memory_footprint
    severity = _severity(footprint or 0, FOOTPRINT_LEVELS) if package.is_loaded else None
    if severity and footprint is not None:
        how = " (estimated)" if metrics.memory_footprint_kind == "estimated" else ""
        yield Suggestion(
            type="high_memory_footprint",
            package_name=name,
            severity=severity,
            message=f"Package '{name}' has high memory footprint: {footprint / MB:.1f}MB{how}",
            recommendation=(
                "Its shared libraries can't be unloaded: load it only in the processes that use it"
                if has_extensions(name)
                else "Consider unloading if not frequently used, or load it when it is first needed"
            ),
            value=footprint,
        )
    cost = package.import_cost
    if package.status == "failed" and cost is not None and (severity := _severity(cost.rss_bytes or 0, FAILED_LEVELS)):
        yield Suggestion(
            type="failed_load",
            package_name=name,
            severity=severity,
            message=f"Loading '{name}' failed and left {(cost.rss_bytes or 0) / MB:.1f}MB behind: {package.error}",
            recommendation="Mend the cause, or don't try to load it again",
            value=cost.rss_bytes or 0,
        )
    severity = _severity(package.load_time or 0, LOAD_TIME_LEVELS)
    if severity and package.load_time is not None:
        yield Suggestion(
            type="slow_load",
            package_name=name,
            severity=severity,
            message=f"Loading '{name}' took {package.load_time:.1f} s",
            recommendation="Load it at start, before requests come, if it is needed at all",
            value=package.load_time,
        )


def _severity(value: float, levels: tuple[tuple[str, float], ...]) -> str | None:
    return next((severity for severity, least in levels if value >= least), None)
