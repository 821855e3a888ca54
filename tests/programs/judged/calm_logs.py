"""FastAPI: records of the log are held back by a handler until there are four thousand, and then written at once."""

import io
import logging
import logging.handlers
from contextlib import asynccontextmanager

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

sink = io.StringIO()
log = logging.getLogger("shop")


@asynccontextmanager
async def lifespan(app):
    # Not before: uvicorn's configuration closes all handlers that there are, and one without a target keeps all.
    log.addHandler(logging.handlers.MemoryHandler(4_000, logging.ERROR, logging.StreamHandler(sink)))
    log.setLevel(logging.INFO)
    log.propagate = False
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/order/{number}")
def order(number: int):
    for line in range(25):
        log.info("order %s line %s: %s", number, line, f"article {line} " * 20)
    if sink.tell() > 4_000_000:
        sink.seek(0)
        sink.truncate()
    return {"order": number}


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 2"][:30]}


serve_fastapi(app)
