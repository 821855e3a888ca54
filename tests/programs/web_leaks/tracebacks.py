"""Leaks: failed requests are kept for a page of recent errors, with the frames that were at work. Flask."""

from flask import Flask
from serving import serve_flask

app = Flask(__name__)
recent_errors = []


def parse(rows):
    table = [list(row) for row in rows]
    return table[0][10_000]


@app.get("/leak")
def upload():
    rows = [(number, number + 0.5, f"cell {number}") for number in range(400)]
    try:
        parse(rows)
    except IndexError as error:
        recent_errors.append(error)
    return {"errors": len(recent_errors)}


@app.get("/work")
def work():
    return {"keys": len({f"key {number}" for number in range(1_000)})}


serve_flask(app)
