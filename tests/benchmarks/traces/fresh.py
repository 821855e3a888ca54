"""More kinds that are only judged: written before the last changes of the scoring, and looked at after them.

``unseen`` had been judged a few times by then. These have been judged once; the next change needs others.
"""

from __future__ import annotations

import numpy as np

from tests.benchmarks.traces.long import Kind, Scene, make_kinds
from tests.benchmarks.traces.shape import Floats, Trace, load


# --- leaking -----------------------------------------------------------------------------------------------
def leaks_at_night(s: Scene) -> Floats:
    """Only the batch of each night leaves something behind, under the peak that it needs."""
    every = s.span / s.rng.uniform(4, 8)
    width = s.rng.uniform(0.1, 0.3)
    running = (s.t / every + s.rng.uniform()) % 1 < width
    done = np.cumsum(running)
    return s.leaks(s.grows(0.5, 0.15) * done / done[-1]) + s.base * s.rng.uniform(0.05, 0.3) * running


def compacted_too_little(s: Scene) -> Floats:
    """A store that is compacted on a schedule and keeps somewhat more each time."""
    every = s.span / s.rng.uniform(5, 10)
    rounds = np.floor(s.t / every)
    kept = s.leaks(s.grows(0.5, 0.15) * rounds / rounds[-1])
    return kept + s.base * s.rng.uniform(0.1, 0.3) * ((s.t / every) % 1)


def leak_while_scaled(s: Scene) -> Floats:
    """A leak for each request, on an instance whose share of the load changes in steps; memory also follows it."""
    at = np.sort(s.rng.uniform(0, s.span, 4))
    share = np.exp(s.rng.uniform(-0.6, 0.6, 5))[np.searchsorted(at, s.t)]
    s.rate = s.rate * share
    work = np.cumsum(s.rate)
    return s.leaks(s.grows(0.5, 0.15) * work / work[-1]) + s.base * s.rng.uniform(0.02, 0.1) * share


def two_rates(s: Scene) -> Floats:
    """A slow leak to which a faster one comes."""
    at = s.rng.uniform(0.3, 0.7) * s.span
    shape = s.t + 2 * np.maximum(s.t - at, 0)
    return s.leaks(s.grows(0.5, 0.15) * shape / shape[-1])


def parent_of_workers(s: Scene) -> Floats:
    """Workers grow and are replaced, their parent leaks; the sum is seen."""
    workers = np.zeros(len(s.t))
    for _ in range(int(s.rng.integers(2, 6))):
        period = s.span / s.rng.uniform(6, 15)
        workers += s.base * s.rng.uniform(0.02, 0.08) * ((s.t / period + s.rng.uniform()) % 1)
    return s.leaks(s.grows(0.5, 0.15) * s.t / s.span) + workers


def half_closed(s: Scene) -> Floats:
    """Connections that are never closed, each with buffers of very different sizes."""
    count = int(s.rng.integers(40, 150))
    at, sizes = s.rng.uniform(0, s.span, count), s.rng.lognormal(0, 1, count)
    order = np.argsort(at)
    held = np.concatenate(([0.0], np.cumsum(sizes[order])))[np.searchsorted(at[order], s.t)]
    return s.leaks(s.grows(0.4, 0.15) * held / held[-1])


# --- healthy -----------------------------------------------------------------------------------------------
def log_structured(s: Scene) -> Floats:
    """Segments are written and merged: a small saw on a larger one, both bounded."""
    small, large = s.span / s.rng.uniform(20, 40), s.span / s.rng.uniform(3.5, 7)
    phase = s.rng.uniform()
    tiers = 0.3 * ((s.t / small) % 1) + np.floor(((s.t / large + phase) % 1) * 5) / 5
    return s.grows(0.1, 0.25) * tiers


def tiers_of_a_compiler(s: Scene) -> Floats:
    """Code is compiled in tiers: a first one soon, better ones after so many calls, each slower to come."""
    work = np.cumsum(s.rate) / np.sum(s.rate)
    out = np.zeros(len(s.t))
    for begin, tau, share in ((0.0, 0.01, 0.5), (0.03, 0.03, 0.3), (0.15, 0.06, 0.2)):
        begin *= s.rng.uniform(0.7, 1.6)
        out += share * np.where(work > begin, 1 - np.exp(-np.maximum(work - begin, 0) / tau), 0.0)
    return s.grows(0.2, 0.35) * out


def pool_of_the_day(s: Scene) -> Floats:
    """Connections follow the peaks of the load and are closed when they have been idle for a while."""
    s.rate = load(s.rng, s.t * 3, day=0.6)
    held, keeps = s.rate[0], np.exp(-s.step / (0.08 * s.span))
    out = np.empty(len(s.t))
    for i, rate in enumerate(s.rate):
        held = max(rate, held * keeps)
        out[i] = held
    return s.grows(0.1, 0.3) * out / out.max()


def model_reloaded(s: Scene) -> Floats:
    """A model is loaded anew beside the old one, which goes after a while; new ones are larger or smaller."""
    at = np.sort(s.rng.uniform(0.05, 0.95, 4)) * s.span
    sizes = s.base * s.rng.uniform(0.3, 0.6) * s.rng.uniform(0.95, 1.05, 5)
    out = sizes[np.searchsorted(at, s.t)].copy()
    for i, begin in enumerate(at):
        out += np.where((s.t >= begin) & (s.t < begin + 0.02 * s.span), sizes[i], 0.0)
    return out


def evicts_a_tenth(s: Scene) -> Floats:
    """A cache that is bounded by its bytes: it fills, and then gives up a tenth whenever it is full."""
    full = s.rng.uniform(0.2, 0.5)
    work = np.cumsum(s.rate) / np.sum(s.rate)
    filled = np.minimum(work / full, 1.0)
    saw = np.where(work > full, ((work - full) / (0.1 * full)) % 1, 1.0)
    return s.grows(0.2, 0.4) * (filled - 0.1 * (1 - saw))


def lazy_collector(s: Scene) -> Floats:
    """A collector that lets the heap grow by ever different shares before it runs."""
    live, held = s.base * s.rng.uniform(0.2, 0.4), 0.0
    ceiling, gain = live * 0.5, live * s.rng.uniform(5, 12) / np.sum(s.rate)
    out = np.empty(len(s.t))
    for i, rate in enumerate(s.rate):
        held += rate * gain
        if held > ceiling:
            held, ceiling = 0.0, live * s.rng.uniform(0.25, 1.0)
        out[i] = held
    return live + out


LEAKING: tuple[Kind, ...] = (
    leaks_at_night,
    compacted_too_little,
    leak_while_scaled,
    two_rates,
    parent_of_workers,
    half_closed,
)
HEALTHY: tuple[Kind, ...] = (
    log_structured,
    tiers_of_a_compiler,
    pool_of_the_day,
    model_reloaded,
    evicts_a_tenth,
    lazy_collector,
)


def make(seed: int, each: int = 4) -> list[Trace]:
    """``each`` traces of every kind and severity."""
    return make_kinds(HEALTHY, LEAKING, seed, each, "fresh")
