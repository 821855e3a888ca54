"""What comes and goes: regular cycles in the floor, and load that memory follows after a while.

Owns the removal of cycles and the choice of the delay between load and memory. Never touches the trend: all fits are
made beside a straight line and early curves, so that growth is not taken for a part of a cycle.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LEAST_CYCLES: Final = 2.5
_STEP: Final = 0.25
_OVERTONES: Final = (2, 3)
_SURE: Final = 0.5
_IN_A_THIRD: Final = 0.1
"""Share of a cycle's power that must lie in each third of the grid; a third of it would be all that can."""
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
    frequencies = np.arange(_LEAST_CYCLES, count / 3, _STEP)
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


def without_cycles(floor: Floats) -> tuple[Floats, Ints]:
    """The floor less up to two regular cycles, each taken out as far as it explains what lies beside the trend; and
    how many buckets the stronger one takes (0: there is none)."""
    count = floor.shape[1]
    trend = _trend(count)
    beside, plain, needed = _waves(count)
    out = floor.copy()
    rows = np.arange(len(floor))
    trust = np.ones(len(floor))
    period = np.zeros(len(floor), dtype=np.int64)
    for turn in range(2):
        rest = out - out.mean(axis=1, keepdims=True)
        rest -= (rest @ trend) @ trend.T
        scores = (rest @ beside).reshape(len(floor), -1, 2)
        power = np.einsum("rfc,rfc->rf", scores, scores)
        best = np.argmax(power, axis=1)
        share = power[rows, best] / np.maximum(np.einsum("rk,rk->r", rest, rest), 1e-12)
        trust = trust * np.clip((share - needed[best]) / 0.1, 0.0, 1.0)
        found = np.flatnonzero(trust)
        if not len(found):
            break
        which = best[found]
        trust[found] *= _repeats(rest[found], beside.reshape(count, -1, 2), which)
        if turn == 0:
            takes = np.ceil(count / (_LEAST_CYCLES + _STEP * which)).astype(np.int64)
            period[found] = np.where(trust[found] > _SURE, takes, 0)
        out[found] -= trust[found, None] * np.einsum("rkc,rc->rk", plain[which], scores[found, which])
        # What is no sine: its overtones, as far as the grid holds them.
        for times in _OVERTONES:
            overtone = which * times + _overtone_offset(times)
            held = trust[found] * (overtone < len(plain))
            overtone = np.minimum(overtone, len(plain) - 1)
            out[found] -= held[:, None] * np.einsum("rkc,rc->rk", plain[overtone], scores[found, overtone])
    return out, period


def _repeats(rest: Floats, waves: Floats, which: Ints) -> Floats:
    """1 for rows whose wave is in every third of the grid, 0 for others: one bump or step is no cycle, however well a
    wave and its overtones fit it."""
    own = waves[:, which]
    product = rest.T[:, :, None] * own
    thirds = np.stack([part.sum(axis=0) for part in np.array_split(product, 3)])
    whole = thirds.sum(axis=0)
    along = np.einsum("prc,rc->pr", thirds, whole)
    return np.asarray((along > _IN_A_THIRD * np.einsum("rc,rc->r", whole, whole)).all(axis=0).astype(np.float64))


def lowest_of_cycle(floor: Floats, period: Ints) -> Floats:
    """The least of the last ``period`` buckets at each bucket: where the troughs lie. What comes before the end of the
    first cycle is taken to have been as low. Rows without a cycle stay as they are."""
    out = floor.copy()
    for buckets in np.unique(period[period > 1]).tolist():
        own = period == buckets
        lowest = sliding_window_view(floor[own], buckets, axis=1).min(axis=2)
        out[own, buckets - 1 :] = lowest
        out[own, : buckets - 1] = lowest[:, :1]
    return out


def _overtone_offset(times: int) -> int:
    """Frequencies are ``_LEAST_CYCLES + index * _STEP``: index * times + this is the index of an overtone."""
    return round((times - 1) * _LEAST_CYCLES / _STEP)


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
