"""Healthy: the first requests load templates and tables, then nothing more comes. Flask."""

from flask import Flask
from serving import serve_flask

app = Flask(__name__)
tables = {}
served = iter(range(10**9))


@app.get("/leak")
def page():
    number = next(served)
    if number < 30:
        tables[number] = [f"table {number} cell {cell}" for cell in range(8_000)]
    return {"tables": len(tables)}


@app.get("/work")
def work():
    return {"sum": sum(len(str(number)) for number in range(2_000))}


serve_flask(app)
