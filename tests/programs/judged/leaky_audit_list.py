"""FastAPI: one of five routes appends to a list of the module that nobody ever shortens."""

import json
import time

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
AUDIT = []


def record(order, lines):
    AUDIT.append({"order": order, "at": time.time(), "lines": [dict(line) for line in lines]})


@app.get("/")
def home():
    return {"news": TABLES["table 1"][:20]}


@app.get("/articles/{number}")
def article(number: int):
    return {"article": number, "text": " ".join(TABLES["table 2"][number % 6_000 : number % 6_000 + 30])}


@app.get("/search")
def search():
    return {"hits": sorted(f"hit {number}" for number in range(700))[:10]}


@app.get("/checkout/{order}")
def checkout(order: int):
    lines = [{"article": f"article {line}", "price": line * 1.1, "order": order} for line in range(250)]
    record(order, lines)
    return {"total": sum(line["price"] for line in lines)}


@app.get("/orders")
def orders():
    return {"orders": len(json.loads(json.dumps([{"order": n, "lines": list(range(20))} for n in range(40)])))}


serve_fastapi(app)
