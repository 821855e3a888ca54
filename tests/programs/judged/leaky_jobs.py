"""A worker: every twelve seconds a job makes a report, and the table of finished jobs keeps every one of them."""

import json
import time

from serving import TABLES, load_tables


class Job:
    def __init__(self, number):
        self.number = number
        self.report = None

    def run(self):
        rows = [f"{self.number};{row}" for table in range(3) for row in TABLES[f"table {table}"]]
        self.report = [row.split(";") for row in rows]
        return json.dumps(self.report[:100])


load_tables()
finished = {}
number = 0
began = time.monotonic()
while True:
    job = Job(number)
    job.run()
    finished[number] = job
    number += 1
    while time.monotonic() < began + 12 * number:
        json.loads(json.dumps(TABLES["table 5"][:200]))
        time.sleep(0.1)
