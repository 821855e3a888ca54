"""Ordinary days of healthy services: 24 hours, a sample a minute, of processes that have run for days.

On these the product should be silent. No weight was fitted on them.
"""

from __future__ import annotations

import numpy as np

from tests.benchmarks.traces.shape import MB, Floats, Trace, correlated, garbage, sampled

DAY = 86400.0
KINDS = (
    "follows_the_day",
    "nightly_batch",
    "recycled_workers",
    "refreshed_cache",
    "deployed_once",
    "slow_saw",
    "wandering_allocator",
    "high_water",
)


def make(seed: int, each: int = 6) -> list[Trace]:
    """``each`` days of every kind."""
    return [_day(kind, i, np.random.default_rng([seed, i, *kind.encode()])) for kind in KINDS for i in range(each)]


def _day(kind: str, i: int, rng: np.random.Generator) -> Trace:
    t = np.arange(0, DAY, 60.0)
    base = float(np.exp(rng.uniform(np.log(60), np.log(1500)))) * MB
    epoch = 1.75e9 + float(rng.integers(0, 10**7))
    swing = 1 + rng.uniform(0.2, 0.7) * np.sin(2 * np.pi * (t / DAY + rng.uniform()))
    rate = float(np.exp(rng.uniform(np.log(2), np.log(60)))) * swing * (1 + 0.15 * correlated(rng, len(t), 60, 1800))
    rate = np.maximum(rate, 0.01)
    start = np.full(len(t), epoch - rng.uniform(2, 20) * DAY)
    above, collections = garbage(rng, rate, 60.0, base * rng.uniform(0.01, 0.06), float(rng.uniform(600, 3600)))
    above = above + base * 0.003 * correlated(rng, len(t), 60, 900)
    x = rng.uniform(0.05, 0.3)
    if kind == "follows_the_day":
        above += base * x * _delayed(rate / rate.mean(), 20)
    elif kind == "nightly_batch":
        at = rng.uniform(0.1, 0.8) * DAY
        above += base * 2 * x * ((t > at) & (t < at + rng.uniform(0.5, 3) * 3600))
    elif kind == "recycled_workers":
        for _ in range(int(rng.integers(2, 7))):
            above += base * x / 3 * ((t / (rng.uniform(1, 4) * 3600) + rng.uniform()) % 1)
    elif kind == "refreshed_cache":
        since = (t + rng.uniform(0, 3600)) % (rng.uniform(1, 3) * 3600)
        above += base * x * (1 - np.exp(-since / 900))
    elif kind == "deployed_once":
        at = rng.uniform(0.2, 0.8) * DAY
        start[t >= at] = epoch + at
        above -= np.where(t >= at, base * x * np.exp(-np.maximum(t - at, 0) / rng.uniform(300, 1200)), 0.0)
    elif kind == "slow_saw":
        slow, collections = garbage(rng, rate, 60.0, base * x, float(rng.uniform(2, 4)) * 3600)
        above += slow
    elif kind == "wandering_allocator":
        above += base * 0.015 * correlated(rng, len(t), 60, 2 * 3600)
    elif kind == "high_water":
        above += np.maximum.accumulate(np.where(rng.random(len(t)) < 0.01, rng.exponential(0.006, len(t)), 0.0)) * base
    columns = {
        "requests": np.cumsum(rng.poisson(rate * 60)).astype(float),
        "start_time": start,
        "gc_gen2": collections,
    }
    times, values, columns = sampled(rng, epoch + t, base + above, columns, missing=0.005, jitter=0.02)
    limit = float(values.max() * rng.uniform(1.3, 3))
    return Trace(f"{kind}-{i}", kind, False, "medium", "ordinary", times, values, columns, limit=limit)


def _delayed(rate: Floats, samples: int) -> Floats:
    padded = np.pad(rate, (samples - 1, 0), mode="edge")
    return np.asarray(np.convolve(padded, np.ones(samples) / samples, "valid"))
