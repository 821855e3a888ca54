"""An asyncio consumer: each message is put before the last one in a context variable, so that the chain grows."""

import asyncio
import contextvars
import random

from serving import load_tables

trail = contextvars.ContextVar("trail", default=None)


def note(message):
    trail.set(
        {"message": message, "tags": [f"{message['number']} tag {tag}" for tag in range(60)], "before": trail.get()}
    )


async def produce(messages):
    number = 0
    while True:
        number += 1
        await messages.put({"number": number, "body": f"message {number} " * 300})
        await asyncio.sleep(random.expovariate(22))


async def main():
    messages = asyncio.Queue(100)
    producer = asyncio.create_task(produce(messages))
    while True:
        note(await messages.get())
        assert not producer.done()


load_tables()
asyncio.run(main())
