"""Flask: one route allocates in C (malloc through ctypes) and doesn't free."""

import ctypes
import json

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


@app.get("/thumbnail/<int:number>")
def thumbnail(number):
    pixels = libc.malloc(110_000)
    libc.memset(pixels, number % 250, 110_000)
    return {"bytes": 110_000}


@app.get("/album")
def album():
    return {"pictures": TABLES["table 2"][:50]}


@app.get("/tags")
def tags():
    return {"tags": sorted({f"tag {number % 300}" for number in range(900)})[:20]}


@app.get("/export")
def export():
    return {"bytes": len(json.dumps({str(number): list(range(30)) for number in range(200)}))}


serve_flask(app)
