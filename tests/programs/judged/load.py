"""``python -m tests.programs.judged.load NAME=URL …``: sends each service its requests until it is ended."""

from __future__ import annotations

import asyncio
import sys

import httpx

from otel_memory.demo.load import TIMEOUT_SECONDS, drive
from tests.programs.judged.catalog import PROGRAMS


async def _send(name: str, url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        await drive(client, PROGRAMS[name].requests)


async def _main(services: list[str]) -> None:
    await asyncio.gather(*(_send(*service.split("=", 1)) for service in services))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
