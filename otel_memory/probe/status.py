"""How well a process is: four statuses and what is not known. Pure; snapshots and the health check judge alike.

Owns the words and the bounds of growth. The bounds of use are the pressure levels (``sources/limits.py``).
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from otel_memory.probe.sources.limits import Pressure

Status = Literal["unknown", "healthy", "caution", "warning", "critical"]

STATUSES: Final[tuple[Status, ...]] = get_args(Status)
"""From the least to the worst."""
GROWTH_WARNING: Final = 5e6
"""Bytes per second of growth above which it is a warning; the same as the built-in rule's."""
GROWTH_CRITICAL: Final = 10e6

_OF_PRESSURE: Final[dict[Pressure, Status]] = {
    Pressure.LOW: "healthy",
    Pressure.MEDIUM: "caution",
    Pressure.HIGH: "warning",
    Pressure.CRITICAL: "critical",
}


def of_pressure(pressure: Pressure | None) -> Status:
    """What a level of use means."""
    return "unknown" if pressure is None else _OF_PRESSURE[pressure]


def of_growth(
    bytes_per_second: float | None, warning: float = GROWTH_WARNING, critical: float = GROWTH_CRITICAL
) -> Status:
    """What a growth rate means; a shrinking process is healthy."""
    if bytes_per_second is None:
        return "unknown"
    return "critical" if bytes_per_second > critical else "warning" if bytes_per_second > warning else "healthy"


def worst(*statuses: Status) -> Status:
    """The worst of what is known."""
    return max(statuses, key=STATUSES.index, default="unknown")
