"""Threads with a queue between them: what comes in is more than what is worked off, and nobody bounds the queue."""

import queue
import random
import threading
import time

from serving import load_tables

waiting = queue.Queue()


def receive():
    number = 0
    while True:
        number += 1
        waiting.put({"number": number, "lines": [f"measurement {number} {line}" for line in range(110)]})
        time.sleep(random.expovariate(45 + 15 * (time.monotonic() % 24 < 12)))


def work():
    while True:
        measurement = waiting.get()
        sum(len(line) for line in measurement["lines"])
        time.sleep(random.expovariate(28))


load_tables()
threading.Thread(target=receive, daemon=True).start()
work()
