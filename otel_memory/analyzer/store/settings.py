"""How much the store keeps. Frozen; validated where it is made."""

from __future__ import annotations

from dataclasses import dataclass

from otel_memory.analyzer.store.rollup import FIVE_MINUTES


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Retention in seconds of event time against the ``now`` that ``maintain`` is given; sizes in bytes.

    The file never grows beyond ``max_bytes`` (its write-ahead log, at most 64 MiB as a rule, comes on top). Above
    85 % of it all retention is halved, again and again, until it fits.
    """

    raw_seconds: float = 6 * 3600
    five_minute_seconds: float = 48 * 3600
    hour_seconds: float = 30 * 24 * 3600
    max_bytes: int = 2 * 2**30
    max_processes: int = 20_000
    max_series: int = 200_000
    max_events_per_process: int = 200
    max_alert_changes: int = 20_000

    def __post_init__(self) -> None:
        if not 2 * FIVE_MINUTES <= self.raw_seconds <= self.five_minute_seconds <= self.hour_seconds:
            raise ValueError("store retention: raw (at least 600 s) <= 5 minutes <= 1 hour")
        if self.max_bytes < 2**20:
            raise ValueError("store size: at least 1 MiB")
