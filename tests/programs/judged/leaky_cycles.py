"""FastAPI: the collector is frozen and switched off "for latency", and one route builds trees with parents."""

import gc
import json

from fastapi import FastAPI
from serving import TABLES, load_tables, serve_fastapi

app = FastAPI()


class Comment:
    def __init__(self, text, parent):
        self.text = text
        self.parent = parent
        self.replies = []
        if parent is not None:
            parent.replies.append(self)


@app.get("/thread/{number}")
def thread(number: int):
    root = Comment(f"thread {number}", None)
    for branch in range(25):
        reply = Comment(f"thread {number} branch {branch}", root)
        for leaf in range(24):
            Comment(f"thread {number} leaf {branch}.{leaf}", reply)
    return {"replies": len(root.replies)}


@app.get("/front")
def front():
    return {"rows": TABLES["table 4"][:30]}


@app.get("/feed")
def feed():
    return json.loads(json.dumps([{"post": number, "tags": [str(tag) for tag in range(9)]} for number in range(60)]))


@app.get("/users/{number}")
def user(number: int):
    return {"user": number, "karma": sum(range(number % 900))}


load_tables()
gc.collect()
gc.freeze()
gc.disable()
serve_fastapi(app)
