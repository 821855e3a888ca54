"""Flask: each live view subscribes to an event bus, and none ever unsubscribes."""

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)


class EventBus:
    def __init__(self):
        self.listeners = {}

    def subscribe(self, topic, listener):
        self.listeners.setdefault(topic, []).append(listener)


class LiveView:
    def __init__(self, number):
        self.lines = [f"view {number} line {line} " * 3 for line in range(800)]

    def on_price(self, price):
        self.lines[-1] = str(price)


bus = EventBus()


@app.get("/live/<int:number>")
def live(number):
    view = LiveView(number)
    bus.subscribe("price", view.on_price)
    return {"lines": len(view.lines)}


@app.get("/prices")
def prices():
    return {"sum": sum(number * number for number in range(3_000))}


@app.get("/history")
def history():
    return {"rows": [row.upper() for row in TABLES["table 7"][:500]][:10]}


serve_flask(app)
