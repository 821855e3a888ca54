"""The published JSON schema: every event that the code can emit fits it, and what does not fit is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from otel_memory import StructuredLogger, names
from otel_memory.exporters.jsonl import FileLogExporter
from otel_memory.probe import events as events_module
from otel_memory.probe.events import Events
from otel_memory.probe.sinks import console_line
from tests import event_schema
from tests.harness.event_schema import check_events, own_records, validator

EXAMPLES: dict[str, Any] = {"string": "text", "int": 7, "double": 1.5, "boolean": True}


def example(event: names.Event, *, whole: bool = True) -> dict[str, Any]:
    """Attributes that ``event`` may have; without the optional ones if not ``whole``."""
    attributes = {}
    for name in event.attributes if whole else event_schema.required(event):
        kind, _, values = event_schema.type_of(name)
        one = values[0] if values else EXAMPLES[kind.removesuffix(event_schema.LIST)]
        attributes[name] = [one, one] if kind.endswith(event_schema.LIST) else one
    return attributes


def emitted(event_name: str, attributes: dict[str, Any], folder: Path) -> tuple[str, str]:
    """The event's line on the console and in the file."""
    kept = InMemoryLogRecordExporter()
    provider = LoggerProvider(Resource.get_empty(), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
    exporter = FileLogExporter.for_events({"OTEL_PYTHON_MEMORY_FILE_PATH": f"{folder}/"})
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    assert Events(provider).emit(event_name, "What happened.", attributes)
    provider.shutdown()
    (record,) = kept.get_finished_logs()
    return console_line(record), (folder / "otel-memory-events.jsonl").read_text()


@pytest.mark.parametrize("whole", [True, False], ids=["all attributes", "required attributes"])
@pytest.mark.parametrize("event", names.EVENTS.values(), ids=lambda event: event.name)
def test_an_event_fits_in_both_forms(event: names.Event, whole: bool, tmp_path: Path) -> None:
    attributes = example(event, whole=whole)
    for line in emitted(event.name, attributes, tmp_path):
        (found,) = check_events(line)
        assert (found["event_name"], found["attributes"]) == (event.name, attributes)
        assert validator().is_valid(json.loads(line)), "the document as a whole says the same"


def test_every_attribute_of_an_event_has_a_type_and_only_its_own_are_optional() -> None:
    for event in names.EVENTS.values():
        unknown = [a for a in event.attributes if a not in {*names.ATTRIBUTES, *names.CONVENTIONAL_ATTRIBUTES}]
        assert not unknown, f"{event.name}: add {unknown} to ATTRIBUTES or CONVENTIONAL_ATTRIBUTES in names.py"
        assert set(event.optional) <= set(event.attributes), event.name


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(event_schema.schema())
    assert event_schema.schema() == json.loads(Path("docs/events.schema.json").read_text("utf-8"))


EVENT = names.EVENTS[names.EVENT_THRESHOLD_RECOVERED]


@pytest.mark.parametrize(
    "damage",
    [
        lambda attributes: attributes.pop(names.THRESHOLD_PEAK),
        lambda attributes: attributes.update({names.THRESHOLD_BOUND: "much"}),
        lambda attributes: attributes.update({names.PROCESS_PID: 1.5}),
        lambda attributes: attributes.update({names.THRESHOLD_SEVERITY: "terrible"}),
        lambda attributes: attributes.update({"otel_memory.threshold.colour": "red"}),
    ],
    ids=["missing", "wrong type", "no integer", "no value of the closed list", "unknown"],
)
def test_what_does_not_fit_is_refused_in_both_forms(damage: Any, tmp_path: Path) -> None:
    attributes = example(EVENT)
    damage(attributes)
    for line in emitted(EVENT.name, attributes, tmp_path):
        with pytest.raises(AssertionError, match=r"(flat|otlp):otel_memory.threshold.recovered: at "):
            check_events(line)
        assert not validator().is_valid(json.loads(line))


def test_an_event_that_nobody_published_is_refused(tmp_path: Path) -> None:
    for line in emitted("otel_memory.secret", {}, tmp_path):
        with pytest.raises(AssertionError, match=r"knows no event (flat|otlp):otel_memory.secret"):
            check_events(line)


def test_the_form_around_the_attributes_is_held_too(tmp_path: Path) -> None:
    flat, otlp = (json.loads(line) for line in emitted(EVENT.name, example(EVENT), tmp_path))
    for key in flat:
        without = {k: v for k, v in flat.items() if k != key}
        assert not validator().is_valid(without), key
    (record,) = own_records(otlp)
    for key in ("timeUnixNano", "severityNumber", "severityText", "body", "attributes", "eventName"):
        broken = copy.deepcopy(otlp)
        del broken["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0][key]
        assert not validator().is_valid(broken), key
    record["timeUnixNano"] = 5
    assert not validator().is_valid(otlp), "64-bit integers are strings"


# --- the application's own ----------------------------------------------------------------------------------------


@pytest.fixture
def kept() -> Any:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(Resource.get_empty(), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    sink = Events(provider)
    events_module.attach(sink)
    yield exporter
    events_module.detach(sink)
    provider.shutdown()


def test_an_application_tells_its_own_events_with_fields_of_its_own(kept: InMemoryLogRecordExporter) -> None:
    logger = StructuredLogger("thumbnails")
    assert logger.log_memory_event(
        "cache_rebuilt", "debug", entries=3, ratio=0.5, tags=["a", 1], where=Path("x"), no=None
    )
    assert logger.log_threshold_crossing("warning", 700.0, 614.4, 85.0)
    assert logger.log_threshold_crossing("critical", 730.0, 700.0, 99.0)
    assert logger.log_eviction_event(3, 120.5, 100.0, 0.2)
    assert logger.log_error("CacheError", "it is full", retry=True)
    found = [event for record in kept.get_finished_logs() for event in check_events(console_line(record))]
    assert [event["severity"] for event in found] == ["DEBUG", "WARN", "FATAL", "INFO", "ERROR"]
    told = [
        {key: value for key, value in event["attributes"].items() if not key.startswith(("otel_memory.", "process."))}
        for event in found
    ]
    assert told[0] == {"entries": 3, "ratio": 0.5, "tags": ["a", "1"], "where": "x"}
    assert told[1] == {
        "threshold_type": "warning",
        "current_mb": 700.0,
        "threshold_mb": 614.4,
        "usage_percent": 85.0,
    }
    assert told[3]["projects_evicted"] == 3
    assert told[4] == {"retry": True, "error_type": "CacheError", "error_message": "it is full"}
    assert found[0]["body"].startswith("thumbnails: cache_rebuilt (entries=3, ratio=0.5")
    assert {event["attributes"][names.APPLICATION_COMPONENT] for event in found} == {"thumbnails"}


def test_a_level_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="level='loud': expected one of debug, info"):
        StructuredLogger().log_memory_event("x", "loud")


def test_the_fields_of_an_event_are_bounded_and_nothing_is_told_without_a_probe(
    kept: InMemoryLogRecordExporter,
) -> None:
    StructuredLogger().log_memory_event("x", **{f"f{number}": number for number in range(100)})
    (record,) = kept.get_finished_logs()
    assert record.log_record.attributes is not None
    assert len(record.log_record.attributes) == 32 + 3


def test_without_a_probe_nobody_takes_an_event() -> None:
    assert not StructuredLogger().log_memory_event("x")
