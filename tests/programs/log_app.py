"""A program that logs from tracked operations: by ``logging`` with a JSON formatter, and by structlog."""

from __future__ import annotations

import logging
import os
import sys

import structlog
from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

import otel_memory

shop = logging.getLogger("shop")
kept: list[bytearray] = []


@otel_memory.monitor_memory(name="take order")
def take_order() -> None:
    with trace.get_tracer("shop").start_as_current_span("order"):
        kept.append(bytearray(b"x" * 20_000_000))
        shop.info("order taken", extra={"order": 7})
        structlog.get_logger().info("order taken too")


def main() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("%(message)s %(name)s"))
    shop.addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    structlog.configure(processors=[otel_memory.add_memory, structlog.processors.JSONRenderer()])
    shop.info("open")
    take_order()
    sys.stdout.flush()
    child = os.fork()
    shop.info("child" if child == 0 else "parent", extra={"pid": os.getpid()})
    sys.stdout.flush()
    if child:
        os.waitpid(child, 0)


main()
