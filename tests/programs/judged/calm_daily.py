"""FastAPI: load that rises and falls fourfold, a "day" in eighty seconds, with sessions that end after fifteen."""

import asyncio
import itertools
import time
from contextlib import asynccontextmanager

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

sessions = {}
numbers = itertools.count()


async def expire():
    while True:
        await asyncio.sleep(1.0)
        ended = [number for number, (since, _) in sessions.items() if since < time.monotonic() - 15]
        for number in ended:
            del sessions[number]


@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(expire())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/login")
async def login():
    number = next(numbers)
    sessions[number] = (time.monotonic(), [f"session {number} right {line}" for line in range(1_500)])
    return {"session": number}


@app.get("/work")
async def work():
    return {"rows": [row.upper() for row in TABLES["table 3"][:200]][:5]}


@app.get("/news")
async def news():
    return {"news": TABLES["table 4"][:20]}


serve_fastapi(app)
