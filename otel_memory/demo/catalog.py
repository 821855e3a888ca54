"""A sample that is healthy and looks suspicious at first: its caches warm up, and it makes garbage.

Its bounded cache fills while it warms up, each request builds objects that refer to each other in a ring (so
that only the garbage collector frees them), and a report now and then needs a large buffer for a moment.
"""

from __future__ import annotations

import os
import random
from functools import lru_cache

import uvicorn
from fastapi import FastAPI

app = FastAPI(title="catalog")


class _Node:
    """One node of a category tree; parent and child refer to each other."""

    def __init__(self, name: str, parent: _Node | None) -> None:
        self.name = name
        self.parent = parent
        self.children: list[_Node] = []
        if parent is not None:
            parent.children.append(self)


@lru_cache(maxsize=100)
def _page(number: int) -> str:
    return f"<h1>category {number}</h1>" + "<p>text</p>" * 9_000


@app.get("/categories/{number}")
def category(number: int) -> dict[str, object]:
    """A page from a cache that fills and then stays as it is."""
    return {"length": len(_page(number % 100))}


@app.get("/tree")
def tree() -> dict[str, object]:
    """Makes a tree whose nodes refer to each other, and drops it."""
    root = _Node("root", None)
    for a in range(10):
        branch = _Node(f"branch {a}", root)
        for b in range(10):
            _Node(f"leaf {a}.{b}", branch)
    return {"branches": len(root.children)}


@app.get("/report")
def report() -> dict[str, object]:
    """Needs some memory for a moment."""
    rows = [random.random() for _ in range(50_000)]
    return {"mean": sum(rows) / len(rows)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
