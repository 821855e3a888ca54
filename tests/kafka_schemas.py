"""The published forms of what the analyzer writes to Kafka: JSON schemas, and the AsyncAPI document of the topics."""

from __future__ import annotations

from typing import Any

from otel_memory.analyzer.config import Settings
from otel_memory.analyzer.kafka.client import Topics
from otel_memory.analyzer.kafka.records import ASSESSMENT, CONTENT_TYPE, SCHEMA, MemoryAlert
from otel_memory.analyzer.kafka.topics import settings_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ALERTS_FILE, ASSESSMENTS_FILE = "memory-alerts.schema.json", "memory-assessments.schema.json"


def alerts() -> dict[str, Any]:
    """docs/memory-alerts.schema.json."""
    return {"$schema": DRAFT, "$id": SCHEMA, **MemoryAlert.model_json_schema(mode="serialization")}


def assessments() -> dict[str, Any]:
    """docs/memory-assessments.schema.json."""
    return {
        "$schema": DRAFT,
        "$id": "urn:otel-memory:schema:memory-assessments:1",
        **ASSESSMENT.json_schema(mode="serialization"),
    }


def asyncapi() -> dict[str, Any]:
    """docs/kafka.asyncapi.json."""
    topics = Topics()
    window = float(Settings.model_fields["kafka_window_seconds"].default)
    configs = settings_of(topics, window)

    def channel(address: str, message: str, description: str) -> dict[str, Any]:
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
            "messages": {message: {"$ref": f"#/components/messages/{message}"}},
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

    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "otel-memory analyzer over Kafka",
            "version": "1",
            "description": "What an analyzer with --kafka-bootstrap reads and writes. The names are the defaults. "
            "What it writes is in transactions: read it with isolation.level=read_committed.",
        },
        "channels": {
            "metrics": channel(topics.metrics, "metrics", "Metrics, as the Collector's exporter writes them."),
            "logs": channel(topics.logs, "logs", "Logs; records with an event name are shown with their process."),
            "alerts": channel(topics.alerts, "alert", "One record for each change of the state of an alert."),
            "assessments": channel(
                topics.assessments, "assessment", "The latest judgement of each process; compacted, with tombstones."
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
                "assessment": {
                    "title": "The latest judgement of a process",
                    "contentType": "application/json",
                    "payload": {"$ref": f"./{ASSESSMENTS_FILE}"},
                    "bindings": key("Id of the process."),
                },
            }
        },
    }
