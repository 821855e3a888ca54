"""A worker with two threads: every twenty seconds a batch builds sixty megabytes of rows and lets them go."""

import json
import random
import threading
import time

from serving import load_tables


def poll():
    while True:
        json.loads(json.dumps({str(number): list(range(20)) for number in range(80)}))
        time.sleep(random.uniform(0.1, 0.3))


def batch():
    rows = []
    for part in range(30):
        rows.append([{"row": row, "part": part, "value": row * 1.1} for row in range(7_500)])
        time.sleep(0.05)
    time.sleep(1.5)
    return sum(len(part) for part in rows)


load_tables()
threading.Thread(target=poll, daemon=True).start()
while True:
    batch()
    time.sleep(17)
