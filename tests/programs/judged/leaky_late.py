"""FastAPI: a campaign begins after three quarters of a minute; from then on each basket remembers what was shown."""

import time

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
began = time.monotonic()


class Campaign:
    shown = []

    @classmethod
    def remember(cls, number):
        if time.monotonic() - began > 50:
            cls.shown.append([f"basket {number} offer {offer} at {offer * 1.19}" for offer in range(900)])


@app.get("/basket/{number}")
def basket(number: int):
    Campaign.remember(number)
    return {"basket": number}


@app.get("/offers")
def offers():
    return {"rows": TABLES["table 5"][:50]}


@app.get("/search")
def search():
    return {"rows": [row.upper() for row in TABLES["table 6"][:300]][:5]}


serve_fastapi(app)
