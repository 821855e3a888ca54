"""An asyncio worker, no requests: for each mail a retry is kept as a closure, also once the mail has gone out."""

import asyncio
import json
import math
import random
import time

from serving import load_tables

retries = []


def render(number):
    return [f"mail {number} paragraph {line} " * 4 for line in range(600)]


async def deliver(number):
    paragraphs = render(number)

    async def retry():
        return number, paragraphs

    retries.append(retry)
    await asyncio.sleep(random.uniform(0.01, 0.1))


async def digest():
    await asyncio.sleep(random.uniform(0.01, 0.05))
    return json.loads(json.dumps({str(number): list(range(20)) for number in range(120)}))


async def main():
    running, began = set(), time.monotonic()
    while True:
        age = time.monotonic() - began
        await asyncio.sleep(random.expovariate(11 * (1 + 0.35 * math.sin(age / 5))))
        task = asyncio.create_task(deliver(len(retries)) if random.random() < 0.5 else digest())
        running.add(task)
        task.add_done_callback(running.discard)


load_tables()
asyncio.run(main())
