"""How well the scoring tells leaks from healthy programs, on labelled traces: recorded ones and ones made here.

``python -m tests.benchmarks.bench_judgement`` prints the figures, with every family also held out of the fitting;
``--fit`` fits the weights anew and writes them to ``otel_memory/analyzer/weights.py``. Same data, same weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from otel_memory.analyzer import evidence, weights
from otel_memory.analyzer.scorefile import reading
from otel_memory.analyzer.scoring import ScoreResult, SeriesInput, score_batch, terms_batch
from tests.benchmarks import judgement_fit
from tests.benchmarks.judgement_replay import replay
from tests.benchmarks.rows import Row, format_rows, machine_line
from tests.benchmarks.traces import cases, fresh, live, long, ordinary, recorded, unseen
from tests.benchmarks.traces.shape import SEVERITIES, Trace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SEED = 1
"""Of the traces that the weights are fitted on."""
SEED_UNSEEN = 20261
"""Of the traces that are only judged: draws that neither the fit nor whoever made the evidence had seen. Their kinds
were seen; kinds that were not are what the held-out column is about."""
ALARM, LEAKING = 0.5, 0.8
_REPLAYS = 48
"""Evaluations of a replayed trace, from a tenth of it to its end."""
RULES = ((ALARM, 2), (LEAKING, 2), (ALARM, 8), (LEAKING, 8))
"""Scores, and for how many evaluations in a row they must hold for an alarm. Eight are about a sixth of the trace."""
_BATCH = 2000
DAYS = 6
"""Ordinary days of each kind."""
AGEING = "llm_aging.csv.gz"
_DIGITS = 2
_YOUNG = 0.8
"""Share of a trace before which a leak in it is young."""
WEIGHTS_FILE = Path(__file__).resolve().parents[2] / "otel_memory" / "analyzer" / "weights.py"


@dataclass(frozen=True)
class Table:
    """Cases with what was found: scores of the weights that the package carries, and of weights that were fitted
    without the case's family."""

    cases: Sequence[cases.Case]
    leak: Bools
    fitted: Floats
    held: Floats

    def where(
        self,
        *,
        origin: str | None = None,
        family: str | None = None,
        severity: str | None = None,
        at: Sequence[float] | None = None,
        covariates: bool | None = None,
    ) -> Table:
        """The cases that are as said; what is not said does not matter."""
        keep = np.array(
            [
                (origin is None or case.trace.origin == origin)
                and (family is None or case.trace.family == family)
                and (severity is None or case.trace.severity == severity)
                and (at is None or case.at in at)
                and (covariates is None or case.covariates == covariates)
                for case in self.cases
            ],
            dtype=bool,
        )
        picked = [case for case, kept in zip(self.cases, keep, strict=True) if kept]
        return Table(picked, self.leak[keep], self.fitted[keep], self.held[keep])

    def line(self, name: str) -> str:
        parts = [f"{name:<34}{len(self.cases):>5}"]
        for score in (self.fitted, self.held):
            parts.append(f"F1 {judgement_fit.f1(score >= ALARM, self.leak):.3f}")
            parts.append(f"AUC {judgement_fit.auc(score, self.leak):.3f}")
        return "  ".join(parts)


def _batched(series: Sequence[SeriesInput], judge: Callable[[Sequence[SeriesInput]], Iterable[object]]) -> list[object]:
    found: list[object] = []
    for first in range(0, len(series), _BATCH):
        found.extend(judge(series[first : first + _BATCH]))
    return found


def _scored(series: Sequence[SeriesInput]) -> list[ScoreResult]:
    return [result for result in _batched(series, score_batch) if isinstance(result, ScoreResult)]


def training(recorded_traces: Sequence[Trace]) -> list[Trace]:
    """The traces that the weights are fitted on."""
    return [*recorded_traces, *long.make(SEED, 3), *live.make(SEED, 2)]


def evaluate(traces: Sequence[Trace]) -> tuple[Table, Floats]:
    """Every trace at several moments, with and without covariates; and the weights fitted on all of them."""
    known = [case for covariates in (True, False) for case in cases.moments(traces, covariates=covariates)]
    terms = np.array(_batched([case.series for case in known], terms_batch))
    enough = ~np.isnan(terms[:, 0])
    known = [case for case, kept in zip(known, enough, strict=True) if kept]
    terms = terms[enough]
    leak = np.array([case.leak for case in known])
    live_cases = np.array([case.trace.origin == "live" for case in known])
    at = np.array([case.at for case in known])
    ended, young = ~live_cases & (at == 1.0), ~live_cases & (at < _YOUNG)
    share = judgement_fit.shares([case.trace.origin for case in known], leak, ended, young)
    held = judgement_fit.held_out(terms, leak, share, [case.trace.family for case in known])
    carried = np.array([*weights.WEIGHTS, weights.INTERCEPT])
    table = Table(known, leak, judgement_fit.scores(carried, terms), held)
    made = np.array([case.trace.origin != "recorded" for case in known])
    if (~made).any():
        other = judgement_fit.fit(terms[made], leak[made], share[made])
        unseen = judgement_fit.scores(other, terms)
        ends = np.array([c.trace.origin == "recorded" and c.at == 1.0 and c.covariates for c in known])
        f1, auc = judgement_fit.f1(unseen[ends] >= ALARM, leak[ends]), judgement_fit.auc(unseen[ends], leak[ends])
        print(f"recorded traces by weights fitted on made ones alone: F1 {f1:.3f}  AUC {auc:.3f}\n")
    return table, judgement_fit.fit(terms, leak, share)


