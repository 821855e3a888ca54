"""The samples: one route of the shop leaks and nothing else does."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from types import ModuleType
from typing import Any

import httpx
import pytest

from otel_memory.demo import catalog, load, shop


async def ask(sample: ModuleType, paths: list[str]) -> None:
    transport = httpx.ASGITransport(app=sample.app)
    async with httpx.AsyncClient(base_url="http://sample", transport=transport) as client:
        for path in paths:
            reply = await client.get(path)
            assert reply.status_code == 200, path
            body: Any = reply.json()
            assert body


def kept_by(sample: ModuleType, path: str, calls: int) -> int:
    """Python bytes that ``calls`` of a warm sample's ``path`` leave behind."""
    for number in range(400):
        shop._product(number)
        catalog._page(number % 300)

    async def run() -> int:
        await ask(sample, [path])
        tracemalloc.start()
        try:
            await ask(sample, [path] * 3)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await ask(sample, [path] * calls)
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    return asyncio.run(run())


CALLS = 20


def test_the_cart_keeps_what_makes_the_promised_growth_at_the_loads_pace() -> None:
    per_call = kept_by(shop, "/cart/7", CALLS) / CALLS
    shop._PRICED_CARTS.clear()
    (cart,) = (route for route in load.SHOP if route.path(load.random.Random(1)).startswith("/cart"))
    assert 300_000 < per_call * cart.per_second < 700_000


@pytest.mark.parametrize("path", ["/", "/products/5", "/search?q=word", "/orders"])
def test_no_other_route_of_the_shop_keeps_anything(path: str) -> None:
    assert kept_by(shop, path, CALLS) < CALLS * 1_000


@pytest.mark.parametrize("path", ["/categories/5", "/tree", "/report"])
def test_no_route_of_the_catalog_keeps_anything_once_it_is_warm(path: str) -> None:
    assert kept_by(catalog, path, CALLS) < CALLS * 1_000


def test_every_path_of_the_load_is_served() -> None:
    chance = load.random.Random(1)
    for sample, routes in ((shop, load.SHOP), (catalog, load.CATALOG)):
        asyncio.run(ask(sample, [route.path(chance) for route in routes]))
    shop._PRICED_CARTS.clear()
