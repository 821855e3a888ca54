"""Flask: now and then somebody exports everything, which takes fifty megabytes for a few seconds; else all is small."""

import json
import time

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)


@app.get("/export")
def export():
    rows = [{"table": name, "row": row} for name in list(TABLES)[:20] for row in TABLES[name]]
    text = json.dumps(rows)
    time.sleep(3)
    return {"bytes": len(text)}


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 2"][:30]}


@app.get("/sum")
def total():
    return {"sum": sum(len(str(number)) for number in range(2_000))}


serve_flask(app)
