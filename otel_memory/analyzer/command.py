"""``otel-memory serve``: runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Final

from otel_memory.analyzer.config import Settings, SettingsError, parse
from otel_memory.analyzer.log_rate import OncePerMinute
from otel_memory.analyzer.receivers.base import ReceiverError
from otel_memory.analyzer.service import Addresses, Service
from otel_memory.analyzer.store.errors import StoreError
from otel_memory.version import __version__

DESCRIPTORS: Final = 8192
OUTAGE: Final = ("Kafka: begins anew", "Kafka: reads %s anew")
"""How our own lines begin that come again and again while a broker is away."""


def main(argv: Sequence[str]) -> int:
    """Serve: 0 when stopped by a signal, 2 when it could not start."""
    try:
        settings = parse(argv, os.environ)
    except SettingsError as error:
        print(f"otel-memory serve: {error}", file=sys.stderr)
        return 2
    _allow_descriptors()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Says every request that an exporter sends.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Tells of every connection, and in an outage of every attempt to connect.
    logging.getLogger("kafka").setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(OncePerMinute("kafka", OUTAGE))
    try:
        return asyncio.run(_serve(settings))
    except (StoreError, ReceiverError) as error:
        print(f"otel-memory serve: {error}", file=sys.stderr)
        return 2


def _allow_descriptors() -> None:
    """As many as the servers' connections may take, where the system allows it; the usual 1024 are fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(settings: Settings) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    service = Service(settings)
    addresses = await service.start()
    print(banner(addresses, settings), flush=True)
    try:
        await stopped.wait()
    finally:
        await service.stop()
    return 0


def banner(addresses: Addresses, settings: Settings) -> str:
    """What is printed once everything listens."""
    host = f"[{addresses.host}]" if ":" in addresses.host else addresses.host
    if settings.kafka_bootstrap:
        incoming = [f"  Kafka      {','.join(settings.kafka_bootstrap)}, group {settings.kafka_group}"]
    else:
        incoming = [
            f"  OTLP/HTTP  http://{host}:{addresses.otlp_http_port}",
            f"  OTLP/gRPC  http://{host}:{addresses.otlp_grpc_port}",
        ]
    return "\n".join(
        (
            f"otel-memory {__version__} is ready",
            f"  page       http://{host}:{addresses.page_port}",
            *incoming,
            f"  data       {settings.data_dir}",
        )
    )
