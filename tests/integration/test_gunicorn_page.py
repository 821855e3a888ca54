"""gunicorn with four prefork workers: each is a process of its own on the page, with its own memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import expect

from tests.harness import Analyzer, Chromium, Program, fetch, fetch_json, free_port, wait_until

MIB = 1024 * 1024
BIN = Path(sys.executable).parent
APPLICATION = Path(__file__).parents[1] / "programs" / "prefork_shop.py"
MAY_DIFFER = 0.05
HOLDS_MIB = (0, 40, 90, 150)

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc"),
    pytest.mark.timeout(120),
]


def rss_of(pid: int) -> int:
    """VmRSS of a process, in bytes, as the kernel tells it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split("kB")[0]) * 1024


@dataclass
class Gunicorn:
    """A running gunicorn: its master's and its workers' process ids, and where it answers."""

    master: int
    url: str

    def workers(self) -> list[int]:
        return sorted(child.pid for child in psutil.Process(self.master).children())

    def let_each_hold(self, workers: list[int]) -> None:
        """Make each worker hold an amount of its own. Which worker takes a request is the kernel's choice."""
        amounts = dict(zip(workers, HOLDS_MIB, strict=True))
        held: dict[int, int] = {}

        def all_hold() -> bool:
            pid = fetch_json(f"{self.url}/pid")["pid"]
            told = fetch_json(f"{self.url}/hold/{','.join(f'{w}:{mib}' for w, mib in amounts.items())}")
            held[told["pid"]] = told["held"]
            assert pid in amounts
            return held == {worker: mib * MIB for worker, mib in amounts.items()}

        wait_until(all_hold, timeout_seconds=30, what="each worker holds its amount", every=0.0)


@contextmanager
def gunicorn(analyzer: Analyzer, *options: str, **env: str) -> Iterator[Gunicorn]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = Program(
        [
            *(str(BIN / "opentelemetry-instrument"), str(BIN / "gunicorn"), "--workers", "4"),
            *("--bind", f"127.0.0.1:{port}", "--graceful-timeout", "3", *options, f"{APPLICATION.stem}:app"),
        ],
        env={
            "PYTHONPATH": str(APPLICATION.parent),
            "OTEL_SERVICE_NAME": "prefork-shop",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": analyzer.http_endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
            **env,
        },
        until=lambda _: bool(fetch(f"{url}/pid", timeout_seconds=2.0)),
        name="gunicorn",
    )
    with program:
        running = Gunicorn(program.pid, url)
        wait_until(lambda: len(running.workers()) == 4, timeout_seconds=30, what="four workers")
        yield running
    assert "Traceback" not in program.output(), program.output()


def told_of(analyzer: Analyzer) -> dict[int, dict[str, Any]]:
    """The analyzer's processes by their process ids."""
    return {process["pid"]: process for process in analyzer.get("/api/v1/processes")["items"]}


def until_all_are_told_right(analyzer: Analyzer, workers: list[int]) -> dict[int, dict[str, Any]]:
    """All workers' rows, once each says what the kernel says, within ``MAY_DIFFER``."""

    def right() -> dict[int, dict[str, Any]]:
        told = told_of(analyzer)
        for pid in workers:
            assert pid in told, f"{pid} is not told of; told of are {sorted(told)}"
            kernels, ours = rss_of(pid), told[pid]["memory_bytes"]
            assert abs(ours - kernels) <= MAY_DIFFER * kernels, f"{pid}: told {ours}, the kernel says {kernels}"
        return told

    return wait_until(right, timeout_seconds=30, what="each worker's memory is told right", every=0.25)


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_four_workers_are_four_rows_with_the_memory_that_each_has(
    analyzer: Analyzer, chromium: Chromium, options: tuple[str, ...]
) -> None:
    """The master is a fifth row: it is instrumented before it forks, and is a process like any other."""
    with gunicorn(analyzer, *options) as server:
        workers = server.workers()
        server.let_each_hold(workers)
        told = until_all_are_told_right(analyzer, workers)
        sizes = [told[pid]["memory_bytes"] for pid in workers]
        assert sizes == sorted(sizes)
        assert all(larger - smaller > 30 * MIB for smaller, larger in pairwise(sizes))
        assert len({told[pid]["service_instance_id"] for pid in workers}) == 4
        assert len({told[pid]["id"] for pid in workers}) == 4
        assert set(told) == {server.master, *workers}
        assert abs(told[server.master]["memory_bytes"] - rss_of(server.master)) <= MAY_DIFFER * rss_of(server.master)
        assert {process["service_name"] for process in told.values()} == {"prefork-shop"}

        with chromium.page() as page:
            page.goto(analyzer.url)
            expect(page.locator("tr.row")).to_have_count(5)
            for pid in workers:
                row = page.locator("tr.row", has_text=str(pid))
                expect(row).to_have_count(1)
                shown = row.locator(".c-memory").inner_text()
                assert _megabytes(shown) == pytest.approx(rss_of(pid) / 1e6, rel=MAY_DIFFER), shown


def _megabytes(shown: str) -> float:
    figure, unit = shown.replace("\u00a0", " ").split()[:2]
    return float(figure) * {"kB": 1e-3, "MB": 1.0, "GB": 1e3, "KiB": 1024e-6, "MiB": MIB / 1e6, "GiB": 1074.0}[unit]


def test_an_instance_id_that_the_user_has_set_does_not_make_the_workers_one(analyzer: Analyzer) -> None:
    """The SDK gives each forked worker an id of its own; the user's stays with the master."""
    with gunicorn(analyzer, OTEL_RESOURCE_ATTRIBUTES="service.instance.id=fixed") as server:
        workers = server.workers()
        server.let_each_hold(workers)
        told = until_all_are_told_right(analyzer, workers)
        assert len({told[pid]["service_instance_id"] for pid in workers}) == 4
        assert "fixed" not in {told[pid]["service_instance_id"] for pid in workers}
        assert told[server.master]["service_instance_id"] == "fixed"


def test_a_worker_that_dies_is_replaced_by_one_with_numbers_of_its_own(analyzer: Analyzer) -> None:
    with gunicorn(analyzer) as server:
        before = server.workers()
        server.let_each_hold(before)
        until_all_are_told_right(analyzer, before)
        psutil.Process(before[-1]).kill()
        wait_until(lambda: len(set(server.workers()) - set(before)) == 1 and len(server.workers()) == 4)
        after = server.workers()
        told = until_all_are_told_right(analyzer, after)
        (new,) = set(after) - set(before)
        assert told[new]["service_instance_id"] not in {told[pid]["service_instance_id"] for pid in before}
        # The one that the kernel killed stands as it was last seen, and does not go on as the new one.
        assert told[before[-1]]["memory_bytes"] > HOLDS_MIB[-1] * MIB
