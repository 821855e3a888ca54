"""Flask: each export leaves a thread behind that waits for a confirmation which never comes, its rows in hand."""

import threading

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)


def await_confirmation(confirmed, rows):
    lines = [f"{row};{number}" for number, row in enumerate(rows)]
    confirmed.wait()
    return lines


@app.get("/export/<int:number>")
def export(number):
    rows = [f"export {number} row {row} " * 3 for row in range(450)]
    threading.Thread(target=await_confirmation, args=(threading.Event(), rows), daemon=True).start()
    return {"rows": len(rows)}


@app.get("/exports")
def exports():
    return {"threads": threading.active_count()}


@app.get("/customers")
def customers():
    return {"customers": sorted(TABLES["table 1"][:800], reverse=True)[:10]}


@app.get("/invoices")
def invoices():
    return {"total": sum(number * 1.19 for number in range(4_000))}


serve_flask(app)
