"""Nouns for the tests of store, view, outputs and API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from otel_memory.analyzer.model import (
    Alert,
    AlertState,
    Assessment,
    ProcessInfo,
    Suspect,
    TimeToLimit,
    Trend,
    Verdict,
)

T0 = 1_800_000_000.0
"""A whole hour."""
MIB = 2**20

SUSPECT = Suspect("route", "GET /leak", 40_000.0, 0.9, 0.8, "grows 40 kB/s with 10 requests/s")


def process(number: int = 1, **changes: Any) -> ProcessInfo:
    info = ProcessInfo(
        id=f"{number:016x}",
        service_name="shop",
        service_version="1.2.3",
        service_instance_id=f"instance-{number}",
        host_name="box",
        pid=1000 + number,
        runtime="CPython 3.11.2",
    )
    return replace(info, **changes)


def assessment(number: int = 1, **changes: Any) -> Assessment:
    made = Assessment(
        process=process(number),
        first_seen=T0,
        last_seen=T0 + 120,
        memory_bytes=100 * MIB,
        limit_bytes=400 * MIB,
        limit_kind="cgroup_v2",
        verdict=Verdict.LEAKING,
        leak_score=0.93,
        trend=Trend.INCREASING,
        growth_bytes_per_second=50_000.0,
        time_to_limit=TimeToLimit(6291.5, 5000.0, None),
        reasons=("grew 6.0 MB in 2 min",),
        suspects=(SUSPECT,),
        leaking_since=T0 + 30,
    )
    return replace(made, **changes)


def alert(number: int = 1, state: AlertState = AlertState.FIRING, **changes: Any) -> Alert:
    made = Alert(
        id=f"alert-{number}",
        name="memory_leak",
        severity="warning",
        state=state,
        process=process(number).id,
        starts_at=T0 + 60,
        ends_at=T0 + 600 if state is AlertState.RESOLVED else None,
        summary="shop leaks 50 kB/s",
        description="It grew for two minutes.",
        suspects=(SUSPECT,),
        labels={"service_name": "shop"},
        annotations={"score": "0.93"},
    )
    return replace(made, **changes)
