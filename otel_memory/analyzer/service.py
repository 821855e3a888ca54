"""The composition root: builds the analyzer, starts it downstream first, stops it upstream first.

Owns who is handed what. Every part's stop is tried, and one that fails hides no other.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_memory.analyzer.api import ApiSettings, build_api
from otel_memory.analyzer.config import Settings, clear
from otel_memory.analyzer.fleet_alerts import Groups, Held, HeldBack
from otel_memory.analyzer.model import Alert, AlertState, Assessment, Decoded
from otel_memory.analyzer.outputs import otlp, scores
from otel_memory.analyzer.outputs.alertmanager import AlertmanagerOutput
from otel_memory.analyzer.outputs.base import AlertChange, Output
from otel_memory.analyzer.outputs.console import ConsoleOutput
from otel_memory.analyzer.outputs.dispatcher import Dispatcher
from otel_memory.analyzer.outputs.webhook import WebhookOutput
from otel_memory.analyzer.pipeline import Pipeline
from otel_memory.analyzer.receivers.base import Encoding, Ingest, MalformedPayload, Overloaded, ReceiverError, Signal
from otel_memory.analyzer.receivers.grpc import GrpcReceiver
from otel_memory.analyzer.receivers.http import HttpReceiver, build_app
from otel_memory.analyzer.series import SeriesTable
from otel_memory.analyzer.servers import AsgiServer
from otel_memory.analyzer.silences import Silences
from otel_memory.analyzer.stats import REQUESTS, Stats
from otel_memory.analyzer.store import FILE_NAME, Reader, Store
from otel_memory.analyzer.view import View
from otel_memory.analyzer.worker import Worker

if TYPE_CHECKING:
    from otel_memory.analyzer.kafka.mode import KafkaMode

_logger = logging.getLogger(__name__)

SERVERS_STOP_SECONDS: Final = 3.0
WORKER_STOP_SECONDS: Final = 3.0
OUTPUTS_STOP_SECONDS: Final = 2.0
"""Together less than 10 s, after which a supervisor loses its patience."""
FLEET_PROCESSES: Final = 200_000
"""Shown, of all analyzers of a group together."""
STOP_SECONDS: Final = 5.0
"""For each part: one that hangs must not keep the others from ending."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running service listens."""

    host: str
    page_port: int
    otlp_http_port: int | None
    otlp_grpc_port: int | None
    """None where it reads from Kafka."""


_Stop = Callable[[], Awaitable[object]]


