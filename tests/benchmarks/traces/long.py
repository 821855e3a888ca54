"""Programs that have run for hours, sampled each 5-60 s: kinds that the recorded traces do not hold.

Every kind has the same parts as in life: load, garbage, noise, pages, missing samples; most carry the counts of
requests and of full collections, and the start time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.traces.shape import MB, SEVERITIES, Floats, Trace, arenas, correlated, garbage, load, sampled


@dataclass
class Scene:
    """What a kind is given, and may change: ``rate`` (requests/s), ``start`` (start time of the process)."""

    rng: np.random.Generator
    t: Floats
    step: float
    span: float
    base: float
    hardness: int
    rate: Floats
    start: Floats
    extra: dict[str, Floats] = field(default_factory=dict)
    leaked: Floats | None = None
    onset: float = 0.0

    def grows(self, easy: float, hard: float) -> float:
        """Bytes gained over the whole span: a share of the base between ``easy`` and ``hard`` by severity."""
        share = np.exp(np.interp(self.hardness, [0, 2], np.log([easy, hard])))
        return float(self.base * share * self.rng.uniform(0.7, 1.4))

    def noise(self, share: float, seconds: float) -> Floats:
        amount = self.base * share * (0.5 + self.hardness)
        return correlated(self.rng, len(self.t), self.step, seconds) * amount

    def leaks(self, leaked: Floats, onset: float = 0.0) -> Floats:
        self.leaked, self.onset = leaked, onset
        return leaked


Kind = Callable[[Scene], Floats]


# --- leaking -----------------------------------------------------------------------------------------------
def accelerating(s: Scene) -> Floats:
    x = s.t / s.span
    return s.leaks(s.grows(0.6, 0.15) * (0.25 * x + 0.75 * x**2))


def late_onset(s: Scene) -> Floats:
    onset = float(s.rng.uniform(0.3, 0.6)) * s.span
    return s.leaks(s.grows(0.5, 0.12) * np.maximum(s.t - onset, 0) / (s.span - onset), onset)


def arena_steps(s: Scene) -> Floats:
    total = s.grows(0.6, 0.2)
    size = total / s.rng.integers(8, 30 - 8 * s.hardness)
    return arenas(s.leaks(total * s.t / s.span), float(size))


def leak_in_wander(s: Scene) -> Floats:
    return s.leaks(s.grows(0.5, 0.2) * s.t / s.span) + s.noise(0.01, s.span / 60)


def leak_under_daily(s: Scene) -> Floats:
    s.rate = load(s.rng, s.t * 2, day=0.6)
    swing = s.base * s.rng.uniform(0.05, 0.2) * s.rate / np.mean(s.rate)
    return s.leaks(s.grows(0.5, 0.15) * s.t / s.span) + swing


def stuck_threads(s: Scene) -> Floats:
    """Threads that are never joined: steps at random times, more of them where there is more work."""
    count = float(s.rng.integers(12, 40) // (1 + s.hardness * 0.5))
    steps = np.cumsum(s.rng.poisson(count * s.rate / np.sum(s.rate)))
    return s.leaks(np.asarray(s.grows(0.5, 0.15) * steps / max(count, 1), dtype=np.float64))


def leak_with_slow_saw(s: Scene) -> Floats:
    """Full collections so rare that a window holds few of them."""
    period = s.span / s.rng.uniform(5, 10)
    saw, s.extra["gc_gen2"] = garbage(s.rng, s.rate, s.step, s.base * s.rng.uniform(0.05, 0.15), float(period))
    return s.leaks(s.grows(0.6, 0.2) * s.t / s.span) + saw


def burst_then_leak(s: Scene) -> Floats:
    """A burst that returns lies over a steady leak."""
    at, width = s.rng.uniform(0.2, 0.7) * s.span, s.rng.uniform(0.03, 0.08) * s.span
    burst = np.exp(-0.5 * ((s.t - at) / width) ** 2)
    s.rate = s.rate * (1 + 2 * burst)
    return s.leaks(s.grows(0.4, 0.12) * s.t / s.span) + burst * s.base * s.rng.uniform(0.1, 0.5)


# --- healthy -----------------------------------------------------------------------------------------------
def workers_recycled(s: Scene) -> Floats:
    """The sum over workers that each grow and are replaced after so many requests."""
    total = np.zeros(len(s.t))
    for _ in range(int(s.rng.integers(2, 6))):
        period = s.span / s.rng.uniform(4, 9)
        total += s.base * s.rng.uniform(0.05, 0.2) * (((s.t / period) + s.rng.uniform()) % 1)
    return total


def burst_returns(s: Scene) -> Floats:
    at, width = s.rng.uniform(0.2, 0.8) * s.span, s.rng.uniform(0.03, 0.12) * s.span
    burst = np.exp(-0.5 * ((s.t - at) / width) ** 2)
    s.rate = s.rate * (1 + 3 * burst)
    kept = np.maximum.accumulate(burst) * s.rng.uniform(0.0, 0.4)
    return np.maximum(burst, kept) * s.grows(0.3, 0.6)


def one_off_step(s: Scene) -> Floats:
    return np.where(s.t > s.rng.uniform(0.1, 0.9) * s.span, s.grows(0.1, 0.4), 0.0) + s.noise(0.001, s.span / 80)


def several_steps(s: Scene) -> Floats:
    """Modules loaded at first use: steps that grow rarer."""
    at = np.sort(s.span * s.rng.uniform(0, 0.95, 5) ** 2)
    sizes = s.grows(0.05, 0.12) * s.rng.uniform(0.3, 1.5, 5)
    return np.asarray(np.sum(np.where(s.t[:, None] > at, sizes, 0.0), axis=1))


def long_cycle(s: Scene) -> Floats:
    """Load whose cycle is about as long as the window or longer; memory follows it."""
    phase, cycles = s.rng.uniform(), s.rng.uniform(0.4, 1.2)
    s.rate = s.rate * (1 + 0.6 * np.sin(2 * np.pi * (phase + cycles * s.t / s.span)))
    smooth = np.convolve(np.pad(s.rate, (20, 0), mode="edge"), np.ones(21) / 21, "valid")
    return s.grows(0.1, 0.4) * smooth / np.mean(smooth)


def autoscaled(s: Scene) -> Floats:
    """The instance's share of the load changes in steps as others come and go; memory follows."""
    at = np.sort(s.rng.uniform(0, s.span, 4))
    shares = np.exp(s.rng.uniform(-0.7, 0.7, 5))
    share = shares[np.searchsorted(at, s.t)]
    s.rate = s.rate * share
    lagged = np.empty(len(share))
    level, alpha = share[0], s.step / (0.02 * s.span + s.step)
    for i, target in enumerate(share):
        level += alpha * (target - level)
        lagged[i] = level
    return s.grows(0.1, 0.3) * lagged


