"""Programs that have just started, sampled each second for ten minutes: the time scale of a first verdict.

``rate`` is what leaks, ``onset`` when it begins. Every kind begins with the jump of imports.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.benchmarks.traces.shape import MB, SEVERITIES, Floats, Trace, arenas, correlated, garbage, sampled

SECONDS = 600
Kind = Callable[[np.random.Generator, Floats, Floats, int], tuple[Floats, float, float]]
"""(random generator, times since the start, requests per second, severity 0-2) -> (bytes above the base, leaked
bytes per second, seconds at which it begins)."""


def _garbage(rng: np.random.Generator, load: Floats, hardness: int) -> Floats:
    period = float(rng.uniform(4, 15) * (1 + hardness))
    return garbage(rng, load, 1.0, float(rng.uniform(5, 20)) * MB, period)[0]


def _small_garbage(rng: np.random.Generator, load: Floats, hardness: int) -> Floats:
    return garbage(rng, load, 1.0, (0.2 + hardness) * MB, float(rng.uniform(3, 12)))[0]


def _warmup(rng: np.random.Generator, t: Floats, hardness: int) -> Floats:
    size, tau = rng.uniform(5, 40) * MB, rng.uniform(4, 8 + 3 * hardness)
    return np.asarray(size * (1 - np.exp(-t / tau)))


def _rate(rng: np.random.Generator, hardness: int) -> float:
    low, high = ((0.8, 2.0), (0.4, 1.0), (0.2, 0.5))[hardness]
    return float(rng.uniform(low, high)) * MB


# --- healthy -----------------------------------------------------------------------------------------------
def flat(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    return correlated(rng, len(t), 1, 5) * (0.05 + 0.5 * h) * MB, 0.0, 0.0


def warmup_exp(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    return _warmup(rng, t, h) + _small_garbage(rng, load, h), 0.0, 0.0


def warmup_then_sawtooth(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    return _warmup(rng, t, h) + _garbage(rng, load, h), 0.0, 0.0


def one_off_step(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    at = rng.uniform(10, 60)
    return np.where(t > at, rng.uniform(2, 40) * MB, 0.0) + _small_garbage(rng, load, h), 0.0, 0.0


def late_step(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    first, second = rng.uniform(80, 300), rng.uniform(300, 560)
    steps = np.where(t > first, rng.uniform(2, 30) * MB, 0.0) + np.where(t > second, rng.uniform(2, 30) * MB, 0.0)
    return steps + _small_garbage(rng, load, h), 0.0, 0.0


def cache_that_stops(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    full = rng.uniform(15, 30 + 20 * h) * MB
    done = np.cumsum(load) / np.mean(load)
    return np.minimum(done * _rate(rng, h), full) + _small_garbage(rng, load, h), 0.0, 0.0


def arena_creep(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    creep = (0.5 + h) * MB * np.log1p(t / 20)
    return arenas(creep, 262144) + _warmup(rng, t, h) + _small_garbage(rng, load, h), 0.0, 0.0


def load_burst(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    at, width = rng.uniform(60, 400), rng.uniform(30, 90)
    burst = np.exp(-0.5 * ((t - at) / width) ** 2)
    load *= 1 + 3 * burst
    held = np.maximum.accumulate(burst) * rng.uniform(0, 0.3)
    return np.maximum(burst, held) * rng.uniform(5, 40) * MB + _small_garbage(rng, load, h), 0.0, 0.0


def breathing(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    wave = 1 + 0.5 * np.sin(2 * np.pi * (t / rng.uniform(60, 240) + rng.uniform()))
    load *= wave
    return wave * rng.uniform(2, 10 + 10 * h) * MB + _warmup(rng, t, h) + _small_garbage(rng, load, h), 0.0, 0.0


# --- leaking -----------------------------------------------------------------------------------------------
def linear(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    rate = _rate(rng, h)
    return rate * t + _small_garbage(rng, load, h), rate, 0.0


def warmup_then_linear(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    rate = _rate(rng, h)
    return rate * t + _warmup(rng, t, h) + _small_garbage(rng, load, h), rate, 0.0


def leak_with_sawtooth(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    rate = _rate(rng, h)
    return rate * t + _garbage(rng, load, h), rate, 0.0


def arena_staircase(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    rate = _rate(rng, h)
    return arenas(rate * t, 262144.0 if h < 2 else 1048576.0) + _small_garbage(rng, load, h), rate, 0.0


def per_request(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    load *= 1 + 0.5 * np.sin(2 * np.pi * (t / rng.uniform(20, 120) + rng.uniform()))
    rate = _rate(rng, h)
    return rate * np.cumsum(load) / np.mean(load) + _small_garbage(rng, load, h), rate, 0.0


def slow_in_noise(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    rate = (100e3, 70e3, 50e3)[h]
    return rate * t + correlated(rng, len(t), 1, 4) * MB, rate, 0.0


def accelerating(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    rate = _rate(rng, h)
    return rate * (0.3 * t + 0.7 * t * t / SECONDS), rate * 1.35, 0.0


def late_onset(rng: np.random.Generator, t: Floats, load: Floats, h: int) -> tuple[Floats, float, float]:
    rate, at = _rate(rng, h), float(rng.uniform(100, 300))
    return rate * np.maximum(t - at, 0) + _warmup(rng, t, h) + _small_garbage(rng, load, h), rate, at


HEALTHY: tuple[Kind, ...] = (
    flat,
    warmup_exp,
    warmup_then_sawtooth,
    one_off_step,
    late_step,
    cache_that_stops,
    arena_creep,
    load_burst,
    breathing,
)
LEAKING: tuple[Kind, ...] = (
    linear,
    warmup_then_linear,
    leak_with_sawtooth,
    arena_staircase,
    per_request,
    slow_in_noise,
    accelerating,
    late_onset,
)


def make(seed: int, each: int = 2) -> list[Trace]:
    """``each`` traces of every kind and severity."""
    traces = []
    for kind in HEALTHY + LEAKING:
        for hardness, severity in enumerate(SEVERITIES):
            for i in range(each):
                rng = np.random.default_rng([seed, hardness, i, *kind.__name__.encode()])
                traces.append(_one(rng, kind, hardness, severity, i))
    return traces


def _one(rng: np.random.Generator, kind: Kind, hardness: int, severity: str, i: int) -> Trace:
    t = np.arange(SECONDS, dtype=float)
    load = rng.uniform(5, 60) * np.maximum(1 + 0.2 * correlated(rng, SECONDS, 1, 15), 0.1)
    # A kind may raise the load that it is given: what it does to memory and the count of requests belong together.
    above, rate, onset = kind(rng, t, load, hardness)
    base = rng.uniform(30, 150) * MB
    # The interpreter and its imports: most of the base within the first seconds.
    imports = base * (1 - 0.7 * np.exp(-t / rng.uniform(0.3, 1.2)))
    noise = correlated(rng, SECONDS, 1, 2) * 0.02 * MB
    epoch = 1.75e9 + float(rng.integers(0, 10**7))
    columns = {"requests": np.cumsum(rng.poisson(load)).astype(float), "start_time": np.full(SECONDS, epoch - 0.5)}
    times, values, columns = sampled(rng, epoch + t, imports + above + noise, columns, missing=0.01, jitter=0.03)
    leak = rate > 0
    limit = float(values[-1] * rng.uniform(1.2, 3))
    return Trace(
        name=f"{kind.__name__}-{severity}-{i}",
        family=f"live_{kind.__name__}",
        leak=leak,
        severity=severity,
        origin="live",
        times=times,
        values=values,
        covariates=columns,
        onset=epoch + onset if leak else None,
        rate=rate if leak else None,
        limit=limit,
        time_to_limit=(limit - values[-1]) / rate if leak and kind is not accelerating else None,
    )
