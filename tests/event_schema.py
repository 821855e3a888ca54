"""The JSON schema of every event, made from ``otel_memory/names.py``: ``docs/events.schema.json``.

It holds for one line: of the sink ``console`` (an event as a flat object) and of the file of events (OTLP/JSON).
"""

from __future__ import annotations

from typing import Any

from otel_memory import names

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SEVERITIES = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
NANOSECONDS = {"type": "string", "pattern": "^[0-9]+$", "description": "Nanoseconds since the epoch."}

FLAT_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "int": {"type": "integer"},
    "double": {"type": "number"},
    "boolean": {"type": "boolean"},
}
OTLP_TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "string": ("stringValue", {"type": "string"}),
    "int": ("intValue", {"type": "string", "pattern": "^-?[0-9]+$"}),
    "double": ("doubleValue", {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}),
    "boolean": ("boolValue", {"type": "boolean"}),
}
LIST = "[]"
"""At the end of a type: a list of it."""


def schema() -> dict[str, Any]:
    """The whole document."""
    return {
        "$schema": DIALECT,
        "title": "Events of otel-memory",
        "description": (
            "One line: of the sink `console` (`flat`), or of the file of events in the form of OTLP's file exporter "
            "(`otlp_line`). Made from otel_memory/names.py by `python -m tests.generate_docs`."
        ),
        "anyOf": [{"$ref": "#/$defs/flat"}, {"$ref": "#/$defs/otlp_line"}],
        "$defs": {
            "flat": {"oneOf": [{"$ref": f"#/$defs/flat:{name}"} for name in names.EVENTS]},
            "otlp_line": listed("resourceLogs", listed("scopeLogs", listed("logRecords", ref("otlp_record")))),
            "otlp_record": {"oneOf": [{"$ref": f"#/$defs/otlp:{name}"} for name in names.EVENTS]},
            **{f"flat:{event.name}": flat(event) for event in names.EVENTS.values()},
            **{f"otlp:{event.name}": otlp(event) for event in names.EVENTS.values()},
        },
    }


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def listed(key: str, items: dict[str, Any]) -> dict[str, Any]:
    """An object with a list of ``items`` under ``key``."""
    return {"type": "object", "required": [key], "properties": {key: {"type": "array", "items": items}}}


def type_of(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Type, description and closed values of an attribute."""
    own = names.ATTRIBUTES.get(name)
    if own is not None:
        return own.type, own.description, own.values
    return names.CONVENTIONAL_ATTRIBUTES[name], "As OpenTelemetry's semantic conventions have it.", ()


def required(event: names.Event) -> list[str]:
    return [name for name in event.attributes if name not in event.optional]


def flat(event: names.Event) -> dict[str, Any]:
    properties = {}
    for name in event.attributes:
        kind, description, values = type_of(name)
        one = {**FLAT_TYPES[kind.removesuffix(LIST)], **({"enum": list(values)} if values else {})}
        properties[name] = {
            "description": description,
            **({"type": "array", "items": one} if kind.endswith(LIST) else one),
        }
    return {
        "type": "object",
        "description": event.description,
        "required": ["timestamp", "event_name", "severity", "body", "attributes"],
        "additionalProperties": False,
        "properties": {
            "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
            "event_name": {"const": event.name},
            "severity": {"enum": SEVERITIES},
            "body": {"type": "string", "description": "The event as a sentence."},
            "attributes": {
                "type": "object",
                "required": required(event),
                "additionalProperties": event.open,
                "properties": properties,
            },
        },
    }


def otlp(event: names.Event) -> dict[str, Any]:
    pairs = [pair(name) for name in event.attributes]
    if event.open:
        pairs.append({"required": ["key", "value"], "properties": {"key": {"not": {"enum": list(event.attributes)}}}})
    return {
        "type": "object",
        "description": event.description,
        "required": ["timeUnixNano", "severityNumber", "severityText", "body", "attributes", "eventName"],
        "properties": {
            "timeUnixNano": NANOSECONDS,
            "observedTimeUnixNano": NANOSECONDS,
            "severityNumber": {"type": "integer", "minimum": 1, "maximum": 24},
            "severityText": {"enum": SEVERITIES},
            "body": value_of("stringValue", {"type": "string"}),
            "eventName": {"const": event.name},
            "attributes": {
                "type": "array",
                "items": {"oneOf": pairs},
                "allOf": [{"contains": {"properties": {"key": {"const": name}}}} for name in required(event)],
            },
        },
    }


def pair(name: str) -> dict[str, Any]:
    kind, _, values = type_of(name)
    key, inner = OTLP_TYPES[kind.removesuffix(LIST)]
    value = value_of(key, {"enum": list(values)} if values else inner)
    if kind.endswith(LIST):  # an empty one leaves `values` out
        value = value_of("arrayValue", {"type": "object", "properties": {"values": {"type": "array", "items": value}}})
    return {"required": ["key", "value"], "properties": {"key": {"const": name}, "value": value}}


def value_of(key: str, inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [key], "additionalProperties": False, "properties": {key: inner}}
