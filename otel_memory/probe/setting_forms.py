"""How the value of a setting is read: text of a variable, an argument, or a key of a declarative file. Pure.

Each form takes what the user wrote and returns the valid value, or raises ``ValueError`` with what was expected; the
caller adds whose setting it was.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence

from otel_memory.probe.rules import Given, gather, parse_given
from otel_memory.probe.rules_file import read_rules
from otel_memory.probe.thresholds import Rule
from otel_memory.probe.units import DURATION, SIZE, parse_duration, parse_share, parse_size


def interval(least: float, most: float) -> Callable[[object], float]:
    def convert(value: object) -> float:
        expected = f"expected milliseconds or {DURATION}, from {least * 1000:g} ms to {most / 3600:g} h"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(expected)
        try:
            seconds = parse_duration(value, bare="ms") if isinstance(value, str) else value / 1000
        except ValueError:
            raise ValueError(expected) from None
        if not least <= seconds <= most:
            raise ValueError(expected)
        return seconds

    return convert


def size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 1:
        raise ValueError(f"expected {SIZE}")
    return int(value)


def rules(value: object) -> Given:
    """Rules as text, or a list of texts and ``Rule``."""
    if isinstance(value, str):
        return parse_given(value)
    if isinstance(value, Sequence) and all(isinstance(each, str | Rule) for each in value):
        places = [parse_given(each) if isinstance(each, str) else Given((each,)) for each in value]
        return gather(
            [*(rule for place in places for rule in place.own), *(None for place in places if not place.built_in)]
        )
    raise ValueError("expected rules as text, or a list of texts and of Rule")


def rules_file(value: object) -> Given:
    """The rules of the file that is named."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError("expected the path of a file of rules")
    return read_rules(os.fspath(value))


def levels(value: object) -> tuple[float, float, float]:
    expected = "expected three rising shares of the limit for medium, high, critical, such as 0.7,0.85,0.95"
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Sequence) or len(items) != 3 or any(isinstance(item, bool) for item in items):
        raise ValueError(expected)
    try:
        medium, high, critical = (parse_share(str(item)) for item in items)
    except ValueError:
        raise ValueError(expected) from None
    if not medium < high < critical:
        raise ValueError(expected)
    return medium, high, critical


def flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError("expected true or false")


def choices(allowed: Sequence[str], none: str = "none") -> Callable[[object], tuple[str, ...]]:
    """One or several of ``allowed`` with commas between them, or ``none`` alone."""

    def convert(value: object) -> tuple[str, ...]:
        items = value.split(",") if isinstance(value, str) else value
        expected = f"expected {none}, or one or several of {', '.join(allowed)} with commas between them"
        if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
            raise ValueError(expected)
        chosen = tuple(dict.fromkeys(item.strip().lower() for item in items))
        if chosen == (none,):
            return ()
        wrong = [item for item in chosen if item not in allowed]
        if wrong or not chosen:
            raise ValueError(f"{expected}, not {wrong[0] if wrong else 'nothing'!r}")
        return chosen

    return convert


def names(value: object) -> tuple[str, ...]:
    """Names with commas between them, each once; a list of them in a declarative file."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ValueError("expected names with commas between them")
    return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))


def whole(least: int, most: int) -> Callable[[object], int]:
    """A whole number from ``least`` to ``most``."""

    def convert(value: object) -> int:
        expected = f"expected a whole number from {least} to {most}"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(expected)
        try:
            number = int(value)
        except ValueError:
            raise ValueError(expected) from None
        if not least <= number <= most:
            raise ValueError(expected)
        return number

    return convert


def or_none(convert: Callable[[object], int], none: int) -> Callable[[object], int]:
    """What ``convert`` takes; and ``none``, which means the number ``none``."""

    def with_none(value: object) -> int:
        if isinstance(value, str) and value.strip().lower() == "none":
            return none
        return convert(value)

    return with_none


def share(value: object) -> float:
    """0 < share <= 1, as ``1%`` or ``0.01``."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a share such as 1% or 0.01")
    return parse_share(str(value))


def file_template(value: object) -> str:
    """A path in which ``{signal}`` and ``{pid}`` may stand."""
    path = text(value)
    wrong = [found for found in re.findall(r"\{[^{}]*\}", path) if found not in ("{signal}", "{pid}")]
    if wrong:
        raise ValueError(f"expected a path with no placeholder but {{signal}} and {{pid}}, not {wrong[0]}")
    return path


def text(value: object) -> str:
    """Any text but an empty one."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a text")
    return value.strip()


def operations(value: object) -> tuple[str, ...]:
    """Names of functions: ``package.module:function``, ``…:Class.method``, ``…:Class.*``, ``…:*``."""
    return _in_modules(value, patterns=True)


def classes(value: object) -> tuple[str, ...]:
    """Names of classes: ``package.module:Class``."""
    return _in_modules(value, patterns=False)


def _in_modules(value: object, *, patterns: bool) -> tuple[str, ...]:
    expected = "package.module:function, package.module:Class.* or package.module:*" if patterns else "module:Class"
    found = names(value)
    for name in found:
        module, _, path = name.partition(":")
        *outer, last = path.split(".")
        if patterns:
            last = last.replace("*", "_")
        if not all(part.isidentifier() for part in (*module.split("."), *outer, last)):
            raise ValueError(f"expected names of the form {expected} with commas between them, not {name!r}")
    return found


def schedule_or_growth(value: object) -> float | str | None:
    """Seconds between two runs (1 s to a day), ``growth``, or ``none``."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("none", "growth"):
        return "growth" if word == "growth" else None
    try:
        return float(interval(1, 86400)(value))
    except ValueError as error:
        raise ValueError(f"{error}, or growth, or none") from None


def one_of(*allowed: str) -> Callable[[object], str]:
    """One of a few words; a YAML file's true and false are such words, too."""

    def convert(value: object) -> str:
        word = str(value).strip().lower()
        if word not in allowed:
            raise ValueError(f"expected {', '.join(allowed[:-1])} or {allowed[-1]}")
        return word

    return convert


class Secret(str):
    """A text that is not shown where settings are."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def secret(value: object) -> Secret:
    """Any text but an empty one; a wrong value is never repeated in an error."""
    try:
        return Secret(text(value))
    except ValueError:
        raise ValueError("expected a text") from None
