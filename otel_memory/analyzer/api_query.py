"""The parameters of the REST interface, with their bounds and descriptions for the OpenAPI document."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from otel_memory.analyzer.model import AlertState, Verdict
from otel_memory.analyzer.view import DEFAULT_SORT, SORTS


class _Parameters(BaseModel):
    # A misspelt filter would silently return everything.
    model_config = ConfigDict(extra="forbid")


class ProcessQuery(_Parameters):
    """Parameters of the list of processes."""

    service: str | None = Field(None, max_length=512, description="Exact service name.")
    verdict: Verdict | None = Field(None, description="Only processes with this verdict.")
    q: str | None = Field(
        None, max_length=200, description="Text to look for in service, instance, host, version, runtime, pid and id."
    )
    sort: Literal[SORTS] = Field(  # type: ignore[valid-type]
        DEFAULT_SORT, description="Field to sort by; a minus in front means descending. Absent values come last."
    )
    limit: int = Field(100, ge=1, le=1000, description="Processes in a page.")
    cursor: str | None = Field(None, max_length=2000, description="next of the page before.")


class SeriesQuery(_Parameters):
    """Parameters of a series."""

    metric: str = Field("memory", max_length=512, description="A role, such as memory, or role:detail.")
    from_: AwareDatetime | None = Field(
        None, alias="from", description="RFC 3339 with offset; an hour before the end unless given."
    )
    to: AwareDatetime | None = Field(None, description="RFC 3339 with offset; the newest sample unless given.")
    points: int = Field(600, ge=10, le=10_000, description="At most so many points.")


class LeakQuery(_Parameters):
    """Parameters of the list of leaks."""

    threshold: float = Field(0.5, ge=0, le=1, description="Least leak score.")


class AlertQuery(_Parameters):
    """Parameters of the list of alerts."""

    state: AlertState | None = Field(None, description="Only alerts in this state.")
    service: str | None = Field(None, max_length=512, description="Exact service name.")
