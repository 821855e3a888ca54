"""``python -m tests.programs.web_leaks [name …]``: run the services and print what the evidence named, as a table."""

from __future__ import annotations

import argparse

from tests.programs.leaks.__main__ import HEAD, tell
from tests.programs.web_leaks.run import PROGRAMS, run


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.web_leaks", description=__doc__)
    parser.add_argument("program", nargs="*", help=f"default: all of {', '.join(PROGRAMS)}")
    parser.add_argument("--seconds", type=float, default=25.0, help="how long the healthy ones run")
    parser.add_argument("--all", action="store_true", help="print every attribute of every event")
    options = parser.parse_args()
    print(HEAD)
    for outcome in run(options.program or PROGRAMS, options.seconds):
        tell(outcome, options.all)


if __name__ == "__main__":
    main()
