"""Bytes, rates, durations and shares as people read them, and text from outside made harmless for a terminal.

Never decides anything, and is never read back by a program.
"""

from __future__ import annotations

import math
from typing import Final

_DECIMAL: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"))
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0


def number(value: float) -> str:
    """Two significant digits below ten, whole numbers above: ``0.42``, ``9.1``, ``41``."""
    size = abs(value)
    if size >= 9.95:
        return f"{value:.0f}"
    if size >= 0.995 or size == 0:
        text = f"{value:.1f}"
        return text[:-2] if text.endswith(".0") else text
    return f"{value:.2g}"


def format_bytes(value: float) -> str:
    """Bytes in decimal units with up to three digits: ``10.2 kB``, ``512 B``, ``-1.2 MB``."""
    if not math.isfinite(value):
        return "unknown"
    size, unit = float(value), 0
    # 999.5 would be printed as "1000": it already belongs to the next unit.
    while abs(size) >= 999.5 and unit < len(_DECIMAL) - 1:
        size /= 1000.0
        unit += 1
    if unit == 0 or abs(size) >= 99.95:
        return f"{size:.0f} {_DECIMAL[unit]}"
    return f"{size:.1f} {_DECIMAL[unit]}"


def format_limit(value: float) -> str:
    """A limit in bytes: binary where somebody set it so (``512 MiB``, ``1.5 GiB``), else decimal."""
    if not math.isfinite(value):
        return "unknown"
    for size, unit in _BINARY:
        if value >= size and (value * 4) % size == 0:
            return f"{value / size:g} {unit}"
    return format_bytes(value)


def format_rate(value: float) -> str:
    """Bytes per second in the unit of time that reads best, as on the page: ``27.2 MB/min``, ``5.0 kB/h``."""
    if not math.isfinite(value) or value == 0 or abs(value) * _MINUTE >= 1e5:
        return f"{format_bytes(value * _MINUTE)}/min"
    return f"{format_bytes(value * _HOUR)}/h"


def format_calls(per_second: float) -> str:
    """A rate of calls: ``41 calls/s``, ``12 calls/min``, ``3 calls/h``."""
    if per_second >= 0.995 or not math.isfinite(per_second):
        return f"{number(per_second)} calls/s"
    if per_second * _MINUTE >= 0.995:
        return f"{number(per_second * _MINUTE)} calls/min"
    return f"{number(per_second * _HOUR)} calls/h"


def format_duration(seconds: float) -> str:
    """Seconds as one unit, two where the first is small: ``42 s``, ``4 min``, ``1 h 20 min``, ``3 days``."""
    if not math.isfinite(seconds):
        return "unknown"
    seconds = max(seconds, 0.0)
    if round(seconds) < 2 * _MINUTE:
        return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else "under 1 s"
    if round(seconds / _MINUTE) < 60:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 10 * _HOUR:
        hours, minutes = divmod(round(seconds / _MINUTE), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} days"


def format_share(share: float) -> str:
    """A share (0-1) in whole per cent, never rounded up to all: ``93 %``, ``under 1 %``."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "99 %"
    return f"{share * 100:.0f} %"


def printable(text: str) -> str:
    """``text`` with everything that is no visible character written as an escape.

    A name comes from whoever sends telemetry. Raw, it could move the cursor, recolour or retitle the terminal, turn
    the direction of writing, or begin a line of its own that looks like ours.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
