"""Whose calls memory grew with: the statistics behind ``attribution``.

Owns the model; knows neither routes nor processes, only columns. Pure.

Model. A signal (resident bytes, allocated blocks) follows y(t) = level + sum of c_j N_j(t) + b t + noise, with N_j
the calls so far, c_j >= 0 kept by each call, and b growth that is tied to none of them. The noise is jitter around
the level (temporary objects) plus a random walk (what the allocator keeps), in unknown proportion: differences of
one sample have the variance (1 - w) D D' + w I, which the sine transform makes diagonal, so that all proportions w
cost one transform (Durbin and Koopman, "Time Series Analysis by State Space Methods", 2012, chapter 2: the local
level model). Differences of several spans, which look at the same data through one w each, are the special cases.

Models, sets of columns with or without b, are compared by the Schwarz criterion, averaged over w, and added up over
the signals. Few columns are preferred to many: in real programs one thing leaks at a time, and non-negative least
squares over all columns, which spreads noise over all of them, named the leaking one less often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_memory.analyzer.windows import Floats

_PROPORTIONS: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
_TEMPER: Final = 0.6
"""Share of the log-likelihood that is believed: the noise of real programs is not Gaussian."""
_NULL_PRIOR: Final = 0.2
_MAX_CAUSES: Final = 4
_MAX_CANDIDATES: Final = 6
_FURTHER_CAUSE: Final = 3.0
"""What a further cause must gain beyond its prior (log odds)."""
_LEAST_SHARE: Final = 0.1
_LEAST_WEIGHT: Final = 0.2
"""What a signal that covers next to nothing is still worth as a witness."""
_TELLING: Final = 2.0
_TINY: Final = 1e-300
_OUTLIER_SCALES: Final = 8.0

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Signal:
    """One series that grows. ``covers`` (0-1) is how much of the growth in question its own can account for.
    ``rows`` are those at which it was measured; None: all."""

    values: Floats
    covers: float = 1.0
    rows: NDArray[np.intp] | None = None


@dataclass(frozen=True, slots=True)
class Explained:
    """What one column explains. ``share`` (0-1) of the growth if it is among the causes, ``probability`` that it is."""

    column: int
    share: float
    probability: float


@dataclass(frozen=True, slots=True)
class Fit:
    """``explained`` best first; ``unrelated`` is the probability that no column has to do with the growth."""

    explained: tuple[Explained, ...]
    unrelated: float


def nnls(gram: Floats, moments: Floats) -> Floats:
    """Non-negative least squares from normal equations (Lawson and Hanson, 1974, chapter 23): x >= 0 that
    minimises x'Gx - 2x'm. ``gram`` should be scaled to a diagonal of about 1."""
    size = len(moments)
    x = np.zeros(size)
    active = np.zeros(size, dtype=bool)
    tolerance = 1e-10 * max(float(np.abs(moments).max(initial=0.0)), 1e-300)
    for _ in range(3 * size):
        slope = np.where(active, -np.inf, moments - gram @ x)
        best = int(np.argmax(slope))
        if slope[best] <= tolerance:
            break
        active[best] = True
        while active.any():
            index = np.flatnonzero(active)
            solved = np.linalg.lstsq(gram[np.ix_(index, index)], moments[index], rcond=1e-10)[0]
            if (solved > 0).all():
                x[:] = 0.0
                x[index] = solved
                break
            # Go towards the solution until the first coefficient reaches zero, and let that one go.
            here = x[index]
            blocking = solved <= 0
            gap = here[blocking] - solved[blocking]
            # Both zero: that one is let go where it stands.
            step = float(np.divide(here[blocking], gap, out=np.zeros_like(gap), where=gap > 0).min())
            x[index] = here + step * (solved - here)
            gone = index[blocking][np.argmin(x[index][blocking])]
            x[gone] = 0.0
            active[gone] = False
            active &= x > 0
            x[~active] = 0.0
    return x


def fit(times: Floats, signals: Sequence[Signal], counts: Floats, left_out: Span | None = None) -> Fit:
    """Compare the columns of ``counts`` (cumulative calls, one row for each time) as causes of the signals' growth.

    The first signal is the one whose growth is shared out (bytes); the others help to find the cause. What changed
    within ``left_out`` (s, from and to) is not looked at.
    """
    prepared = [_Prepared(times, signal, counts, left_out) for signal in signals]
    comparison = _Comparison(prepared, counts.shape[1])
    causes = comparison.causes()
    if not causes:
        return Fit((), 1.0)
    explained: dict[int, Explained] = {}
    unrelated = 1.0
    for cause in causes:
        rest = tuple(column for column in causes if column != cause)
        odds, nothing = comparison.in_place_of(cause, rest)
        unrelated = min(unrelated, nothing)
        for column, probability in odds.items():
            if column == cause or column not in explained or probability > explained[column].probability:
                share = comparison.shares((*rest, column))[-1]
                explained[column] = Explained(column, share, probability)
    ranked = sorted(explained.values(), key=lambda item: (-item.share * item.probability, item.column))
    return Fit(tuple(ranked), unrelated)


class _Comparison:
    """Sets of columns as causes, compared over all signals."""

    def __init__(self, signals: Sequence[_Prepared], columns: int) -> None:
        self._signals = signals
        self._columns = columns
        self._prior = math.log((1.0 - _NULL_PRIOR) / columns)
        self._known: dict[tuple[int, ...], float] = {}

    def evidence(self, chosen: tuple[int, ...]) -> float:
        chosen = tuple(sorted(chosen))
        if chosen not in self._known:
            self._known[chosen] = sum(signal.evidence(chosen) for signal in self._signals)
        return self._known[chosen]

    def causes(self) -> tuple[int, ...]:
        """The columns that the growth needs: the best one, and each further one that pays for itself."""
        causes: tuple[int, ...] = ()
        while len(causes) < min(_MAX_CAUSES, self._columns):
            rest = [column for column in range(self._columns) if column not in causes]
            if causes:
                rest = self._promising(causes, rest)
            best = max(rest, key=lambda column: self.evidence((*causes, column)))
            gain = self.evidence((*causes, best)) - self.evidence(causes)
            if causes and gain < -self._prior + _FURTHER_CAUSE:
                break
            # One that takes the place of another is its rival, and ``in_place_of`` weighs the two.
            if min(self.shares((*causes, best))) < _LEAST_SHARE:
                break
            causes = (*causes, best)
        return causes

    def _promising(self, causes: tuple[int, ...], rest: list[int]) -> list[int]:
        """Those of ``rest`` that what ``causes`` leave unexplained goes with most: trying all would take too long."""
        gains = sum(signal.gains(tuple(sorted(causes))) for signal in self._signals)
        return sorted(rest, key=lambda column: -float(np.asarray(gains)[column]))[:_MAX_CANDIDATES]

    def in_place_of(self, cause: int, rest: tuple[int, ...]) -> tuple[dict[int, float], float]:
        """Given the causes ``rest``: how probable each column is as the further cause, and that there is none."""
        scores = {-1: self.evidence(rest) + math.log(_NULL_PRIOR)}
        for column in range(self._columns):
            if column not in rest and (column == cause or self._helps((*rest, column))):
                scores[column] = self.evidence((*rest, column)) + self._prior
        top = max(scores.values())
        odds = {column: math.exp(score - top) for column, score in scores.items()}
        total = sum(odds.values())
        return {column: value / total for column, value in odds.items() if column >= 0}, odds[-1] / total

    def shares(self, chosen: tuple[int, ...]) -> list[float]:
        """The share of each of ``chosen``, in bytes if they tell anything, else by the signal that tells most."""
        gains = [signal.evidence(tuple(sorted(chosen))) - signal.evidence(()) for signal in self._signals]
        worth = [gain * signal.covers for gain, signal in zip(gains, self._signals, strict=True)]
        telling = self._signals[0 if gains[0] > _TELLING else worth.index(max(worth))]
        return [share * telling.covers for share in telling.shares(chosen)]

    def _helps(self, chosen: tuple[int, ...]) -> bool:
        """Whether the last column of ``chosen`` would be a cause worth the name: noise always explains a little."""
        return self.shares(chosen)[-1] >= _LEAST_SHARE


class _Prepared:
    """One signal and all columns, whitened; every question is then about small matrices."""

    def __init__(self, times: Floats, signal: Signal, counts: Floats, left_out: Span | None) -> None:
        rows = slice(None) if signal.rows is None else signal.rows
        begin, end = times[rows][:-1], times[rows][1:]
        used = np.ones(len(end), dtype=bool) if left_out is None else (end <= left_out[0]) | (begin >= left_out[1])
        steps = _without_outliers(np.diff(signal.values[rows])[used])
        spacing = (end - begin)[used]
        calls = np.diff(counts[rows], axis=0)[used]
        self._grown = float(steps.sum())
        self._called = calls.sum(axis=0)
        self.covers = signal.covers
        self._weight = max(signal.covers, _LEAST_WEIGHT) * _TEMPER
        self._size = len(steps)
        scale = np.sqrt((calls * calls).sum(axis=0))
        self._scale = np.where(scale > 0, scale, 1.0)
        unit = math.sqrt(float(steps @ steps)) or 1.0
        self._unit = unit
        basis, eigenvalues = _sine_basis(self._size)
        rotated = basis @ np.column_stack([steps / unit, spacing / np.linalg.norm(spacing), calls / self._scale])
        variances = [(1.0 - w) * eigenvalues + w for w in _PROPORTIONS]
        self._grams = [(rotated / v[:, None]).T @ rotated for v in variances]
        self._log_det = [float(np.log(v).sum()) for v in variances]
        self._known: dict[tuple[int, ...], tuple[float, Floats]] = {}
        self._keep_probable()

    def evidence(self, chosen: tuple[int, ...]) -> float:
        """Believed log-evidence of the model with these columns (ascending)."""
        return self._model(chosen)[0] * self._weight

    def shares(self, chosen: tuple[int, ...]) -> list[float]:
        """Share of the growth (0-1) of each of these columns, averaged over the models with and without background."""
        ordered = tuple(sorted(chosen))
        if self._grown <= 0 or not chosen:
            return [0.0] * len(chosen)
        kept = self._model(ordered)[1]
        found = kept / self._scale[list(ordered)] * self._unit * self._called[list(ordered)] / self._grown
        found = np.clip(found, 0.0, 1.0)
        found /= max(float(found.sum()), 1.0)
        return [float(found[ordered.index(column)]) for column in chosen]

    def gains(self, chosen: tuple[int, ...]) -> Floats:
        """About how much each column would explain of what these ones leave (share of the squares)."""
        gram, kept = self._grams[0], self._model(chosen)[1]
        index = [column + 2 for column in chosen]
        left = gram[2:, 0] - gram[2:][:, index] @ kept
        gained: Floats = np.maximum(left, 0.0) ** 2 / np.maximum(np.diag(gram)[2:], _TINY)
        return gained / max(float(gram[0, 0]), _TINY)

    def _keep_probable(self) -> None:
        """Go on with the proportions of noise that matter to the best columns: the others only cost time."""
        best = []
        for gram, log_det in zip(self._grams, self._log_det, strict=True):
            gains = np.maximum(gram[2:, 0], 0.0) ** 2 / np.maximum(np.diag(gram)[2:], _TINY)
            rest = max(float(gram[0, 0] - gains.max()), _TINY)
            best.append(self._size * math.log(rest / self._size) + log_det)
        kept = np.argsort(best)[:3]
        self._grams = [self._grams[at] for at in kept]
        self._log_det = [self._log_det[at] for at in kept]

    def _model(self, chosen: tuple[int, ...]) -> tuple[float, Floats]:
        if chosen not in self._known:
            found = [self._one(at, chosen, trend) for at in range(len(self._grams)) for trend in (False, True)]
            logs = np.array([log for log, _ in found])
            odds = np.exp(logs - logs.max())
            kept = np.array([kept for _, kept in found]).reshape(len(found), len(chosen))
            self._known[chosen] = (
                float(logs.max() + math.log(odds.mean())),
                (odds[:, None] * kept).sum(axis=0) / odds.sum(),
            )
        return self._known[chosen]

    def _one(self, at: int, chosen: tuple[int, ...], trend: bool) -> tuple[float, Floats]:
        """Log-evidence and kept bytes per (scaled) call, for one proportion of noise, with a background or without."""
        gram = self._grams[at]
        square = float(gram[0, 0])
        if len(chosen) == 1:
            # The most frequent question by far, so without arrays.
            (column,) = chosen
            moment, inner = float(gram[column + 2, 0]), float(gram[column + 2, column + 2])
            if trend:
                along, total = float(gram[column + 2, 1]), float(gram[1, 1])
                moment -= along * float(gram[0, 1]) / total
                inner -= along * along / total
                square -= float(gram[0, 1]) ** 2 / total
            # A column that is all background (constant load) has nothing left to tell by.
            useful = moment > 0 and inner > 1e-9 * float(gram[column + 2, column + 2])
            kept = np.array([moment / inner if useful else 0.0])
            square -= float(kept[0]) * moment
        else:
            index = [column + 2 for column in chosen]
            moments, inners = gram[index, 0], gram[np.ix_(index, index)]
            if trend:
                along_all = gram[index, 1]
                square -= float(gram[0, 1] ** 2 / gram[1, 1])
                moments = moments - along_all * gram[0, 1] / gram[1, 1]
                inners = inners - np.outer(along_all, along_all) / gram[1, 1]
            kept = nnls(inners, moments) if chosen else np.zeros(0)
            square -= float(moments @ kept)
        rest = max(square, 1e-9 * float(gram[0, 0]), _TINY)
        parameters = int((kept > 0).sum()) + trend
        log = -0.5 * (self._size * math.log(rest / self._size) + self._log_det[at] + parameters * math.log(self._size))
        return log, kept


def _without_outliers(steps: Floats) -> Floats:
    """Steps with the few far ones drawn in: one cache loaded at once must not outweigh everything else."""
    middle = float(np.median(steps))
    spread = max(float(np.median(np.abs(steps - middle))) * 1.4826, 0.5 * float(np.abs(steps - middle).mean()))
    return np.clip(steps, middle - _OUTLIER_SCALES * spread, middle + _OUTLIER_SCALES * spread)


@lru_cache(maxsize=4)
def _sine_basis(size: int) -> tuple[Floats, Floats]:
    """Eigenvectors and eigenvalues of the covariance of differenced white noise (2 on, -1 beside the diagonal)."""
    order = np.arange(1, size + 1)
    angle = np.pi / (size + 1)
    return math.sqrt(2.0 / (size + 1)) * np.sin(angle * np.outer(order, order)), 2.0 - 2.0 * np.cos(angle * order)