def write_weights(found: Floats) -> None:
    """Writes the weights, rounded, in place of those in the package."""
    text = WEIGHTS_FILE.read_text()
    rounded = [round(float(w), _DIGITS) for w in found]
    lines = []
    for line in text.splitlines():
        if line.startswith("WEIGHTS: Final"):
            line = f"WEIGHTS: Final = ({', '.join(str(w) for w in rounded[:-1])})"
        elif line.startswith("INTERCEPT: Final"):
            line = f"INTERCEPT: Final = {rounded[-1]}"
        lines.append(line)
    WEIGHTS_FILE.write_text("\n".join(lines) + "\n")


def show_classes(table: Table) -> None:
    """F1 and AUC by origin, severity and moment; then mean and worst score of each family at its end."""
    print(f"{'':<34}{'cases':>5}  weights of the package  family held out of the fitting")
    for origin in ("recorded", "long"):
        for covariates in (True, False):
            own = table.where(origin=origin, at=[1.0], covariates=covariates)
            print(own.line(f"{origin}, {'with covariates' if covariates else 'without'}"))
            for severity in SEVERITIES:
                print(own.where(severity=severity).line(f"  {severity}"))
    for at in cases.LIVE_SECONDS[1::3]:
        print(table.where(origin="live", at=[at], covariates=True).line(f"live, after {at:.0f} s"))
    print("\nat the end of the trace, family held out        easy         medium       hard   (mean and worst score)")
    ended = table.where(at=[1.0, cases.LIVE_SECONDS[-1]], covariates=True)
    names = {case.trace.family: case.leak for case in ended.cases}
    for family, leak in sorted(names.items(), key=lambda pair: (not pair[1], pair[0])):
        cells = []
        for severity in SEVERITIES:
            held = ended.where(family=family, severity=severity).held
            cells.append(f"{held.mean():.2f} {held.min() if leak else held.max():.2f}")
        print(f"  {'leaks  ' if leak else 'healthy'} {family:<34}" + "    ".join(cells))


def _alarms(scores: Floats, threshold: float, held: int) -> Bools:
    """At which evaluations the score has reached the threshold ``held`` times in a row."""
    high = np.concatenate([np.zeros(held - 1, dtype=bool), scores >= threshold])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(high, held).all(axis=1))


def _episodes(scores: Floats, threshold: float, held: int) -> int:
    alarm = _alarms(scores, threshold, held)
    return int((alarm & ~np.concatenate(([False], alarm[:-1]))).sum())


@dataclass
class Replay:
    """What replayed traces came to: days, false alarms by threshold and family, delays, errors, intervals."""

    days: float = 0.0
    families: dict[str, list[float]] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    growth_errors: list[float] = field(default_factory=list)
    time_errors: list[float] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)
    bounded: int = 0
    seen: dict[tuple[float, int], list[bool]] = field(default_factory=dict)

    def healthy(self, trace: Trace, scores: Floats) -> None:
        days = float(trace.times[-1] - trace.times[0]) / 86400
        self.days += days
        entry = self.families.setdefault(trace.family, [0.0] * (len(RULES) + 1))
        for column, (threshold, held) in enumerate(RULES):
            entry[column] += _episodes(scores, threshold, held)
        entry[-1] += days

    def leaking(self, trace: Trace, ends: Floats, scores: Floats, last: ScoreResult) -> None:
        first, end = float(trace.times[0]), float(trace.times[-1])
        onset = max(trace.onset if trace.onset is not None else first, first)
        left = trace.time_to_limit
        for threshold, held in RULES:
            alarm = _alarms(scores, threshold, held) & (ends >= onset)
            self.seen.setdefault((threshold, held), []).append(bool(alarm.any()))
        hit = ends[_alarms(scores, *RULES[0]) & (ends >= onset)]
        if len(hit) and left is not None:
            self.delays.append(float(hit[0] - onset) / (left + end - onset))
        if last.score < ALARM or not trace.rate:
            return
        self.growth_errors.append(abs(last.growth_rate - trace.rate) / trace.rate)
        # A relative error of a time that is all but over says nothing.
        if left is None or last.time_to_limit is None or left < 0.05 * (end - first):
            return
        found = last.time_to_limit
        self.time_errors.append(abs(found.estimate - left) / left)
        self.inside.append(found.low <= left <= (np.inf if found.high is None else found.high))
        self.bounded += found.high is not None

    def rows(self) -> list[Row]:
        def per_thousand_days(column: int) -> float:
            return 1000 * sum(entry[column] for entry in self.families.values()) / self.days

        rows = []
        for column, (threshold, held) in enumerate(RULES):
            rule = f"score {threshold} {held} times in a row"
            rows.append(Row(f"false alarms per 1,000 process-days, {rule}", per_thousand_days(column), "1"))
            rows.append(Row(f"leaks seen, {rule}", 100 * float(np.mean(self.seen[threshold, held])), "%"))
        return [
            *rows,
            Row("delay, share of the time from onset to limit, median", float(np.median(self.delays)), "1"),
            Row("error of the growth rate, median", 100 * float(np.median(self.growth_errors)), "%"),
            Row("error of the time to the limit, median", 100 * float(np.median(self.time_errors)), "%"),
            Row("80 % interval holds", 100 * float(np.mean(self.inside)), "%"),
            Row("intervals with an upper end", 100 * self.bounded / max(len(self.inside), 1), "%"),
        ]


