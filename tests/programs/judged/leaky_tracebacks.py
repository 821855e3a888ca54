"""Flask: failed uploads are kept for a page of recent errors, with the frames that were at work and their tables."""

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
recent_errors = []


def parse(rows):
    table = [list(row) for row in rows]
    return table[0][10_000]


@app.get("/upload")
def upload():
    rows = [(number, number + 0.5, f"cell {number}") for number in range(400)]
    try:
        parse(rows)
    except IndexError as error:
        recent_errors.append(error)
    return {"errors": len(recent_errors)}


@app.get("/files")
def files():
    return {"keys": len({f"file {number}" for number in range(1_500)})}


@app.get("/preview")
def preview():
    return {"text": "".join(TABLES["table 9"][:300])[:500]}


@app.get("/quota")
def quota():
    return {"used": sum(len(row) for row in TABLES["table 8"][:2_000])}


serve_flask(app)
