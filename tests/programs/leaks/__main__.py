"""``python -m tests.programs.leaks [name …]``: run the programs and print what the evidence named, as a table."""

from __future__ import annotations

import argparse
import json

from tests.programs.leaks.run import PROGRAMS, Outcome, run

HEAD = "| program | kind | site | type | holder | confidence |\n|---|---|---|---|---|---|"


def row(outcome: Outcome) -> str:
    """One row of the table in docs/evidence.md."""
    if not outcome.events:
        return f"| {outcome.program} | no event | | | | |"
    found = outcome.attributes
    kind = found["kind"] + (f"; {'; '.join(found['note'])}" if found.get("note") else "")

    def first(name: str) -> str:
        return f"`{found[name][0]}`" if found.get(name) else ""

    return (
        f"| {outcome.program} | {kind} | {first('site')} | {first('type')} | {first('holder')} | "
        f"{found['confidence']:.1f} |"
    )


def tell(outcome: Outcome, everything: bool) -> None:
    """Print the row, what went wrong, and the whole events if asked for."""
    print(row(outcome), flush=True)
    if outcome.status or outcome.errors:
        print(outcome.status, outcome.errors)
    if everything:
        for event in outcome.events:
            print(event["body"])
            print(json.dumps(event["attributes"], indent=1))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.leaks", description=__doc__)
    parser.add_argument("program", nargs="*", help=f"default: all of {', '.join(PROGRAMS)}")
    parser.add_argument("--seconds", type=float, default=22.0)
    parser.add_argument("--together", type=int, default=6, help="programs that run at the same time")
    parser.add_argument("--all", action="store_true", help="print every attribute of every event")
    options = parser.parse_args()
    print(HEAD)
    for outcome in run(options.program or PROGRAMS, options.seconds, options.together):
        tell(outcome, options.all)


if __name__ == "__main__":
    main()
