"""FastAPI: a page is made step by step by a generator, and those whose reader went away are never closed."""

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
open_pages = {}


def page(number):
    rows = [f"page {number} row {row} " * 2 for row in range(650)]
    yield rows[:10]
    yield rows[10:]


@app.get("/open/{number}")
async def open_page(number: int):
    steps = page(number)
    open_pages[number] = steps
    return {"rows": len(next(steps))}


@app.get("/rows")
async def rows():
    return {"rows": TABLES["table 1"][:60]}


@app.get("/count")
async def count():
    return {"open": len(open_pages)}


serve_fastapi(app)
