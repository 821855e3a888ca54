"""A guard before work that needs memory: goes on, or raises where there is too little left.

Owns ``check_memory`` and nothing else. A threshold in bytes costs about 1 µs; a share of the limit some more.
"""

from __future__ import annotations

from otel_memory.probe.errors import MonitoringError, ThresholdError
from otel_memory.probe.reader import read_rss

__all__ = ["check_memory"]


def check_memory(
    threshold_type: str = "memory", *, threshold_bytes: int | None = None, share_of_limit: float | None = None
) -> int:
    """The memory of this process in bytes, if it is below the threshold.

    The threshold is given in bytes of resident memory, or as a share (0 to 1) of the limit that really ends the
    process: the narrowest of the configured one, the container's, the resource limit (which bounds virtual memory, so
    that this is what counts then) and the host's memory. ``threshold_type`` names it in the error.

    Raises:
        ThresholdError: the process holds as much or more.
        MonitoringError: the memory or the limit can't be read here.
        ValueError: not exactly one of the two is given, or it is out of its range.
    """
    if (threshold_bytes is None) == (share_of_limit is None):
        raise ValueError("give either threshold_bytes or share_of_limit")
    if share_of_limit is not None:
        if not 0 < share_of_limit <= 1:
            raise ValueError(f"share_of_limit {share_of_limit!r}: expected a number above 0 and at most 1")
        current, limit = _use_and_limit()
        if limit is None:
            raise MonitoringError("the limit of this process can't be read here; give threshold_bytes instead")
        threshold_bytes = int(limit * share_of_limit)
    else:
        current = read_rss()
    if threshold_bytes is None or threshold_bytes <= 0:
        raise ValueError(f"threshold_bytes {threshold_bytes!r}: expected a number of bytes above 0")
    if current is None:
        raise MonitoringError("the memory of this process can't be read here")
    if current >= threshold_bytes:
        raise ThresholdError(threshold_type, current, threshold_bytes)
    return current


def _use_and_limit() -> tuple[int | None, int | None]:
    from otel_memory.probe import vitals
    from otel_memory.probe.profiler import running_feature

    feature = running_feature()
    reading = (vitals.own_sources() if feature is None else feature.sources).read()
    return reading.used_bytes, reading.limit_bytes
