"""Starting and surely ending the demo's subprocesses.

Owns their life: each has a log file in the demo's folder and a process group of its own; they are ended in the
reverse order of their start; on Linux the kernel ends them when the demo itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 8.0
KILL_SECONDS: Final = 5.0
LOG_TAIL_BYTES: Final = 16 * 1024
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def _dies_with(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        """Runs in the child before exec: the kernel will kill it when the demo dies, even by kill -9."""
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the kernel knew
                os._exit(1)

    return prepare


class Children:
    """Named subprocesses of one demo. ``hurry`` is asked whether whatever still runs must be killed at once."""

    def __init__(self, folder: Path, hurry: Callable[[], bool] = lambda: False) -> None:
        self._folder = folder
        self._hurry = hurry
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start ``argv`` as ``name``; what it prints goes to ``name.log`` in the demo's folder."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                cwd=self._folder,
                start_new_session=True,  # a terminal's Ctrl-C is for the demo alone, which ends them in order
                preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509  the demo has one thread
            )

    def pid(self, name: str) -> int:
        """Process id of the child ``name``."""
        return self._processes[name].pid

    def dead(self) -> list[str]:
        """Names of the children that have ended by themselves."""
        return [name for name, process in self._processes.items() if _has_ended(process)]

    def last_words(self, name: str, lines: int = 20) -> str:
        """How a child ended, if it did, and the last lines that it printed."""
        text = ""
        with contextlib.suppress(OSError), (self._folder / f"{name}.log").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
        printed = "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
        return f"it printed:\n{printed}" if printed else "it printed nothing"

    def stop(self, *names: str) -> None:
        """End some children, side by side, and what is in their groups; SIGTERM first, SIGKILL after a while."""
        processes = [self._processes[name] for name in names if name in self._processes]
        for process in processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and not self._hurry() and not all(map(_has_ended, processes)):
            time.sleep(0.02)
        for process in processes:
            # Also where it has ended: its group may outlive it. It isn't reaped yet, so the number is still its own.
            _signal(process, signal.SIGKILL)
        for name, process in list(self._processes.items()):
            if process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: nobody can end it
                    process.wait(KILL_SECONDS)
                del self._processes[name]

    def stop_all(self) -> None:
        """End every child, the last started first."""
        for name in reversed(list(self._processes)):
            self.stop(name)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping: as long as it is a zombie, nobody else can get its process group's number."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
