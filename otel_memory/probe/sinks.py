"""Where events go besides the application's logger provider: Kafka, a file, the console; each by a provider of our own.

Owns those providers. Theirs is a queue that no application log shares, so none pushes an event out of it; the resource
is the application's. Exporters are found by their entry points; the SDK is loaded only where a setting asks for one of
these sinks.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.metrics import get_meter_provider

from otel_memory import names
from otel_memory.probe.config import SettingsError, descriptions, in_variables
from otel_memory.version import __version__

if TYPE_CHECKING:
    from opentelemetry._logs import Logger
    from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
    from opentelemetry.sdk.resources import Resource

    from otel_memory.probe.config import Settings

EXPORTERS: Final[Mapping[str, str]] = {"kafka": "otlp_kafka", "file": "otlp_file"}
"""Sink -> name of its exporter in the entry-point group ``opentelemetry_logs_exporter``."""

CONSOLE: Final = "console"
EXTRA: Final = "pip install 'otel-memory[otlp]'"
CLOSE_SECONDS: Final = 1.0
MAX_WAITING: Final = 512
"""Events in the queue of a sink at most; past that the oldest goes."""

_GROUP: Final = "opentelemetry_logs_exporter"

Failed = Callable[[str, BaseException], None]


class PrivateSink:
    """One sink: a logger provider with one exporter, made when first needed or when its resource is known."""

    def __init__(
        self, name: str, make_exporter: Callable[[], Any], providers: Sequence[object], failed: Failed
    ) -> None:
        self.part = f"events.{name}"
        self._make_exporter = make_exporter
        self._providers = tuple(providers)
        self._failed = failed
        self._processor: BatchLogRecordProcessor | None = None
        self._provider: LoggerProvider | None = None
        self._logger: Logger | None = None
        self._closed = False
        self._lock = threading.Lock()
        if (resource := application_resource(self._providers)) is not None:
            self._build(resource)

    def logger(self) -> Logger | None:
        """Where records go; None once it is closed, and for the moment in which another thread makes it."""
        return self._logger or self._first_logger()

    def _first_logger(self) -> Logger | None:
        from opentelemetry.sdk.resources import Resource

        # Not waited for: a finalizer that emits may run on the very thread that is at it.
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._logger is None and not self._closed:
                self._build(application_resource(self._providers) or Resource.create())
            return self._logger
        finally:
            self._lock.release()

    def _build(self, resource: Resource) -> None:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        exporter: Any = _Counted(self._make_exporter(), self.part, self._failed)
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        self._processor = BatchLogRecordProcessor(
            exporter,
            max_queue_size=MAX_WAITING,
            max_export_batch_size=1,  # at once: whoever goes over its limit may be killed within a second
            schedule_delay_millis=1000,
        )
        provider.add_log_record_processor(self._processor)
        self._provider = provider  # kept, for the SDK's hook that gives a forked child its own resource is weak
        self._logger = provider.get_logger(names.SCOPE, __version__)

    def after_fork(self) -> None:
        """In the child: the SDK has given the provider a thread, a queue and a resource of this process."""
        self._lock = threading.Lock()

    def close(self, timeout: float) -> bool:
        """Hand over what waits and end, within ``timeout`` seconds. Whether that was enough; True once closed."""
        with self._lock:
            processor, self._processor, self._provider, self._logger = self._processor, None, None, None
            self._closed = True
        if processor is None:
            return True
        # By itself the processor would wait 30 s for an exporter that hangs, and to do that on a thread is no way
        # out: some 3.12 start none once the interpreter ends.
        started = time.monotonic()
        processor._batch_processor.shutdown(timeout_millis=round(timeout * 1000))
        return time.monotonic() - started < timeout


def build(settings: Settings, providers: Sequence[object], failed: Failed) -> tuple[PrivateSink, ...]:
    """The sinks that ``settings`` ask for, ``otlp`` apart.

    ``providers`` are those that the application handed over; their resource comes first.

    Raises:
        SettingsError: what a sink needs is not installed.
    """
    wanted = [name for name in settings.events if name == CONSOLE or name in EXPORTERS]
    return tuple(PrivateSink(name, _maker(name, settings), providers, failed) for name in wanted)


def close(sinks: Sequence[PrivateSink], failed: Failed, timeout: float = CLOSE_SECONDS) -> None:
    """Hand over what waits in each of them and end them all, within ``timeout`` seconds altogether. Never raises."""
    for sink in sinks:
        share = timeout / len(sinks)
        try:
            if not sink.close(share):
                failed(sink.part, TimeoutError(f"its last events were not taken within {share:g} s"))
        except Exception as error:
            failed(sink.part, error)


def application_resource(providers: Sequence[object] = ()) -> Resource | None:
    """The resource of the first SDK provider there is, ``providers`` before the global ones."""
    from opentelemetry.sdk.resources import Resource

    for provider in (*providers, get_logger_provider(), get_meter_provider(), trace.get_tracer_provider()):
        for holder in (provider, getattr(provider, "_sdk_config", None)):  # a MeterProvider keeps it there
            resource = getattr(holder, "resource", None)
            if isinstance(resource, Resource):
                return resource
    return None


def _maker(name: str, settings: Settings) -> Callable[[], Any]:
    variable = descriptions()["events"].variable
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        raise SettingsError(variable, name, f"needs the OpenTelemetry SDK: {EXTRA}")
    if name == CONSOLE:
        return ConsoleExporter
    found = next(iter(entry_points(group=_GROUP, name=EXPORTERS[name])), None)
    if found is None:
        raise SettingsError(variable, name, f"the exporter {EXPORTERS[name]} is not installed: {EXTRA}")
    try:
        exporter: Any = found.load()
    except ImportError as error:
        raise SettingsError(variable, name, f"{error}: {EXTRA}") from None
    # An exporter that needs more than the SDK may say so; it would only log it.
    why_not = getattr(exporter, "missing", lambda: None)()
    if why_not:
        raise SettingsError(variable, name, why_not)
    # An exporter may have a form for events alone, which then gets the settings that arguments may have set.
    for_events = getattr(exporter, "for_events", None)
    return exporter if for_events is None else lambda: for_events(in_variables(settings))


class _Counted:
    """An exporter whose failures are counted; the SDK's processor drops what ``export`` returns."""

    def __init__(self, exporter: LogRecordExporter, part: str, failed: Failed) -> None:
        self._exporter = exporter
        self._part = part
        self._failed = failed

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        try:
            result = self._exporter.export(batch)
        except Exception as error:
            self._failed(self._part, error)
            return LogRecordExportResult.FAILURE
        if result is LogRecordExportResult.FAILURE:
            why = getattr(self._exporter, "last_error", None)
            self._failed(self._part, why or RuntimeError(f"{len(batch)} events were not taken"))
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 1000) -> None:
        shutdown: Callable[..., object] = self._exporter.shutdown
        if "timeout_millis" in inspect.signature(shutdown).parameters:
            shutdown(timeout_millis=timeout_millis)
        else:
            shutdown()


