"""Leaks: a compressor for each client is kept, whose state lies in the C library's memory. Flask."""

import itertools
import zlib

from flask import Flask
from serving import serve_flask

app = Flask(__name__)
compressors = {}
numbers = itertools.count()


def compressor_of(client):
    if client not in compressors:
        compressors[client] = zlib.compressobj(9, zlib.DEFLATED, 15, 6)
    return compressors[client]


@app.get("/leak")
def stream():
    packed = compressor_of(f"client {next(numbers)}").compress(bytes(range(256)) * 400)
    return {"bytes": len(packed)}


@app.get("/work")
def work():
    return {"text": "-".join(str(number) for number in range(1_000))[:50]}


serve_flask(app)
