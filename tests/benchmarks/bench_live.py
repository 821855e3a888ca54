"""Live judgement: programs that leak and programs that only look like it, run with load, judged by the analyzer.

``python -m tests.benchmarks.bench_live`` prints the tables of docs/judged.md and their figures; about 35 minutes.
``--record FOLDER`` keeps what the programs sent, and ``--replay FOLDER`` judges that again in a minute or two, nothing
being run. ``python -m tests.programs.judged --help`` does the same with some of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.rows import machine_line
from tests.programs.judged.catalog import HEALTHY, HELD_OUT, HELD_OUT_TOO, LEAKING, Judged
from tests.programs.judged.recording import recordings, replay
from tests.programs.judged.run import TOGETHER, judge
from tests.programs.judged.seen import Seen
from tests.programs.judged.table import HEAD, figures, row

TITLE = "live"
DISTRIBUTIONS = ("numpy", "flask", "fastapi", "django", "celery", "grpcio")
SETS = {"programs": (*LEAKING, *HEALTHY), "held out": HELD_OUT, "held out once more": HELD_OUT_TOO}


def main() -> None:
    """Run all of them and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_live", description=__doc__)
    parser.add_argument("--together", type=int, default=TOGETHER, help="programs at a time")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep what was sent, to be judged again")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="judge what was kept there; nothing is run")
    options = parser.parse_args()
    print(f"{TITLE} ({machine_line(DISTRIBUTIONS, runs=1)}; {options.together} programs at a time)", flush=True)
    for title, programs in SETS.items():
        print(f"\n{title}\n\n{HEAD}", flush=True)
        seen = []
        for one in _said(programs, options):
            seen.append(one)
            print(row(one), flush=True)
        print(f"\n{figures(seen)}", flush=True)


def _said(programs: Iterable[Judged], options: argparse.Namespace) -> Iterable[Seen]:
    names = [one.name for one in programs]
    if options.replay:
        return map(replay, recordings(options.replay, names))
    return judge(names, together=options.together, record=options.record)


if __name__ == "__main__":
    main()
