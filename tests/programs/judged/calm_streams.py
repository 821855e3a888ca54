"""FastAPI: exports are streamed in parts, packed on the way, and last some seconds each; two to ten at a time."""

import asyncio
import zlib

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from serving import TABLES, serve_fastapi

app = FastAPI()


async def parts(number):
    packer = zlib.compressobj(9)
    held = []
    for part in range(12):
        rows = [f"{number} {part} {row}" for row in TABLES[f"table {part}"][:3_000]]
        held.append("\n".join(rows).encode())
        yield packer.compress(held[-1])
        await asyncio.sleep(0.2)
    yield packer.flush()


@app.get("/stream/{number}")
async def stream(number: int):
    return StreamingResponse(parts(number), media_type="application/zlib")


@app.get("/size")
async def size():
    return {"rows": sum(len(table) for table in TABLES.values())}


@app.get("/ping")
async def ping():
    return {"pong": True}


serve_fastapi(app)
