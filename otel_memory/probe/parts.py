"""What a running probe is made of: its sources, and their registration on a meter.

Owns the wiring of sources to settings. Starts no thread and registers no hook of the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from otel_memory.probe import operations
from otel_memory.probe.sources.gc import GcSource
from otel_memory.probe.sources.heap import HeapSource
from otel_memory.probe.sources.limits import LimitsSource, PressureBounds
from otel_memory.probe.sources.process import ProcessSource

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.config import Settings
    from otel_memory.probe.ledger import Ledger
    from otel_memory.probe.sources import Gate, Undo


class Parts:
    """The sources of one probe, made for ``settings``; holds descriptors until ``close()``."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        fresh = settings.interval_seconds
        self.process = ProcessSource(
            fresh_seconds=fresh,
            slow_interval_seconds=settings.slow_interval_seconds,
            # An operation that asks for its own peak resets the kernel's mark.
            wiped_peak=lambda: operations.PEAK.highest,
        )
        self.limits = LimitsSource(
            self.process.latest,
            configured_bytes=settings.limit_bytes,
            bounds=PressureBounds(*settings.pressure_levels),
        )
        self.heap = HeapSource(fresh_seconds=fresh)
        self.gc = GcSource(self.process.rss)
        ledger.watch("gc", failures=lambda: self.gc.failed, drops=lambda: self.gc.dropped)
        ledger.watch("operations", failures=lambda: operations.TABLE.failed, drops=lambda: operations.TABLE.overflowed)

    def register(self, meter: Meter, gate: Gate) -> Iterator[tuple[str, Undo]]:
        """Register each source on ``meter``, one by one; yields (part, what undoes it)."""
        yield "process", self.process.register(meter, gate)
        yield "limits", self.limits.register(meter, gate)
        yield "heap", self.heap.register(meter, gate)
        yield "gc", self.gc.register(meter, gate)
        yield "operations", operations.TABLE.register(meter, gate)

    def limit(self) -> float | None:
        """Bytes of the limit."""
        return self.limits.latest().limit_bytes

    def refresh(self) -> list[tuple[str, Callable[[float], object]]]:
        """What makes the sources read; the slow ones read only when their own cadence has come round.

        Done on the sampler's thread, so that the SDK's callbacks find fresh readings and hold its locks but briefly.
        """
        return [
            ("process", lambda _now: self.process.read()),
            ("process", lambda _now: self.process.latest_slow()),
            ("limits", lambda _now: self.limits.latest()),
            ("heap", lambda _now: self.heap.latest()),
        ]

    def drains(self) -> list[tuple[str, Callable[[], object]]]:
        """What hands gathered pauses to the SDK."""
        return [("gc", self.gc.record_pauses)]

    def reopeners(self) -> list[tuple[str, Callable[[], object]]]:
        """What makes each source this process's own after a fork."""
        return [
            ("process", self.process.reopen),
            ("limits", self.limits.reopen),
            ("heap", self.heap.reopen),
            ("gc", self.gc.reset_after_fork),
        ]

    def close(self) -> None:
        """Give the descriptors back."""
        self.process.close()
