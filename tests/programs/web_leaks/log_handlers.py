"""Leaks: a logger with a buffering handler for each job, which logging keeps for ever. FastAPI."""

import itertools
import logging
import logging.handlers

from fastapi import FastAPI
from serving import serve_fastapi

app = FastAPI()
numbers = itertools.count()


def job_logger(number):
    log = logging.getLogger(f"jobs.job{number}")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL))
    return log


@app.get("/leak")
def job():
    log = job_logger(next(numbers))
    for step in range(200):
        log.info("step %d of the job: %s", step, "x" * 200 + str(step))
    return {"logger": log.name}


@app.get("/work")
def work():
    return {"total": sum(range(5_000))}


serve_fastapi(app)
