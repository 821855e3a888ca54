"""The load breathes, is the same each time, and never piles up."""

from __future__ import annotations

import asyncio
import random
import re

import httpx
import pytest

from otel_memory.demo import load
from otel_memory.demo.load import CATALOG, SHOP, Route, drive


async def paths_of(routes: tuple[Route, ...], count: int) -> list[str]:
    """The first ``count`` paths that are asked for, with time standing still and no waiting."""
    seen: list[str] = []
    enough = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        if len(seen) >= count:
            enough.set()
        return httpx.Response(200)

    fast = tuple(route._replace(per_second=route.per_second * 1000) for route in routes)
    async with httpx.AsyncClient(base_url="http://sample", transport=httpx.MockTransport(answer)) as client:
        task = asyncio.create_task(drive(client, fast, clock=lambda: 0.0))
        await asyncio.wait_for(enough.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return seen[:count]


def test_the_same_requests_come_in_the_same_order_each_time() -> None:
    first = asyncio.run(paths_of(SHOP, 200))
    assert sorted(first) == sorted(asyncio.run(paths_of(SHOP, 200)))
    kinds = {re.sub(r"[\d?].*", "", path) for path in first}
    assert kinds == {"/", "/products/", "/search", "/cart/", "/orders"}


@pytest.mark.parametrize("route", [*SHOP, *CATALOG])
def test_a_routes_rate_breathes_about_its_mean(route: Route) -> None:
    rates = [route.rate(route.breath_seconds * step / 100) for step in range(100)]
    assert sum(rates) / len(rates) == pytest.approx(route.per_second)
    assert min(rates) > 0.5 * route.per_second
    assert max(rates) > 1.2 * route.per_second


@pytest.mark.parametrize("routes", [SHOP, CATALOG])
def test_no_two_routes_of_a_sample_breathe_together(routes: tuple[Route, ...]) -> None:
    """Else the growth could not be laid at the door of one of them."""
    assert len({route.breath_seconds for route in routes}) == len(routes)


def test_a_sample_that_does_not_answer_has_only_so_many_requests_waiting() -> None:
    waiting = 0
    full = asyncio.Event()

    async def never(request: httpx.Request) -> httpx.Response:
        nonlocal waiting
        waiting += 1
        if waiting >= load.MAX_IN_FLIGHT:
            full.set()
        await asyncio.sleep(3600)
        raise AssertionError("it never answers")

    async def run() -> None:
        fast = tuple(route._replace(per_second=10_000.0) for route in SHOP)
        async with httpx.AsyncClient(base_url="http://sample", transport=httpx.MockTransport(never)) as client:
            task = asyncio.create_task(drive(client, fast))
            await full.wait()
            await asyncio.sleep(0.05)  # time for hundreds more, at this pace
            tasks = len(asyncio.all_tasks())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert tasks <= load.MAX_IN_FLIGHT + 2
            for rest in asyncio.all_tasks() - {asyncio.current_task()}:
                rest.cancel()
                await asyncio.gather(rest, return_exceptions=True)

    asyncio.run(run())
    assert waiting == load.MAX_IN_FLIGHT


def test_a_sample_that_is_down_is_asked_again() -> None:
    asked = 0
    again = asyncio.Event()

    def refuse(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked == 2 * load.MAX_IN_FLIGHT:
            again.set()
        if asked <= load.MAX_IN_FLIGHT:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    async def run() -> None:
        fast = tuple(route._replace(per_second=10_000.0) for route in SHOP)
        async with httpx.AsyncClient(base_url="http://sample", transport=httpx.MockTransport(refuse)) as client:
            task = asyncio.create_task(drive(client, fast))
            await again.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_paths_are_drawn_from_the_given_chance_alone() -> None:
    for route in (*SHOP, *CATALOG):
        assert route.path(random.Random(1)) == route.path(random.Random(1))
