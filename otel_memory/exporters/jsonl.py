"""The exporters named ``otlp_file``: metrics, logs and spans as JSON lines, in the form of OTLP's file exporter.

``OTEL_METRICS_EXPORTER=otlp_file``, ``OTEL_LOGS_EXPORTER=otlp_file``, ``OTEL_TRACES_EXPORTER=otlp_file``. A line is
one export request (https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/). None of them raises: a line that
could not be written is counted, told in the log at most once a minute, and the next one is tried all the same.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_memory.exporters.file_options import FileOptions
from otel_memory.exporters.otlp_json import logs_line, metrics_line, spans_line
from otel_memory.exporters.rotated_file import RotatedFile

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

LOG_EVERY_SECONDS: Final = 60.0
_logger: Final = logging.getLogger("otel_memory.exporters")


class LineWriter:
    """Encodes and appends; never raises. ``clock`` is monotonic seconds."""

    def __init__(
        self, signal: str, environ: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        options = FileOptions.read(os.environ if environ is None else environ, signal)
        for problem in options.problems:
            _logger.error("otel-memory: %s. The default is taken.", problem)
        self._options = options
        self.signal = signal
        self.failures = 0
        """Exports of which nothing was written."""
        self.last_error: Exception | None = None
        """Why the last export failed; None if it did not."""
        self._clock = clock
        self._logged_at: float | None = None
        self._untold = 0
        self._pid = os.getpid()
        self._make_folder()

    def _make_folder(self) -> None:
        # Once, and not when it is gone later: that may be a disk that is not mounted at the moment.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._failed(error)

    @property
    def path(self) -> Path:
        """The file of this process."""
        return self._options.path(os.getpid())  # asked each time: a forked child is another process

    def write(self, encode: Callable[[], bytes]) -> bool:
        """Append the line that ``encode`` makes. Whether that went well."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._make_folder()
        try:
            RotatedFile(self.path, self._options.max_bytes, self._options.keep).append(encode())
        except Exception as error:
            self._failed(error)
            return False
        self.last_error = None
        return True

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._untold += 1
        self.last_error = error.with_traceback(None)
        now = self._clock()
        if self._logged_at is not None and now - self._logged_at < LOG_EVERY_SECONDS:
            return
        self._logged_at = now
        count, self._untold = self._untold, 0
        _logger.warning(
            "otel-memory: %s could not be written to %s: %s: %s (%d time(s); told at most once a minute)",
            self.signal,
            self.path,
            type(error).__name__,
            error,
            count,
        )


class FileMetricExporter(MetricExporter):
    """Metrics to ``otel-memory-metrics.jsonl``. Takes the standard variable for the temporality, as OTLP's does."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        super().__init__(preferred_temporality=temporality(environ))
        self.writer = LineWriter("metrics", environ)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Append one line; FAILURE if that could not be."""
        written = self.writer.write(lambda: metrics_line(metrics_data))
        return MetricExportResult.SUCCESS if written else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is open."""


class FileLogExporter(LogRecordExporter):
    """Log records to ``otel-memory-logs.jsonl``; ``signal`` makes it another file."""

    def __init__(self, environ: Mapping[str, str] | None = None, signal: str = "logs") -> None:
        self.writer = LineWriter(signal, environ)

    @classmethod
    def for_events(cls, settings: Mapping[str, str]) -> FileLogExporter:
        """For the events of the probe alone: a file of their own, so that no application log rotates them away.

        ``settings`` are in the names of the environment variables.
        """
        return cls(settings, "events")

    @property
    def last_error(self) -> Exception | None:
        """Why the last export failed; None if it did not."""
        return self.writer.last_error

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Append one line; FAILURE if that could not be."""
        written = self.writer.write(lambda: logs_line(batch))
        return LogRecordExportResult.SUCCESS if written else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self) -> None:
        """Nothing is open."""


class FileSpanExporter(SpanExporter):
    """Spans to ``otel-memory-traces.jsonl``."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.writer = LineWriter("traces", environ)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append one line; FAILURE if that could not be."""
        written = self.writer.write(lambda: spans_line(spans))
        return SpanExportResult.SUCCESS if written else SpanExportResult.FAILURE


def temporality(environ: Mapping[str, str]) -> dict[type, AggregationTemporality]:
    """What the standard variable asks for: ``cumulative`` (the default), ``delta``, ``lowmemory``; any case."""
    preference = environ.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "").strip().lower() or "cumulative"
    deltas = {
        "cumulative": (),
        "delta": (Counter, ObservableCounter, Histogram),
        "lowmemory": (Counter, Histogram),
    }.get(preference)
    if deltas is None:
        _logger.error(
            "otel-memory: %s=%r: expected cumulative, delta or lowmemory. Cumulative is taken.",
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
            preference,
        )
    return dict.fromkeys(deltas or (), AggregationTemporality.DELTA)
