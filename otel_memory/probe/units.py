"""Sizes, durations and shares as people write them, to numbers and back. Pure; knows no setting by name.

Every function raises ``ValueError`` with what was expected; the caller adds whose setting it was.
"""

from __future__ import annotations

import math
import re
from typing import Final

_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zA-Z%]*)")

_SIZES: Final[dict[str, int]] = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}{form}": 1024**power for power, letter in enumerate("kmgt", 1) for form in ("i", "ib")},
}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

SIZE: Final = "a size in bytes or with a unit: 536870912, 512MiB, 1GB"
DURATION: Final = "a duration such as 500ms, 30s, 10min, 2h"
SHARE: Final = "a share such as 85% or 0.85, above 0 and at most 100%"


def _split(text: str, expected: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected {expected}")
    return float(match[1]), match[2].lower()


def parse_size(text: str) -> int:
    """Bytes from ``"536870912"``, ``"512MiB"``, ``"512Mi"`` (1024) or ``"1GB"`` (1000); case does not matter."""
    number, unit = _split(text, SIZE)
    if unit not in _SIZES or number <= 0:
        raise ValueError(f"expected {SIZE}")
    return round(number * _SIZES[unit])


def parse_duration(text: str, *, bare: str | None = None) -> float:
    """Seconds from ``"30s"`` or ``"10min"``; a number without a unit is in ``bare`` units where that is given."""
    number, unit = _split(text, DURATION)
    unit = unit or bare or ""
    if unit not in _SECONDS or number <= 0:
        raise ValueError(f"expected {DURATION}")
    return number * _SECONDS[unit]


def parse_share(text: str) -> float:
    """0 < share <= 1 from ``"85%"`` or ``"0.85"``."""
    number, unit = _split(text, SHARE)
    share = number / 100 if unit == "%" else number
    if unit not in ("", "%") or not 0 < share <= 1:
        raise ValueError(f"expected {SHARE}")
    return share


def human_bytes(value: float) -> str:
    """``"1.2 GiB"``: three significant digits, binary units; for sentences, not for machines."""
    size = abs(value)
    power = 0
    while size >= 1000 and power < 4:
        size, power = size / 1024, power + 1
    digits = 0 if power == 0 or size >= 100 else 1 if size >= 10 else 2
    return f"{'-' if value < 0 else ''}{size:.{digits}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def human_seconds(value: float) -> str:
    """``"45 s"``, ``"10 min"``, ``"2.5 h"``."""
    if not math.isfinite(value):
        return "unknown time"
    for unit, seconds in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if abs(value) >= seconds:
            return f"{value / seconds:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value:.0f} s"
