"""The exporters ``otlp_file``: what stands in a line, that the analyzer reads it, and that they never raise."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_memory.analyzer.decode import decode
from otel_memory.exporters.file_options import KEEP, MAX_BYTES, PATH
from otel_memory.exporters.jsonl import FileLogExporter, FileMetricExporter, FileSpanExporter, LineWriter, temporality

RESOURCE = Resource({"service.name": "shop", "service.instance.id": "one"})
PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("ascii")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def tracing() -> Iterator[TracerProvider]:
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def metrics_into(folder: Path, tracing: TracerProvider, **environ: str) -> Path:
    exporter = FileMetricExporter({PATH: f"{folder}/", **environ})
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
    meter = provider.get_meter("test")
    meter.create_observable_up_down_counter("process.memory.usage", callbacks=[lambda _: [Observation(2**60)]])
    meter.create_observable_gauge("ratio", callbacks=[lambda _: [Observation(0.25)]])
    counter, histogram = meter.create_counter("calls"), meter.create_histogram("pause", unit="s")
    with trace.use_span(tracing.get_tracer("t").start_span("request")):
        counter.add(1, {"traceId": "a user's own key", "odd": 'ä\u2028"\n'})
        histogram.record(0.5)
    provider.force_flush()
    counter.add(1, {"traceId": "a user's own key", "odd": 'ä\u2028"\n'})
    provider.shutdown()
    return folder / "otel-memory-metrics.jsonl"


def by_name(document: dict[str, Any]) -> dict[str, Any]:
    (resource,) = document["resourceMetrics"]
    return {metric["name"]: metric for metric in resource["scopeMetrics"][0]["metrics"]}


def test_metrics_have_the_form_that_otlp_demands(tmp_path: Path, tracing: TracerProvider) -> None:
    first, second = lines(metrics_into(tmp_path, tracing))
    found = by_name(first)
    usage = found["process.memory.usage"]["sum"]
    assert usage["dataPoints"][0]["asInt"] == str(2**60), "64-bit integers are strings"
    assert usage["aggregationTemporality"] == 2, "enums are numbers"
    assert usage["dataPoints"][0]["timeUnixNano"].isdecimal()
    point = found["calls"]["sum"]["dataPoints"][0]
    attributes = {pair["key"]: pair["value"]["stringValue"] for pair in point["attributes"]}
    assert attributes == {"traceId": "a user's own key", "odd": 'ä\u2028"\n'}
    (exemplar,) = point["exemplars"]
    assert (len(bytes.fromhex(exemplar["traceId"])), len(bytes.fromhex(exemplar["spanId"]))) == (16, 8)
    assert (found["pause"]["histogram"]["dataPoints"][0]["count"], found["pause"]["unit"]) == ("1", "s")
    assert found["ratio"]["gauge"]["dataPoints"][0]["asDouble"] == 0.25
    assert by_name(second)["calls"]["sum"]["dataPoints"][0]["asInt"] == "2"


def test_the_analyzer_reads_each_line_of_metrics(tmp_path: Path, tracing: TracerProvider) -> None:
    for line in metrics_into(tmp_path, tracing).read_bytes().splitlines():
        decoded = decode(line, "metrics", "json")
        assert (decoded.rejected, decoded.error) == (0, "")
        (payload,) = decoded.payloads
        assert payload.resource["service.name"] == "shop"
        assert 2.0**60 in [point.value for point in payload.points]


def test_a_line_is_the_message_that_protobuf_would_send(tmp_path: Path, tracing: TracerProvider) -> None:
    """But for the ids, which protobuf's own JSON form has in base64."""
    text = metrics_into(tmp_path, tracing).read_text().splitlines()[0]
    document = json.loads(text)
    for metric in by_name(document).values():
        for point in next(metric[kind] for kind in ("sum", "gauge", "histogram") if kind in metric)["dataPoints"]:
            for exemplar in point.get("exemplars", []):
                for key in ("traceId", "spanId"):
                    exemplar[key] = base64.b64encode(bytes.fromhex(exemplar[key])).decode()
    message = Parse(json.dumps(document), ExportMetricsServiceRequest())
    assert len(message.resource_metrics[0].scope_metrics[0].metrics) == 4


def test_log_records_keep_their_event_name_and_the_span_they_belong_to(tmp_path: Path, tracing: TracerProvider) -> None:
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(FileLogExporter({PATH: str(tmp_path)})))
    span = tracing.get_tracer("t").start_span("request")
    with trace.use_span(span):
        provider.get_logger("otel_memory").emit(
            timestamp=2**60,
            event_name="otel_memory.error",
            severity_number=SeverityNumber.WARN,
            body="b",
            attributes={"n": 1, "list": ["a"], "raw": b"\xff", "odd": float("inf")},
        )
    provider.shutdown()
    path = tmp_path / "otel-memory-logs.jsonl"
    (document,) = lines(path)
    (record,) = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["traceId"] == trace.format_trace_id(span.get_span_context().trace_id)
    assert record["spanId"] == trace.format_span_id(span.get_span_context().span_id)
    assert (record["timeUnixNano"], record["severityNumber"]) == (str(2**60), 13)
    values = {pair["key"]: pair["value"] for pair in record["attributes"]}
    assert values["odd"] == {"doubleValue": "Infinity"}
    assert values["raw"] == {"bytesValue": "/w=="}, "bytes stay base64"
    ((event,),) = [payload.events for payload in decode(path.read_bytes(), "logs", "json").payloads]
    assert (event.name, event.attributes["n"]) == ("otel_memory.error", 1)
    record["traceId"] = record["spanId"] = ""
    assert Parse(json.dumps(document), ExportLogsServiceRequest()).resource_logs


