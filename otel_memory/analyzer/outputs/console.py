"""``ConsoleOutput``: one line for each change, for people or as JSON.

Owns the form of the line. Never colours and never wraps: it may be a log.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from otel_memory.analyzer.model import Assessment, TimeToLimit
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.humanize import printable


class ConsoleOutput:
    """Writes to ``stream`` (standard error unless given)."""

    name: Final = "console"

    def __init__(self, stream: TextIO | None = None, *, json_lines: bool = False) -> None:
        self._stream = stream
        self._render = to_json if json_lines else to_line
        self._lock = threading.Lock()

    def deliver(self, change: AlertChange) -> None:
        """Writes and flushes one line. Raises OSError or ValueError where the stream is gone."""
        # Looked up now, so that a stream that was replaced later is used.
        stream = self._stream or sys.stderr
        with self._lock:
            stream.write(self._render(change) + "\n")
            stream.flush()

    def close(self) -> None:
        """The stream is not ours to close."""


def to_line(change: AlertChange) -> str:
    """The change as a line for people."""
    alert, assessment = change.alert, change.assessment
    parts = [f"{_time(change.at)} {alert.state.value.upper()} {alert.severity} {alert.name}: {alert.summary}"]
    if assessment is not None:
        parts.append(_who(assessment))
        if assessment.time_to_limit is not None:
            parts.append(f"limit in {_duration(assessment.time_to_limit)}")
    if alert.suspects:
        first = alert.suspects[0]
        parts.append(f"first suspect {first.kind} {first.name} ({first.share:.0%})")
    parts.append(f"alert {alert.id}")
    # Names come from the network: a line break or an escape in one must not forge a line or drive the terminal.
    return printable(" | ".join(parts))


def to_json(change: AlertChange) -> str:
    """The change as one JSON object: the REST form of an alert, with ``change_id`` and ``time``."""
    alert, assessment = change.alert, change.assessment
    record: dict[str, Any] = {
        "change_id": change.id,
        "time": _time(change.at),
        "id": alert.id,
        "name": alert.name,
        "severity": alert.severity,
        "state": alert.state.value,
        "process": alert.process,
        "service_name": assessment.process.service_name if assessment else None,
        "service_instance_id": assessment.process.service_instance_id if assessment else None,
        "starts_at": _time(alert.starts_at),
        "ends_at": None if alert.ends_at is None else _time(alert.ends_at),
        "summary": alert.summary,
        "description": alert.description,
        "growth_bytes_per_second": assessment.growth_bytes_per_second if assessment else None,
        "leak_score": assessment.leak_score if assessment else None,
        "suspects": [
            {
                "kind": suspect.kind,
                "name": suspect.name,
                "growth_bytes_per_second": suspect.growth_bytes_per_second,
                "share": suspect.share,
                "confidence": suspect.confidence,
                "evidence": suspect.evidence,
            }
            for suspect in alert.suspects
        ],
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _who(assessment: Assessment) -> str:
    process = assessment.process
    parts = [process.service_name]
    if process.host_name is not None:
        parts.append(f"on {process.host_name}")
    if process.pid is not None:
        parts.append(f"pid {process.pid}")
    return " ".join(parts)


def _duration(time_to_limit: TimeToLimit) -> str:
    minutes = time_to_limit.estimate / 60
    if minutes < 100:
        return f"{minutes:.0f} min"
    if minutes < 100 * 60:
        return f"{minutes / 60:.0f} h"
    return f"{minutes / 1440:.0f} d"
