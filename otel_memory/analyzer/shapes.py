"""Which shape the floor has: level, step, filling up, or still growing. Owns the shapes and how they are weighed.

Each shape is a linear model on a grid of equal buckets; all shapes of all series are fitted by two matrix products.
They are weighed by the Bayesian information criterion (Schwarz 1978; weights as Kass and Raftery 1995) with the
number of independent buckets in place of all of them. Never knows of limits, load or scores.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL, STEPS, STOPPED, SLOWING, GROWING = range(5)
CLASSES: Final = ("level", "steps", "stopped", "slowing", "growing")
_TAUS: Final = (0.05, 0.1, 0.18, 0.3, 0.5, 0.8)
_JUMP: Final = 0.02
_LEAST_INDEPENDENT: Final = 5.0
_SHORT: Final = 16
"""Up to so many buckets, growth that fell back and began anew is a tooth of a saw as likely as a leak: there no shape
of growth may hold a step down."""
_LEAST_GROWTH: Final = 0.15
"""A slope at the end is growth if it would make up more than this share of the floor's range over one grid length: one
that is merely not quite level is no leak's."""


class Shapes(NamedTuple):
    """All shapes on one grid, ordered by class; beside its mean each has at most two columns.

    ``first`` and ``second``: these columns, orthonormal (zeros where there is none); ``begins``: where each class
    begins; ``parameters``: how many each shape has; ``end`` (growing shapes only): row vectors that give the slope at
    the end (per grid length) from the values; ``since``: the share of the grid at which what a shape says of its end
    begins; ``stepped``: growing shapes that may not step down, counted from the first growing one, and ``step`` the
    row vectors that give their step."""

    first: Floats
    second: Floats
    begins: Ints
    parameters: Floats
    end: Floats
    end_norm: Floats
    prior: Floats
    since: Floats
    stepped: Ints
    step: Floats


class Fit(NamedTuple):
    """What the shapes say of each series.

    ``weights`` by class (sum 1); ``slope`` and ``slope_sd``: the weighted slope at the end of the growing shapes per
    grid length and its standard deviation; ``z``: one over the other; ``residual``: the deviation of the floor from
    the best shape; ``independent``: the number of independent buckets; ``best``: the index of the best shape;
    ``since``: the share of the grid at which the best growing shape begins to grow; ``adjusted``: the floor less what
    follows the load."""

    weights: Floats
    slope: Floats
    slope_sd: Floats
    z: Floats
    residual: Floats
    independent: Floats
    best: Ints
    since: Floats
    adjusted: Floats


