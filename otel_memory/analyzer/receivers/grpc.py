"""OTLP over gRPC: the Export calls of the metrics, logs and trace services.

Registers generic handlers that hand the raw bytes on, so that a body is decoded in one place whatever way it came.
Owns the server, the token, and the answers that the OTLP specification asks for ("OTLP/gRPC Response").
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
from grpc import aio

from otel_memory.analyzer.receivers.base import (
    MAX_BODY_BYTES,
    MAX_BUFFERED_BYTES,
    Budget,
    Ingest,
    MalformedPayload,
    Overloaded,
    ReceiverError,
    Signal,
    authorized,
    response,
    rpc_status,
)

_logger = logging.getLogger(__name__)

_SERVICES: Final[dict[Signal, str]] = {
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
}
_STATUS_DETAILS: Final = "grpc-status-details-bin"

_Context = aio.ServicerContext[bytes, bytes]
_Export = Callable[[bytes, _Context], Awaitable[bytes]]


class GrpcReceiver:
    """A gRPC server on ``host``:``port`` (0: any free one). Make it and start it in the event loop that it runs in.

    ``max_message_bytes`` bounds one message, ``max_buffered_bytes`` all that are being worked on. With ``token`` a
    call must carry the metadata ``authorization: Bearer TOKEN``.
    """

    def __init__(
        self,
        ingest: Ingest,
        host: str,
        port: int,
        max_message_bytes: int = MAX_BODY_BYTES,
        *,
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
        token: str | None = None,
    ) -> None:
        self._ingest = ingest
        self._host = host
        self._port = port
        self._max_message_bytes = max_message_bytes
        self._budget = Budget(max_buffered_bytes)
        self._token = token
        self._server: aio.Server | None = None
        self.refused: Counter[str] = Counter()
        """Calls that were not taken, by the name of the status they were answered with."""

    async def start(self) -> int:
        """Binds and serves; gives the port. Raises ``ReceiverError`` where the address can't be had."""
        if self._server is not None:
            raise ReceiverError("the OTLP gRPC receiver is started already")
        server = aio.server(
            options=(
                ("grpc.max_receive_message_length", self._max_message_bytes),
                # Without this two analyzers would share the port in silence, and each get half of the data.
                ("grpc.so_reuseport", 0),
            )
        )
        server.add_generic_rpc_handlers(tuple(self._handler(signal) for signal in _SERVICES))
        address = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        try:
            port = server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            await server.stop(None)
            raise ReceiverError(
                f"can't listen on {address} for OTLP over gRPC: is it taken? "
                "Another port: --otlp-grpc-port or OTEL_MEMORY_OTLP_GRPC_PORT"
            )
        await server.start()
        self._server = server
        return port

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Takes no more calls and ends those under way after ``grace_seconds`` at the latest."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_seconds)

    def _handler(self, signal: Signal) -> grpc.GenericRpcHandler[bytes, bytes]:
        # Without a deserializer and a serializer the bytes go through as they are.
        method = grpc.unary_unary_rpc_method_handler(self._export(signal))
        return grpc.method_handlers_generic_handler(_SERVICES[signal], {"Export": method})

    def _export(self, signal: Signal) -> _Export:
        async def export(body: bytes, context: _Context) -> bytes:
            metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
            if not authorized(self._token, metadata.get("authorization")):
                await self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed")
            try:
                with self._budget.share() as share:
                    share.take(len(body))
                    decoded = await self._ingest.submit(body, signal, "protobuf")
            except MalformedPayload as malformed:
                await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(malformed))
            except Overloaded as overloaded:
                # With RetryInfo the sender keeps what it has and comes again.
                code = grpc.StatusCode.UNAVAILABLE
                await self._refuse(context, code, str(overloaded), overloaded.retry_after_seconds)
            except Exception:
                _logger.exception("an OTLP call failed")
                await self._refuse(context, grpc.StatusCode.INTERNAL, "internal error")
            return response(signal, decoded, "protobuf")

        return export

    async def _refuse(
        self, context: _Context, code: grpc.StatusCode, reason: str, retry_after_seconds: float | None = None
    ) -> NoReturn:
        self.refused[code.name] += 1
        number: int = code.value[0]
        details = rpc_status(reason, number, retry_after_seconds)
        await context.abort(code, reason, ((_STATUS_DETAILS, details),))
        raise AssertionError("abort always raises")
