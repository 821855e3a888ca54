"""Who grows: routes and tracked operations ranked by what their calls kept.

Owns the way from a process's windows to suspects with sentences; the statistics are in ``attribution_fit``. Pure:
no clock, no state. A suspect is a measured coincidence in time between calls and growth, and its confidence is the
probability of it against the other routes and against growth that is tied to none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_memory.analyzer.attribution_fit import Explained, Fit, Signal, Span, fit
from otel_memory.analyzer.model import Suspect
from otel_memory.analyzer.series import ProcessSeries, tolerance_of
from otel_memory.analyzer.windows import LEVELS, Floats
from otel_memory.humanize import format_bytes, format_calls, format_duration, format_share

Rows = NDArray[np.intp]

_LEAST_SAMPLES: Final = 12
_MOST_SAMPLES: Final = 256
_MOST_SUSPECTS: Final = 5
_LEAST_SHARE: Final = 0.05
_LEAST_PROBABILITY: Final = 0.1
_SURE: Final = 0.7
_UNRELATED: Final = 0.5
_SURELY_UNRELATED: Final = 0.7
_TOGETHER: Final = 0.97
"""Correlation of calls above which two routes are said to be called together."""
_BYTES_OF_A_BLOCK: Final = 512
"""The largest block that CPython's own allocator hands out (``SMALL_REQUEST_THRESHOLD``, Objects/obmalloc.c)."""
_TRUSTED_SUM: Final = 1.3
_MOST_REPEATED: Final = 0.05
"""Share of the samples that repeat the one before exactly, from which on those are held for not measured."""


@dataclass(frozen=True, slots=True)
class OperationInput:
    """One tracked operation at the input's times: cumulative calls, and the sum of the changes of memory (bytes)."""

    calls: Floats
    growth: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionInput:
    """One process over one stretch of time, all arrays aligned with ``times`` (s, ascending).

    ``memory`` is in bytes, ``blocks`` counts blocks of the Python allocator, ``heap`` are the bytes in use in the C
    allocator, ``routes`` are cumulative calls; NaN where nothing is known, for a count: before its first call.
    ``growth_bytes_per_second`` is what the suspects share; without it the growth of ``memory`` over ``times`` is
    taken. What changed within ``left_out`` (s, from and to) is not looked at: the process was looking at itself.
    """

    times: Floats
    memory: Floats
    blocks: Floats | None = None
    heap: Floats | None = None
    routes: Mapping[str, Floats] = field(default_factory=dict)
    operations: Mapping[str, OperationInput] = field(default_factory=dict)
    growth_bytes_per_second: float | None = None
    left_out: Span | None = None


class Attribution(NamedTuple):
    """The suspects, best first; or, where the growth is tied to no calls, the sentence that says so."""

    suspects: tuple[Suspect, ...] = ()
    unrelated: str = ""

    @property
    def confidence(self) -> float:
        """That of the first suspect, 0 where there is none."""
        return self.suspects[0].confidence if self.suspects else 0.0


def attribute(inputs: AttributionInput) -> tuple[Suspect, ...]:
    """The suspects, best first; none where nothing grows, too little is known, or growth is not tied to calls."""
    return compare(inputs).suspects


def compare(inputs: AttributionInput) -> Attribution:
    """The suspects, or that there are none among what is called."""
    usable = np.isfinite(inputs.memory)
    keep = np.flatnonzero(usable)[-_MOST_SAMPLES:]
    if len(keep) < _LEAST_SAMPLES:
        return Attribution()
    times = inputs.times[keep]
    memory = inputs.memory[keep]
    growth = inputs.growth_bytes_per_second
    if growth is None:
        growth = _growth(times, memory)
    if growth <= 0 or not math.isfinite(growth):
        return Attribution()
    left_out = inputs.left_out
    if left_out is not None and ((times < left_out[0]) | (times > left_out[1])).sum() < 2 * _LEAST_SAMPLES:
        left_out = None  # hardly anything would remain
    # A block can stand for 512 bytes at most, a byte of the heap for one: a signal that can't account for the growth
    # bears witness with little weight. Both are far less noisy than resident memory.
    signals = [Signal(memory)]
    for values, size in ((inputs.blocks, _BYTES_OF_A_BLOCK), (inputs.heap, 1)):
        if values is not None and np.isfinite(values[keep]).all():
            known = values[keep]
            signals.append(Signal(known, _covered(known, size, memory), _measured_anew(known)))
    suspects: list[Suspect] = []
    unrelated = ""
    for kind, named in (
        ("route", inputs.routes),
        ("operation", {name: operation.calls for name, operation in inputs.operations.items()}),
    ):
        calls = _calls(named, keep)
        if not calls.names:
            continue
        found = fit(times, signals, calls.counts, left_out)
        if kind == "route":
            suspects += _routes(found, calls, growth, float(times[-1] - times[0]))
            unrelated = _unrelated_sentence(found, calls, float(times[-1] - times[0]))
        else:
            measured = _measured(inputs.operations, calls.names, keep, float(memory[-1] - memory[0]))
            suspects += _operations(found, calls, measured, growth, float(times[-1] - times[0]))
    # A route and the operation behind it explain the same growth: the route is named first, people know it.
    suspects.sort(key=lambda suspect: (-round(suspect.share * suspect.confidence, 2), suspect.kind != "route"))
    return Attribution(tuple(suspects[:_MOST_SUSPECTS]), "" if suspects else unrelated)


