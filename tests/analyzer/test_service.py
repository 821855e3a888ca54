"""The composition root: what was started is stopped, also when a later part can't start; nothing is left behind."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from otel_memory.analyzer import service as module
from otel_memory.analyzer.config import Settings, parse
from otel_memory.analyzer.receivers.base import ReceiverError
from otel_memory.analyzer.service import Service
from otel_memory.analyzer.store import FILE_NAME, Store, StoreError
from tests.analyzer.made_up import MadeUp

PROTOBUF = {"content-type": "application/x-protobuf"}


def settings_for(folder: Path, *argv: str) -> Settings:
    ports = ["--http-port", "0", "--otlp-grpc-port", "0", "--otlp-http-port", "0"]
    return parse([*ports, "--data-dir", str(folder), "--no-console", *argv], {})


def ours() -> set[str]:
    """Names of the threads that a service starts."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("otel-memory")}


def test_a_request_goes_through_and_a_stop_leaves_no_thread_port_or_lock(tmp_path: Path) -> None:
    async def run() -> list[int]:
        service = Service(settings_for(tmp_path))
        addresses = await service.start()
        base = f"http://127.0.0.1:{addresses.page_port}"
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                otlp = f"http://127.0.0.1:{addresses.otlp_http_port}/v1/metrics"
                # A point of the future would be refused.
                body = MadeUp(begin=time.time()).body(0)
                assert (await client.post(otlp, content=body, headers=PROTOBUF)).status_code == 200
                items = (await client.get(f"{base}/api/v1/processes")).json()["items"]
                assert [item["service_instance_id"] for item in items] == ["made-up-1"]
                assert (await client.get(f"{base}/readyz")).status_code == 200
                assert (await client.post(otlp, content=b"\xff", headers=PROTOBUF)).status_code == 400
                told = (await client.get(f"{base}/metrics")).text
                for outcome in ("accepted", "malformed"):
                    assert f'otel_memory_analyzer_requests_total{{outcome="{outcome}",receiver="http"}} 1.0' in told
            assert ours()
        finally:
            await service.stop()
            await service.stop()
        return [addresses.page_port, addresses.otlp_http_port, addresses.otlp_grpc_port]

    ports = asyncio.run(run())
    assert ours() == set()
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    Store.open(tmp_path / FILE_NAME).close()


@pytest.mark.parametrize("flag", ["--http-port", "--otlp-http-port", "--otlp-grpc-port"])
def test_a_port_that_is_taken_is_named_and_all_that_was_started_is_stopped(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_for(tmp_path, flag, str(taken.getsockname()[1]))
        with pytest.raises(ReceiverError, match=flag):
            asyncio.run(Service(settings).start())
    assert ours() == set()
    Store.open(tmp_path / FILE_NAME).close()


def test_an_address_that_is_not_of_this_machine_is_named(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "--host", "192.0.2.1", "--insecure-no-auth")
    with pytest.raises(ReceiverError, match="--host"):
        asyncio.run(Service(settings).start())


def test_a_data_folder_in_use_is_told(tmp_path: Path) -> None:
    store = Store.open(tmp_path / FILE_NAME)
    with pytest.raises(StoreError, match="another analyzer uses this data directory"):
        asyncio.run(Service(settings_for(tmp_path)).start())
    store.close()
    assert ours() == set()


def test_a_part_that_hangs_or_fails_keeps_no_other_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)

    async def hangs() -> None:
        await asyncio.sleep(60)

    async def fails() -> None:
        raise RuntimeError("planted")

    stopped = []

    async def ends() -> None:
        stopped.append(True)

    async def run() -> None:
        service = Service(settings_for(tmp_path))
        service._stops = [("last", ends), ("failing", fails), ("hanging", hangs)]
        with caplog.at_level(logging.ERROR):
            await service.stop()

    asyncio.run(run())
    assert stopped == [True]
    assert "hanging did not stop within 0.05 s" in caplog.text
    assert "failing did not stop as it should" in caplog.text


def test_readiness_names_the_part_that_is_not_ready(tmp_path: Path) -> None:
    async def run() -> dict[str, str]:
        service = Service(settings_for(tmp_path))
        addresses = await service.start()
        try:
            assert service._worker is not None
            service._worker.stop()
            async with httpx.AsyncClient(trust_env=False) as client:
                reply = await client.get(f"http://127.0.0.1:{addresses.page_port}/readyz")
                assert reply.status_code == 503
                problems: dict[str, str] = reply.json()["problems"]
                return problems
        finally:
            await service.stop()

    assert asyncio.run(run()) == {"worker": "does not run"}


def test_a_proxys_name_is_answered_only_if_it_is_allowed(tmp_path: Path) -> None:
    async def run(*argv: str) -> int:
        service = Service(settings_for(tmp_path, *argv))
        addresses = await service.start()
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                url = f"http://127.0.0.1:{addresses.page_port}/api/v1/summary"
                return (await client.get(url, headers={"host": "memory.example.org"})).status_code
        finally:
            await service.stop()

    assert asyncio.run(run()) == 421
    assert asyncio.run(run("--allowed-hosts", "memory.example.org")) == 200
