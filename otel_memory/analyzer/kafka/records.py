"""What the analyzer writes to Kafka: changes of alerts as CloudEvents, and the latest judgement of each process.

Owns the form of both. A record of ``memory-assessments`` is also what a worker goes on from that takes a partition
over, so it holds what the judgement remembers of a process beside its windows; those come from the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from otel_memory.analyzer.api_schemas import AlertModel, Model, ProcessModel, moment
from otel_memory.analyzer.model import Alert, Assessment, Suspect
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.scoring import ScoreResult

FORM: Final = 1
"""Of the state in a record of an assessment."""
EVENT_TYPE: Final = "otel_memory.alert.changed"
SCHEMA: Final = "urn:otel-memory:schema:memory-alerts:1"
CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"


# --- memory-alerts -----------------------------------------------------------------------------------------------


class AlertData(Model):
    """What has changed, in the forms of the REST interface."""

    alert: AlertModel
    process: ProcessModel | None = Field(description="The judgement that made the change.")


class MemoryAlert(Model):
    """One change of the state of one alert: a CloudEvent 1.0 in structured mode. The record's key is the alert's id."""

    model_config = ConfigDict(frozen=True, title="memory-alerts")

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(description="Of this change: the same for the same change, so repeats can be dropped.")
    source: str = Field(description="/otel-memory/ and the consumer group that judged.")
    type: Literal["otel_memory.alert.changed"] = EVENT_TYPE
    subject: str = Field(description="Id of the process.")
    time: datetime = Field(description="Event time of the change. RFC 3339, UTC.")
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str = SCHEMA
    data: AlertData

    @classmethod
    def of(cls, change: AlertChange, group: str) -> MemoryAlert:
        """The record of a change."""
        return cls(
            id=change.id,
            source=f"/otel-memory/{group}",
            subject=change.alert.process,
            time=moment(change.at),
            data=AlertData(
                alert=AlertModel.of(change.alert),
                process=None if change.assessment is None else ProcessModel.of(change.assessment),
            ),
        )

    def to_bytes(self) -> bytes:
        """The value of the record."""
        return self.model_dump_json().encode()


# --- memory-assessments ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Owner:
    """The worker that judges a process: its instance id in the group, and the address of its REST interface."""

    instance: str
    url: str


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What is remembered of a process beside its windows. Times are seconds since the epoch."""

    alerting: dict[str, Any] | None
    buckets: tuple[float | None, ...]
    """Of each resolution the bucket that was scored last, ..."""
    results: tuple[ScoreResult | None, ...]
    """... and the score; see ``Judge``."""
    life: float | None
    lives: tuple[float, ...]
    suspects: tuple[Suspect, ...]
    suspicious_since: float | None
    refreshed_at: float | None
    heard_at: float
    gone: bool
    told: Mapping[str, Mapping[str, str]] | None = None
    """Of each output and alert the change that it got last (``Deliveries``); None where nobody kept it."""


@dataclass(frozen=True, slots=True)
class AssessmentRecord:
    """The value of a record of ``memory-assessments``; its key is the process's id. ``state`` is the analyzer's own."""

    form: int
    partition: int
    owner: Owner
    assessment: Assessment
    alerts: tuple[Alert, ...]
    state: ProcessState

    def to_bytes(self) -> bytes:
        """The value of the record."""
        return ASSESSMENT.dump_json(self)

    @classmethod
    def from_bytes(cls, value: bytes) -> AssessmentRecord:
        """The record that ``to_bytes`` gave.

        Raises:
            ValueError: it is none, or of a form that is not known here.
        """
        record = ASSESSMENT.validate_json(value)
        if record.form != FORM:
            raise ValueError(f"a record of form {record.form} is not known, only {FORM}")
        return record


ASSESSMENT: Final = TypeAdapter(AssessmentRecord)


# --- beside the offsets ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """What is committed beside an offset: where this group began with the partition, how far time had come (s; None
    before the first record), and which transaction it was, so that two with the same offset can be told apart."""

    origin: int
    at: float | None
    transaction: str

    def to_text(self) -> str:
        """As the broker keeps it."""
        return json.dumps({"origin": self.origin, "at": self.at, "tx": self.transaction}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> Mark | None:
        """The mark, None where there is none that can be read: somebody else set the offset."""
        try:
            kept = json.loads(text or "")
            at = kept["at"]
            return cls(int(kept["origin"]), None if at is None else float(at), str(kept["tx"]))
        except (ValueError, KeyError, TypeError):
            return None