def test_spans_have_hexadecimal_ids_in_links_and_parents_too(tmp_path: Path, tracing: TracerProvider) -> None:
    tracing.add_span_processor(SimpleSpanProcessor(FileSpanExporter({PATH: str(tmp_path)})))
    tracer = tracing.get_tracer("t")
    with tracer.start_as_current_span("outer") as outer:
        link = trace.Link(outer.get_span_context())
        with tracer.start_as_current_span("inner", links=[link]):
            pass
    inner, _ = lines(tmp_path / "otel-memory-traces.jsonl")
    (span,) = inner["resourceSpans"][0]["scopeSpans"][0]["spans"]
    expected = trace.format_span_id(outer.get_span_context().span_id)
    assert span["parentSpanId"] == span["links"][0]["spanId"] == expected


def test_the_sdk_finds_them_by_their_name() -> None:
    for signal, expected in (("metrics", FileMetricExporter), ("logs", FileLogExporter), ("traces", FileSpanExporter)):
        (found,) = entry_points(group=f"opentelemetry_{signal}_exporter", name="otlp_file")
        assert found.load() is expected


def test_without_arguments_the_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH, str(tmp_path / "{signal}.jsonl"))
    monkeypatch.setenv(PREFERENCE, "delta")
    exporter = FileMetricExporter()
    assert exporter.writer.path == tmp_path / "metrics.jsonl"
    assert FileLogExporter().writer.path == tmp_path / "logs.jsonl"
    assert FileSpanExporter().writer.path == tmp_path / "traces.jsonl"
    exporter.shutdown()


@pytest.mark.parametrize(("preference", "counter", "histogram"), [("", 2, 2), ("DELTA", 1, 1), ("lowmemory", 1, 1)])
def test_the_standard_variable_chooses_the_temporality(
    tmp_path: Path, tracing: TracerProvider, preference: str, counter: int, histogram: int
) -> None:
    found = by_name(lines(metrics_into(tmp_path, tracing, **{PREFERENCE: preference}))[0])
    assert found["calls"]["sum"]["aggregationTemporality"] == counter
    assert found["pause"]["histogram"]["aggregationTemporality"] == histogram
    assert found["process.memory.usage"]["sum"]["aggregationTemporality"] == 2


def test_a_preference_that_does_not_exist_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert temporality({PREFERENCE: "sometimes"}) == {}
    assert f"{PREFERENCE}='sometimes'" in caplog.text


def test_a_value_that_is_not_valid_is_told_and_its_default_taken(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    exporter = FileLogExporter({PATH: str(tmp_path), MAX_BYTES: "lots", KEEP: "-1"})
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
    assert exporter.writer.write(lambda: b"x\n")


def test_failures_are_counted_told_once_a_minute_and_over_when_the_folder_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    writer = LineWriter("logs", {PATH: str(tmp_path / "disk") + "/"}, clock=lambda: now[0])
    folder = tmp_path / "disk"
    assert folder.is_dir(), "made once, at the start"
    folder.rmdir()
    for second in range(0, 90, 10):
        now[0] = second
        assert not writer.write(lambda: b"x\n")
    assert not folder.exists(), "and not again: it may be where a disk belongs"
    assert writer.failures == 9
    assert isinstance(writer.last_error, FileNotFoundError)
    first, second_told = [record.getMessage() for record in caplog.records]
    assert "(1 time(s)" in first
    assert "(6 time(s)" in second_told
    folder.mkdir()
    assert writer.write(lambda: b"x\n")
    assert writer.last_error is None


def test_what_cannot_be_encoded_is_a_failure_and_no_exception(tmp_path: Path) -> None:
    exporter = FileLogExporter({PATH: str(tmp_path)})
    assert exporter.export([object()]) is LogRecordExportResult.FAILURE  # type: ignore[list-item]
    assert FileMetricExporter({PATH: str(tmp_path)}).export(None) is MetricExportResult.FAILURE  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    exporter = FileLogExporter({PATH: str(tmp_path / "file" / "sub") + "/"})
    assert exporter.export([]) is LogRecordExportResult.FAILURE
    assert "could not be written to" in caplog.text


def test_a_forked_child_writes_the_file_of_its_own_pid(tmp_path: Path) -> None:
    writer = LineWriter("logs", {PATH: str(tmp_path / "{pid}" / "{signal}.jsonl")})
    pid = os.fork()
    if pid == 0:
        os._exit(0 if writer.write(lambda: b"child\n") else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert writer.write(lambda: b"parent\n")
    for process, text in ((os.getpid(), b"parent\n"), (pid, b"child\n")):
        assert (tmp_path / str(process) / "logs.jsonl").read_bytes() == text