class Service:
    """One analyzer. ``start`` and ``stop`` once, in the event loop that it lives in."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stops: list[tuple[str, _Stop]] = []
        self._servers: list[tuple[str, _Stop]] = []
        self._worker: Worker | None = None
        self._bound = False
        self._kafka: KafkaMode | None = None

    async def start(self) -> Addresses:
        """Start every part; what was started is stopped again if a later part can't be.

        Raises:
            StoreError: the data folder can't be used.
            ReceiverError: a port can't be had.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> Addresses:
        settings = self._settings
        stats = Stats()
        view = View(FLEET_PROCESSES) if settings.kafka_bootstrap else View()
        store = Store.open(settings.data_dir / FILE_NAME)
        self._stops.append(("store", _in_thread(store.close)))
        reader = Reader(store.path)
        self._stops.append(("reader", _in_thread(reader.close)))

        def firing() -> list[Alert]:
            kafka = self._kafka
            return [alert for alert in view.alerts(AlertState.FIRING) if kafka is None or kafka.tells(alert)]

        def told(output: str, alert: Alert, change: str) -> None:
            if self._kafka is not None:
                self._kafka.told(output, alert, change)

        groups = Groups()
        silences = Silences(store.path)
        held = Held(silences, groups)
        self._stops.append(("silences", _in_thread(silences.stop)))
        dispatcher = Dispatcher(
            store.path,
            self._outputs(),
            stats,
            silences=HeldBack(silences, groups),
            firing=firing,
            told=told,
            # What is owed of its partitions stands in the log.
            resume=not settings.kafka_bootstrap,
        )
        for what in (silences, groups):
            what.listen(dispatcher.wake)
        silences.listen(view.retell_alerts)
        silences.start()
        dispatcher.start()
        self._stops.append(("outputs", _in_thread(lambda: dispatcher.stop(OUTPUTS_STOP_SECONDS))))
        if settings.kafka_bootstrap:
            return await self._start_kafka(view, store, reader, stats, silences, groups, dispatcher)

        pipeline = Pipeline(
            SeriesTable(settings.max_processes),
            view,
            stats,
            store=store,
            outputs=dispatcher.names,
            on_change=lambda changes, stored: _announce(dispatcher, changes, stored),
            alerting=settings.alerting,
            idle_seconds=settings.idle_seconds,
            max_known=2 * settings.max_processes,
            groups=groups,
        )
        worker = self._worker = Worker(pipeline, settings.queue_bytes, stats)
        await asyncio.to_thread(pipeline.restore, time.time())
        worker.start()
        self._stops.append(("worker", _in_thread(lambda: worker.stop(WORKER_STOP_SECONDS))))

        def assessments() -> Collection[Assessment]:
            return view.state.processes.values()

        self._send_scores(assessments, stats)
        self._stops.append(("servers", self._stop_servers))

        receiver = build_app(
            CountedIngest(worker, stats, "http"),
            max_body_bytes=settings.max_body_bytes,
            max_decompressed_bytes=settings.max_decompressed_bytes,
            token=settings.token_text,
        )
        counted = CountedIngest(worker, stats, "grpc")
        grpc = GrpcReceiver(
            counted, settings.host, settings.otlp_grpc_port, settings.max_decompressed_bytes, token=settings.token_text
        )
        api = build_api(
            view,
            reader,
            stats,
            ApiSettings(host=settings.host, token=settings.token_text, allowed_hosts=settings.allowed_hosts),
            silences=silences,
            silencing=held.silencing,
            checks={"receivers": self._check_receivers, "worker": self._check_worker, "store": store.writable},
            gauges=lambda: _refused(receiver, grpc),
        )
        page = AsgiServer(api, settings.host, settings.http_port, "--http-port")
        otlp_http = AsgiServer(receiver, settings.host, settings.otlp_http_port, "--otlp-http-port")
        ports = []
        for name, server in (("page", page), ("OTLP over HTTP", otlp_http)):
            self._servers.append((name, server.stop))
            ports.append(server.bind())
            await server.start()
        # Streams never end by themselves.
        self._stops.append(("streams", _in_thread(api.broker.close)))
        grpc_port = await grpc.start()
        self._servers.append(("OTLP over gRPC", lambda: grpc.stop(SERVERS_STOP_SECONDS)))
        self._bound = True
        return Addresses(settings.host, ports[0], ports[1], grpc_port)

    async def _start_kafka(
        self,
        view: View,
        store: Store,
        reader: Reader,
        stats: Stats,
        silences: Silences,
        groups: Groups,
        dispatcher: Dispatcher,
    ) -> Addresses:
        """The log in the place of receivers and worker."""
        settings = self._settings
        try:
            from otel_memory.analyzer.kafka.mode import KafkaMode
        except ModuleNotFoundError as error:
            raise ReceiverError(
                f"--kafka-bootstrap needs the package {error.name!r}: pip install 'otel-memory[kafka]'"
            ) from error
        kafka = self._kafka = KafkaMode(settings, view, stats, silences, groups)
        await asyncio.to_thread(kafka.check)
        self._send_scores(kafka.own, stats)
        self._stops.append(("servers", self._stop_servers))
        api = build_api(
            view,
            reader,
            stats,
            ApiSettings(host=settings.host, token=settings.token_text, allowed_hosts=settings.allowed_hosts),
            silences=silences,
            silencing=Held(silences, groups).silencing,
            checks={**kafka.checks, "store": store.writable},
            gauges=kafka.gauges,
            elsewhere=kafka.elsewhere,
        )
        page = AsgiServer(api, settings.host, settings.http_port, "--http-port")
        self._servers.append(("page", page.stop))
        port = page.bind()
        await page.start()
        self._stops.append(("streams", _in_thread(api.broker.close)))
        kafka.start(port, store, dispatcher.names, lambda changes, stored: _announce(dispatcher, changes, stored))
        self._stops.append(("kafka", _in_thread(kafka.stop)))
        return Addresses(settings.host, port, None, None)

    def _outputs(self) -> list[Output]:
        settings = self._settings
        outputs: list[Output] = []
        if settings.console:
            outputs.append(ConsoleOutput(sys.stdout, json_lines=settings.console_json))
        if settings.alerts_otlp_endpoint:
            outputs.append(otlp.build(settings.alerts_otlp_endpoint, settings.alerts_otlp_protocol))
        page = settings.page_address
        outputs += [
            AlertmanagerOutput(
                url,
                page=page,
                token=clear(settings.alertmanager_token),
                repeat_seconds=settings.alertmanager_repeat_seconds,
            )
            for url in settings.alertmanager_urls
        ]
        outputs += [
            WebhookOutput(
                url, secret=clear(settings.webhook_secret), page=page, group_seconds=settings.webhook_group_seconds
            )
            for url in settings.webhook_urls
        ]
        return outputs

    def _send_scores(self, assessments: Callable[[], Collection[Assessment]], stats: Stats) -> None:
        settings = self._settings
        if settings.scores_otlp_endpoint is None:
            return
        exporter = scores.build(
            settings.scores_otlp_endpoint,
            settings.scores_otlp_protocol,
            assessments,
            stats,
            interval_seconds=settings.scores_seconds,
        )
        exporter.start()
        self._stops.append(("scores", _in_thread(lambda: exporter.stop(OUTPUTS_STOP_SECONDS))))

    def _check_receivers(self) -> str | None:
        return None if self._bound else "are not bound"

    def _check_worker(self) -> str | None:
        return None if self._worker is not None and self._worker.alive else "does not run"

    async def stop(self) -> None:
        """Stop every part, the last started first. Idempotent."""
        self._bound = False
        while self._stops:
            await _stop(*self._stops.pop())

    async def _stop_servers(self) -> None:
        # At once, so that their times to end requests that are under way do not add up.
        servers, self._servers = self._servers, []
        await asyncio.gather(*(_stop(name, stop) for name, stop in servers))