def show_replay(name: str, traces: Sequence[Trace]) -> None:
    """Replays traces: false alarms of healthy ones, delay of leaking ones, errors of growth and time to the limit."""
    shares = np.linspace(0.1, 1.0, _REPLAYS)
    moments = [float(t.times[0]) + shares * float(t.times[-1] - t.times[0]) for t in traces]
    results = _scored([cases.shown(t, end) for t, ends in zip(traces, moments, strict=True) for end in ends])
    replay = Replay()
    for index, (trace, ends) in enumerate(zip(traces, moments, strict=True)):
        own = results[index * _REPLAYS : (index + 1) * _REPLAYS]
        scores = _usable(own)
        if trace.leak:
            replay.leaking(trace, ends, scores, own[-1])
        else:
            replay.healthy(trace, scores)
    rules = ", ".join(f"{threshold} held {held} times" for threshold, held in RULES)
    print(f"\nreplayed: {name}; false alarms by family at {rules}")
    for family, (*alarms, days) in sorted(replay.families.items()):
        print(f"  {family:<28}{''.join(f'{count:4.0f}' for count in alarms)}   in {days:.1f} days")
    print(format_rows(replay.rows()), flush=True)


def _usable(results: Sequence[ScoreResult]) -> Floats:
    return np.array([result.score if result.sufficient else 0.0 for result in results])


def show_live(traces: Sequence[Trace]) -> None:
    """The first minutes, second by second: when leaks are seen, and how high healthy programs rise."""
    leaking: dict[str, list[list[float]]] = {}
    healthy: dict[str, list[list[float]]] = {}
    for trace in traces:
        ends = np.arange(float(trace.times[0]) + 16, float(trace.times[-1]), 4.0)
        scores = _usable(_scored([cases.shown(trace, end, window=cases.WINDOW) for end in ends]))
        held = np.minimum(scores[1:], scores[:-1])
        if trace.onset is None:
            shares = [100 * float((held >= mark).mean()) for mark in (ALARM, LEAKING)]
            healthy.setdefault(trace.family, []).append([float(held.max()), *shares])
            continue
        seen = [ends[1:][(held >= mark) & (ends[1:] > trace.onset)] for mark in (ALARM, LEAKING)]
        after = [float(times[0]) - trace.onset if len(times) else np.inf for times in seen]
        leaking.setdefault(trace.family, []).append(after)
    print("\nlive: a sample a second, judged each 4 s over the last 256 samples, a score counts when held twice")
    for family, values in sorted(leaking.items()):
        middle, worst = np.median(values, axis=0), np.max(values, axis=0)
        text = [f"{mark} after {middle[i]:.0f} s (worst {worst[i]:.0f})" for i, mark in enumerate((ALARM, LEAKING))]
        print(f"  leaks   {family:<28}{', '.join(text)}")
    for family, values in sorted(healthy.items()):
        highest, half, most = np.max(values, axis=0)
        share = f"at most {half:.0f} % of the time over {ALARM}, {most:.0f} % over {LEAKING}"
        print(f"  healthy {family:<28}highest {highest:.2f}, {share}")


