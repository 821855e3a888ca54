"""FastAPI: each order starts a task that waits for an answer from the warehouse, which for some never comes."""

import asyncio

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
waiting = set()


async def reserve(order, lines):
    answer = asyncio.get_running_loop().create_future()
    if order % 2:
        answer.set_result(True)
    await answer
    return len(lines)


@app.get("/order/{number}")
async def order(number: int):
    lines = [f"order {number} line {line} article {line * 31}" for line in range(700)]
    task = asyncio.create_task(reserve(number, lines))
    waiting.add(task)
    task.add_done_callback(waiting.discard)
    return {"lines": len(lines)}


@app.get("/stock")
async def stock():
    return {"rows": TABLES["table 5"][:50]}


@app.get("/health")
async def health():
    return {"ok": True}


@app.get("/basket/{number}")
async def basket(number: int):
    return {"sum": sum(line * 1.19 for line in range(number, number + 500))}


serve_fastapi(app)
