"""Leaks: a retry for each mail is kept as a closure, also when the mail has gone out. FastAPI."""

import random

from fastapi import FastAPI
from serving import serve_fastapi

app = FastAPI()
retries = []


def schedule(address, body):
    def retry():
        return address, body

    retries.append(retry)


@app.get("/leak")
async def send():
    body = bytes(random.randrange(256) for _ in range(1_000)) * 100
    schedule("someone@example.org", body)
    return {"size": len(body)}


@app.get("/work")
async def work():
    return {"text": " ".join(str(number) for number in range(1_500))[:100]}


serve_fastapi(app)
