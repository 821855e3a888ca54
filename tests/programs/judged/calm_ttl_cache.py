"""FastAPI: a cache whose entries end after forty seconds, swept every two; it fills, then breathes with the load."""

import asyncio
import time
from contextlib import asynccontextmanager

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

cache = {}


async def sweep():
    while True:
        await asyncio.sleep(2.0)
        for key in [key for key, (until, _) in cache.items() if until < time.monotonic()]:
            del cache[key]


@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(sweep())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/answers/{number}")
async def answer(number: int):
    if number not in cache:
        cache[number] = (time.monotonic() + 40, [f"answer {number} line {line}" for line in range(1_200)])
    return {"lines": len(cache[number][1])}


@app.get("/questions")
async def questions():
    return {"rows": TABLES["table 4"][:30]}


@app.get("/votes")
async def votes():
    return {"votes": sum(range(3_000))}


serve_fastapi(app)
