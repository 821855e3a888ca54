"""FastAPI: trees with parents become garbage, and the collector runs only every three hundred thousand objects."""

import gc

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
gc.set_threshold(300_000, 10, 10)


class Node:
    def __init__(self, name, parent):
        self.name = name
        self.parent = parent
        self.children = []
        if parent is not None:
            parent.children.append(self)


@app.get("/tree/{number}")
def tree(number: int):
    root = Node("root", None)
    for branch in range(30):
        child = Node(f"branch {branch}", root)
        for leaf in range(30):
            Node(f"leaf {number}.{branch}.{leaf}", child)
    return {"children": len(root.children)}


@app.get("/menu")
def menu():
    return {"menu": TABLES["table 6"][:30]}


@app.get("/stock")
def stock():
    return {"stock": {str(number): number for number in range(100)}}


serve_fastapi(app)
