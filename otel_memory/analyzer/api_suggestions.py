"""REST: what could be done about memory that grows.

Owns the path and its parameters; what is suggested is ``suggestions``'.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from otel_memory.analyzer import api_schemas as schemas
from otel_memory.analyzer.model import Assessment, Verdict
from otel_memory.analyzer.suggestions import SEVERITIES, Severity, merged, suggest
from otel_memory.analyzer.view import View


class SuggestionList(schemas.Model):
    """Suggestions of the whole fleet."""

    items: list[schemas.SuggestionModel] = Field(
        description="Ranked: by severity, then by the growth that they are about. "
        "The same for several processes of one service is one."
    )


class SuggestionQuery(schemas.Model):
    """Which suggestions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str | None = Field(None, max_length=256, description="Exact service name.")
    process: str | None = Field(None, max_length=64, description="Id of a process.")
    severity: Severity | None = Field(None, description="At least so grave.")
    limit: int = Field(100, ge=1, le=1000)


def suggestion_routes(view: View) -> APIRouter:
    """The routes under ``/api/v1``."""
    router = APIRouter(
        prefix="/api/v1",
        responses=schemas.REFUSALS,
    )

    @router.get("/suggestions", summary="What could be done, ranked")
    def suggestions(query: Annotated[SuggestionQuery, Query()]) -> SuggestionList:
        chosen = [a for a in view.state.processes.values() if _concerned(a, query)]
        found = merged(one for a in chosen for one in suggest(a, view.events(a.process.id)))
        if query.severity is not None:
            grave = SEVERITIES[: SEVERITIES.index(query.severity) + 1]
            found = [one for one in found if one.severity in grave]
        return SuggestionList(items=[schemas.SuggestionModel.of(one) for one in found[: query.limit]])

    return router


def _concerned(assessment: Assessment, query: SuggestionQuery) -> bool:
    if query.service is not None and assessment.process.service_name != query.service:
        return False
    if query.process is not None and assessment.process.id != query.process:
        return False
    return assessment.verdict in (Verdict.LEAKING, Verdict.WATCH, Verdict.HEALTHY)
