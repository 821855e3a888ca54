"""Load that breathes, for the two samples: each route's rate rises and falls at a pace of its own.

``python -m otel_memory.demo.load SHOP_URL CATALOG_URL``. The same requests in the same order each time. Bounded: at
most ``MAX_IN_FLIGHT`` requests per sample at a time; a sample that is slow or doesn't answer gets fewer of them, and
none pile up.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import httpx

MAX_IN_FLIGHT: Final = 16
TIMEOUT_SECONDS: Final = 5.0
SEED: Final = 8431
BREATH: Final = 0.35
"""How far a rate goes above and below its mean."""


class Route(NamedTuple):
    """One route: mean requests per second, seconds of one breath, and how a path is made."""

    per_second: float
    breath_seconds: float
    path: Callable[[random.Random], str]

    def rate(self, age_seconds: float) -> float:
        """Requests per second ``age_seconds`` after the start."""
        return self.per_second * (1 + BREATH * math.sin(2 * math.pi * age_seconds / self.breath_seconds))


SHOP: Final = (
    Route(9.0, 37.0, lambda chance: "/"),
    Route(12.0, 53.0, lambda chance: f"/products/{chance.randrange(10_000)}"),
    Route(6.0, 23.0, lambda chance: f"/search?q=word{chance.randrange(50)}"),
    Route(8.5, 17.0, lambda chance: f"/cart/{chance.randrange(1_000)}"),
    Route(4.5, 43.0, lambda chance: "/orders"),
)
CATALOG: Final = (
    Route(16.0, 41.0, lambda chance: f"/categories/{chance.randrange(300)}"),
    Route(6.5, 29.0, lambda chance: "/tree"),
    Route(2.5, 47.0, lambda chance: "/report"),
)


async def drive(
    client: httpx.AsyncClient, routes: tuple[Route, ...], clock: Callable[[], float] = time.monotonic
) -> None:
    """Send requests until cancelled."""
    chance = random.Random(SEED)
    slots = asyncio.Semaphore(MAX_IN_FLIGHT)
    running: set[asyncio.Task[None]] = set()
    began = clock()

    async def one(path: str) -> None:
        try:
            await client.get(path)
        except httpx.HTTPError:
            # The sample is starting, or being restarted: the next request will tell.
            await asyncio.sleep(0.2)
        finally:
            slots.release()

    while True:
        rates = [route.rate(clock() - began) for route in routes]
        await asyncio.sleep(chance.expovariate(sum(rates)))
        await slots.acquire()
        task = asyncio.create_task(one(chance.choices(routes, rates)[0].path(chance)))
        running.add(task)
        task.add_done_callback(running.discard)


async def _main(shop_url: str, catalog_url: str) -> None:
    async with (
        httpx.AsyncClient(base_url=shop_url, timeout=TIMEOUT_SECONDS, trust_env=False) as shop,
        httpx.AsyncClient(base_url=catalog_url, timeout=TIMEOUT_SECONDS, trust_env=False) as catalog,
    ):
        await asyncio.gather(drive(shop, SHOP), drive(catalog, CATALOG))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))