async def _stop(name: str, stop: _Stop) -> None:
    try:
        await asyncio.wait_for(stop(), STOP_SECONDS)
    except TimeoutError:
        _logger.error("%s did not stop within %g s", name, STOP_SECONDS)
    except Exception:
        _logger.exception("%s did not stop as it should", name)


def _in_thread(stop: Callable[[], object]) -> _Stop:
    return lambda: asyncio.to_thread(stop)


def _announce(dispatcher: Dispatcher, changes: Sequence[AlertChange], stored: bool) -> None:
    """Let the outputs know: what the store has they take from its outbox, the rest is handed to them."""
    if not stored:
        for change in changes:
            dispatcher.offer(change)
    dispatcher.wake()


class CountedIngest:
    """Counts what one receiver hands to the worker, by how it ended."""

    def __init__(self, ingest: Ingest, stats: Stats, receiver: str) -> None:
        self._ingest = ingest
        self._stats = stats
        self._receiver = receiver

    async def submit(self, body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
        """Hand on; see ``Ingest``."""
        outcome = "failed"
        try:
            decoded = await self._ingest.submit(body, signal, encoding)
            outcome = "accepted"
            return decoded
        except MalformedPayload:
            outcome = "malformed"
            raise
        except Overloaded:
            outcome = "overloaded"
            raise
        finally:
            self._stats.add(REQUESTS, receiver=self._receiver, outcome=outcome)


def _refused(http: HttpReceiver, grpc: GrpcReceiver) -> dict[str, tuple[str, float]]:
    """What never reached the worker, for the page of metrics."""
    return {
        "refused_http_requests": ("OTLP/HTTP requests that were refused.", float(http.refused.total())),
        "refused_grpc_requests": ("OTLP/gRPC calls that were refused.", float(grpc.refused.total())),
    }
