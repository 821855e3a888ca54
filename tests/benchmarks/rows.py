"""What a benchmark says: rows with a value, and a ratio against a floor or peer measured in the same run.

Absolute times drift from machine to machine and from hour to hour; the ratios are what to compare.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``ratio`` is its value divided by the value of the row named ``against``."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    against: str | None = None
    spread: tuple[float, float] | None = None
    """Lower and upper quartile of the ratio, where it is the median of ratios of rounds that were run in turns."""

    def over(self, other: Row) -> Row:
        """This row with its ratio against ``other``, which must have the same unit."""
        if self.unit != other.unit:
            raise ValueError(f"{self.unit} can't be held against {other.unit}")
        return Row(self.name, self.value, self.unit, self.value / other.value, other.name)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What one thing gave in each of several rounds, in which several things were measured in turns.

    Where a machine is shared, two things are comparable only round by round: both then had the same neighbours.
    """

    name: str
    unit: str
    values: Sequence[float]

    def row(self) -> Row:
        """The median."""
        return Row(self.name, statistics.median(self.values), self.unit)

    def over(self, other: Rounds) -> Row:
        """The median, and the median and the quartiles of the ratios round by round."""
        if self.unit != other.unit:
            raise ValueError(f"{self.unit} can't be held against {other.unit}")
        ratios = [mine / its for mine, its in zip(self.values, other.values, strict=True)]
        lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return Row(
            self.name, statistics.median(self.values), self.unit, statistics.median(ratios), other.name, (lower, upper)
        )

    def minus(self, other: Rounds, name: str) -> Rounds:
        """The difference, round by round."""
        return Rounds(name, self.unit, [mine - its for mine, its in zip(self.values, other.values, strict=True)])


def in_turns(measures: Mapping[str, Callable[[], float]], unit: str, rounds: int) -> dict[str, Rounds]:
    """Each measure taken once a round, every second round backwards, after one round that doesn't count."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for name in measures:
        measures[name]()
    for number in range(rounds):
        for name in list(measures) if number % 2 else reversed(measures):
            values[name].append(measures[name]())
    return {name: Rounds(name, unit, found) for name, found in values.items()}


def microseconds(work: Callable[[], object], least_seconds: float = 0.03) -> Callable[[], float]:
    """A measure for ``in_turns``: microseconds of this thread's processor time that one call of ``work`` takes."""
    began = time.thread_time()
    work()
    work()
    repeats = max(1, int(2 * least_seconds / max(time.thread_time() - began, 1e-7)))

    def measure() -> float:
        began = time.thread_time()
        for _ in range(repeats):
            work()
        return (time.thread_time() - began) / repeats * 1e6

    return measure


def median_seconds(work: Callable[[], object], *, runs: int = 7, least_seconds: float = 0.05) -> float:
    """Median over ``runs`` of the processor time of one call of ``work``, after one call that doesn't count.

    Each run repeats the call until ``least_seconds`` have passed. Processor time of this process, so that what else
    the machine does counts less; ``work`` must not wait.
    """
    work()
    began = time.process_time()
    work()
    repeats = max(1, int(least_seconds / max(time.process_time() - began, 1e-7)))
    results = []
    for _ in range(runs):
        began = time.process_time()
        for _ in range(repeats):
            work()
        results.append((time.process_time() - began) / repeats)
    return statistics.median(results)


def machine_line(distributions: Iterable[str] = (), *, runs: int) -> str:
    """One line: interpreter, machine, versions of the libraries that the figures depend on, runs."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in distributions]
    return ", ".join(
        [
            f"{platform.python_implementation()} {platform.python_version()}",
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            *versions,
            f"median of {runs} runs",
        ]
    )


def format_rows(rows: Sequence[Row]) -> str:
    """The rows as an aligned table."""
    name_width = max((len(row.name) for row in rows), default=0)
    unit_width = max((len(row.unit) for row in rows), default=0)
    lines = []
    for row in rows:
        ratio = "" if row.ratio is None else f"  {row.ratio:8.3f} × {row.against}"
        if row.spread is not None:
            ratio += f" ({row.spread[0]:.3f}–{row.spread[1]:.3f})"
        lines.append(f"{row.name:<{name_width}}  {_number(row.value):>12} {row.unit:<{unit_width}}{ratio}".rstrip())
    return "\n".join(lines)


def print_rows(title: str, rows: Sequence[Row], machine: str) -> None:
    """Prints one benchmark: title, machine, rows."""
    print(f"{title}\n  {machine}", format_rows(rows), sep="\n", flush=True)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
