"""The analyzer's HTTP face: REST, server-sent events, health, metrics, and the page.

Owns paths, parameters and status codes. Everything it says comes from ``view``, ``reader`` and ``stats``; all that it
changes are silences (``api_silences``). Its OpenAPI document is the code's copy of the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from otel_memory.analyzer import api_schemas as schemas
from otel_memory.analyzer.api_body import BodyLimit
from otel_memory.analyzer.api_fleet import fleet_routes
from otel_memory.analyzer.api_guard import Guard, allowed_hosts
from otel_memory.analyzer.api_page import Page
from otel_memory.analyzer.api_query import AlertQuery, LeakQuery, ProcessQuery, SeriesQuery
from otel_memory.analyzer.api_silences import silence_routes
from otel_memory.analyzer.api_suggestions import suggestion_routes
from otel_memory.analyzer.kafka.forward import Forwarding
from otel_memory.analyzer.metrics_page import build_registry
from otel_memory.analyzer.model import Alert
from otel_memory.analyzer.silences import Silences
from otel_memory.analyzer.sse import Broker, Subscription, TooManySubscribers
from otel_memory.analyzer.stats import (
    DROPPED,
    POINTS,
    QUEUE_DEPTH,
    REQUESTS,
    STORE_ERRORS,
    Stats,
)
from otel_memory.analyzer.store import Reader, StoreError
from otel_memory.analyzer.view import BadCursor, View
from otel_memory.version import __version__

DASHBOARD: Final = Path(__file__).parent / "dashboard"
Checks = Mapping[str, Callable[[], str | None]]
"""Part -> a cheap look that returns None where all is well, else a sentence."""

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": schemas.Problem, "description": "The request makes no sense; detail says why."},
    **schemas.REFUSALS,
}
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": schemas.Problem, "description": "There is no such process."}
}
_UNAVAILABLE: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": schemas.Problem, "description": "Not now; try again later."}
}


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """``host`` is what the server binds to; bound to loopback only loopback's names and ``allowed_hosts`` are answered.
    ``token`` is demanded of everything but ``/healthz`` where it is given."""

    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    dashboard: Path = DASHBOARD


class Api(FastAPI):
    """The application. ``broker`` is to be closed before the server is stopped, so that streams end."""

    broker: Broker


def build_api(
    view: View,
    reader: Reader,
    stats: Stats,
    settings: ApiSettings | None = None,
    *,
    checks: Checks | None = None,
    gauges: Callable[[], dict[str, tuple[str, float]]] = dict,
    heartbeat_seconds: float = 15.0,
    silences: Silences | None = None,
    silencing: Callable[[Alert], tuple[str, ...]] | None = None,
    elsewhere: Callable[[str], str | None] | None = None,
) -> Api:
    """The application for uvicorn.

    ``checks`` are the conditions of readiness; ``gauges`` returns more numbers for ``/metrics`` (name without prefix
    -> (help, value)). ``silences`` are those that the outputs heed; without them silences hold back nothing.
    ``silencing`` says what else keeps an alert from being told of, silences among it.
    ``elsewhere`` gives the address of the analyzer that has a process's history, None where it is this one.
    """
    settings = settings or ApiSettings()
    silences = Silences() if silences is None else silences
    silencing = silencing or silences.silencing
    app = Api(
        title="otel-memory analyzer",
        version=__version__,
        description="Which processes leak memory, when they hit their limit, and what grows. "
        "Bytes are integers, rates By/s, times RFC 3339 UTC; what is not known is null.",
        docs_url=None,  # loads from a CDN
        redoc_url=None,
    )
    app.broker = Broker(view, heartbeat_seconds=heartbeat_seconds, silencing=silencing)
    checks = dict(checks or {})
    app.include_router(_rest(view, reader, silencing))
    app.include_router(silence_routes(silences))
    app.include_router(suggestion_routes(view))
    app.include_router(fleet_routes(view))
    app.include_router(_service(view, stats, app.broker, checks, datetime.now(UTC)))
    app.include_router(_stream(app.broker))
    app.include_router(_plain(build_registry(stats, view, lambda: _own_gauges(app.broker) | gauges()), checks))
    app.mount("/", Page(directory=settings.dashboard, html=True, check_dir=False), name="page")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(StoreError, _unreadable)
    app.add_middleware(BodyLimit)
    if elsewhere is not None:
        app.add_middleware(Forwarding, elsewhere=elsewhere, stats=stats, token=settings.token)
    # Added last, so that it is asked first.
    app.add_middleware(Guard, token=settings.token, hosts=allowed_hosts(settings.host, settings.allowed_hosts))
    return app


def _rest(view: View, reader: Reader, silencing: Callable[[Alert], tuple[str, ...]]) -> APIRouter:
    router = APIRouter(prefix="/api/v1", responses=_PROBLEMS)

    @router.get("/processes", summary="Processes")
    def processes(query: Annotated[ProcessQuery, Query()]) -> schemas.ProcessPage:
        try:
            page = view.processes(
                service=query.service,
                verdict=query.verdict,
                q=query.q,
                sort=query.sort,
                limit=query.limit,
                cursor=query.cursor,
            )
        except BadCursor as error:
            raise HTTPException(400, str(error)) from error
        return schemas.ProcessPage(items=[schemas.ProcessModel.of(a) for a in page.items], next=page.next)

    @router.get("/processes/{process_id}", summary="One process", responses=_NOT_FOUND)
    def process(process_id: str) -> schemas.ProcessDetail:
        found = view.process(process_id)
        if found is None:
            raise HTTPException(404, f"no process {process_id!r}")
        return schemas.ProcessDetail.build(found, view.events(process_id))

    @router.get(
        "/processes/{process_id}/series", summary="A series of one process", responses=_NOT_FOUND | _UNAVAILABLE
    )
    def series(process_id: str, query: Annotated[SeriesQuery, Query()]) -> schemas.SeriesModel:
        unit = _unit(query.metric)
        if view.process(process_id) is None:
            raise HTTPException(404, f"no process {process_id!r}")
        start = None if query.from_ is None else query.from_.timestamp()
        end = None if query.to is None else query.to.timestamp()
        if start is not None and end is not None and start > end:
            raise HTTPException(400, "from is later than to")
        data = reader.series(process_id, query.metric, start, end, query.points)
        return schemas.SeriesModel(
            metric=query.metric,
            unit=unit,
            times=[schemas.moment(time) for time in data.times],
            values=data.values,
        )

    @router.get("/leaks", summary="Processes that leak")
    def leaks(query: Annotated[LeakQuery, Query()]) -> schemas.LeakList:
        found = view.leaks(query.threshold)
        return schemas.LeakList(threshold=query.threshold, items=[schemas.ProcessModel.of(a) for a in found])

    @router.get("/alerts", summary="Alerts")
    def alerts(query: Annotated[AlertQuery, Query()]) -> schemas.AlertList:
        found = [
            alert
            for alert in view.alerts(query.state)
            if query.service is None or alert.labels.get("service_name") == query.service
        ]
        return schemas.AlertList(items=[schemas.AlertModel.of(alert, silencing(alert)) for alert in found])

    return router


def _service(view: View, stats: Stats, broker: Broker, checks: Checks, started_at: datetime) -> APIRouter:
    router = APIRouter(prefix="/api/v1", responses=_PROBLEMS)

    @router.get("/summary", summary="The fleet at a glance, and the analyzer's own health")
    def summary() -> schemas.SummaryModel:
        counts = view.summary()
        problems = _problems(checks)
        outputs = [
            schemas.OutputModel(
                name=health.name,
                delivered=health.delivered,
                failed=health.failed,
                abandoned=health.abandoned,
                pending=health.pending,
                held=health.held,
                last_delivered=None if health.last_delivered is None else schemas.moment(health.last_delivered),
                last_error=health.last_error,
                busy_since=None if health.busy_since is None else schemas.moment(health.busy_since),
                failing_since=None if health.failing_since is None else schemas.moment(health.failing_since),
            )
            for health in stats.outputs()
        ]
        return schemas.SummaryModel(
            version=__version__,
            processes=sum(counts.processes.values()),
            verdicts=schemas.VerdictCounts(**{verdict.value: count for verdict, count in counts.processes.items()}),
            alerts=schemas.AlertCounts(**{state.value: count for state, count in counts.alerts.items()}),
            memory_bytes=counts.memory_bytes,
            growth_bytes_per_second=counts.growth_bytes_per_second,
            time_to_limit_seconds=counts.time_to_limit_seconds,
            health=schemas.HealthModel(
                status="degraded" if problems else "ok",
                problems=problems,
                started_at=started_at,
                requests=int(stats.total(REQUESTS)),
                points_accepted=int(stats.total(POINTS, outcome="accepted")),
                points_skipped=int(stats.total(POINTS, outcome="skipped")),
                points_rejected=int(stats.total(POINTS, outcome="rejected")),
                dropped=int(stats.total(DROPPED)),
                queue_depth=int(stats.total(QUEUE_DEPTH)),
                store_errors=int(stats.total(STORE_ERRORS)),
                subscribers=broker.subscribers,
                outputs=outputs,
            ),
        )

    return router


def _stream(broker: Broker) -> APIRouter:
    router = APIRouter(prefix="/api/v1", responses=_PROBLEMS | _UNAVAILABLE)

    @router.get(
        "/stream",
        summary="What changes, as server-sent events",
        description="Events `process` and `alert` carry the same objects as the lists, each at its latest state. "
        "Comments come every 15 s. After a reconnection with Last-Event-ID what was missed comes first.",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def stream(last_event_id: Annotated[str | None, Header(max_length=100)] = None) -> Response:
        try:
            subscription = broker.subscribe()
        except TooManySubscribers as error:
            raise HTTPException(503, "too many event streams", headers={"Retry-After": "5"}) from error
        return _EventStream(broker, subscription, last_event_id)

    return router


def _plain(registry: CollectorRegistry, checks: Checks) -> APIRouter:
    router = APIRouter()

    @router.head("/healthz", include_in_schema=False)  # what load balancers ask with
    @router.get("/healthz", summary="Whether the analyzer runs")
    def healthz() -> schemas.Alive:
        return schemas.Alive()

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        summary="Whether the analyzer can do its work",
        responses={503: {"model": schemas.Readiness, "description": "Not ready; problems says why."}},
    )
    def readyz(response: Response) -> schemas.Readiness:
        problems = _problems(checks)
        response.status_code = 503 if problems else 200
        return schemas.Readiness(status="not ready" if problems else "ready", problems=problems)

    @router.get(
        "/metrics",
        summary="The analyzer's own metrics, Prometheus text form",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


class _EventStream(StreamingResponse):
    """Not to be cached or held back by a proxy on the way. Gives its place back however it ends."""

    def __init__(self, broker: Broker, subscription: Subscription, last_event_id: str | None) -> None:
        super().__init__(
            broker.stream(subscription, last_event_id),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._broker, self._subscription = broker, subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._broker.release(self._subscription)


def _unit(metric: str) -> str:
    role = metric.partition(":")[0]
    units = {known.value: unit for known, unit in schemas.UNITS.items()}
    if role not in units:
        raise HTTPException(422, f"metric: {role!r} is none of {', '.join(units)}")
    return units[role]


def _own_gauges(broker: Broker) -> dict[str, tuple[str, float]]:
    return {
        "stream_subscribers": ("Open event streams.", broker.subscribers),
        "stream_updates_dropped": ("Updates that slow event streams did not get.", broker.dropped),
    }


def _problems(checks: Checks) -> dict[str, str]:
    found = {}
    for part, check in checks.items():
        try:
            problem = check()
        except Exception as error:
            problem = f"the check failed: {error}"
        if problem is not None:
            found[part] = problem
    return found


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    texts = []
    for one in error.errors():
        place = ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0])
        if one["type"] == "extra_forbidden":
            texts.append(f"{place}: no such parameter")
        else:
            texts.append(f"{place}: {one['msg']}")
    return JSONResponse({"detail": "; ".join(texts)}, status_code=422)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return JSONResponse({"detail": str(error.detail)}, status_code=error.status_code, headers=error.headers)


async def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse(
        {"detail": "the store can't be used now, see the analyzer's log"},
        status_code=503,
        headers={"Retry-After": "5"},
    )
