"""The published forms of what the analyzer writes to Kafka: JSON schemas, and the AsyncAPI document of the topics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from otel_memory.analyzer.config import Settings
from otel_memory.analyzer.kafka.client import Topics
from otel_memory.analyzer.kafka.records import ASSESSMENT, CONTENT_TYPE, SCHEMA, MemoryAlert
from otel_memory.analyzer.kafka.shared_groups import GROUP, LOOK, LOOKED
from otel_memory.analyzer.kafka.shared_groups import PREFIX as GROUP_PREFIX
from otel_memory.analyzer.kafka.shared_silences import FORM as SILENCE
from otel_memory.analyzer.kafka.shared_silences import PREFIX as SILENCE_PREFIX
from otel_memory.analyzer.kafka.topics import settings_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ALERTS_FILE, ASSESSMENTS_FILE = "memory-alerts.schema.json", "memory-assessments.schema.json"
DOCS = Path(__file__).parents[1] / "docs"

KEYS = {
    "AssessmentRecord": ("The latest judgement of a process", "Id of the process."),
    "GroupRecord": ("The alert of a group of instances", "group: and the id of the alert."),
    "Look": ("How far instances have been compared", "group:looked"),
    "Silence": ("A silence that all analyzers heed", "silence: and its id."),
}
"""Form of a record of memory-assessments -> what it is, and its key."""


def alerts() -> dict[str, Any]:
    """docs/memory-alerts.schema.json."""
    return {"$schema": DRAFT, "$id": SCHEMA, **MemoryAlert.model_json_schema(mode="serialization")}


def assessments() -> dict[str, Any]:
    """docs/memory-assessments.schema.json."""
    adapters = (ASSESSMENT, GROUP, LOOK, SILENCE)
    _, found = TypeAdapter.json_schemas(
        [(name, "serialization", one) for name, one in zip(KEYS, adapters, strict=True)]
    )
    return {
        "$schema": DRAFT,
        "$id": "urn:otel-memory:schema:memory-assessments:1",
        "title": "memory-assessments",
        "description": "Which form a record has, its key says. "
        + " ".join(f"{name}: {what}; key: {key.rstrip('.')}." for name, (what, key) in KEYS.items()),
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in KEYS],
        **found,
    }


def form_of(key: bytes) -> str:
    """The form of the record of memory-assessments that has this key."""
    if key == LOOKED:
        return "Look"
    return {GROUP_PREFIX: "GroupRecord", SILENCE_PREFIX: "Silence"}.get(
        key.partition(b":")[0] + b":", "AssessmentRecord"
    )


def check_alert(value: bytes) -> None:
    """Raises jsonschema's ValidationError where a record of memory-alerts has not the published form."""
    _validator(ALERTS_FILE).validate(json.loads(value))


def check_assessment(key: bytes, value: bytes) -> str:
    """The same for memory-assessments; returns the form."""
    form = form_of(key)
    _validator(ASSESSMENTS_FILE, form).validate(json.loads(value))
    return form


def _validator(name: str, form: str | None = None) -> Draft202012Validator:
    document = json.loads((DOCS / name).read_text("utf-8"))
    return Draft202012Validator(document if form is None else {"$ref": f"#/$defs/{form}", "$defs": document["$defs"]})


def asyncapi() -> dict[str, Any]:
    """docs/kafka.asyncapi.json."""
    topics = Topics()
    window = float(Settings.model_fields["kafka_window_seconds"].default)
    configs = settings_of(topics, window)

    def channel(address: str, description: str, *messages: str) -> dict[str, Any]:
        given = configs[address]
        binding: dict[str, Any] = {"bindingVersion": "0.5.0"}
        topic: dict[str, Any] = {}
        if "cleanup.policy" in given:
            topic["cleanup.policy"] = [given["cleanup.policy"]]
        if "retention.ms" in given:
            topic["retention.ms"] = int(given["retention.ms"])
        binding["topicConfiguration"] = topic
        return {
            "address": address,
            "description": description,
            "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
            "bindings": {"kafka": binding},
        }

    def otlp(request: str) -> dict[str, Any]:
        return {
            "title": request,
            "contentType": "application/x-protobuf",
            "description": f"opentelemetry.proto.collector.{request} as bytes; one resource a record. The key is a "
            "hash of the resource's attributes, so that a process keeps to one partition.",
        }

    def key(description: str) -> dict[str, Any]:
        return {"kafka": {"key": {"type": "string", "description": description}, "bindingVersion": "0.5.0"}}

    forms = dict(zip(("assessment", "group", "looked", "silence"), KEYS, strict=True))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "otel-memory analyzer over Kafka",
            "version": "1",
            "description": "What an analyzer with --kafka-bootstrap reads and writes. The names are the defaults. "
            "What it writes is in transactions: read it with isolation.level=read_committed.",
        },
        "channels": {
            "metrics": channel(topics.metrics, "Metrics, as the Collector's exporter writes them.", "metrics"),
            "logs": channel(topics.logs, "Logs; records with an event name are shown with their process.", "logs"),
            "alerts": channel(topics.alerts, "One record for each change of the state of an alert.", "alert"),
            "assessments": channel(
                topics.assessments,
                "The latest judgement of each process; compacted, with tombstones. Beside them, what all share: "
                "groups of instances, silences. The key says which it is.",
                *forms,
            ),
        },
        "operations": {
            name: {"action": action, "channel": {"$ref": f"#/channels/{name.partition('_')[2]}"}}
            for name, action in (
                ("receive_metrics", "receive"),
                ("receive_logs", "receive"),
                ("send_alerts", "send"),
                ("send_assessments", "send"),
            )
        },
        "components": {
            "messages": {
                "metrics": otlp("metrics.v1.ExportMetricsServiceRequest"),
                "logs": otlp("logs.v1.ExportLogsServiceRequest"),
                "alert": {
                    "title": "A change of an alert",
                    "contentType": CONTENT_TYPE,
                    "description": "A CloudEvent 1.0 in structured mode. Its id is the same for the same change.",
                    "payload": {"$ref": f"./{ALERTS_FILE}"},
                    "bindings": key("Id of the alert: the changes of one alert stand in their order."),
                },
                **{
                    name: {
                        "title": KEYS[form][0],
                        "contentType": "application/json",
                        "payload": {"$ref": f"./{ASSESSMENTS_FILE}#/$defs/{form}"},
                        "bindings": key(KEYS[form][1]),
                    }
                    for name, form in forms.items()
                },
            }
        },
    }
