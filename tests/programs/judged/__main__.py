"""``python -m tests.programs.judged [name …]``: run the programs live and print what the analyzer said, as a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.programs.judged.catalog import PROGRAMS
from tests.programs.judged.recording import recordings, replay
from tests.programs.judged.run import SECONDS, TOGETHER, judge
from tests.programs.judged.table import HEAD, figures, row


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.judged", description=__doc__)
    parser.add_argument("program", nargs="*", help=f"default: all of {', '.join(PROGRAMS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load, for each")
    parser.add_argument("--together", type=int, default=TOGETHER, help="programs at a time")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="keep what was said over time, as CSV")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep what was sent, to be judged again")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="judge what was kept there; nothing is run")
    options = parser.parse_args()
    if unknown := sorted(set(options.program) - set(PROGRAMS)):
        parser.error(f"{unknown[0]} is none of {', '.join(PROGRAMS)}")
    if options.replay:
        said = map(replay, recordings(options.replay, options.program))
    else:
        said = judge(options.program or PROGRAMS, options.seconds, options.together, record=options.record)
    seen = []
    print(HEAD, flush=True)
    for one in said:
        seen.append(one)
        print(row(one), flush=True)
        if options.write:
            one.write(options.write)
    print(f"\n{figures(seen)}")


if __name__ == "__main__":
    main()