def bounded_wander(s: Scene) -> Floats:
    return s.noise(0.01, s.span / s.rng.uniform(15, 40))


def log_creep(s: Scene) -> Floats:
    """An allocator that finds its size: growth that falls as 1/t."""
    return np.asarray(s.grows(0.02, 0.05) * np.log1p(s.t / (0.01 * s.span)) + s.noise(0.001, s.span / 100))


def fills_and_stops(s: Scene) -> Floats:
    full = s.rng.uniform(0.2, 0.4 + 0.15 * s.hardness)
    work = np.cumsum(s.rate)
    return np.asarray(s.grows(0.3, 0.3) * np.minimum(work / work[-1] / full, 1.0))


def compaction_cycle(s: Scene) -> Floats:
    """A store that grows and is compacted on a schedule, a few times in the window."""
    period = s.span / s.rng.uniform(2.5, 5)
    return s.grows(0.1, 0.3) * ((s.t / period + s.rng.uniform()) % 1) ** 0.9


LEAKING: tuple[Kind, ...] = (
    accelerating,
    late_onset,
    arena_steps,
    leak_in_wander,
    leak_under_daily,
    stuck_threads,
    leak_with_slow_saw,
    burst_then_leak,
)
HEALTHY: tuple[Kind, ...] = (
    workers_recycled,
    burst_returns,
    one_off_step,
    several_steps,
    long_cycle,
    autoscaled,
    bounded_wander,
    log_creep,
    fills_and_stops,
    compaction_cycle,
)
_SPANS = ((300, 1.0), (1200, 5.0), (3600, 10.0), (4 * 3600, 15.0), (8 * 3600, 60.0), (24 * 3600, 60.0))


def make(seed: int, each: int = 4) -> list[Trace]:
    """``each`` traces of every kind and severity."""
    return make_kinds(HEALTHY, LEAKING, seed, each, "long")


def make_kinds(
    healthy: Sequence[Kind],
    leaking: Sequence[Kind],
    seed: int,
    each: int,
    origin: str,
    spans: Sequence[tuple[int, float]] = _SPANS,
) -> list[Trace]:
    """``each`` traces of every kind and severity, of lengths and spacings (s) out of ``spans``."""
    traces = []
    for kind in [*healthy, *leaking]:
        for hardness, severity in enumerate(SEVERITIES):
            for i in range(each):
                rng = np.random.default_rng([seed, hardness, i, *kind.__name__.encode()])
                span, step = spans[int(rng.integers(len(spans)))]
                name = f"{kind.__name__}-{severity}-{i}"
                traces.append(_one(rng, kind, kind in leaking, hardness, severity, (name, origin, span, step)))
    return traces


def _one(
    rng: np.random.Generator, kind: Kind, leak: bool, hardness: int, severity: str, frame: tuple[str, str, int, float]
) -> Trace:
    name, origin, span, step = frame
    t = np.arange(0, span + step / 2, step)
    base = float(np.exp(rng.uniform(np.log(30), np.log(1500)))) * MB
    epoch = 1.75e9 + float(rng.integers(0, 10**7))
    age = float(rng.choice([0.0, rng.uniform(0, 5) * span]))
    scene = Scene(rng, t, step, span, base, hardness, load(rng, t), np.full(len(t), epoch - age))
    shape = kind(scene)
    small, count = garbage(rng, scene.rate, step, base * 0.003 * (1 + 2 * hardness), span / float(rng.uniform(20, 90)))
    # A process that has just begun also warms up; one that has run long does not.
    warm = base * rng.uniform(0, 0.2) * (1 - np.exp(-t / (span * rng.uniform(0.01, 0.06)))) if age == 0 else 0.0
    values = base + shape + small + warm + correlated(rng, len(t), step, 3 * step) * base * 2e-4
    columns = {
        "requests": np.cumsum(rng.poisson(scene.rate * step)).astype(float),
        "start_time": scene.start,
        "gc_gen2": scene.extra.get("gc_gen2", count),
    }
    times, values, columns = sampled(rng, epoch + t, values, columns, missing=0.01, jitter=0.02)
    onset = rate = limit = left = None
    if leak and scene.leaked is not None:
        onset = epoch + scene.onset
        half = int(np.searchsorted(t, (scene.onset + span) / 2))
        rate = float((scene.leaked[-1] - scene.leaked[half]) / (t[-1] - t[half]))
        limit = float(values[-1] + rate * span * rng.uniform(0.3, 3))
        left = (limit - values[-1]) / rate if kind is not accelerating else None
    return Trace(
        name,
        f"{origin}_{kind.__name__}",
        leak,
        severity,
        origin,
        times,
        values,
        columns,
        onset,
        rate,
        limit,
        left,
    )
