"""FastAPI: every seven seconds a job computes over arrays of fifty megabytes; requests take smaller ones."""

import threading
import time

import numpy as np
from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
latest = {}


def job():
    random = np.random.default_rng(3)
    while True:
        prices = random.standard_normal((1_600, 2_000))
        moving = np.cumsum(prices, axis=0)
        latest["mean"] = moving[-1].mean()
        del prices, moving
        time.sleep(7)


@app.get("/window/{size}")
def window(size: int):
    values = np.linspace(0, 1, 40_000 + 10 * size)
    return {"mean": float(np.convolve(values, np.ones(50) / 50)[:size].sum())}


@app.get("/latest")
def newest():
    return {name: float(value) for name, value in latest.items()}


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 8"][:40]}


threading.Thread(target=job, daemon=True).start()
serve_fastapi(app)
