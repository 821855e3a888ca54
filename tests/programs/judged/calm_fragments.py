"""Flask: documents of all sizes come and go in three thousand places, and the heap breaks up, up to a point."""

import random

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
places = [b""] * 3_000


@app.get("/store")
def store():
    for _ in range(40):
        size = int(random.lognormvariate(8.2, 1.3))
        places[random.randrange(len(places))] = bytearray(min(size, 100_000))
    return {"bytes": sum(len(one) for one in places)}


@app.get("/load")
def load():
    return {"copies": len([bytes(random.choice(places)) for _ in range(60)])}


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 2"][:30]}


serve_flask(app)
