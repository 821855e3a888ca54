"""Thousands of tracked operations at the same time in one event loop, beside threads; some fail, are cancelled, or are
left half-way. In the end the books are right to the last call."""

import asyncio
import gc
import sys
import threading

from own import look, say

from otel_memory import MemoryTracker, monitor_memory
from otel_memory.probe.operations import TABLE

MANY, THREADS, CALLS = 3_000, 4, 500


@monitor_memory(name="task")
async def task(number):
    async with MemoryTracker("block"):
        await asyncio.sleep(0.001 * (number % 7))
        if number % 10 == 0:
            raise KeyError(number)
        if number % 10 == 1:
            await asyncio.sleep(3600)  # is cancelled
        return [one async for one in stream(2)]


@monitor_memory(name="stream")
async def stream(count):
    for number in range(count):
        await asyncio.sleep(0)
        yield number


@monitor_memory(name="abandoned")
def abandoned():
    yield bytes(100)
    yield bytes(100)


@monitor_memory(name="threaded")
def threaded():
    return bytes(100)


def thread():
    for _ in range(CALLS):
        threaded()
        next(abandoned())


async def main():
    tasks = [asyncio.create_task(task(number)) for number in range(MANY)]
    threads = [threading.Thread(target=thread) for _ in range(THREADS)]
    for one in threads:
        one.start()
    await asyncio.wait([one for number, one in enumerate(tasks) if number % 10 != 1])
    for one in tasks[1::10]:
        one.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(lambda: [one.join() for one in threads])
    left = stream(10)
    await anext(left)  # half-way when the loop ends
    return results


results = asyncio.run(main())
gc.collect()
kinds = [type(one).__name__ for one in results]
say(
    {
        "results": {kind: kinds.count(kind) for kind in set(kinds)},
        "right": all(one == [0, 1] for one in results if isinstance(one, list)),
        "calls": {one.name: [one.calls, one.errors] for one in TABLE._called()},
        "running": len(TABLE.running) + len(TABLE.blocks),
        "optimized": sys.flags.optimize,
        **look("parent"),
    }
)