def attribute_series(
    series: ProcessSeries,
    growth_bytes_per_second: float | None = None,
    since: float | None = None,
    left_out: Span | None = None,
) -> Attribution:
    """The suspects of a process from the finest level of its windows that names one, for slow leaks a coarser one.

    ``since`` (s) is when it began to grow: what was before is left aside where enough remains. ``left_out`` (s, from
    and to): not to be looked at.
    """
    best = Attribution()
    for level in range(len(LEVELS)):
        inputs = input_of(series, growth_bytes_per_second, level=level, since=since, left_out=left_out)
        if inputs is None or len(inputs.times) < _LEAST_SAMPLES:
            break
        found = compare(inputs)
        if (found.confidence, bool(found.unrelated)) > (best.confidence, bool(best.unrelated)):
            best = found
        if best.confidence >= _SURE:
            break
    return best


def input_of(
    series: ProcessSeries,
    growth_bytes_per_second: float | None = None,
    *,
    level: int = 0,
    since: float | None = None,
    left_out: Span | None = None,
) -> AttributionInput | None:
    """The input from one level of a process's windows: its present life only, aligned on the samples of memory."""
    window = series.memory
    if window is None:
        return None
    times, memory = window.arrays(level)
    first = 0
    if series.lives:
        first = int(np.searchsorted(times, series.lives[-1]))
    if since is not None:
        grown = int(np.searchsorted(times, since))
        if len(times) - grown >= 2 * _LEAST_SAMPLES:
            first = max(first, grown)
    times, memory = times[first:], memory[first:]
    tolerance = tolerance_of(times)
    blocks, heap = series.blocks, series.heap
    return AttributionInput(
        times=times,
        memory=memory,
        blocks=None if blocks is None else blocks.at(times, level, tolerance),
        heap=None if heap is None else heap.at(times, level, tolerance),
        routes={name: window.at(times, level, tolerance) for name, window in series.routes.items()},
        operations={
            name: OperationInput(windows.calls.at(times, level, tolerance), windows.growth.at(times, level, tolerance))
            for name, windows in series.operations.items()
        },
        growth_bytes_per_second=growth_bytes_per_second,
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """Cumulative calls, one column for each name that was called at all."""

    names: tuple[str, ...]
    counts: Floats

    def called(self, column: int) -> float:
        return float(self.counts[-1, column] - self.counts[0, column])

    def together(self, one: int, other: int) -> bool:
        steps = np.diff(self.counts[:, [one, other]], axis=0)
        spread = steps.std(axis=0)
        if not spread.all():
            return not spread.any()
        return bool(np.corrcoef(steps[:, 0], steps[:, 1])[0, 1] > _TOGETHER)


def _calls(named: Mapping[str, Floats], keep: Rows) -> _Calls:
    columns: dict[str, Floats] = {}
    for name, counts in named.items():
        counts = np.asarray(counts)[keep]
        known = np.flatnonzero(np.isfinite(counts))
        if not len(known):
            continue
        # Before its first sample a count stood still, as far as anybody saw.
        last_known = np.maximum.accumulate(np.where(np.isfinite(counts), np.arange(len(counts)), known[0]))
        counts = counts[last_known]
        if counts[-1] > counts[0]:
            columns[name] = counts
    return _Calls(tuple(columns), np.column_stack(list(columns.values())) if columns else np.zeros((0, 0)))


def _covered(values: Floats, bytes_each: int, memory: Floats) -> float:
    """How much of the growth of memory (0-1) the growth of a signal can account for."""
    possible = bytes_each * float(values[-1] - values[0])
    return float(np.clip(possible / max(float(memory[-1] - memory[0]), 1.0), 0.0, 1.0))


def _measured_anew(values: Floats) -> Rows | None:
    """The rows whose value was measured for them; None: all.

    A process that finds its heaps dear to measure measures them every few samples and repeats the last figure between.
    Taken for a standstill, that would speak against whoever was called then. Where it is one, nothing is lost but
    resolution.
    """
    changed = values[1:] != values[:-1]
    rows = np.concatenate([[0], np.flatnonzero(changed) + 1])
    return rows if changed.mean() < 1 - _MOST_REPEATED and len(rows) >= _LEAST_SAMPLES else None


def _growth(times: Floats, memory: Floats) -> float:
    """Growth between the middles of the first and the last third, by their medians (By/s)."""
    third = max(len(times) // 3, 1)
    risen = float(np.median(memory[-third:]) - np.median(memory[:third]))
    return risen / float(np.median(times[-third:]) - np.median(times[:third]))


def _routes(found: Fit, calls: _Calls, growth: float, seconds: float) -> list[Suspect]:
    if found.unrelated >= _UNRELATED:
        return []
    suspects = []
    for item in _worth_naming(found):
        evidence = _sentence(calls, item, growth, seconds, found)
        suspects.append(_suspect("route", calls.names[item.column], growth, item.share, item.probability, evidence))
    return suspects


def _operations(
    found: Fit, calls: _Calls, measured: Mapping[int, float], growth: float, seconds: float
) -> list[Suspect]:
    """What the regression says of the calls, held against what was measured around each call.

    The measurement is direct, but a bystander pays for what others allocate meanwhile, and memory that is freed after
    the call is counted as kept. So it supports or weakens a suspect, and stands alone only where it adds up.
    """
    adds_up = 0 < sum(measured.values()) <= _TRUSTED_SUM
    suspects = []
    by_calls = {item.column: item for item in found.explained} if found.unrelated < _UNRELATED else {}
    for column, name in enumerate(calls.names):
        item = by_calls.get(column)
        kept = measured.get(column)
        share, confidence = (item.share, item.probability) if item is not None else (0.0, 0.0)
        if kept is not None and adds_up and kept >= _LEAST_SHARE:
            share = (share + kept) / 2 if item is not None else kept
            confidence = 1.0 - (1.0 - confidence) * (1.0 - 0.5 * min(kept, 1.0))
        elif kept is not None and kept < _LEAST_SHARE:
            confidence *= 0.5
        share = min(share, 1.0)
        if share * confidence < _LEAST_SHARE or confidence < _LEAST_PROBABILITY:
            continue
        evidence = _kept_sentence(name, calls.called(column) / seconds, share, growth)
        if kept is not None:
            change = "no growth" if kept <= 0 else f"{format_bytes(kept * growth)}/s"
            evidence += f"; measured around its calls: {change}"
        suspects.append(_suspect("operation", name, growth, share, min(confidence, 0.99), evidence))
    return suspects


def _measured(
    operations: Mapping[str, OperationInput], named: Sequence[str], keep: Rows, grown: float
) -> dict[int, float]:
    """Share of the process's growth that was measured around the calls of each operation; may be over 1 or under 0."""
    shares: dict[int, float] = {}
    for column, name in enumerate(named):
        growth = operations[name].growth
        if growth is None or grown <= 0:
            continue
        known = growth[keep]
        known = known[np.isfinite(known)]
        if len(known) >= 2:
            shares[column] = float(known[-1] - known[0]) / grown
    return shares


def _worth_naming(found: Fit) -> list[Explained]:
    return [
        item
        for item in found.explained
        if item.probability >= _LEAST_PROBABILITY and item.share * item.probability >= _LEAST_SHARE
    ]


def _unrelated_sentence(found: Fit, calls: _Calls, seconds: float) -> str:
    if found.unrelated < _SURELY_UNRELATED:
        return ""
    routes = f"{calls.names[0]} was" if len(calls.names) == 1 else f"{len(calls.names)} routes were"
    return (
        f"the growth is not tied to requests: it went on whatever was called ({routes} compared with it over "
        f"{format_duration(seconds)}, probability {format_share(found.unrelated)}); look at what runs beside them, "
        "such as a background thread or a timer"
    )


def _suspect(
    kind: Literal["route", "operation"], name: str, growth: float, share: float, confidence: float, evidence: str
) -> Suspect:
    # An expected share: over suspects of which only one can be it, shares don't add up to more than all.
    expected = share * confidence
    return Suspect(kind, name, expected * growth, round(expected, 4), round(confidence, 4), evidence)


def _sentence(calls: _Calls, item: Explained, growth: float, seconds: float, found: Fit) -> str:
    name = calls.names[item.column]
    text = _kept_sentence(name, calls.called(item.column) / seconds, item.share, growth)
    if item.probability >= _SURE:
        return text
    rivals = [other for other in _worth_naming(found) if other.column != item.column]
    together = [calls.names[other.column] for other in rivals if calls.together(item.column, other.column)]
    if together:
        return f"{text}; called together with {_listed(together)}, so they can not be told apart"
    doubts = [f"not yet told apart from {_listed([calls.names[other.column] for other in rivals])}"] if rivals else []
    if found.unrelated >= _LEAST_PROBABILITY:
        doubts.append(f"with a probability of {format_share(found.unrelated)} not tied to requests at all")
    return "; ".join([text, *doubts])


def _kept_sentence(name: str, rate: float, share: float, growth: float) -> str:
    kept = share * growth / rate
    return (
        f"each call of {name} kept {format_bytes(kept)}; "
        f"{format_calls(rate)} explain {format_share(share)} of the growth"
    )


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
