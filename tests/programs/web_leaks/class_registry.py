"""Leaks: every order registers itself with its class. FastAPI."""

import itertools

from fastapi import FastAPI
from serving import serve_fastapi

app = FastAPI()
numbers = itertools.count()


class Order:
    by_number = {}

    def __init__(self, number):
        self.number = number
        self.lines = [{"article": f"article {line}", "of": number, "price": line * 1.1} for line in range(250)]
        Order.by_number[number] = self


@app.get("/leak")
def order():
    return {"lines": len(Order(next(numbers)).lines)}


@app.get("/work")
def work():
    return {"rows": [str(number) * 3 for number in range(600)][:10]}


serve_fastapi(app)
