"""Flask: the last 250 events are kept for a page, in a ring that is full after three quarters of a minute."""

import collections

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
recent = collections.deque(maxlen=250)


@app.get("/event/<int:number>")
def event(number):
    recent.append({f"field {field}": f"event {number} value {field} " * 3 for field in range(900)})
    return {"events": len(recent)}


@app.get("/recent")
def newest():
    return {"events": [next(iter(one.values())) for one in recent]}


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 2"][:30]}


serve_flask(app)
