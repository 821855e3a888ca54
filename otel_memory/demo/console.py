"""What the demo prints: lines for a person, or one JSON object per line for a program.

Owns the wording of a verdict and the one line of progress, which is overwritten on a terminal. Decides nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from otel_memory import humanize

PROGRESS_SECONDS: Final = 10.0
"""How often progress is told where nothing can be overwritten: in a pipe, in a file."""


def verdict_line(process: dict[str, Any]) -> str:
    """The verdict of a leaking process in one line: which service, how fast, when, which route."""
    line = f"{process['service_name']} leaks {humanize.format_rate(process['growth_bytes_per_second'] or 0)}"
    reach = process["time_to_limit_seconds"]
    if reach is not None and process["limit_bytes"]:
        low = humanize.format_duration(reach["low"])
        interval = f"at least {low}" if reach["high"] is None else f"{low} to {humanize.format_duration(reach['high'])}"
        line += (
            f" and hits its limit of {humanize.format_limit(process['limit_bytes'])} "
            f"in about {humanize.format_duration(reach['estimate'])} ({interval})"
        )
    if process["suspects"]:
        suspect = process["suspects"][0]
        share = humanize.format_share(suspect["share"])
        line += f"; first suspect: {suspect['kind']} {suspect['name']} ({share} of the growth)"
    return line


def progress_line(processes: list[dict[str, Any]]) -> str:
    """All processes in one line: name, memory, verdict."""
    return ", ".join(
        f"{p['service_name']} "
        f"{'?' if p['memory_bytes'] is None else humanize.format_bytes(p['memory_bytes'])} {p['verdict']}"
        for p in processes
    )


class Console:
    """Standard output of one demo. ``began`` is the moment from which it counts seconds."""

    def __init__(self, as_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._json = as_json
        self._clock = clock
        self.began = clock()
        self._progress_at = -PROGRESS_SECONDS
        self._progress_shown = False

    @property
    def age(self) -> float:
        """Seconds since ``began``."""
        return self._clock() - self.began

    def say(self, text: str, **fields: object) -> None:
        """Print one line, or one object with ``at`` (seconds), ``message`` and ``fields``."""
        if self._json:
            print(json.dumps({"at": round(self.age, 1), "message": text.strip(), **fields}), flush=True)
            return
        if self._progress_shown:
            print("\r\033[K", end="")
            self._progress_shown = False
        print(text, flush=True)

    def progress(self, text: str) -> None:
        """Print how things stand; seldom where it can't be overwritten, never as JSON."""
        if self._json:
            return
        line = f"  {self.age:4.0f} s  {text}"
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            print(f"\r\033[K{line[: width - 1]}", end="", flush=True)
            self._progress_shown = True
        elif self._clock() - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = self._clock()
            print(line, flush=True)