@lru_cache(maxsize=8)
def shapes(count: int) -> Shapes:
    """The shapes on a grid of ``count`` buckets."""
    x = (np.arange(count) + 0.5) / count
    one = np.ones(count)
    kinds: list[int] = []
    designs: list[list[Floats]] = []
    slopes: list[list[float]] = []
    begins: list[float] = []

    def add(kind: int, columns: list[Floats], at_end: list[float], since: float = 0.0) -> None:
        kinds.append(kind)
        designs.append(columns)
        slopes.append(at_end)
        begins.append(since)

    cuts = [c / count for c in np.unique(np.linspace(max(1, count // 16), count - max(1, count // 16), 15).astype(int))]
    jump = np.exp(-x / _JUMP)
    last = [1 - 3 / count, 1 - 2 / count, 1 - 1 / count]
    add(LEVEL, [one], [0])
    for s in np.arange(1, count) / count:
        add(STEPS, [one, (x > s).astype(float)], [0, 0], s)
    for s in sorted({*cuts, *last}):
        add(STEPS, [one, jump, (x > s).astype(float)], [0, 0, 0], s)
        add(STEPS, [one, np.exp(-x / 0.1), (x > s).astype(float)], [0, 0, 0], s)
    for i, s in enumerate(cuts[::2]):
        for r in cuts[::2][i + 1 :]:
            add(STEPS, [one, (x > s).astype(float), (x > r).astype(float)], [0, 0, 0], r)
    for s in cuts:
        if s <= 0.85:
            add(STOPPED, [one, np.minimum(x, s)], [0, 0], s)
            add(STOPPED, [one, jump, np.minimum(x, s)], [0, 0, 0], s)
    for tau in _TAUS:
        curve = np.exp(-x / tau)
        add(SLOWING, [one, curve], [0, 0])
        add(SLOWING, [one, jump, curve], [0, 0, 0])
    for early in (0.01, 0.05):
        add(SLOWING, [one, np.log1p(x / early)], [0, 0])
        add(SLOWING, [one, jump, np.log1p(x / early)], [0, 0, 0])
    add(GROWING, [one, x], [0, 1])
    add(GROWING, [one, x * x], [0, 2])
    add(GROWING, [one, jump, x], [0, 0, 1])
    for tau in _TAUS[:4]:
        add(GROWING, [one, np.exp(-x / tau), x], [0, 0, 1])
    for s in cuts:
        add(GROWING, [one, (x > s).astype(float), x], [0, 0, 1])
        if s <= 0.85:
            add(GROWING, [one, np.maximum(x - s, 0)], [0, 1], s)
            add(GROWING, [one, x, np.maximum(x - s, 0)], [0, 1, 1], s)
            add(GROWING, [one, jump, np.maximum(x - s, 0)], [0, 0, 1], s)

    order = np.argsort(kinds, kind="stable")
    classes = np.array(kinds)[order]
    grows = int(np.searchsorted(classes, GROWING))
    first, second = np.zeros((count, len(order))), np.zeros((count, len(order)))
    ends, stepped, step = [], [], []
    for position, index in enumerate(order):
        beside = np.stack(designs[index][1:], axis=1) if len(designs[index]) > 1 else np.zeros((count, 0))
        q, _ = np.linalg.qr(beside - beside.mean(axis=0))
        for column, into in zip(q.T, (first, second), strict=False):
            into[:, position] = column
        if position >= grows:
            inverse = np.linalg.pinv(np.stack(designs[index], axis=1))
            ends.append(np.asarray(slopes[index]) @ inverse)
            if count <= _SHORT and set(np.unique(designs[index][1])) == {0.0, 1.0}:
                stepped.append(position - grows)
                step.append(inverse[1])
    end = np.array(ends)
    sizes = np.bincount(classes, minlength=len(CLASSES))
    return Shapes(
        first=first,
        second=second,
        begins=np.searchsorted(classes, np.arange(len(CLASSES))),
        parameters=np.array([float(len(designs[index])) for index in order]),
        end=end,
        end_norm=np.linalg.norm(end, axis=1),
        prior=-np.log(sizes[classes]),
        since=np.array(begins)[order],
        stepped=np.array(stepped, dtype=np.int64),
        step=np.array(step).reshape(-1, count),
    )


def fit(floor: Floats, grain: Floats, samples: Ints, load: Floats | None = None) -> Fit:
    """Weighs all shapes for each row of ``floor``. ``grain`` (per row) is the deviation below which differences tell
    nothing: two shapes that both come that near are not told apart by it. ``samples``: of which the floor was made.
    With ``load`` (aligned with ``floor``) each shape is also fitted with memory that follows the load."""
    rows, count = floor.shape
    known = shapes(count)
    middle = floor.mean(axis=1, keepdims=True)
    terms = _terms(floor - middle, known, load)
    mean_square = terms.left / count + np.square(grain)[:, None, None]
    if len(known.stepped):
        of_level = mean_square[:, :, :1]
        barred = known.begins[GROWING] + known.stepped
        mean_square[:, :, barred] = np.where(terms.step < 0, of_level, mean_square[:, :, barred])
    misfit = np.log(mean_square)
    parameters = known.parameters + np.arange(misfit.shape[1])[:, None]

    best = np.argmin((count * misfit + parameters * np.log(count)).reshape(rows, -1), axis=1)
    with_load, shape = np.divmod(best, len(known.parameters))
    adjusted = floor - middle
    if terms.follows is not None:
        taken = np.where(with_load == 1, terms.share[np.arange(rows), shape], 0.0)
        adjusted -= taken[:, None] * terms.follows
    residual = adjusted.copy()
    for columns in (known.first.T[shape], known.second.T[shape]):
        residual -= np.einsum("rk,rk->r", columns, adjusted)[:, None] * columns
    power = np.einsum("rk,rk->r", residual, residual) + count * grain * grain
    phi = np.clip(np.einsum("rk,rk->r", residual[:, 1:], residual[:, :-1]) / power, 0.0, 0.95)
    independent = np.clip(np.minimum(count, samples) * (1 - phi) / (1 + phi), _LEAST_INDEPENDENT, count)

    effective = independent[:, None, None]
    evidence = known.prior - 0.5 * (effective * misfit + parameters * np.log(effective))
    weight = np.exp(evidence - evidence.max(axis=(1, 2), keepdims=True))
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    by_class = np.add.reduceat(weight.sum(axis=1), known.begins, axis=1)
    growing = slice(known.begins[GROWING], None)
    degrees = np.maximum(effective - parameters[:, growing], 1.0)
    slope_sd = np.maximum(terms.norm * np.sqrt(mean_square[:, :, growing] * count / degrees), 1e-12)
    inside = weight[:, :, growing]
    # A "growing" shape that shrinks, or all but stands, is a level that does not grow.
    least = _LEAST_GROWTH * np.ptp(adjusted, axis=1)[:, None, None]
    grows = (inside * _normal_cdf((terms.slope - least) / slope_sd)).sum(axis=(1, 2))
    by_class[:, LEVEL] += by_class[:, GROWING] - grows
    by_class[:, GROWING] = grows
    portion = inside / np.maximum(inside.sum(axis=(1, 2), keepdims=True), 1e-300)
    mean = (portion * terms.slope).sum(axis=(1, 2))
    apart = terms.slope - mean[:, None, None]
    sd = np.sqrt((portion * (slope_sd * slope_sd + apart * apart)).sum(axis=(1, 2)))
    likeliest = np.argmax(inside.max(axis=1), axis=1)
    return Fit(
        weights=by_class,
        slope=mean,
        slope_sd=sd,
        z=mean / np.maximum(sd, 1e-12),
        residual=np.sqrt(power / count),
        independent=independent,
        best=shape,
        since=known.since[growing][likeliest],
        adjusted=adjusted + middle,
    )


class _Terms(NamedTuple):
    """Of each row, without and (second) with the load: the sum of squares ``left`` by each shape; of growing shapes
    the ``slope`` at the end, its ``norm`` and the ``step``. ``share``: the load that each shape takes."""

    left: Floats
    slope: Floats
    norm: Floats
    step: Floats
    follows: Floats | None
    share: Floats


def _terms(centred: Floats, known: Shapes, load: Floats | None) -> _Terms:
    first, second = centred @ known.first, centred @ known.second
    total = np.einsum("rk,rk->r", centred, centred)[:, None]
    left = np.maximum(total - first * first - second * second, 0.0)
    slope, step = centred @ known.end.T, centred @ known.step.T
    norm = np.broadcast_to(known.end_norm, slope.shape)
    if load is None:
        return _Terms(left[:, None], slope[:, None], norm[:, None], step[:, None], None, left)
    follows = load - load.mean(axis=1, keepdims=True)
    load_first, load_second = follows @ known.first, follows @ known.second
    power = np.einsum("rk,rk->r", follows, follows)[:, None]
    alone = np.maximum(power - load_first * load_first - load_second * load_second, 1e-6 * power + 1e-12)
    together = np.einsum("rk,rk->r", centred, follows)[:, None] - first * load_first - second * load_second
    # Memory falls with the load or does not follow it: a negative share is chance.
    together = np.maximum(together, 0.0)
    share = together / alone
    growing = share[:, known.begins[GROWING] :]
    load_slope, load_step = follows @ known.end.T, follows @ known.step.T
    # The variance of a slope that shares its explanation with the load (Frisch-Waugh-Lovell).
    shared_norm = np.sqrt(norm * norm + load_slope * load_slope / alone[:, known.begins[GROWING] :])
    return _Terms(
        left=np.stack([left, np.maximum(left - share * together, 0.0)], axis=1),
        slope=np.stack([slope, slope - growing * load_slope], axis=1),
        norm=np.stack([norm, shared_norm], axis=1),
        step=np.stack([step, step - growing[:, known.stepped] * load_step], axis=1),
        follows=follows,
        share=share,
    )


def _normal_cdf(z: Floats) -> Floats:
    """Of the standard normal, by the logistic of Bowling et al. (2009): error below 0.0002."""
    z = np.clip(z, -8, 8)
    return np.asarray(1 / (1 + np.exp(-(0.07056 * z**3 + 1.5976 * z))))
