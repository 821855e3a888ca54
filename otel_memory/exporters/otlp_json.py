"""What the SDK exports, as one line of OTLP/JSON. Pure.

The messages come from OpenTelemetry's own protobuf encoder; what is added is the JSON form that OTLP demands where it
differs from protobuf's: ids in hexadecimal instead of base64, enums as numbers. Names are lowerCamelCase, 64-bit
integers strings, NaN and the infinities strings, bytes base64
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


def metrics_line(data: MetricsData) -> bytes:
    """An ``ExportMetricsServiceRequest``, with the newline at its end."""
    return _line(encode_metrics(data))


def logs_line(batch: Sequence[ReadableLogRecord]) -> bytes:
    """An ``ExportLogsServiceRequest``, with the newline at its end."""
    return _line(encode_logs(batch))


def spans_line(spans: Sequence[ReadableSpan]) -> bytes:
    """An ``ExportTraceServiceRequest``, with the newline at its end."""
    return _line(encode_spans(spans))


def _line(message: Message) -> bytes:
    document = MessageToDict(message, use_integers_for_enums=True)
    _hex_ids(document)
    # ASCII: some readers take other Unicode line separators for the end of a line.
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def _hex_ids(node: Any) -> None:
    """Ids in hexadecimal, wherever they stand. A key of the user's is never a key here, but the value of ``key``."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _IDS:
                node[key] = base64.b64decode(value).hex()
            elif isinstance(value, dict | list):
                _hex_ids(value)
    elif isinstance(node, list):
        for element in node:
            _hex_ids(element)
