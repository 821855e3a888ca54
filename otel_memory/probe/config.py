"""The probe's settings: read once from environment and arguments, validated, then frozen.

An argument wins over the environment; both take the same forms. Owns what is valid; starts nothing and logs nothing.
Every :class:`SettingsError` names the user's own setting, its value and what is expected.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from otel_memory.probe.rules import METRICS, combine, parse_rules
from otel_memory.probe.thresholds import BUILT_IN, Rule
from otel_memory.probe.units import DURATION, SIZE, parse_duration, parse_share, parse_size

PREFIX: Final = "OTEL_PYTHON_MEMORY_"
SDK_DISABLED: Final = "OTEL_SDK_DISABLED"
_T = TypeVar("_T")


class SettingsError(ValueError):
    """A setting is wrong. ``setting`` is the name that the user wrote: a variable or an argument."""

    def __init__(self, setting: str, value: object, problem: str) -> None:
        shown = repr(value)
        super().__init__(f"{setting}={shown if len(shown) <= 200 else shown[:197] + '...'}: {problem}")
        self.setting = setting
        self.value = value


@dataclass
class Configuration:
    """What declarative configuration may set under ``instrumentation/development: python: otel_memory:``.

    Each key has the meaning and the forms of the variable ``OTEL_PYTHON_MEMORY_<KEY>``; one left out falls back to it.
    """

    interval: int | str | None = None
    slow_interval: int | str | None = None
    limit: int | str | None = None
    thresholds: str | list[str] | None = None
    events: str | list[str] | None = None
    pressure_levels: str | list[float] | None = None
    operation_log: bool | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Valid settings. Durations are seconds, sizes bytes, levels shares of the limit."""

    enabled: bool = True
    interval_seconds: float = 1.0
    slow_interval_seconds: float = 30.0
    limit_bytes: int | None = None
    rules: tuple[Rule, ...] = BUILT_IN
    events: tuple[str, ...] = ("otlp",)
    pressure_levels: tuple[float, float, float] = (0.7, 0.85, 0.95)
    operation_log: bool = False

    @classmethod
    def load(cls, environ: Mapping[str, str], **arguments: Any) -> Settings:
        """Settings from ``environ`` and ``arguments`` (named as :class:`Configuration`'s fields; None is "not given").

        Raises:
            SettingsError: a value is not valid, or an argument is not known.
        """
        known = {field.name for field in fields(Configuration)}
        for name, value in arguments.items():
            if name not in known:
                raise SettingsError(name, value, f"is not a setting of the probe{_did_you_mean(name, known)}")
        defaults = cls()
        if environ.get(SDK_DISABLED, "").strip().lower() == "true":
            return cls(enabled=False)

        def get(name: str, convert: Callable[[Any], _T], default: _T) -> _T:
            setting, value = name, arguments.get(name)
            if value is None:
                setting = PREFIX + name.upper()
                value = environ.get(setting, "").strip()
                if not value:
                    return default
            try:
                return convert(value)
            except (ValueError, TypeError, OverflowError) as error:
                raise SettingsError(setting, value, str(error)) from None

        interval = get("interval", _interval(0.1, 3600), defaults.interval_seconds)
        slow = get("slow_interval", _interval(0.1, 86400), max(defaults.slow_interval_seconds, interval))
        if slow < interval:
            given = arguments.get("slow_interval")
            setting = "slow_interval" if given is not None else f"{PREFIX}SLOW_INTERVAL"
            value = given if given is not None else environ.get(setting)
            raise SettingsError(setting, value, f"expected at least the interval, which is {interval:g} s")
        return cls(
            interval_seconds=interval,
            slow_interval_seconds=slow,
            limit_bytes=get("limit", _size, None),
            rules=get("thresholds", _rules, defaults.rules),
            events=get("events", _events, defaults.events),
            pressure_levels=get("pressure_levels", _levels, defaults.pressure_levels),
            operation_log=get("operation_log", _flag, defaults.operation_log),
        )


def unknown_variables(environ: Iterable[str]) -> list[str]:
    """One sentence for each ``OTEL_PYTHON_MEMORY_*`` variable that is not a setting of this version."""
    known = {PREFIX + field.name.upper() for field in fields(Configuration)}
    return [
        f"{name} is not a setting of this version of otel-memory and has no effect{_did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    ]


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


def _interval(least: float, most: float) -> Callable[[object], float]:
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


def _size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 1:
        raise ValueError(f"expected {SIZE}")
    return int(value)


def _rules(value: object) -> tuple[Rule, ...]:
    if isinstance(value, str):
        return parse_rules(value)
    if isinstance(value, Sequence):
        if all(isinstance(rule, str) for rule in value):
            return parse_rules(";".join(value))
        if all(isinstance(rule, Rule) for rule in value):
            unread = sorted({rule.metric for rule in value} - set(METRICS.values()))
            if unread:
                raise ValueError(f"expected one of the metrics {', '.join(METRICS.values())}, not {unread[0]}")
            return combine(BUILT_IN, list(value))
    raise ValueError("expected rules as text, or a list of texts, or a list of Rule")


def _events(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    expected = "expected otlp or none"
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ValueError(expected)
    chosen = tuple(dict.fromkeys(item.strip().lower() for item in items))
    if chosen == ("none",):
        return ()
    wrong = [item for item in chosen if item != "otlp"]
    if wrong or not chosen:
        later = " (it is not available in this version)" if wrong and wrong[0] in ("kafka", "file", "console") else ""
        raise ValueError(f"{expected}, not {wrong[0] if wrong else 'nothing'!r}{later}")
    return chosen


def _levels(value: object) -> tuple[float, float, float]:
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


def _flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError("expected true or false")
