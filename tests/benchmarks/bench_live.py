"""Live judgement: programs that leak and programs that only look like it, run with load, judged by the analyzer.

``python -m tests.benchmarks.bench_live`` prints the table of docs/judged.md and its two figures; about fifteen
minutes. ``python -m tests.programs.judged --help`` runs some of them, or keeps what was recorded.
"""

from __future__ import annotations

from tests.benchmarks.rows import machine_line
from tests.programs.judged.catalog import PROGRAMS
from tests.programs.judged.run import judge
from tests.programs.judged.table import HEAD, figures, row

TITLE = "live"
DISTRIBUTIONS = ("numpy", "flask", "fastapi")


def main() -> None:
    """Run all of them and print."""
    print(f"{TITLE} ({machine_line(DISTRIBUTIONS, runs=1)})\n\n{HEAD}", flush=True)
    seen = []
    for one in judge(PROGRAMS):
        seen.append(one)
        print(row(one), flush=True)
    print(f"\n{figures(seen)}")


if __name__ == "__main__":
    main()
