"""A part of a test that is a process: starts on free ports, is ready or fails with its own log, always ends."""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.harness.process import GRACE_SECONDS, Child, clean_environment

PORT_CLASHES = ("address already in use", "Address already in use", "BindException", "Errno 98")
ATTEMPTS = 3

seen: list[Part] = []
"""Parts of which a failing test shows the log: those alive, and those that ended during the test."""


class PartFailed(AssertionError):
    """A part did not start, or ended on its own. The message carries the end of its log."""


@dataclass(frozen=True)
class Launch:
    """How a part is started this time."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


class Part(ABC):
    """Start, readiness, log and end of one process. Use it in ``with``, or call `start` and `stop`."""

    name: str = "part"
    ready_within_seconds: ClassVar[float] = 30.0

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"otel-memory-{self.name}-"))
        self.log = self.folder / "output.log"
        self._child: Child | None = None
        self._last_words: str | None = None
        self._start_offset = 0

    @abstractmethod
    def launch(self) -> Launch:
        """Choose free ports, write configuration into `folder`, say what to run. Called again after a port clash."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the part does its work. May raise `OSError` or `ValueError` while it is too early."""

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was not started"
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def status(self) -> int | None:
        """Exit status after the end; negative is a signal."""
        return self._child.status if self._child else None

    def output(self) -> str:
        """All that the part has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def fresh_output(self) -> str:
        """What the part has printed since its latest start."""
        return self.output()[self._start_offset :]

    def tail(self, lines: int = 60) -> str:
        """The end of the part's own log, with a heading."""
        if self._last_words is not None:
            return self._last_words
        kept = self.output().splitlines()[-lines:]
        return f"--- end of the log of {self.name} ({self.log}) ---\n" + "\n".join(kept)

    def start(self) -> Self:
        """Start and wait for readiness. Raises `PartFailed` with the part's own log."""
        assert not self.running, f"{self.name} is running already"
        seen.append(self)
        self._last_words = None
        self.folder.mkdir(exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            self._start_offset = len(self.output())
            launch = self.launch()
            self._child = Child(
                launch.argv, env=clean_environment(launch.env), cwd=launch.cwd or self.folder, log=self.log
            )
            try:
                self._await_readiness()
                break
            except BaseException:
                self._child.stop(grace_seconds=1.0)
                clash = any(sign in self.fresh_output() for sign in PORT_CLASHES)
                if attempt == ATTEMPTS or not clash:
                    raise
        return self

    def _await_readiness(self) -> None:
        deadline = time.monotonic() + self.ready_within_seconds
        while True:
            if not self.running:
                assert self._child is not None
                raise PartFailed(f"{self.name} ended with status {self._child.stop()} as it started\n{self.tail()}")
            try:
                if self.ready():
                    return
            except (OSError, ValueError):
                pass
            if time.monotonic() >= deadline:
                raise PartFailed(f"{self.name} was not ready within {self.ready_within_seconds:g} s\n{self.tail()}")
            time.sleep(0.05)

    def send_signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or (as a terminal does with Ctrl-C) to all that it started too."""
        if self._child:
            self._child.send_signal(number, group=group)

    def wait(self, timeout_seconds: float) -> bool:
        """Whether the process ends by itself within the time."""
        return self._child is None or self._child.wait(timeout_seconds)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> int | None:
        """End the process and all that it started; the folder stays for a later `start`. Idempotent. Exit status."""
        return self._child.stop(grace_seconds) if self._child else None

    def kill(self) -> None:
        """End the process and all that it started at once, with SIGKILL: the crash of a test."""
        if self._child:
            self._child.kill()

    def close(self) -> None:
        """`stop`, and remove the folder with its log, which is kept in memory for the report of a failing test."""
        self.stop()
        self._last_words = self.tail()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Program(Part):
    """Any program: an application under test, a load generator. Ready when ``until`` says so, else at once."""

    name = "program"

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        until: Callable[[Program], bool] | None = None,
        name: str | None = None,
    ) -> None:
        if name:
            self.name = name
        super().__init__()
        self._launch = Launch(list(argv), env or {}, cwd)
        self._until = until

    def launch(self) -> Launch:
        return self._launch

    def ready(self) -> bool:
        return self._until is None or self._until(self)
