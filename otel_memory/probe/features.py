"""Which features the settings ask for, each imported only then.

Owns the list and nothing else: one generator entry a feature, in the order in which they start; they stop in reverse.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_memory.probe.feature import Feature, Surroundings

Build = Callable[["Surroundings"], "Feature | None"]
"""Makes the feature if the settings ask for it. Has to be cheap where they don't, and import nothing then."""


def _cleanup(around: Surroundings) -> Feature | None:
    if not around.settings.cleanup:
        return None
    from otel_memory.probe.cleanup_feature import CleanupFeature

    return CleanupFeature(around)


def _relief(around: Surroundings) -> Feature | None:
    from otel_memory.probe.relief_metrics import ReliefMetrics

    return ReliefMetrics()


def _wrapping(around: Surroundings) -> Feature | None:
    if not around.settings.operations:
        return None
    from otel_memory.probe.wrapping import Wrapping

    return Wrapping(around)


def _live_objects(around: Surroundings) -> Feature | None:
    from otel_memory.probe.live_objects import LiveObjects

    return LiveObjects(around)


def _curl_sessions(around: Surroundings) -> Feature | None:
    from otel_memory.probe.curl_sessions import CurlSessions

    return CurlSessions(around)


def _gpu(around: Surroundings) -> Feature | None:
    if around.settings.gpu == "false":
        return None

    from otel_memory.probe.late import Late

    def build() -> Feature:
        from otel_memory.probe.sources.gpu import GpuFeature

        return GpuFeature(around)

    return build() if around.settings.gpu == "true" else Late("gpu", lambda: "torch" in sys.modules, build)


def _snapshots(around: Surroundings) -> Feature | None:
    from otel_memory.probe.profiler import SnapshotFeature

    return SnapshotFeature(around)  # also where no snapshots are kept: the health check asks it for growth and beats


def _logs(around: Surroundings) -> Feature | None:
    if not around.settings.log_enrichment:
        return None
    from otel_memory.probe.logs import LogEnrichment

    return LogEnrichment(around)


def _packages(around: Surroundings) -> Feature | None:
    if not around.settings.packages:
        return None
    from otel_memory.probe.packages.feature import PackagesFeature

    return PackagesFeature(around)


def _evidence(around: Surroundings) -> Feature | None:
    if not around.settings.evidence:
        return None
    from otel_memory.probe.evidence_feature import EvidenceFeature

    return EvidenceFeature(around)


def builders() -> Iterator[tuple[str, Build]]:
    """(part, how to build it) of every feature. One that raises while it is built is counted and left out."""
    yield "packages", _packages  # first, so that it sees what the others import
    yield "snapshots", _snapshots
    yield "logs", _logs
    yield "wrapping", _wrapping
    yield "live_objects", _live_objects
    yield "curl_sessions", _curl_sessions
    yield "gpu", _gpu
    yield "relief", _relief
    yield "cleanup", _cleanup
    yield "breakdown", _breakdown
    yield "diagnostics", _diagnostics
    yield "evidence", _evidence
    yield "http", _http  # last, so that what it reports on is there


def _breakdown(around: Surroundings) -> Feature | None:
    if not os.path.exists("/proc/self/smaps"):
        return None
    from otel_memory.probe.sources.breakdown import BreakdownFeature

    return BreakdownFeature(around)


def _diagnostics(around: Surroundings) -> Feature | None:
    if around.settings.diagnostic_gc is None and around.settings.diagnostic_gc_file is None:
        return None
    from otel_memory.probe.diagnostics_feature import DiagnosticsFeature

    return DiagnosticsFeature(around)


def _http(around: Surroundings) -> Feature | None:
    if not around.settings.http:
        return None
    from otel_memory.probe.http.feature import HttpFeature

    return HttpFeature(around)
