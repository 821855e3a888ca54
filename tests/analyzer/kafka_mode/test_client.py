"""What the clients cost while no broker is there."""

from __future__ import annotations

import gc
import os

import pytest

from otel_memory.analyzer.kafka import client
from tests.harness import free_port


def test_attempts_to_connect_leave_no_socket_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor wait for the collector to come by, which may be long."""
    monkeypatch.setattr(client, "BOOTSTRAP_MS", 1500)
    connection = client.Connection((f"127.0.0.1:{free_port()}",))
    with pytest.raises(client.KafkaError):
        connection.reader()
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        for make in (connection.reader, connection.admin):
            with pytest.raises(client.KafkaError):
                make()
        assert len(os.listdir("/proc/self/fd")) <= before + 6, "more than what the two clients wait with"
    finally:
        gc.enable()
