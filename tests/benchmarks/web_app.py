"""The application that ``bench_web`` and ``bench_memory`` run: Flask, one endpoint that does some real work.

``work`` decodes forty articles, sorts and sums them and encodes an answer; each request writes one log line to
``/dev/null``. ``BENCH_SHERLOCK`` (a folder that holds sherlock-ai) wraps it with that library's ``monitor_memory``,
``BENCH_SHERLOCK_TRACE=0`` without its tracemalloc. ``BENCH_IMPORT`` names a module to import besides.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys

from flask import Flask, Response

CATALOG = json.dumps(
    [
        {"sku": number, "name": f"article {number}", "price": number / 7, "tags": [f"tag {number % 5}", "shop"]}
        for number in range(40)
    ]
)
LOGGER = logging.getLogger("shop")
LOGGER.propagate = False
LOGGER.setLevel(logging.INFO)
_handler = logging.StreamHandler(open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
LOGGER.addHandler(_handler)

app = Flask(__name__)


def work(largest: int) -> str:
    """What a small endpoint does: decode, compute, encode."""
    articles = json.loads(CATALOG)
    articles.sort(key=lambda article: -article["price"])
    total = sum(article["price"] for article in articles)
    return json.dumps({"total": total, "largest": [article["name"].upper() for article in articles[:largest]]})


if os.environ.get("BENCH_IMPORT"):
    importlib.import_module(os.environ["BENCH_IMPORT"])
if os.environ.get("BENCH_SHERLOCK"):
    sys.path.append(os.environ["BENCH_SHERLOCK"])
    from sherlock_ai import monitor_memory

    work = monitor_memory(trace_malloc=os.environ.get("BENCH_SHERLOCK_TRACE") != "0")(work)


@app.get("/shop/<int:largest>")
def shop(largest: int) -> Response:
    body = work(largest)
    LOGGER.info("served %d bytes", len(body))
    return Response(body, mimetype="application/json")


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())
