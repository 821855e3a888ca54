"""FastAPI: prices of forty megabytes are loaded anew every fifty seconds; the old ones go when the new are there."""

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

state = {}


def load(version):
    return {article: [f"{version} {article} {price}" for price in range(40)] for article in range(12_000)}


async def reload():
    version = 0
    while True:
        state["prices"] = await asyncio.to_thread(load, version)
        version += 1
        await asyncio.sleep(50)


@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(reload())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/price/{article}")
async def price(article: int):
    return {"prices": state.get("prices", {}).get(article, [])[:5]}


@app.get("/rows")
async def rows():
    return {"rows": TABLES["table 1"][:60]}


serve_fastapi(app)
