"""A sample that leaks in a way people really write: a cache whose key never comes twice.

A small web shop with five routes. ``/cart/{customer}`` keeps the priced cart of each visit in a module-level
dictionary "so that the next call is fast", but the key holds the time of the visit, so nothing is ever found
again and nothing is ever dropped.
"""

from __future__ import annotations

import json
import os
import random
import time
from functools import lru_cache

import uvicorn
from fastapi import FastAPI

app = FastAPI(title="shop")

_PRICED_CARTS: dict[tuple[int, float], list[dict[str, object]]] = {}
_LINES_PER_CART = 130


@lru_cache(maxsize=512)
def _product(number: int) -> dict[str, object]:
    return {"id": number, "name": f"product {number}", "price_cents": 100 + number % 9_000, "text": "lorem ipsum " * 20}


@app.get("/")
def home() -> dict[str, object]:
    """Some products of the day."""
    return {"products": [_product(random.randrange(400)) for _ in range(10)]}


@app.get("/products/{number}")
def product(number: int) -> dict[str, object]:
    """One product, from a cache that is bounded."""
    return _product(number % 400)


@app.get("/search")
def search(q: str = "") -> dict[str, object]:
    """Builds a large answer and lets it go."""
    hits = [{"id": n, "score": random.random(), "name": f"{q} {n}"} for n in range(400)]
    hits.sort(key=lambda hit: str(hit["score"]))
    return {"hits": hits[:10]}


@app.get("/cart/{customer}")
def cart(customer: int) -> dict[str, object]:
    """The leak: a cache without a bound, under a key that is new each time."""
    key = (customer, time.time())
    lines = _PRICED_CARTS.get(key)
    if lines is None:
        lines = [
            {"product": dict(_product(random.randrange(400))), "quantity": random.randrange(1, 5), "note": f"{key}-{n}"}
            for n in range(_LINES_PER_CART)
        ]
        _PRICED_CARTS[key] = lines
    return {"customer": customer, "lines": len(lines)}


@app.get("/orders")
def orders() -> dict[str, object]:
    """Serialises and parses again, as services do."""
    document = json.dumps([{"order": n, "lines": list(range(20))} for n in range(50)])
    return {"orders": len(json.loads(document))}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
