"""REST for silences: make one, list them, end one.

Owns their paths, forms and status codes. Which alerts a silence is for is in ``matching``.
"""

from __future__ import annotations

import time
from typing import Annotated, Final, Literal, Self

from fastapi import APIRouter, HTTPException, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from otel_memory.analyzer.api_schemas import Model, Problem, Time, moment
from otel_memory.analyzer.matching import BadSilence, Matcher, Silence
from otel_memory.analyzer.silences import NotShared, Silences

LONGEST_SECONDS: Final = 366 * 86400.0


class MatcherModel(Model):
    """One condition on one label of an alert."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        min_length=1,
        max_length=100,
        description="A label: alertname, severity, process_id, alert_id, service_name, service_version, "
        "service_instance_id, host_name.",
    )
    value: str = Field(max_length=1024, description="The text, or a regular expression for the whole of it.")
    is_regex: bool = Field(False, description="Whether value is a regular expression (Python's).")
    is_equal: bool = Field(True, description="False: the label must not agree.")


class SilenceRequest(BaseModel):
    """A silence to be made. It ends at ``ends_at``, or ``duration_seconds`` after it starts."""

    model_config = ConfigDict(extra="forbid")

    matchers: list[MatcherModel] = Field(min_length=1, max_length=20, description="All must agree.")
    starts_at: AwareDatetime | None = Field(None, description="RFC 3339 with offset; now unless given.")
    ends_at: AwareDatetime | None = Field(None, description="RFC 3339 with offset.")
    duration_seconds: float | None = Field(None, gt=0, le=LONGEST_SECONDS, description="Instead of ends_at.")
    comment: str = Field("", max_length=1000)
    created_by: str = Field("", max_length=200)

    @model_validator(mode="after")
    def _has_one_end(self) -> Self:
        if (self.ends_at is None) == (self.duration_seconds is None):
            raise ValueError("give either ends_at or duration_seconds")
        return self


class SilenceModel(Model):
    """A silence."""

    id: str
    state: Literal["coming", "active", "over"]
    matchers: list[MatcherModel] = Field(description="All must agree.")
    starts_at: Time
    ends_at: Time
    created_at: Time
    created_by: str
    comment: str

    @classmethod
    def of(cls, silence: Silence, now: float) -> SilenceModel:
        """The REST form at ``now`` (s since the epoch)."""
        state: Literal["coming", "active", "over"] = "over" if now >= silence.ends_at else "coming"
        return cls(
            id=silence.id,
            state="active" if silence.active(now) else state,
            matchers=[
                MatcherModel(name=one.name, value=one.value, is_regex=one.is_regex, is_equal=one.is_equal)
                for one in silence.matchers
            ],
            starts_at=moment(silence.starts_at),
            ends_at=moment(silence.ends_at),
            created_at=moment(silence.created_at),
            created_by=silence.created_by,
            comment=silence.comment,
        )


class SilenceList(Model):
    """Silences, the one that ends last first. Those that are over are listed for five days."""

    items: list[SilenceModel]


class SilenceQuery(BaseModel):
    """Parameters of the list of silences."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["coming", "active", "over"] | None = Field(None, description="Only silences in this state.")


def silence_routes(silences: Silences) -> APIRouter:
    """The routes under ``/api/v1/silences``."""
    router = APIRouter(
        prefix="/api/v1/silences",
        responses={
            400: {"model": Problem, "description": "The body is no JSON."},
            401: {"model": Problem, "description": "A token is needed."},
            403: {"model": Problem, "description": "A web page of another address asked."},
            408: {"model": Problem, "description": "The body did not come in time."},
            413: {"model": Problem, "description": "The body is larger than 64 KiB."},
            422: {"model": Problem, "description": "A field is not valid; detail says which and why."},
            503: {"model": Problem, "description": "The store can't be used now; try again later."},
        },
    )

    @router.get("", summary="Silences")
    def list_silences(query: Annotated[SilenceQuery, Query()]) -> SilenceList:
        now = time.time()
        items = [SilenceModel.of(silence, now) for silence in silences.all()]
        return SilenceList(items=[item for item in items if query.state in (None, item.state)])

    @router.post(
        "",
        status_code=201,
        summary="Silence alerts",
        description="Alerts that agree with every matcher still show, with silenced_by, but no output is told of them. "
        "One that still fires when the silence ends is told of then.",
    )
    def make(request: SilenceRequest) -> SilenceModel:
        now = time.time()
        starts_at = now if request.starts_at is None else request.starts_at.timestamp()
        if request.ends_at is not None:
            ends_at = request.ends_at.timestamp()
        else:
            ends_at = starts_at + (request.duration_seconds or 0.0)
        try:
            if max(ends_at, starts_at) - now > LONGEST_SECONDS:
                raise BadSilence("a silence ends a year from now at the latest")
            made = silences.add(
                [Matcher(one.name, one.value, one.is_regex, one.is_equal) for one in request.matchers],
                starts_at=starts_at,
                ends_at=ends_at,
                created_by=request.created_by,
                comment=request.comment,
            )
        except BadSilence as error:
            raise HTTPException(422, str(error)) from error
        except NotShared as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from error
        return SilenceModel.of(made, time.time())

    @router.delete(
        "/{silence_id}",
        summary="End a silence",
        responses={404: {"model": Problem, "description": "There is no such silence."}},
    )
    def end(silence_id: str) -> SilenceModel:
        try:
            ended = silences.end(silence_id)
        except NotShared as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from error
        if ended is None:
            raise HTTPException(404, f"no silence {silence_id!r}")
        return SilenceModel.of(ended, time.time())

    return router
