"""REST: how the leaks of services are spread over their instances.

Owns the path and the form; the reasoning is ``fleet``'s.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from otel_memory.analyzer import api_schemas as schemas
from otel_memory.analyzer.fleet import FleetFinding, compare
from otel_memory.analyzer.view import View


class FleetModel(schemas.Model):
    """What the instances of one service that leak have in common."""

    service_name: str
    cause: Literal["version", "host", "moment", "all", "one", "some"] = Field(
        description="version: those of one version leak. host: those on one host. moment: all since the same time, "
        "though started at different ones. all: nearly all (code, configuration). one: only a few (input, host). "
        "some: nothing tells them apart."
    )
    subject: str | None = Field(description="The version or the host; null for the other causes.")
    summary: str = Field(description="A sentence with the figures.")
    leaking: list[str] = Field(description="Ids of the processes that leak, those of the group first.")
    healthy: int = Field(description="Instances that don't leak, as far as they were seen for long enough.")
    since: datetime | None = Field(description="When the first of them began to grow. RFC 3339, UTC.")
    growth_bytes_per_second: float | None = Field(description="Of all of them together, By/s.")
    time_to_limit_seconds: float | None = Field(description="The soonest estimate of any of them, s.")
    suspect: str | None = Field(description="What most of them suspect first.")
    confidence: float = Field(description="0-1.")

    @classmethod
    def of(cls, finding: FleetFinding) -> FleetModel:
        """The REST form."""
        return cls(
            service_name=finding.service_name,
            cause=finding.cause,
            subject=finding.subject,
            summary=finding.summary,
            leaking=list(finding.leaking),
            healthy=finding.healthy,
            since=None if finding.since is None else schemas.moment(finding.since),
            growth_bytes_per_second=finding.growth_bytes_per_second,
            time_to_limit_seconds=finding.time_to_limit_seconds,
            suspect=finding.suspect,
            confidence=finding.confidence,
        )


class FleetList(schemas.Model):
    """One finding a service, those with the most leaking instances first."""

    items: list[FleetModel]


class FleetQuery(schemas.Model):
    """Which services."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str | None = Field(None, max_length=256, description="Exact service name.")


def fleet_routes(view: View) -> APIRouter:
    """The routes under ``/api/v1``."""
    router = APIRouter(
        prefix="/api/v1",
        responses=schemas.REFUSALS,
    )

    @router.get("/fleet", summary="What leaking instances of a service have in common")
    def fleet(query: Annotated[FleetQuery, Query()]) -> FleetList:
        chosen = [
            a for a in view.state.processes.values() if query.service is None or a.process.service_name == query.service
        ]
        return FleetList(items=[FleetModel.of(finding) for finding in compare(chosen)])

    return router
