"""What the analyzer said of a program over time, and whether it was right."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.programs.judged.catalog import Judged

RECORDED = ("memory_bytes", "leak_score", "verdict", "growth_bytes_per_second")
RANKS = ("unknown", "healthy", "watch", "leaking")


@dataclass
class Seen:
    """What the analyzer said of one program over time."""

    program: Judged
    timeline: list[dict[str, Any]] = field(default_factory=list)
    """One for each change of what it said: ``seconds`` since the load began, and the process as the API gives it."""

    def add(self, seconds: float, process: dict[str, Any]) -> None:
        """The analyzer says this now."""
        self.timeline.append({"seconds": seconds, **process})

    @property
    def verdict(self) -> str:
        """The verdict at the end."""
        return self.timeline[-1]["verdict"] if self.timeline else "unknown"

    @property
    def worst(self) -> str:
        """The most alarming verdict at any time."""
        return max((one["verdict"] for one in self.timeline), key=RANKS.index, default="unknown")

    @property
    def seconds_to_verdict(self) -> float | None:
        """Until it was called leaking for the first time, or for good what it is at the end."""
        called = [one["seconds"] for one in self.timeline if one["verdict"] == "leaking"]
        if called:
            return float(called[0])
        since = None
        for one in reversed(self.timeline):
            if one["verdict"] != self.verdict:
                break
            since = one["seconds"]
        return since

    @property
    def verdict_is_right(self) -> bool:
        """Whether it is leaking or healthy, as it should be, at the end; to be watched is neither."""
        return self.verdict == ("leaking" if self.program.leaks else "healthy")

    def seconds_of(self, verdict: str) -> float:
        """How long it had a verdict, altogether."""
        told = list(pairwise(self.timeline))
        return float(sum(after["seconds"] - one["seconds"] for one, after in told if one["verdict"] == verdict))

    @property
    def false_alarm(self) -> bool:
        """Whether what is healthy was called leaking at any time."""
        return not self.program.leaks and self.worst == "leaking"

    @property
    def first_suspect(self) -> dict[str, Any] | None:
        """Whom it suspects first at the end."""
        suspects = self.timeline[-1]["suspects"] if self.timeline else []
        return suspects[0] if suspects else None

    @property
    def culprit_is_first(self) -> bool:
        """Whether that is who is to blame."""
        return self.first_suspect is not None and self.program.blames(self.first_suspect)

    def write(self, folder: Path) -> None:
        """The recorded series as CSV, for a look at what went wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{self.program.name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["time", *RECORDED, "suspects", "reasons"])
            for one in self.timeline:
                suspects = [f"{s['kind']} {s['name']} {s['share']:.2f} {s['confidence']:.2f}" for s in one["suspects"]]
                figures = [one[name] for name in RECORDED]
                rows.writerow([round(one["seconds"], 1), *figures, "; ".join(suspects), "; ".join(one["reasons"])])
