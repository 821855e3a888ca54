"""FastAPI: each job makes a logger of its own with a handler that buffers, and logging keeps loggers for ever."""

import logging
import logging.handlers

from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()


def job_logger(number):
    log = logging.getLogger(f"jobs.job{number}")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL))
    return log


@app.get("/jobs/{number}")
def job(number: int):
    log = job_logger(number)
    for step in range(120):
        log.info("step %d of the job: %s", step, "x" * 200 + str(step))
    return {"logger": log.name}


@app.get("/jobs")
def jobs():
    return {"jobs": TABLES["table 3"][:30]}


@app.get("/workers")
def workers():
    return {"total": sum(range(5_000))}


@app.get("/queue")
def queue():
    return {"rows": [row.title() for row in TABLES["table 5"][:300]][:5]}


serve_fastapi(app)