class ConsoleExporter:
    """One line of JSON an event to standard error, as it is at that moment."""

    def __init__(self) -> None:
        self.last_error: Exception | None = None

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Write them; FAILURE where standard error is closed, or nobody reads it any more."""
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        try:
            for record in batch:
                _write_line(console_line(record))
        except (OSError, ValueError) as error:
            self.last_error = error.with_traceback(None)
            return LogRecordExportResult.FAILURE
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self) -> None:
        """Nothing is open."""


def console_line(record: ReadableLogRecord) -> str:
    """The event as flat JSON (``docs/events.schema.json``), with the newline at its end."""
    event = record.log_record
    at = datetime.fromtimestamp((event.timestamp or event.observed_timestamp or 0) / 1e9, UTC)
    document = {
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_name": event.event_name,
        "severity": event.severity_text,
        "body": event.body,
        "attributes": {
            key: list(value) if isinstance(value, tuple) else value for key, value in (event.attributes or {}).items()
        },
    }
    return json.dumps(document, separators=(",", ":"), default=str) + "\n"


def _write_line(line: str) -> None:
    stream, own = sys.stderr, sys.__stderr__
    if stream is None:
        raise OSError("there is no standard error")
    if stream is not own or own is None:
        stream.write(line)
        stream.flush()
        return
    # Past Python's buffer: a thread that hangs in it with the buffer's lock would abort the interpreter at its end.
    left = line.encode()
    while left:
        left = left[os.write(own.fileno(), left) :]
