"""Flask: work goes to a pool that grows to twenty-four threads as it is needed, each with a buffer of its own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
pool = ThreadPoolExecutor(24)
own = threading.local()


def work(number):
    if not hasattr(own, "buffer"):
        own.buffer = bytearray(b"x" * 900_000)
        own.seen = {f"key {key}": key for key in range(3_000)}
    own.buffer[number % 900_000] = 1
    time.sleep(0.3)
    return len(own.seen)


@app.get("/work/<int:number>")
def start(number):
    return {"seen": pool.submit(work, number).result()}


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 2"][:30]}


serve_flask(app)