def show_unseen(name: str, traces: Sequence[Trace]) -> None:
    """Kinds that were neither fitted on nor looked at: F1 and AUC at their ends, and how often each is right."""
    leak = np.array([trace.leak for trace in traces])
    found = {
        covariates: _usable(_scored([cases.shown(t, float(t.times[-1]), covariates=covariates) for t in traces]))
        for covariates in (True, False)
    }
    print(f"\n{name}: judged at their ends, never fitted on")
    for covariates, scores in found.items():
        word = "with covariates" if covariates else "without"
        f1, auc = judgement_fit.f1(scores >= ALARM, leak), judgement_fit.auc(scores, leak)
        print(f"  {word:<34}{len(traces):>5}  F1 {f1:.3f}  AUC {auc:.3f}")
    for family in dict.fromkeys(trace.family for trace in traces):
        own = np.array([trace.family == family for trace in traces])
        right = [f"{100 * float(((scores >= ALARM) == leak)[own].mean()):3.0f} %" for scores in found.values()]
        print(
            f"  {'leaks  ' if leak[own][0] else 'healthy'} {family:<34}right {right[0]}, without covariates {right[1]}"
        )


def show_ordinary(days: Sequence[Trace]) -> None:
    """Alerts of the whole judgement (windows, verdicts, alerts) on ordinary days of healthy services."""
    outcomes = replay(days)
    total = sum(outcome.days for outcome in outcomes)
    fired = sum(len(outcome.fired) for outcome in outcomes)
    watched = sum(len(outcome.watched) for outcome in outcomes)
    print(f"\n{total:.0f} ordinary days of healthy services, a sample a minute, judged as the analyzer does")
    print(f"  alerts that fire, per 1,000 process-days  {1000 * fired / total:.0f}")
    print(f"  times that a process is watched, the same {1000 * watched / total:.0f}")
    for family in dict.fromkeys(outcome.trace.family for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.trace.family == family]
        alerts, doubts = sum(len(o.fired) for o in own), sum(len(o.watched) for o in own)
        print(f"    {family:<28}{alerts:3d} alerts {doubts:4d} watched   in {len(own)} days")


def show_ageing(path: Path) -> None:
    """Growth after a quarter of each slow series against a robust fit (Theil 1950, Sen 1968) over all of it; and what
    the same robust fit of the quarter alone gives: no estimate of that quarter can know more."""
    print("\nslow ageing: error of the growth against the middle slope over the whole series")
    print(f"  {'':<22}  score at 1/4   growth at 1/4   robust fit of the 1/4   growth at the end")
    for one in reading.read(path, reading.Columns()).series:
        times, values = one.series.times, one.series.values
        quarter = times <= times[0] + (times[-1] - times[0]) / 4
        whole = _robust(times, values)
        early, late = score_batch([SeriesInput(times[quarter], values[quarter]), SeriesInput(times, values)])
        errors = [early.growth_rate / whole - 1, _robust(times[quarter], values[quarter]) / whole - 1]
        print(
            f"  {one.name:<22}  {early.score:8.2f}      {100 * errors[0]:+8.0f} %      {100 * errors[1]:+12.0f} %"
            f"      {100 * (late.growth_rate / whole - 1):+12.0f} %"
        )


def _robust(times: Floats, values: Floats, parts: int = 64) -> float:
    """The middle slope between medians of equal parts (By/s), without the first hundredth, in which it starts."""
    first = len(times) // 100
    pieces = np.array_split(np.arange(first, len(times)), parts)
    x = np.array([times[piece].mean() for piece in pieces])
    y = np.array([np.median(values[piece]) for piece in pieces])
    i, j = np.triu_indices(parts, 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


def main() -> int:
    """Print the figures; with ``--fit`` write the weights. 2 if the recorded traces are not there."""
    parser = argparse.ArgumentParser(prog="bench_judgement", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=recorded.DEFAULT, help="folder with leak_traces.json and .npz")
    parser.add_argument("--fit", action="store_true", help="fit the weights and write them into the package")
    options = parser.parse_args()
    try:
        recorded_traces = recorded.read(options.data)
    except recorded.NoTraces as missing:
        print(missing, file=sys.stderr)
        return 2
    print(f"judgement\n  {machine_line(('numpy',), runs=1)}", flush=True)
    table, found = evaluate(training(recorded_traces))
    print("weights: " + ", ".join(f"{n} {w:.2f}" for n, w in zip((*evidence.TERMS, "intercept"), found, strict=True)))
    if options.fit:
        write_weights(found)
        print(f"written to {WEIGHTS_FILE.name}; run again without --fit for the figures")
        return 0
    show_classes(table)
    show_unseen("kinds held back", unseen.make(SEED_UNSEEN, 4))
    show_unseen("kinds held back, judged once", fresh.make(SEED_UNSEEN, 4))
    for name, traces in (("recorded", recorded_traces), ("long, unseen seed", long.make(SEED_UNSEEN, 2))):
        show_replay(name, traces)
    show_live(live.make(SEED_UNSEEN, 2))
    show_ordinary(ordinary.make(SEED_UNSEEN, DAYS))
    ageing = options.data / AGEING
    if ageing.is_file():
        show_ageing(ageing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
