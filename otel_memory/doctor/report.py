"""The doctor's findings and how they are shown. Never finds anything itself."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, TextIO

from otel_memory.humanize import printable

Status = Literal["ok", "note", "warning", "failure"]

_SIGNS: Final[dict[Status, tuple[str, str]]] = {
    "ok": ("✓", "32"),
    "note": ("·", "36"),
    "warning": ("!", "33"),
    "failure": ("✗", "31"),
}
_WORD_WIDTH: Final = max(map(len, _SIGNS))


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result. ``mend`` says what to do, where something is to be done."""

    check: str
    status: Status
    detail: str
    mend: str | None = None


def exit_status(findings: Sequence[Finding]) -> int:
    """0 if nothing failed, else 1. A warning is no failure: the probe works, but something could be better."""
    return int(any(finding.status == "failure" for finding in findings))


def print_findings(findings: Sequence[Finding], out: TextIO) -> None:
    """Print the findings for a person, and a closing line that says whether it will work."""
    colour = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    signs = {status: _sign(status, out) for status in _SIGNS}
    sign_width = max(map(len, signs.values()))
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        sign = f"{signs[finding.status]:<{sign_width}}"
        shown = f"\033[{_SIGNS[finding.status][1]}m{sign}\033[0m" if colour else sign
        print(f"{shown} {finding.check:<{width}}  {printable(finding.detail)}", file=out)
        if finding.mend:
            print(f"{'':<{sign_width + width + 3}}mend: {printable(finding.mend)}", file=out)
    failures = sum(finding.status == "failure" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if failures:
        print(f"\n{failures} to mend before memory can be judged.", file=out)
    elif warnings:
        print(f"\nIt works; {warnings} could be better.", file=out)
    else:
        print("\nAll is well.", file=out)


def _sign(status: Status, out: TextIO) -> str:
    """A sign where the encoding has it (else all are words, so that they stay in one column)."""
    try:
        "".join(sign for sign, _ in _SIGNS.values()).encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return f"{status:<{_WORD_WIDTH}}"
    return _SIGNS[status][0]


def print_json(findings: Sequence[Finding], out: TextIO) -> None:
    """Print the findings for a program."""
    json.dump({"ok": exit_status(findings) == 0, "findings": [asdict(finding) for finding in findings]}, out, indent=2)
    out.write("\n")
