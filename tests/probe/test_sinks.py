"""Sinks of the probe's own: who gets an event, what happens where one fails, hangs, or is not installed."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource

from otel_memory import names
from otel_memory.exporters.jsonl import FileLogExporter
from otel_memory.probe import sinks
from otel_memory.probe.config import Settings, SettingsError
from otel_memory.probe.events import Events
from otel_memory.probe.sinks import ConsoleExporter, PrivateSink, application_resource, build, close
from tests.harness import wait_until
from tests.harness.event_schema import check_events

SHOP = Resource({"service.name": "shop"})


class Failures:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, part: str, error: BaseException) -> None:
        self.seen.append((part, f"{type(error).__name__}: {error}"))


class Exporter:
    """Keeps what it gets; fails or hangs when told to."""

    def __init__(self, error: Exception | None = None, gate: threading.Event | None = None) -> None:
        self.error, self.gate = error, gate
        self.records: list[Any] = []

    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        if self.gate is not None:
            self.gate.wait(60)
        if self.error is not None:
            raise self.error
        self.records.extend(batch)
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True

    def shutdown(self) -> None:
        return


Make = Callable[..., PrivateSink]


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def provider() -> Iterator[LoggerProvider]:
    provider = LoggerProvider(SHOP, shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def make(provider: LoggerProvider, failures: Failures) -> Iterator[Make]:
    made: list[PrivateSink] = []

    def sink(exporter: Any, name: str = "test") -> PrivateSink:
        made.append(PrivateSink(name, lambda: exporter, [provider], failures))
        return made[-1]

    yield sink
    close(made, failures)


def error_event(events: Events, part: str = "heap") -> bool:
    return events.error(part, "OSError", "down", time.time_ns())


def test_an_event_reaches_every_sink_at_once_as_the_same_record(make: Make, failures: Failures) -> None:
    first, second = Exporter(), Exporter()
    events = Events(None, failures, otlp=False, sinks=[make(first), make(second)])
    assert error_event(events)
    wait_until(lambda: first.records and second.records, timeout_seconds=10)
    one, other = first.records[0].log_record, second.records[0].log_record
    assert (one.timestamp, one.observed_timestamp) == (other.timestamp, other.observed_timestamp)
    assert first.records[0].resource.attributes["service.name"] == "shop"
    assert (events.emitted, failures.seen) == (1, [])


def test_a_sink_that_fails_keeps_no_other_from_its_turn_and_is_counted(make: Make, failures: Failures) -> None:
    class Broken:
        part = "events.broken"

        def logger(self) -> Any:
            raise RuntimeError("no logger")

    well = Exporter()
    sinks_in_order = [Broken(), make(Exporter(OSError("down")), "sick"), make(well)]
    assert error_event(Events(None, failures, otlp=False, sinks=sinks_in_order))
    wait_until(lambda: well.records and len(failures.seen) == 2, timeout_seconds=10)
    assert set(failures.seen) == {("events.broken", "RuntimeError: no logger"), ("events.sick", "OSError: down")}


def test_an_exporter_that_says_why_it_failed_is_quoted(make: Make, failures: Failures, tmp_path: Path) -> None:
    exporter = FileLogExporter({"OTEL_PYTHON_MEMORY_FILE_PATH": f"{tmp_path}/gone/"}, "events")
    (tmp_path / "gone").rmdir()
    error_event(Events(None, failures, otlp=False, sinks=[make(exporter, "file")]))
    wait_until(lambda: failures.seen, timeout_seconds=10)
    ((part, why),) = failures.seen
    assert part == "events.file"
    assert why.startswith("FileNotFoundError: ")


def test_an_exporter_that_hangs_neither_blocks_the_program_nor_its_end(make: Make, failures: Failures) -> None:
    gate = threading.Event()
    exporter = Exporter(gate=gate)
    hanging = make(exporter, "hanging")
    events = Events(None, failures, otlp=False, sinks=[hanging])
    try:
        for _ in range(sinks.MAX_WAITING * 2):
            assert error_event(events)
        well = make(Exporter(), "well")
        close([hanging, well], failures, timeout=0.1)
        assert failures.seen == [("events.hanging", "TimeoutError: its last events were not taken within 0.05 s")]
        assert not error_event(events), "it is closed"
    finally:
        gate.set()


def test_an_exporter_that_is_slow_gets_the_newest_events(make: Make, failures: Failures) -> None:
    gate = threading.Event()
    exporter = Exporter(gate=gate)
    events = Events(None, failures, otlp=False, sinks=[make(exporter)])
    for number in range(sinks.MAX_WAITING * 2):
        assert error_event(events, str(number))
    gate.set()
    wait_until(lambda: len(exporter.records) >= sinks.MAX_WAITING, timeout_seconds=30)
    assert len(exporter.records) <= sinks.MAX_WAITING + 1
    last = exporter.records[-1].log_record.attributes[names.PROBE_PART]
    assert last == str(sinks.MAX_WAITING * 2 - 1)


def test_closing_hands_over_what_waits_and_can_be_done_twice(make: Make, failures: Failures) -> None:
    exporter = Exporter()
    sink = make(exporter)
    events = Events(None, failures, otlp=False, sinks=[sink])
    for _ in range(100):
        error_event(events)
    close([sink], failures, timeout=10)
    close([sink], failures)
    assert (len(exporter.records), failures.seen) == (100, [])
    assert not [thread for thread in threading.enumerate() if "events.test" in thread.name]


def test_a_sink_without_a_resource_waits_for_the_first_event(
    failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Resource] = []
    monkeypatch.setattr(sinks, "application_resource", lambda _=(): found[0] if found else None)
    exporter = Exporter()
    sink = PrivateSink("late", lambda: exporter, [], failures)
    found.append(SHOP)  # the application sets its providers after it instrumented
    error_event(Events(None, failures, otlp=False, sinks=[sink]))
    close([sink], failures, timeout=10)
    assert exporter.records[0].resource.attributes["service.name"] == "shop"


def test_the_resource_is_that_of_the_provider_handed_over(provider: LoggerProvider) -> None:
    metrics = MeterProvider(resource=Resource({"service.name": "from metrics"}), shutdown_on_exit=False)
    for given, expected in (([provider, metrics], "shop"), ([metrics], "from metrics"), ([object(), provider], "shop")):
        resource = application_resource(given)
        assert resource is not None
        assert resource.attributes["service.name"] == expected
    metrics.shutdown()


# --- what the settings ask for ----------------------------------------------------------------------------------


def test_none_and_otlp_need_no_sink_and_no_sdk(failures: Failures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    for text in ("none", "otlp"):
        assert build(Settings.load({"OTEL_PYTHON_MEMORY_EVENTS": text}), [], failures) == ()


@pytest.mark.parametrize("name", ["file", "console"])
def test_a_sink_without_the_sdk_is_an_error_that_names_the_extra(
    failures: Failures, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(
        SettingsError, match=rf"OTEL_PYTHON_MEMORY_EVENTS='{name}': .*pip install 'otel-memory\[otlp\]'"
    ):
        build(Settings(events=("otlp", name)), [], failures)


@pytest.mark.parametrize(
    "found", [[], [EntryPoint("otlp_file", "no_such_module_anywhere:Exporter", "opentelemetry_logs_exporter")]]
)
def test_an_exporter_that_is_not_there_is_an_error_that_names_the_extra(
    failures: Failures, monkeypatch: pytest.MonkeyPatch, found: list[EntryPoint]
) -> None:
    monkeypatch.setattr(sinks, "entry_points", lambda **_: found)
    with pytest.raises(SettingsError, match=r"pip install 'otel-memory\[otlp\]'"):
        build(Settings(events=("file",)), [], failures)


def test_arguments_reach_the_file(provider: LoggerProvider, failures: Failures, tmp_path: Path) -> None:
    settings = Settings.load({}, events="file", file_path=str(tmp_path / "own.jsonl"), file_max_bytes=3000, file_keep=1)
    built = build(settings, [provider], failures)
    events = Events(None, failures, otlp=False, sinks=built)
    for number in range(20):
        error_event(events, f"part {number}")
    close(built, failures, timeout=10)
    assert failures.seen == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own-events.jsonl", "own-events.jsonl.1"]
    (*_, last) = check_events(tmp_path / "own-events.jsonl")
    assert last["attributes"][names.PROBE_PART] == "part 19"


# --- the console --------------------------------------------------------------------------------------------------


def test_the_console_gets_one_line_an_event(make: Make, failures: Failures, capsys: pytest.CaptureFixture[str]) -> None:
    sink = make(ConsoleExporter(), "console")
    Events(None, failures, otlp=False, sinks=[sink]).error(
        "heap", "OSError", "line\nbreak ä", 1_700_000_000_123_456_789
    )
    close([sink], failures, timeout=10)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) == {
        "timestamp": "2023-11-14T22:13:20.123Z",
        "event_name": "otel_memory.error",
        "severity": "WARN",
        "body": "heap failed: OSError: line\nbreak ä",
        "attributes": {
            names.PROBE_PART: "heap",
            names.EXCEPTION_TYPE: "OSError",
            names.EXCEPTION_MESSAGE: "line\nbreak ä",
            names.PROCESS_PID: os.getpid(),
        },
    }
    assert check_events(line)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [None, closed(), Gone()], ids=["none", "closed", "gone"])
def test_a_console_that_nobody_reads_is_counted(
    make: Make, failures: Failures, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    sink = make(ConsoleExporter(), "console")
    error_event(Events(None, failures, otlp=False, sinks=[sink]))
    wait_until(lambda: failures.seen, timeout_seconds=10)
    assert [part for part, _ in failures.seen] == ["events.console"]
