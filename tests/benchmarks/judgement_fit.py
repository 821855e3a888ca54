"""Fits the weights of the evidence, and holds kinds of traces back to see what the fit is worth on kinds unseen.

A logistic regression with weights that can't be negative (each piece of evidence is made to speak for a leak), by
accelerated projected gradient (Beck and Teboulle 2009). Deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_RIDGE = 1e-3
_STEPS = 2000
_ENDED, _ENDED_LEAK, _YOUNG = 3.0, 2.0, 0.5
"""Chosen, not fitted: a leak that was there all the trace and is missed is worse than an early doubt."""


def fit(terms: Floats, leak: Bools, share: Floats) -> Floats:
    """Weights of the terms and, last, the intercept. ``share`` is how much each case counts."""
    design = np.column_stack([terms, np.ones(len(terms))])
    share = share / share.sum()
    step = 1 / (0.25 * np.linalg.norm(design * np.sqrt(share)[:, None], 2) ** 2 + _RIDGE)
    here = before = np.zeros(design.shape[1])
    for k in range(_STEPS):
        ahead = here + k / (k + 3) * (here - before)
        error = share * (_logistic(design @ ahead) - leak)
        before, here = here, ahead - step * (design.T @ error + _RIDGE * np.append(ahead[:-1], 0.0))
        here[:-1] = np.maximum(here[:-1], 0.0)
    return here


def scores(weights: Floats, terms: Floats) -> Floats:
    return _logistic(terms @ weights[:-1] + weights[-1])


def held_out(terms: Floats, leak: Bools, share: Floats, families: Sequence[str]) -> Floats:
    """The score of each case by weights fitted on all other families than its own."""
    names = np.asarray(families)
    found = np.zeros(len(terms))
    for family in sorted(set(families)):
        own = names == family
        found[own] = scores(fit(terms[~own], leak[~own], share[~own]), terms[own])
    return found


def shares(origins: Sequence[str], leak: Bools, ended: Bools, young: Bools) -> Floats:
    """How much each case counts: each origin the same, and in it the leaking and the healthy cases; then the ends of
    the traces (``ended``) more than the way to them, leaks there most, and leaks that are ``young`` less, as neither
    answer is quite right for them."""
    names = np.asarray(origins)
    share = np.zeros(len(leak))
    for origin in set(origins):
        for kind in (True, False):
            own = (names == origin) & (leak == kind)
            share[own] = 1 / max(int(own.sum()), 1)
    share[ended] *= _ENDED
    share[ended & leak] *= _ENDED_LEAK
    share[young & leak] *= _YOUNG
    return share


def f1(alarms: Bools, leak: Bools) -> float:
    """The harmonic mean of precision and recall."""
    hits = int((alarms & leak).sum())
    return 2 * hits / max(int(alarms.sum()) + int(leak.sum()), 1)


def auc(score: Floats, leak: Bools) -> float:
    """The share of pairs of a leaking and a healthy case in which the leaking one has the higher score."""
    leaking, healthy = score[leak], score[~leak]
    if not len(leaking) or not len(healthy):
        return float("nan")
    above = (leaking[:, None] > healthy[None, :]).mean()
    return float(above + 0.5 * (leaking[:, None] == healthy[None, :]).mean())


def _logistic(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -50, 50))))
