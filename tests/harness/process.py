"""One child process with its own log, in a process group of its own, and the certainty of its end.

Owns what a child is started in and how it is ended; knows nothing of what runs in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE_SECONDS = 10.0


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would steer OpenTelemetry or send loopback traffic elsewhere."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))}
    env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost"
    env["PYTHONUNBUFFERED"] = "1"
    return {**env, **(extra or {})}


class Child:
    """A started process. Its group ends with `stop`, whatever it started itself included."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return not self._has_ended()

    @property
    def status(self) -> int | None:
        """Exit status (negative: the signal) once `stop` or `kill` has seen the end, else None."""
        return self._popen.returncode

    def _has_ended(self) -> bool:
        # Without reaping: as long as the leader is a zombie, nobody else can get its process group's number.
        if self._popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def send_signal(self, number: int, *, group: bool = True) -> None:
        """Send a signal to the group or to the process alone; nothing where it was reaped already."""
        if self._popen.returncode is None:
            try:
                (os.killpg if group else os.kill)(self.pid, number)
            except ProcessLookupError:
                pass

    def wait(self, timeout_seconds: float) -> bool:
        """Whether the process itself ends within the time. What it started may go on until `stop`."""
        deadline = time.monotonic() + timeout_seconds
        pause = 0.005
        while not self._has_ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        return True

    def stop(self, grace_seconds: float = GRACE_SECONDS, first: int = signal.SIGTERM) -> int:
        """End the whole group: ``first``, then after the grace SIGKILL for what is left. Idempotent. Exit status."""
        try:
            self.send_signal(first)
            self.wait(grace_seconds)
        finally:
            self.kill()
        status: int = self._popen.returncode
        return status

    def kill(self) -> None:
        """SIGKILL the whole group, and reap."""
        self.send_signal(signal.SIGKILL)
        self._popen.wait()
