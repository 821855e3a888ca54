"""One labelled trace, and the parts that every made trace is built of: load, noise, garbage, pages, sampling.

Never judges anything. Everything random comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Severity = Literal["easy", "medium", "hard"]
SEVERITIES: tuple[Severity, ...] = ("easy", "medium", "hard")
PAGE = 4096.0
MB = 1e6


@dataclass(frozen=True)
class Trace:
    """Samples of one process with what is true of it. ``onset`` (event time) and ``rate`` (By/s, mean over the
    second half since the onset) are None where nothing leaks; ``time_to_limit`` counts from the last sample."""

    name: str
    family: str
    leak: bool
    severity: str
    origin: str
    times: Floats
    values: Floats
    covariates: Mapping[str, Floats] = field(default_factory=dict)
    onset: float | None = None
    rate: float | None = None
    limit: float | None = None
    time_to_limit: float | None = None
    kind: str = "rss"

    def until(self, end: float) -> Trace:
        """The same trace as it was known at event time ``end``."""
        n = int(np.searchsorted(self.times, end, side="right"))
        cut = {name: column[:n] for name, column in self.covariates.items()}
        return Trace(
            self.name,
            self.family,
            self.leak,
            self.severity,
            self.origin,
            self.times[:n],
            self.values[:n],
            cut,
            self.onset,
            self.rate,
            self.limit,
            None,
            self.kind,
        )


def correlated(rng: np.random.Generator, n: int, step: float, seconds: float) -> Floats:
    """Unit-variance noise whose correlation falls to 1/e after ``seconds`` (an AR(1) process)."""
    phi = float(np.exp(-step / max(seconds, 1e-9)))
    white = rng.standard_normal(n) * np.sqrt(1 - phi * phi)
    out = np.empty(n)
    level = rng.standard_normal()
    for i in range(n):
        level = phi * level + white[i]
        out[i] = level
    return out


def load(rng: np.random.Generator, t: Floats, *, day: float = 0.0, breath: float = 0.2) -> Floats:
    """Requests per second: a mean with a daily swing (``day``, 0-1) and slower breathing (``breath``, 0-1)."""
    step = float(t[1] - t[0])
    span = float(t[-1] - t[0])
    mean = float(np.exp(rng.uniform(np.log(3), np.log(80))))
    swing = 1 + day * np.sin(2 * np.pi * (t - t[0]) / 86400 + rng.uniform(0, 2 * np.pi))
    slow = correlated(rng, len(t), step, span / 25)
    return np.asarray(np.maximum(mean * swing * (1 + breath * slow), 0.02 * mean))


def garbage(
    rng: np.random.Generator, rate: Floats, step: float, amplitude: float, period: float
) -> tuple[Floats, Floats]:
    """Sawtooth of garbage that grows with the work done and goes at a full collection, and the collections' count."""
    gain = amplitude / max(float(np.mean(rate)) * period, 1e-9)
    out = np.empty(len(rate))
    count = np.empty(len(rate))
    held, ceiling, collections = rng.uniform(0, amplitude), amplitude, 0
    for i, r in enumerate(rate):
        held += r * step * gain
        if held >= ceiling:
            held, collections = 0.0, collections + 1
            ceiling = amplitude * rng.uniform(0.8, 1.2)
        out[i], count[i] = held, collections
    return out, count


def sampled(
    rng: np.random.Generator,
    times: Floats,
    values: Floats,
    columns: dict[str, Floats],
    *,
    missing: float,
    jitter: float,
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Pages instead of bytes, a jittered clock, and samples that never came."""
    keep = rng.random(len(times)) >= missing
    keep[[0, -1]] = True
    step = float(times[1] - times[0])
    moved = times + rng.normal(0, jitter * step, len(times)).clip(-0.4 * step, 0.4 * step)
    pages = np.maximum(np.round(values / PAGE) * PAGE, PAGE)
    return moved[keep], pages[keep], {name: column[keep] for name, column in columns.items()}


def arenas(values: Floats, size: float) -> Floats:
    """Memory as it is got from the system in arenas of ``size`` bytes: rounded up."""
    return np.asarray(np.ceil(values / size) * size)
