"""Flask: a search keeps ten kilobytes, beside reports that take megabytes for a moment: small against the noise."""

import random

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
searches = []


@app.get("/search/<word>")
def search(word):
    hits = [f"{word} hit {number} of many" for number in range(110)]
    searches.append((word, hits))
    return {"hits": hits[:10]}


@app.get("/report")
def report():
    rows = [random.random() for _ in range(random.randrange(10_000, 60_000))]
    return {"mean": sum(rows) / len(rows)}


@app.get("/page")
def page():
    return {"bytes": len(bytearray(random.randrange(100_000, 3_000_000)))}


@app.get("/suggest")
def suggest():
    return {"words": TABLES["table 4"][:20]}


serve_flask(app)
