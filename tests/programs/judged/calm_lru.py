"""FastAPI: an lru_cache of 150 rendered pages that fills within a minute or so, popular pages first."""

from functools import lru_cache

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()


@lru_cache(maxsize=150)
def rendered(number):
    return [f"<p>page {number} paragraph {line}</p>" * 2 for line in range(1_200)]


@app.get("/pages/{number}")
def page(number: int):
    return {"paragraphs": len(rendered(number))}


@app.get("/feed")
def feed():
    return {"rows": sorted(TABLES["table 1"][:500])[:10]}


@app.get("/ping")
def ping():
    return {"pong": True}


serve_fastapi(app)
