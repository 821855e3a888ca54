"""FastAPI: a background thread keeps a snapshot of statistics twice a second for ever; the requests are innocent."""

import json
import random
import threading
import time

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
counts = {}


class Statistics:
    def __init__(self):
        self.history = []

    def collect(self):
        while True:
            time.sleep(0.5)
            self.history.append([{"host": f"host {host}", "load": random.random()} for host in range(700)])


@app.get("/quote/{symbol}")
def quote(symbol: str):
    return {"symbol": symbol, "rows": TABLES["table 6"][:25]}


@app.get("/chart")
def chart():
    return {"points": [number * 0.5 for number in range(600)]}


@app.get("/orders")
def orders():
    return json.loads(json.dumps({"lines": [{"article": number, "price": number * 1.1} for number in range(200)]}))


threading.Thread(target=Statistics().collect, daemon=True, name="statistics").start()
serve_fastapi(app)
