"""What the analyzer said, as rows of a table and two figures."""

from __future__ import annotations

from collections.abc import Sequence

from tests.programs.judged.seen import Seen

HEAD = (
    "| program | what it does | verdict | after | on the way | first suspect | right |\n|---|---|---|---|---|---|---|"
)


def row(seen: Seen) -> str:
    """One program."""
    seconds = seen.seconds_to_verdict
    suspect = seen.first_suspect
    named = f"{suspect['kind']} `{suspect['name']}`" if suspect and seen.verdict == "leaking" else ""
    right = [_yes("verdict", seen.verdict_is_right)]
    if seen.program.leaks:
        right.append(_yes("suspect", seen.culprit_is_first))
    after = "" if seconds is None else f"{seconds:.0f} s"
    worst = f"{seen.worst} for {seen.seconds_of(seen.worst):.0f} s" if seen.worst != seen.verdict else ""
    cells = [seen.program.name, seen.program.what, seen.verdict, after, worst, named, ", ".join(right)]
    return f"| {' | '.join(cells)} |"


def figures(seen: Sequence[Seen]) -> str:
    """How many were right."""
    leaking = [one for one in seen if one.program.leaks]
    right = sum(one.verdict_is_right for one in seen)
    named = sum(one.culprit_is_first for one in leaking)
    false = sum(one.false_alarm for one in seen)
    return (
        f"verdict right at the end: {right} of {len(seen)}; culprit first: {named} of {len(leaking)}; "
        f"called leaking on the way: {false} of {len(seen) - len(leaking)} healthy ones"
    )


def _yes(what: str, right: bool) -> str:
    return f"{what} {'right' if right else 'WRONG'}"
