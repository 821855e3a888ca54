"""Flask: uploads take buffers of one to twelve megabytes each and free them; the rest is small."""

import random
import time

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)


@app.get("/upload")
def upload():
    body = bytearray(random.randrange(1_000_000, 12_000_000))
    for page in range(0, len(body), 4_096):
        body[page] = 1
    time.sleep(random.uniform(0.05, 0.4))
    return {"bytes": len(body)}


@app.get("/files")
def files():
    return {"files": TABLES["table 3"][:40]}


@app.get("/status")
def status():
    return {"load": [random.random() for _ in range(50)]}


serve_flask(app)
