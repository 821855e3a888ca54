"""Healthy: a cache with a bound fills up in the first seconds and goes on turning over. FastAPI."""

import itertools
from collections import OrderedDict

from fastapi import FastAPI
from serving import serve_fastapi

app = FastAPI()
pages = OrderedDict()
numbers = itertools.count()


@app.get("/leak")
def page():
    number = next(numbers)
    pages[number] = [f"page {number} line {line}" * 2 for line in range(7_000)]
    while len(pages) > 12:
        pages.popitem(last=False)
    return {"pages": len(pages)}


@app.get("/work")
def work():
    return {"rows": list(range(200))}


serve_fastapi(app)
