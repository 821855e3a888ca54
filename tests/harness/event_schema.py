"""Holds lines of events against the published schema, ``docs/events.schema.json``.

``events = check_events(path)`` for the file of a program that ran with ``OTEL_PYTHON_MEMORY_EVENTS=file``, or for its
standard error with ``console``: every event of ours is checked, and handed back in its flat form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from otel_memory import names

SCHEMA = Path(__file__).parents[2] / "docs" / "events.schema.json"


def check_events(source: Path | str | Iterable[str]) -> list[dict[str, Any]]:
    """The events of a file, a text or lines: ``{"event_name", "severity", "body", "attributes"}``, oldest first.

    Lines that are no JSON object (other output of the program) are passed over.

    Raises:
        AssertionError: an event is not as the schema says.
    """
    if isinstance(source, Path):
        source = source.read_text("utf-8")
    lines = source.split("\n") if isinstance(source, str) else source
    return [event for line in lines for event in check_line(line)]


def check_line(line: str) -> Iterator[dict[str, Any]]:
    """The events of one line, in either form."""
    if not line.startswith("{"):
        return
    document = json.loads(line)
    if "resourceLogs" in document:
        for record in own_records(document):
            check(record, f"otlp:{record.get('eventName')}")
            yield {
                "event_name": record["eventName"],
                "severity": record["severityText"],
                "body": record["body"]["stringValue"],
                "attributes": {pair["key"]: plain(pair["value"]) for pair in record["attributes"]},
            }
    elif "event_name" in document:
        check(document, f"flat:{document['event_name']}")
        yield document


def own_records(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The log records of the scope ``otel_memory`` in an export request."""
    for resource in document["resourceLogs"]:
        for scope in resource["scopeLogs"]:
            if scope.get("scope", {}).get("name") == names.SCOPE:
                yield from scope["logRecords"]


def check(instance: dict[str, Any], definition: str) -> None:
    error = best_match(validator(definition).iter_errors(instance))
    assert error is None, f"{definition}: at {error.json_path}: {error.message}\n{json.dumps(instance)}"


@cache
def validator(definition: str | None = None) -> Draft202012Validator:
    """Of one definition, or of the whole document."""
    document = json.loads(SCHEMA.read_text("utf-8"))
    if definition is not None:
        assert definition in document["$defs"], f"docs/events.schema.json knows no event {definition}"
        document = {"$schema": document["$schema"], "$ref": f"#/$defs/{definition}", "$defs": document["$defs"]}
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def plain(value: dict[str, Any]) -> Any:
    """The Python value of an OTLP/JSON value."""
    ((kind, inner),) = value.items()
    if kind == "arrayValue":
        return [plain(element) for element in inner.get("values", [])]
    return int(inner) if kind == "intValue" else inner
