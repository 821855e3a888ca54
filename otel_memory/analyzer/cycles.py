"""What comes and goes: regular cycles in the floor, and load that memory follows after a while.

Owns the removal of cycles and the choice of the delay between load and memory. Never touches the trend: all fits are
made beside a straight line and early curves, so that growth is not taken for a part of a cycle.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST_CYCLES: Final = 2.5
_DELAYS: Final = (0.0, 1.0, 3.0)
"""Delays between load and memory that are tried, in buckets."""
_WIDTHS: Final = (3, 7)
"""Buckets over which load is averaged, as counts of few requests are noisy."""


@lru_cache(maxsize=8)
def _trend(count: int) -> Floats:
    x = (np.arange(count) + 0.5) / count
    q, _ = np.linalg.qr(np.stack([np.ones(count), x, np.exp(-x / 0.02), np.exp(-x / 0.15)], axis=1))
    return q


@lru_cache(maxsize=8)
def _waves(count: int) -> tuple[Floats, Floats, Floats]:
    """Cosine and sine of each frequency: beside the trend (orthonormal), the waves that belong to them, and the share
    that a cycle must explain: few cycles may also be a step or a bend, so they must explain more."""
    x = (np.arange(count) + 0.5) / count
    trend = _trend(count)
    beside, plain = [], []
    frequencies = np.arange(_LEAST_CYCLES, count / 3, 0.25)
    for cycles in frequencies:
        wave = np.stack([np.cos(2 * np.pi * cycles * x), np.sin(2 * np.pi * cycles * x)], axis=1)
        q, r = np.linalg.qr(wave - trend @ (trend.T @ wave))
        beside.append(q)
        plain.append(wave @ np.linalg.inv(r))
    needed = 0.5 + 0.3 * np.clip((5 - frequencies) / 2.5, 0, 1)
    return np.concatenate(beside, axis=1), np.array(plain), needed


@lru_cache(maxsize=8)
def _smoothers(count: int) -> Floats:
    """Matrices that delay a series exponentially (before the grid the first value is taken to have held), and those
    that average it."""
    age = np.arange(count)[:, None] - np.arange(count)[None, :]
    matrices = []
    for delay in _DELAYS:
        kernel = np.where(age >= 0, np.exp(-age / delay), 0.0) if delay else np.eye(count)
        kernel *= (1 - np.exp(-1 / delay)) if delay else 1.0
        kernel[:, 0] += 1 - kernel.sum(axis=1)
        matrices.append(kernel.T)
    for width in _WIDTHS:
        near = (np.abs(age) <= width // 2).astype(float)
        matrices.append((near / near.sum(axis=1, keepdims=True)).T)
    return np.array(matrices)


def without_cycles(floor: Floats) -> Floats:
    """The floor less up to two regular cycles, each taken out as far as it explains what lies beside the trend."""
    count = floor.shape[1]
    trend = _trend(count)
    beside, plain, needed = _waves(count)
    out = floor.copy()
    rows = np.arange(len(floor))
    trust = np.ones(len(floor))
    for _ in range(2):
        rest = out - out.mean(axis=1, keepdims=True)
        rest -= (rest @ trend) @ trend.T
        scores = (rest @ beside).reshape(len(floor), -1, 2)
        power = np.einsum("rfc,rfc->rf", scores, scores)
        best = np.argmax(power, axis=1)
        share = power[rows, best] / np.maximum(np.einsum("rk,rk->r", rest, rest), 1e-12)
        trust = trust * np.clip((share - needed[best]) / 0.1, 0.0, 1.0)
        if not trust.any():
            break
        out -= trust[:, None] * np.einsum("rkc,rc->rk", plain[best], scores[rows, best])
    return out


def followed(floor: Floats, rate: Floats) -> Floats:
    """The load as memory follows it: relative to its mean, with the delay that explains the floor best."""
    count = floor.shape[1]
    trend = _trend(count)
    rest = floor - floor.mean(axis=1, keepdims=True)
    rest -= (rest @ trend) @ trend.T
    relative = rate / np.maximum(rate.mean(axis=1, keepdims=True), 1e-12)
    best = np.full(len(floor), -np.inf)
    found: Floats = relative
    for smoother in _smoothers(count):
        delayed = relative @ smoother
        side = delayed - delayed.mean(axis=1, keepdims=True)
        side -= (side @ trend) @ trend.T
        match = np.einsum("rk,rk->r", rest, side) / np.sqrt(np.maximum(np.einsum("rk,rk->r", side, side), 1e-12))
        better = match > best
        best = np.where(better, match, best)
        found = np.where(better[:, None], delayed, found)
    return found
