"""Healthy: now and then a batch takes much memory and gives it back. Flask."""

from flask import Flask
from serving import serve_flask

app = Flask(__name__)
served = iter(range(10**9))


@app.get("/leak")
def batch():
    number = next(served)
    if number % 100 == 50:
        rows = [{"row": row, "text": f"{number} {row}"} for row in range(60_000)]
        return {"rows": len(rows)}
    return {"rows": 0}


@app.get("/work")
def work():
    return {"sum": sum(range(10_000))}


serve_flask(app)
