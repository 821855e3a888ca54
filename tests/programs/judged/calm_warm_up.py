"""Flask: the first three hundred look-ups each load a part of a large table; then nothing more comes."""

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
parts = {}


@app.get("/lookup/<int:number>")
def lookup(number):
    if number < 300:
        parts[number] = [f"part {number} cell {cell} " * 2 for cell in range(2_200)]
    return {"parts": len(parts)}


@app.get("/sum")
def total():
    return {"sum": sum(len(str(number)) for number in range(2_000))}


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 2"][:30]}


serve_flask(app)
