"""Reads a file of threshold rules; what is in it is judged by ``rules``."""

from __future__ import annotations

import os
import stat
from typing import Final

from otel_memory.probe.rules import Given, parse_lines

MAX_BYTES: Final = 65536


def read_rules(path: str) -> Given:
    """What the file at ``path`` asks for: the text form of rules, UTF-8, one or several a line.

    Raises:
        ValueError: it can't be read, or an entry is not a rule; the message names the line and quotes the entry.
    """
    try:
        # Not blocking, because a pipe of that name would keep the application from starting.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("this is something else")
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"expected a file of rules that can be read: {problem}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"expected a file of rules of at most {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: expected UTF-8 text") from None
    return parse_lines(text)
