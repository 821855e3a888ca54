"""Draws the picture of docs/scoring.md: one made trace of each of some kinds, with what the scoring says of it.

``python -m tests.benchmarks.scoring_pictures [OUT.png]``. Same code, same picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

from otel_memory.analyzer.scorefile import plot
from otel_memory.analyzer.scorefile.reading import Named
from otel_memory.analyzer.scoring import SeriesInput, score_batch
from tests.benchmarks.traces import long, unseen

OUT = Path(__file__).resolve().parents[2] / "docs" / "scoring.png"
SHOWN = (
    "late_onset-medium-0",
    "arena_steps-medium-0",
    "leak_with_slow_saw-medium-0",
    "only_at_work-medium-0",
    "fills_and_stops-medium-0",
    "one_off_step-medium-0",
    "nightly_jobs-medium-0",
    "compaction_cycle-medium-0",
)
SEED = 3


def main() -> int:
    """Draw, and say where to."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    traces = {trace.name: trace for trace in [*long.make(SEED, 1), *unseen.make(SEED, 1)]}
    named = [
        Named(
            f"{'leaks' if traces[name].leak else 'healthy'}: {name.split('-')[0].replace('_', ' ')}",
            SeriesInput(traces[name].times, traces[name].values, traces[name].limit, traces[name].covariates),
        )
        for name in SHOWN
    ]
    results = score_batch([one.series for one in named])
    plot.draw(out, list(zip(named, results, strict=True)))
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
