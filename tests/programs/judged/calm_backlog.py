"""An asyncio worker: messages wait in a queue whose backlog grows for half a minute and is worked off in the next."""

import asyncio
import math
import time

from serving import load_tables


async def produce(queue):
    began, number = time.monotonic(), 0
    while True:
        age = time.monotonic() - began
        await asyncio.sleep(1 / (40 * (1 + 0.6 * math.sin(2 * math.pi * age / 60))))
        await queue.put([f"message {number} part {part}" for part in range(300)])
        number += 1


async def consume(queue):
    while True:
        message = await queue.get()
        sum(len(part) for part in message)
        await asyncio.sleep(1 / 44)


async def main():
    queue = asyncio.Queue(1_500)
    await asyncio.gather(produce(queue), consume(queue))


load_tables()
asyncio.run(main())
