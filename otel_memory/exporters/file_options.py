"""Where a file exporter writes and how much: read from the environment, or from settings in the same names.

Owns the forms of these variables. A value that is not valid is told and its default taken: an exporter that raises
while the SDK is set up would take all telemetry with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATH: Final = "OTEL_PYTHON_MEMORY_FILE_PATH"
MAX_BYTES: Final = "OTEL_PYTHON_MEMORY_FILE_MAX_BYTES"
KEEP: Final = "OTEL_PYTHON_MEMORY_FILE_KEEP"

DEFAULT_PATH: Final = "otel-memory-{signal}.jsonl"
DEFAULT_MAX_BYTES: Final = 10 * 2**20
DEFAULT_KEEP: Final = 5
MOST_KEPT: Final = 1000

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(?:([kmgt]?)(i?)b?)", re.IGNORECASE)
_PLACEHOLDER: Final = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """``problems`` are sentences about values that were not valid."""

    template: str
    """Absolute; of the placeholders only ``{pid}`` is left."""
    max_bytes: int = DEFAULT_MAX_BYTES
    keep: int = DEFAULT_KEEP
    problems: tuple[str, ...] = ()

    def path(self, pid: int) -> Path:
        """The file of process ``pid``."""
        return Path(self.template.replace("{pid}", str(pid)))

    @classmethod
    def read(cls, environ: Mapping[str, str], signal: str) -> FileOptions:
        """The options for ``signal`` (``metrics``, ``logs``, ``traces``, ``events``).

        A relative path starts from the folder that is the current one now.
        """
        problems: list[str] = []
        template = environ.get(PATH, "").strip() or DEFAULT_PATH
        if wrong := [found for found in _PLACEHOLDER.findall(template) if found not in ("{signal}", "{pid}")]:
            problems.append(f"{PATH}={template!r}: expected no placeholder but {{signal}} and {{pid}}, not {wrong[0]}")
            template = DEFAULT_PATH
        max_bytes = parse_size(environ.get(MAX_BYTES, "").strip() or str(DEFAULT_MAX_BYTES))
        if max_bytes is None:
            problems.append(f"{MAX_BYTES}={environ[MAX_BYTES]!r}: expected a size in bytes or with a unit, as 10MiB")
            max_bytes = DEFAULT_MAX_BYTES
        keep = _whole(environ.get(KEEP, "").strip() or str(DEFAULT_KEEP))
        if keep is None:
            problems.append(f"{KEEP}={environ[KEEP]!r}: expected a whole number from 0 to {MOST_KEPT}")
            keep = DEFAULT_KEEP
        return cls(file_template(template, signal), max_bytes, keep, tuple(problems))


def file_template(template: str, signal: str) -> str:
    """The file that ``template`` means for ``signal``.

    A folder (it exists, or ends with a slash) gets the default name in it. A name without ``{signal}`` gets
    ``-<signal>`` before its suffix, because a file holds one kind of data.
    """
    if template.endswith(os.sep) or Path(template).is_dir():
        template = os.path.join(template, DEFAULT_PATH)
    if "{signal}" not in template:
        stem, suffix = os.path.splitext(template)
        template = f"{stem}-{{signal}}{suffix}"
    return os.path.abspath(template.replace("{signal}", signal))


def parse_size(text: str) -> int | None:
    """Bytes, from a number with or without a unit (``64kB``, ``10MiB``); None if it is neither."""
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        return None
    base = 1024 if match[3] else 1000
    if match[2] and not match[3] and not text.lower().endswith("b"):
        return None  # 10M says neither
    size = round(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))
    return size if size >= 1 else None


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= MOST_KEPT else None
