"""The exporters named ``otlp_kafka``: metrics and logs as records of Kafka, equal to those of the Collector's exporter.

``OTEL_METRICS_EXPORTER=otlp_kafka``, ``OTEL_LOGS_EXPORTER=otlp_kafka``. ``export`` encodes and hands over to a thread
of its own; SUCCESS means that all of it was kept: in memory, or, with a spool, in a file that outlives the process.
What is dropped afterwards is counted in ``otel_memory.exporter.dropped``. None of them raises or waits for a broker.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from packaging.version import InvalidVersion, Version

from otel_memory.exporters.backlog import SIGNALS, Record
from otel_memory.exporters.jsonl import temporality
from otel_memory.exporters.kafka_options import KafkaOptions
from otel_memory.exporters.kafka_sender import ENCODING, SHUTDOWN, TOO_LARGE, UNUSABLE, losses, register_metrics, shared

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord

    from otel_memory.exporters.kafka_records import Piece
    from otel_memory.exporters.kafka_sender import Sender

EXTRA: Final = "pip install 'otel-memory[kafka]'"
LEAST_KAFKA: Final = "3.0.12"
_NEEDED: Final = {
    "kafka": "kafka-python",
    "xxhash": "xxhash",
    "opentelemetry.exporter.otlp.proto.common": "opentelemetry-exporter-otlp-proto-common",
}
_logger: Final = logging.getLogger("otel_memory.exporters")


def missing() -> str | None:
    """What is not installed and how to mend it, in a sentence; None if all is there."""
    for module, distribution in _NEEDED.items():
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"otlp_kafka needs {distribution}, which is not installed: {EXTRA}"
    try:
        installed = importlib.metadata.version("kafka-python")
        if Version(installed) < Version(LEAST_KAFKA):
            return f"otlp_kafka needs kafka-python {LEAST_KAFKA} or later, not {installed}: {EXTRA}"
    except importlib.metadata.PackageNotFoundError:
        return f"otlp_kafka needs kafka-python; the module kafka that is installed is another one: {EXTRA}"
    except InvalidVersion:
        return None  # a build of somebody's own
    return None


class KafkaWriter:
    """Encodes and hands over; never raises. ``signal`` is one of ``SIGNALS``."""

    def __init__(self, signal: str, environ: Mapping[str, str]) -> None:
        self.signal = signal
        self._lane = SIGNALS.index(signal)
        register_metrics()
        self.options = KafkaOptions.read(environ)
        self.sender: Sender | None = None
        self.last_error: Exception | None = None
        """Why the last export failed; None if it did not."""
        self._why_not = missing()
        if self._why_not:
            _logger.error("otel-memory: %s. No %s are sent.", self._why_not, signal)
            return
        for problem in self.options.problems:
            _logger.error("otel-memory: %s", problem)
        if not self.options.usable:
            self._why_not = "the settings of Kafka are not valid"
            return
        try:
            # Here, on the thread that sets up the SDK: a fork while another thread imports leaves the child without.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some are errors where the application says so
                importlib.import_module("kafka")
        except Exception as error:
            self._why_not = f"kafka-python can't be imported: {error!r}"
            _logger.error("otel-memory: %s. No %s are sent.", self._why_not, signal)
            return
        self.sender = shared(self.options)

    @property
    def topic(self) -> str:
        """Where the records go."""
        return self.options.metrics_topic if self.signal == "metrics" else self.options.logs_topic

    def write(self, encode: Callable[[int], tuple[list[Piece], int]], items: Callable[[], int]) -> bool:
        """Keep what ``encode(most bytes of a record)`` makes. Whether all of it was kept."""
        sender = self.sender
        if sender is None:
            self.last_error = RuntimeError(self._why_not or "it was shut down")
            losses.add(self.signal, UNUSABLE if self._why_not else SHUTDOWN, items())
            return False

        try:
            pieces, lost = encode(self.options.max_record_bytes)
        except Exception as error:
            self.last_error = error.with_traceback(None)
            sender.dropped(self.signal, ENCODING, items())
            return False
        if lost:
            sender.dropped(self.signal, TOO_LARGE, lost)
        records = (Record(self._lane, self.topic, each.key, each.value, each.items) for each in pieces)
        try:
            kept = sender.put(records)
        except Exception as error:
            self.last_error = error.with_traceback(None)
            return False
        if kept and not lost:
            self.last_error = None
            return True
        self.last_error = RuntimeError("some of it was dropped: see otel_memory.exporter.dropped")
        return False

    def flush(self, timeout_millis: float) -> bool:
        """Wait until Kafka has everything, at most that long."""
        return self.sender is None or self.sender.flush(timeout_millis / 1000)

    def close(self, timeout_millis: float) -> None:
        """Flush, within the time or the option ``flush_timeout``, and end."""
        sender, self.sender = self.sender, None
        if sender is not None:
            sender.release(timeout_millis / 1000)


class KafkaMetricExporter(MetricExporter):
    """Metrics to the topic ``otlp_metrics``. Takes the standard variable for the temporality, as OTLP's does."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        super().__init__(preferred_temporality=temporality(environ))
        self.writer = KafkaWriter("metrics", environ)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Hand them over; FAILURE if any was dropped at once."""

        def encode(limit: int) -> tuple[list[Piece], int]:
            from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

            from otel_memory.exporters.kafka_records import metric_pieces

            return metric_pieces(encode_metrics(metrics_data), limit)

        kept = self.writer.write(encode, lambda: _points_in(metrics_data))
        return MetricExportResult.SUCCESS if kept else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Wait until Kafka has everything. Whether it had in time."""
        return self.writer.flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Hand over what waits and end. The SDK gives its time, in milliseconds, under the name ``timeout`` too."""
        self.writer.close(min(timeout_millis, kwargs.get("timeout", timeout_millis)))


class KafkaLogExporter(LogRecordExporter):
    """Log records to the topic ``otlp_logs``; ``signal`` puts them into another lane."""

    def __init__(self, environ: Mapping[str, str] | None = None, signal: str = "logs") -> None:
        self.writer = KafkaWriter(signal, os.environ if environ is None else environ)

    @classmethod
    def for_events(cls, settings: Mapping[str, str]) -> KafkaLogExporter:
        """For the events of the probe alone, which go before everything else.

        ``settings`` are in the names of the environment variables.
        """
        return cls(settings, "events")

    @staticmethod
    def missing() -> str | None:
        """What is not installed and how to mend it; None if all is there."""
        return missing()

    @property
    def last_error(self) -> Exception | None:
        """Why the last export failed; None if it did not."""
        return self.writer.last_error

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Hand them over; FAILURE if any was dropped at once."""

        def encode(limit: int) -> tuple[list[Piece], int]:
            from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

            from otel_memory.exporters.kafka_records import log_pieces

            return log_pieces(encode_logs(batch), limit)

        kept = self.writer.write(encode, lambda: len(batch))
        return LogRecordExportResult.SUCCESS if kept else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Wait until Kafka has everything. Whether it had in time."""
        return self.writer.flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Hand over what waits and end."""
        self.writer.close(timeout_millis)


def _points_in(data: MetricsData) -> int:
    try:
        return sum(
            len(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
    except Exception:
        return 1  # whatever it is
