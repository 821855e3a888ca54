"""What the reading verbs share to write for people: harmless text, moments in local time, a console that loses nothing.

Owns how output meets its destination: a terminal of any width, a pipe, a stream that is not UTF-8, a reader that went
away. Never decides what is said.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Final, TextIO

from rich.console import Console, RenderableType

_UNBOUNDED: Final = 1_000_000
"""Columns of what is no terminal: nothing is wrapped or cut there."""


def local_moment(moment: datetime, now: datetime) -> str:
    """``moment`` in the zone of ``now``: the time of day, with date and zone where it is another day."""
    local = moment.astimezone(now.tzinfo)
    if local.date() == now.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%Y-%m-%d %H:%M:%S %Z}".rstrip()


class Terminal(Console):
    """A console whose width is a terminal's own, or unbounded where ``file`` is none."""

    def __init__(self, file: TextIO | None = None, width: int | None = None) -> None:
        destination = file if file is not None else sys.stdout
        self.is_screen: Final = destination.isatty()
        super().__init__(
            file=destination,
            width=width if width is not None else (None if self.is_screen else _UNBOUNDED),
            # Without a height rich takes 80 columns where TERM is dumb.
            height=None if self.is_screen and width is None else 25,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def show(self, *lines: RenderableType) -> None:
        """Print each; on what is no terminal without the blanks that fill a line up."""
        if self.is_screen:
            for line in lines:
                self.print(line)
            return
        with self.capture() as capture:
            for line in lines:
                self.print(line)
        text = "".join(f"{line.rstrip()}\n" for line in capture.get().split("\n")[:-1])
        try:
            self.file.write(text)
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def can_show(self, text: str) -> bool:
        """Whether the destination's encoding has all of these characters."""
        try:
            text.encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def on_broken_pipe(self) -> None:
        """The reader (`| head`) went away, which is no failure of ours: say no more, and keep the exit status."""
        self.quiet = True
