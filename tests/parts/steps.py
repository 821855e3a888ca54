"""Runs the commands that fetch a part: output to a log, a line of progress every few seconds, ended with us."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.parts.cache import Say

PROGRESS_SECONDS = 5.0
"""Between two lines of progress; three times as long once a step has run for half a minute."""
TAIL_LINES = 25


class PartUnavailable(Exception):
    """A part can't be had here. ``reason`` says why, ``mend`` what to do about it."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(f"{reason}\n  mend: {mend}")
        self.reason = reason
        self.mend = mend


def find_tool(name: str) -> str | None:
    """Path of a program: from PATH, or for Go from where its own installer puts it."""
    found = shutil.which(name)
    if found is None and name == "go":
        return shutil.which(name, path="/usr/local/go/bin:/usr/lib/go/bin")
    return found


def require_tool(name: str, mend: str) -> str:
    """Path of a program, or `PartUnavailable` with ``mend``."""
    found = find_tool(name)
    if found is None:
        raise PartUnavailable(f"the program `{name}` is not on this machine", mend)
    return found


@dataclass(frozen=True)
class Steps:
    """The commands of one fetch. ``log`` gets all their output; ``say`` tells one line to the person."""

    part: str
    log: Path
    say: Say

    def run(
        self,
        label: str,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_seconds: float = 1200,
    ) -> None:
        """Run one command to its end. Raises `PartUnavailable` with the log's tail when it fails or takes too long."""
        self.say(f"{self.part}: {label}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(argv)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = self._wait(label, child, timeout_seconds)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                raise
        if status != 0:
            lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            raise PartUnavailable(
                f"{label} failed with status {status}; the end of its log:\n    " + "\n    ".join(lines),
                f"read {self.log}; run `./dev parts {self.part}` again when the cause is gone",
            )

    def _wait(self, label: str, child: subprocess.Popen[bytes], timeout_seconds: float) -> int:
        began = time.monotonic()
        elapsed = 0.0
        while True:
            try:
                return child.wait(timeout=PROGRESS_SECONDS * (1 if elapsed < 25 else 3))
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - began
            if elapsed > timeout_seconds:
                raise PartUnavailable(
                    f"{label} took more than {timeout_seconds:.0f} s", f"read {self.log}; is the network slow?"
                )
            self.say(f"{self.part}: {label} … {elapsed:.0f} s")
