"""A little web application without the web: handlers called under a load that breathes, sampled once a "second".

Run as a program it prints JSON: times, resident bytes, allocated blocks, heap bytes, and the calls of each handler so
far. A second lasts as long as its calls take, so that two minutes of load take about one.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys

import psutil

RATE = 40
"""Calls in a second, on average."""
PAGE = os.sysconf("SC_PAGE_SIZE")

store: list[object] = []
cache: dict[int, object] = {}


def objects() -> object:
    """A cache without eviction."""
    key = len(cache)
    cache[key] = {"id": key, "items": [f"item-{key}-{n}" for n in range(300)]}
    return cache[key]


def buffers() -> object:
    """Bodies that are kept for a retry that never comes: large blocks, next to none of them Python's own."""
    store.append(bytearray(b"x" * 30_000))
    return store[-1]


def mixed() -> object:
    """Sessions: some objects each, and a buffer."""
    store.append([{"user": n, "at": random.random()} for n in range(20)])
    store.append(bytearray(20_000))
    return None


def strings() -> object:
    """A history of log lines."""
    store.append([str(random.random()) * 3 for _ in range(200)])
    return None


def rare() -> object:
    """Keeps much, but only at one call in twenty."""
    store.append(None)
    if len(store) % 20 == 0:
        store.append(bytearray(b"y" * 600_000))
    return None


def parse() -> object:
    return json.loads(json.dumps({str(n): list(range(20)) for n in range(60)}))


def render() -> object:
    return "".join(f"<li>{n}</li>" for n in range(random.randint(200, 1500)))


def rank() -> object:
    return sorted(random.random() for _ in range(1500))


def upload() -> object:
    return len(bytearray(b"z" * random.randint(50_000, 800_000)))


LEAKS = {one.__name__: one for one in (objects, buffers, mixed, strings, rare)}
HEALTHY = {one.__name__: one for one in (parse, render, rank, upload)}


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE


def run(leak: str | None, seed: int, seconds: int) -> dict[str, object]:
    random.seed(seed)
    handlers = HEALTHY | ({leak: LEAKS[leak]} if leak else {})
    weights = {name: random.gammavariate(3.0, 1.0) for name in handlers}
    drift = dict.fromkeys(handlers, 0.0)
    period, phase = random.uniform(15, 60), random.uniform(0, 2 * math.pi)
    calls = dict.fromkeys(handlers, 0)
    found: dict[str, list[float]] = {"times": [], "memory": [], "blocks": [], "heap": []}
    routes: dict[str, list[int]] = {name: [] for name in handlers}
    in_flight: list[object] = []
    for second in range(seconds):
        load = RATE * (1 + 0.4 * math.sin(2 * math.pi * second / period + phase))
        for name in handlers:
            drift[name] = 0.9 * drift[name] + 0.1 * random.gauss(0, 1)
        now = {name: weights[name] * math.exp(drift[name]) for name in handlers}
        count = round(load * sum(now.values()) / sum(weights.values()) + random.gauss(0, math.sqrt(load)))
        for name in random.choices(list(now), list(now.values()), k=max(count, 0)):
            in_flight.append(handlers[name]())
            calls[name] += 1
            if len(in_flight) > random.randint(1, 8):
                in_flight.clear()
        heap = psutil.heap_info() if hasattr(psutil, "heap_info") else None
        found["times"].append(second)
        found["memory"].append(resident_bytes())
        found["blocks"].append(sys.getallocatedblocks())
        if heap is not None:
            found["heap"].append(heap.heap_used + heap.mmap_used)
        for name, number in calls.items():
            routes[name].append(number)
    return {**found, "routes": routes}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1] if sys.argv[1] != "nothing" else None, int(sys.argv[2]), int(sys.argv[3]))))
