"""Events: an ordinary log record with an event name, whatever provider there is or isn't."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from otel_memory import names
from otel_memory.probe.events import Events, attach, describe, detach
from otel_memory.probe.plain import MAX_TEXT, plain_text
from otel_memory.probe.rules import parse_rule
from otel_memory.probe.structured_logger import StructuredLogger
from otel_memory.probe.thresholds import Crossing, Rule
from otel_memory.version import __version__
from tests.event_schema import required

RULE = parse_rule("big=rss>1GiB:critical")
CROSSED = Crossing(RULE, "crossed", 5.0, 1.25 * 2**30, 1.25 * 2**30, 1)
RECOVERED = Crossing(RULE, "recovered", 95.0, 0.5 * 2**30, 1.5 * 2**30, 1, 90.0)


@pytest.fixture
def exporter() -> InMemoryLogRecordExporter:
    return InMemoryLogRecordExporter()


@pytest.fixture
def provider(exporter: InMemoryLogRecordExporter) -> Any:
    provider = LoggerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    yield provider
    provider.shutdown()


def test_a_crossing_is_a_log_record_with_the_documented_name_and_attributes(
    provider: LoggerProvider, exporter: InMemoryLogRecordExporter
) -> None:
    assert Events(provider).threshold(CROSSED, "id-1", 1_700_000_000_000_000_000)
    (finished,) = exporter.get_finished_logs()
    record, scope = finished.log_record, finished.instrumentation_scope
    assert (scope.name, scope.version) == (names.SCOPE, __version__)
    assert record.event_name == names.EVENT_THRESHOLD_CROSSED
    assert record.timestamp == 1_700_000_000_000_000_000
    assert record.observed_timestamp is not None
    assert record.observed_timestamp > record.timestamp
    assert (record.severity_number, record.severity_text) == (SeverityNumber.ERROR, "ERROR")
    assert record.body == "Resident memory is 1.25 GiB, over the threshold of 1.00 GiB (big, critical)."
    assert record.attributes is not None
    assert set(record.attributes) == set(required(names.EVENTS[record.event_name]))
    assert record.attributes[names.EVENT_ID] == "id-1"
    assert record.attributes[names.PROCESS_PID] == os.getpid()
    assert record.attributes[names.THRESHOLD_UNIT] == "By"


def test_a_recovery_carries_the_same_id_the_peak_and_how_long_it_lasted(
    provider: LoggerProvider, exporter: InMemoryLogRecordExporter
) -> None:
    events = Events(provider)
    events.threshold(CROSSED, "id-1", 1)
    events.threshold(RECOVERED, "id-1", 2)
    crossed, recovered = (finished.log_record for finished in exporter.get_finished_logs())
    assert recovered.event_name == names.EVENT_THRESHOLD_RECOVERED
    assert crossed.attributes is not None
    assert recovered.attributes is not None
    assert set(recovered.attributes) == set(required(names.EVENTS[names.EVENT_THRESHOLD_RECOVERED]))
    assert recovered.attributes[names.EVENT_ID] == crossed.attributes[names.EVENT_ID]
    assert recovered.attributes[names.THRESHOLD_PEAK] == 1.5 * 2**30
    assert recovered.attributes[names.THRESHOLD_DURATION] == 90.0
    assert recovered.severity_number == SeverityNumber.INFO
    assert events.emitted == 2


@pytest.mark.parametrize(
    ("text", "value", "sentence"),
    [
        ("rss+20%/10min", 31.26, "Resident memory grew by 31.3 % in 10 min, over the threshold of 20.0 %"),
        ("rss>5MB/s", 7e6, "Resident memory grows by 6.68 MiB/s, over the threshold of 4.77 MiB/s"),
        ("limit>90%", 0.951, "Memory in use is 95.1 % of the limit, over the threshold of 90.0 %"),
        ("system>85%", 0.9, "Memory in use on the host is 90.0 %, over the threshold of 85.0 %"),
        ("threads>200", 1234, "Count of threads is 1,234, over the threshold of 200"),
        ("blocks>1000/s", 1500, "Count of Python memory blocks grows by 1,500/s, over the threshold of 1,000/s"),
    ],
)
def test_each_comparison_reads_as_a_sentence(text: str, value: float, sentence: str) -> None:
    assert describe(Crossing(parse_rule(text), "crossed", 0, value, value, 1)).startswith(sentence)


def test_a_recovery_reads_as_a_sentence() -> None:
    assert describe(RECOVERED) == (
        "Resident memory is 512 MiB, back under the threshold of 1.00 GiB after 1.5 min; peak 1.50 GiB (big)."
    )


def test_an_event_belongs_to_no_span_even_where_one_is_current(
    provider: LoggerProvider, exporter: InMemoryLogRecordExporter
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with trace.use_span(tracer.start_span("request")):
        Events(provider).emit("e", "body", {})
    assert exporter.get_finished_logs()[0].log_record.trace_id in (0, None)


def test_long_text_is_cut(provider: LoggerProvider, exporter: InMemoryLogRecordExporter) -> None:
    Events(provider).emit("e", "b" * 5000, {"text": "x" * 5000, "number": 1})
    record = exporter.get_finished_logs()[0].log_record
    assert record.attributes is not None
    assert len(str(record.body)) == len(str(record.attributes["text"])) == MAX_TEXT
    assert record.attributes["number"] == 1


class Speechless:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_what_otlp_cannot_carry_does_not_cost_the_other_records(
    provider: LoggerProvider, exporter: InMemoryLogRecordExporter
) -> None:
    """The name of a file that isn't UTF-8 comes as a text with lone surrogates, which no exporter can encode."""
    path = os.fsdecode(b"caf\xe9.py")
    events = Events(provider)
    events.emit("e", f"in {path}", {"path": path, "paths": [path], "count": 2**70, "counts": [1, -(2**70)], path: 1})
    attach(events)
    try:
        assert StructuredLogger(path).log_memory_event(path, path=path, what=Speechless(), whats=[Speechless()])
    finally:
        detach(events)
    logs = exporter.get_finished_logs()
    encoded = encode_logs(logs).resource_logs[0].scope_logs[0].log_records
    first, second = ({pair.key: pair.value for pair in record.attributes} for record in encoded)
    assert first["path"].string_value == first["paths"].array_value.values[0].string_value == "caf\\udce9.py"
    assert first["count"].string_value == str(2**70)
    assert first["caf\\udce9.py"].int_value == 1
    assert second["what"].string_value == second["whats"].array_value.values[0].string_value == "<Speechless>"


