"""``OtlpOutput``: alert changes as OTLP log records.

Owns the record's form (event name and attributes of ``names``). Export is synchronous and its result is looked at, so
that a failure stays in the outbox; the SDK's batching processor would lose it at a crash. Receivers drop repeats by
alert id, state and timestamp, which together are the change's identity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Literal

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_memory import names
from otel_memory.analyzer.model import AlertState
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.version import __version__

SERVICE: Final = "otel-memory-analyzer"
Protocol = Literal["grpc", "http/protobuf"]


class OtlpOutput:
    """Sends each change to an OTLP endpoint."""

    name: Final = "otlp"

    def __init__(self, exporter: LogRecordExporter, *, clock: Callable[[], float] = time.time) -> None:
        self._exporter = exporter
        self._clock = clock
        # Built directly: Resource.create would take this process's OTEL_RESOURCE_ATTRIBUTES for the analyzer's.
        self._resource = Resource({names.SERVICE_NAME: SERVICE, names.SERVICE_VERSION: __version__})
        self._scope = InstrumentationScope(names.SCOPE, __version__)

    def deliver(self, change: AlertChange) -> None:
        """Exports one record. Raises ConnectionError where the other side did not take it."""
        record = ReadableLogRecord(to_record(change, self._clock()), self._resource, self._scope)
        with suppress_instrumentation():
            result = self._exporter.export([record])
        if result is not LogRecordExportResult.SUCCESS:
            raise ConnectionError("the OTLP endpoint did not take the record (the exporter's own log says why)")

    def close(self) -> None:
        """Closes the exporter, which also ends a retry that is waiting."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def build(
    endpoint: str,
    protocol: Protocol = "grpc",
    *,
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float = 10.0,
) -> OtlpOutput:
    """An output for ``endpoint``: ``http://host:4317`` (gRPC; https means TLS) or a base URL ``http://host:4318``.

    Certificates, compression and, unless ``headers`` are given, headers come from the standard
    ``OTEL_EXPORTER_OTLP_*`` variables.

    Raises:
        ValueError: another protocol.
    """
    sent = dict(headers) if headers else None
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter

        insecure = not endpoint.startswith("https://")
        return OtlpOutput(GrpcExporter(endpoint=endpoint, insecure=insecure, headers=sent, timeout=timeout_seconds))
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter

        url = endpoint.rstrip("/")
        url = url if url.endswith("/v1/logs") else f"{url}/v1/logs"
        return OtlpOutput(HttpExporter(endpoint=url, headers=sent, timeout=timeout_seconds))
    raise ValueError(f"OTLP protocol {protocol!r}: expected grpc or http/protobuf")


def to_record(change: AlertChange, observed: float) -> LogRecord:
    """The change as a log record; ``observed`` is when it is sent, in seconds since the epoch."""
    alert, assessment = change.alert, change.assessment
    attributes: dict[str, str | float] = {
        names.ALERT_ID: alert.id,
        names.ALERT_NAME: alert.name,
        names.ALERT_STATE: alert.state.value,
        names.ALERT_SEVERITY: alert.severity,
        names.ALERT_SUMMARY: alert.summary,
        names.ALERT_PROCESS_ID: alert.process,
    }
    if assessment is not None:
        attributes[names.SERVICE_NAME] = assessment.process.service_name
        if assessment.process.service_instance_id is not None:
            attributes[names.SERVICE_INSTANCE_ID] = assessment.process.service_instance_id
        if assessment.growth_bytes_per_second is not None:
            attributes[names.ALERT_GROWTH] = float(assessment.growth_bytes_per_second)
        if assessment.leak_score is not None:
            attributes[names.ALERT_SCORE] = float(assessment.leak_score)
        if assessment.time_to_limit is not None:
            attributes[names.ALERT_TIME_TO_LIMIT] = float(assessment.time_to_limit.estimate)
    if alert.suspects:
        attributes[names.ALERT_SUSPECT] = f"{alert.suspects[0].kind}:{alert.suspects[0].name}"
    severity = _severity(alert.state, alert.severity)
    return LogRecord(
        timestamp=round(change.at * 1e9),
        observed_timestamp=round(observed * 1e9),
        event_name=names.EVENT_ALERT,
        severity_number=severity,
        severity_text=severity.name,
        body=alert.summary,
        attributes=attributes,
    )


def _severity(state: AlertState, severity: str) -> SeverityNumber:
    if state is not AlertState.FIRING:
        return SeverityNumber.INFO
    return SeverityNumber.ERROR if severity == "critical" else SeverityNumber.WARN
