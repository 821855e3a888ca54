"""Leaks: each request subscribes to an event bus and never unsubscribes. Flask."""

from flask import Flask
from serving import serve_flask

app = Flask(__name__)


class EventBus:
    def __init__(self):
        self.listeners = {}

    def subscribe(self, topic, listener):
        self.listeners.setdefault(topic, []).append(listener)


class LiveView:
    def __init__(self, number):
        self.lines = [f"view {number} line {line}" * 3 for line in range(900)]

    def on_price(self, price):
        self.lines.append(str(price))


bus = EventBus()
counter = iter(range(10**9))


@app.get("/leak")
def live():
    view = LiveView(next(counter))
    bus.subscribe("price", view.on_price)
    return {"lines": len(view.lines)}


@app.get("/work")
def report():
    return {"sum": sum(number * number for number in range(3_000))}


serve_flask(app)
