"""Kinds that no weight was fitted on and no piece of evidence was made for: they are judged, and that is all.

Whoever changes the scoring looks at their figures last, and does not tune to them; else they are seen.
"""

from __future__ import annotations

import numpy as np

from tests.benchmarks.traces.long import Kind, Scene, make_kinds
from tests.benchmarks.traces.shape import Floats, Trace, correlated, load


# --- leaking -----------------------------------------------------------------------------------------------
def only_at_work(s: Scene) -> Floats:
    """A leak for each request of a service that sleeps for half of the time."""
    phase = s.rng.uniform()
    s.rate = s.rate * (0.02 + ((s.t / (s.span / s.rng.uniform(3, 6)) + phase) % 1 > 0.5))
    work = np.cumsum(s.rate)
    return s.leaks(s.grows(0.5, 0.15) * work / work[-1])


def two_speeds(s: Scene) -> Floats:
    """A leak that becomes slower by half when some callers go, but never stops."""
    at = s.rng.uniform(0.3, 0.6) * s.span
    shape = np.minimum(s.t, at) + 0.5 * np.maximum(s.t - at, 0)
    return s.leaks(s.grows(0.5, 0.15) * shape / shape[-1])


def sessions_never_ended(s: Scene) -> Floats:
    """Sessions come with the load and most end; some stay for ever. The living ones follow the load."""
    s.rate = load(s.rng, s.t, breath=0.35)
    living = np.convolve(np.pad(s.rate, (30, 0), mode="edge"), np.ones(31) / 31, "valid")
    work = np.cumsum(s.rate)
    stay = s.leaks(s.grows(0.4, 0.15) * work / work[-1])
    return stay + s.base * s.rng.uniform(0.02, 0.08) * living / living.mean()


def leak_with_compaction(s: Scene) -> Floats:
    """Memory is compacted now and then, which gives back a third of what had leaked since."""
    total = s.grows(0.6, 0.2)
    every = s.span / s.rng.uniform(6, 14)
    since = s.t % every
    return s.leaks(total * (s.t - since) / s.span) + total * since / s.span * 1.5


def failing_calls(s: Scene) -> Floats:
    """Only calls that fail leave something behind, and they come in clusters."""
    clusters = correlated(s.rng, len(s.t), s.step, s.span / 80)
    failing = np.cumsum(np.where(clusters > 1.0, clusters, 0.0) * s.rate)
    return s.leaks(np.asarray(s.grows(0.5, 0.2) * failing / max(failing[-1], 1e-9)))


def leak_after_growth_of_load(s: Scene) -> Floats:
    """The load rises by half early on and memory with it; the leak goes on after the load is level again."""
    at = s.rng.uniform(0.15, 0.35) * s.span
    share = 1 + 0.5 / (1 + np.exp(-(s.t - at) / (0.03 * s.span)))
    s.rate = s.rate * share
    return s.leaks(s.grows(0.4, 0.15) * s.t / s.span) + s.base * 0.15 * share


# --- healthy -----------------------------------------------------------------------------------------------
def table_doubles(s: Scene) -> Floats:
    """A hash table that doubles: ever larger steps, ever rarer, then none."""
    work = np.cumsum(s.rate) / np.sum(s.rate)
    steps = np.floor(np.log2(np.maximum(work / s.rng.uniform(0.005, 0.02), 1)))
    return s.grows(0.2, 0.2) * 2.0 ** np.minimum(steps, s.rng.integers(3, 6)) / 32


def pool_fills(s: Scene) -> Floats:
    """Connections up to the most that a pool may have: a new one at each record of the load."""
    return s.grows(0.1, 0.2) * np.maximum.accumulate(s.rate) / s.rate.max()


def two_stage_warm_up(s: Scene) -> Floats:
    first, second = s.rng.uniform(0.02, 0.05, 2) * s.span
    at = s.rng.uniform(0.1, 0.4) * s.span
    later = np.where(s.t > at, 1 - np.exp(-np.maximum(s.t - at, 0) / second), 0.0)
    return s.grows(0.15, 0.15) * (1 - np.exp(-s.t / first)) + s.grows(0.1, 0.2) * later


def page_cache(s: Scene) -> Floats:
    """Counted with the process's memory: grows with what is read; now and then most of it is taken back at once."""
    held, out = 0.0, np.empty(len(s.t))
    full = s.grows(0.2, 0.4)
    gain = full / (np.mean(s.rate) * s.span / s.rng.uniform(2.5, 6))
    for i, r in enumerate(s.rate):
        held += r * s.step * gain
        if held > full:
            held = full * s.rng.uniform(0.05, 0.2)
        out[i] = held
    return out


def time_to_live(s: Scene) -> Floats:
    """Entries live for a fixed time: the cache rises for so long, then follows the load."""
    width = max(int(s.rng.uniform(0.08, 0.25) * len(s.t)), 2)
    return (
        s.grows(0.2, 0.3)
        * np.convolve(np.pad(s.rate, (width, 0)), np.ones(width), "full")[width : width + len(s.t)]
        / (width * np.mean(s.rate))
    )


def slowly_given_back(s: Scene) -> Floats:
    """A large job early, whose memory is given back over hours."""
    at = s.rng.uniform(0.05, 0.3) * s.span
    return s.grows(0.3, 0.3) * np.where(s.t > at, np.exp(-np.maximum(s.t - at, 0) / (0.3 * s.span)), 0.0)


def nightly_jobs(s: Scene) -> Floats:
    """Jobs on a schedule, each somewhat larger or smaller than the last."""
    every = s.span / s.rng.uniform(3, 8)
    index = (s.t / every + s.rng.uniform()).astype(int)
    sizes = s.rng.uniform(0.5, 1.5, index.max() + 1)
    running = (s.t / every + 0.3) % 1 < s.rng.uniform(0.1, 0.3)
    return s.grows(0.2, 0.4) * sizes[index] * running


def fewer_then_more(s: Scene) -> Floats:
    """The load sinks and comes back; memory follows at once."""
    share = 1 - 0.5 * np.exp(-0.5 * ((s.t - s.rng.uniform(0.3, 0.7) * s.span) / (0.15 * s.span)) ** 2)
    s.rate = s.rate * share
    return s.grows(0.2, 0.4) * share


LEAKING: tuple[Kind, ...] = (
    only_at_work,
    two_speeds,
    sessions_never_ended,
    leak_with_compaction,
    failing_calls,
    leak_after_growth_of_load,
)
HEALTHY: tuple[Kind, ...] = (
    table_doubles,
    pool_fills,
    two_stage_warm_up,
    page_cache,
    time_to_live,
    slowly_given_back,
    nightly_jobs,
    fewer_then_more,
)


def make(seed: int, each: int = 4) -> list[Trace]:
    """``each`` traces of every kind and severity."""
    return make_kinds(HEALTHY, LEAKING, seed, each, "unseen")