@pytest.mark.parametrize(
    ("value", "text"), [("plain", "plain"), ("größer", "größer"), (None, "None"), (7, "7"), ("\ud800", "\\ud800")]
)
def test_a_text_is_one_that_every_exporter_can_send(value: object, text: str) -> None:
    assert plain_text(value) == text


def test_without_a_processor_nothing_is_handed_over() -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    events = Events(provider)
    assert not events.emit("e", "body", {})
    assert events.emitted == 0
    provider.shutdown()


class _Logger:
    """A logger of an API that has no ``enabled`` yet, and that fails when told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[dict[str, Any]] = []

    def emit(self, record: object = None, **kwargs: Any) -> None:
        self.calls.append(kwargs)
        if self.error is not None:
            raise self.error


class _Provider:
    def __init__(self, logger: _Logger) -> None:
        self.logger = logger

    def get_logger(self, *_: object, **__: object) -> _Logger:
        return self.logger


def test_an_older_api_without_enabled_works() -> None:
    logger = _Logger()
    assert Events(_Provider(logger)).emit("e", "body", {"a": 1})  # type: ignore[arg-type]
    assert logger.calls[0]["event_name"] == "e"


def test_a_provider_that_fails_is_counted_and_never_raises() -> None:
    failures: list[tuple[str, BaseException]] = []
    events = Events(_Provider(_Logger(OSError("down"))), lambda part, error: failures.append((part, error)))  # type: ignore[arg-type]
    assert not events.threshold(CROSSED, "id", 1)
    assert [(part, str(error)) for part, error in failures] == [("events", "down")]
    assert not Events(_Provider(_Logger(OSError("down")))).emit("e", "b", {})  # type: ignore[arg-type]


def test_units_are_those_of_the_contract() -> None:
    said = names.ATTRIBUTES[names.THRESHOLD_UNIT].description
    rules: list[Rule] = [RULE, parse_rule("rss>5MB/s"), parse_rule("rss+20%/10min"), parse_rule("limit>90%")]
    rules.append(replace(parse_rule("threads>200"), name="t"))
    assert {rule.unit for rule in rules} == {"By", "By/s", "%", "1"}
    assert said == "Unit of bound and value: By, s or 1, one of them with /s, or %."
