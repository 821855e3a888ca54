"""What is published of the topics agrees with what is written to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from otel_memory.analyzer.config import Settings
from otel_memory.analyzer.kafka.records import MemoryAlert, Owner
from otel_memory.analyzer.kafka.shared_groups import LOOKED, GroupRecord, Look
from otel_memory.analyzer.kafka.shared_silences import FORM as SILENCE
from otel_memory.analyzer.matching import Matcher, Silence
from tests.analyzer.kafka_mode.world import Committed, judge, made_log
from tests.analyzer.made_up import MIB, MadeUp
from tests.kafka_schemas import check_assessment, form_of

DOCS = Path(__file__).parents[3] / "docs"


def document(name: str) -> Any:
    return json.loads((DOCS / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def committed() -> Committed:
    leak = MadeUp("leak", spacing=10.0, leak_per_call=400_000, limit=2048 * MIB)
    return judge(made_log([leak], 500.0, silent=lambda _process, _index: False), commits=range(0, 50, 5))


def test_alerts_fit_their_schema(committed: Committed) -> None:
    validator = Draft202012Validator(document("memory-alerts.schema.json"))
    assert committed.changes
    for change in committed.changes:
        value = json.loads(MemoryAlert.of(change, "otel-memory").to_bytes())
        validator.validate(value)
        assert not validator.is_valid({**value, "specversion": "0.3"})
        del value["id"]
        assert not validator.is_valid(value)


def test_assessments_fit_their_schema(committed: Committed) -> None:
    validator = Draft202012Validator(document("memory-assessments.schema.json"))
    assert committed.records
    for record in committed.records.values():
        value = json.loads(record)
        validator.validate(value)
        del value["owner"]
        assert not validator.is_valid(value)


def test_what_all_analyzers_know_fits_its_schema(committed: Committed) -> None:
    owner = Owner("a", "http://127.0.0.1:1")
    alert = committed.changes[-1].alert
    group = GroupRecord(1, owner, alert, (alert.process,), 1000.0, {"webhook": "an-id"})
    silence = Silence("s", (Matcher("service_name", "shop"),), 0.0, 10.0, 0.0, "ann", "deploy")
    for key, value, form in (
        (group.key, group.to_bytes(), "GroupRecord"),
        (LOOKED, Look(1, owner, (3, 0)).to_bytes(), "Look"),
        (b"silence:s", SILENCE.dump_json(silence), "Silence"),
        (alert.process.encode(), next(iter(committed.records.values())), "AssessmentRecord"),
    ):
        assert check_assessment(key, value) == form
        assert Draft202012Validator(document("memory-assessments.schema.json")).is_valid(json.loads(value))
        for other in (b"group:looked", b"group:1", b"silence:1", b"1"):
            if form_of(other) != form:
                with pytest.raises(ValidationError):
                    check_assessment(other, value)


def test_the_asyncapi_document_holds_together() -> None:
    api = document("kafka.asyncapi.json")
    assert api["asyncapi"] == "3.0.0"
    fields = Settings.model_fields
    for name, channel in api["channels"].items():
        assert channel["address"] == fields[f"kafka_{name}_topic"].default
        for message in channel["messages"].values():
            assert message["$ref"].rpartition("/")[2] in api["components"]["messages"]
    for operation in api["operations"].values():
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in api["channels"]
    for message in api["components"]["messages"].values():
        if "payload" in message:
            name, _, fragment = message["payload"]["$ref"].partition("#/$defs/")
            Draft202012Validator.check_schema(document(name))
            assert not fragment or fragment in document(name)["$defs"]
