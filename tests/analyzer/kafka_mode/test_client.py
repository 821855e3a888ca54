"""What the clients cost while no broker is there, and how one that has fallen silent is told."""

from __future__ import annotations

import gc
import os
from types import SimpleNamespace

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


def test_a_consumer_that_gets_nothing_of_what_waits_is_told() -> None:
    now, ends = 0.0, {client.TopicPartition("m", 0): 7, client.TopicPartition("m", 1): None}
    consumer = SimpleNamespace(
        assignment=lambda: set(ends), highwater=ends.get, position=lambda place, timeout_ms: 5 if ends[place] else None
    )
    stall = client.Stall(lambda: now)
    now = client.STALL_SECONDS - 1
    stall.check(consumer)
    stall.over()
    now += client.STALL_SECONDS - 1
    stall.check(consumer)
    now += 1
    with pytest.raises(client.KafkaError, match="records of m/0 wait, and none came for 30 s"):
        stall.check(consumer)
    stall.begin()
    now += client.STALL_SECONDS
    stall.check(consumer)
    now += client.STALL_SECONDS
    with pytest.raises(client.KafkaError, match="none came for 60 s"):
        stall.check(consumer)
    stall.over()
    now += client.STALL_SECONDS
    with pytest.raises(client.KafkaError, match="none came for 30 s"):
        stall.check(consumer)
    stall.over()
    now += client.STALL_SECONDS
    ends[client.TopicPartition("m", 0)] = 5
    stall.check(consumer)
    ends[client.TopicPartition("m", 0)] = 9
    stall.check(consumer)  # known only now
