"""The text form of threshold rules, as the environment variable and the ``thresholds`` argument take it. Pure.

Entries are separated by ``;`` (or a line break). One entry is ``[NAME =] CONDITION [: OPTION]…``.

=============================  ===================================================================
condition                      means
=============================  ===================================================================
``rss>512MiB``                 the reading is above a level
``rss>5MB/s``                  it grows faster than that (``/s``, ``/min``, ``/h``); window 60 s
``rss+20%/10min``              it grew by more than that share over the window
``limit>90%``                  memory in use is above that share of the limit
``system>85%``                 the host's memory in use is above that share
``threads>200``, ``fds>900``   a count
=============================  ===================================================================

Metrics: ``rss``, ``virtual``, ``heap`` (C allocator), ``blocks`` (of the Python allocator), ``threads``, ``fds``,
``system``, ``limit``. Options: a severity (``info``, ``warning``, ``critical``), ``for=30s`` (only when it stays
over that long), ``clear=80%`` (recovers below that share of the bound), ``cooldown=5min`` (least time between two
crossings), ``window=2min`` (of a growth). The entry ``none`` turns the built-in rules off; otherwise entries come
beside them, and an entry that bears a built-in rule's name takes its place.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, cast

from otel_memory import names
from otel_memory.probe.thresholds import BUILT_IN, Comparison, Rule, Severity
from otel_memory.probe.units import parse_duration, parse_share, parse_size

MAX_RULES: Final = 64
MAX_NAME: Final = 100

METRICS: Final = {
    "rss": names.PROCESS_MEMORY_USAGE,
    "virtual": names.PROCESS_MEMORY_VIRTUAL,
    "heap": names.HEAP_USAGE,
    "blocks": names.PYTHON_BLOCK_COUNT,
    "threads": names.PROCESS_THREAD_COUNT,
    "fds": names.PROCESS_FD_COUNT,
    "system": names.SYSTEM_MEMORY_UTILIZATION,
    "limit": names.PROCESS_MEMORY_UTILIZATION,
}
_CONDITION: Final = re.compile(r"(?P<alias>[a-z]+)\s*(?P<sign>[>+])\s*(?P<bound>[^/]+?)\s*(?:/\s*(?P<per>[^/]+))?")
_PER_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}
_DEFAULT_WINDOW: Final = 60.0
_SHAPE: Final = "a rule such as rss>512MiB:critical, rss+20%/10min, rss>5MB/s or limit>90%"


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules that ``text`` asks for, the built-in ones among them unless an entry says ``none``.

    Raises:
        ValueError: an entry is not a rule; the message quotes the entry and says what was expected.
    """
    entries = [entry.strip() for entry in re.split(r"[;\n]", text)]
    built_in = () if any(entry.lower() == "none" for entry in entries) else BUILT_IN
    return combine(built_in, [parse_rule(entry) for entry in entries if entry and entry.lower() != "none"])


def combine(built_in: tuple[Rule, ...], own: list[Rule]) -> tuple[Rule, ...]:
    """Built-in rules whose name is not taken by one of ``own``, then ``own``.

    Raises:
        ValueError: two of ``own`` bear one name, or there are more than 64 rules.
    """
    taken = [rule.name for rule in own]
    twice = sorted({name for name in taken if taken.count(name) > 1})
    if twice:
        raise ValueError(f"expected each rule once: {twice[0]!r} stands there twice")
    rules = (*(rule for rule in built_in if rule.name not in taken), *own)
    if len(rules) > MAX_RULES:
        raise ValueError(f"expected at most {MAX_RULES} rules, not {len(rules)}")
    return rules


def parse_rule(entry: str) -> Rule:
    """One rule from its text form.

    Raises:
        ValueError: the message quotes ``entry`` and says what was expected.
    """
    try:
        return _parse_rule(entry)
    except ValueError as error:
        raise ValueError(f"in {entry!r}: {error}") from None


def _parse_rule(entry: str) -> Rule:
    head, *options = (part.strip() for part in entry.split(":"))
    given, equals, condition = head.rpartition("=")
    if equals and not given.strip():
        raise ValueError("expected a name before '='")
    name = given.strip() or re.sub(r"\s+", "", condition)
    if len(name) > MAX_NAME:
        raise ValueError(f"expected a name of at most {MAX_NAME} characters")
    match = _CONDITION.fullmatch(condition.strip().lower())
    if match is None:
        raise ValueError(f"expected {_SHAPE}")
    alias, sign, bound, per = match["alias"], match["sign"], match["bound"], match["per"]
    if alias not in METRICS:
        raise ValueError(f"expected one of {', '.join(METRICS)} before {sign!r}, not {alias!r}")
    rule = _condition(name, alias, sign, bound, per)
    for option in options:
        rule = _with_option(rule, option)
    return rule


def _condition(name: str, alias: str, sign: str, bound: str, per: str | None) -> Rule:
    metric = METRICS[alias]
    if sign == "+":
        if not bound.endswith("%") or per is None:
            raise ValueError("expected a growth such as rss+20%/10min")
        return Rule(name, metric, "percent_change", _percent(bound), window_seconds=parse_duration(per), clear=0.5)
    if alias in ("limit", "system"):
        if per is not None:
            raise ValueError(f"expected a share such as {alias}>85%")
        comparison: Comparison = "share_of_limit" if alias == "limit" else "greater_than"
        return Rule(name, metric, comparison, parse_share(bound), clear=0.95)
    level = parse_size(bound) if names.METRICS[metric].unit == "By" else _count(bound)
    if per is None:
        return Rule(name, metric, "greater_than", level)
    if per not in _PER_SECONDS:
        raise ValueError(f"expected a rate per s, min or h, not per {per!r}")
    rate = level / _PER_SECONDS[per]
    return Rule(name, metric, "growth_per_second", rate, window_seconds=_DEFAULT_WINDOW, clear=0.5)


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        raise ValueError("expected a growth such as rss+20%/10min") from None


def _count(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a count without a unit, not {text!r}") from None


def _with_option(rule: Rule, option: str) -> Rule:
    if option in ("info", "warning", "critical"):
        return replace(rule, severity=cast(Severity, option))
    key, _, value = (part.strip() for part in option.partition("="))
    if key == "for":
        return replace(rule, for_seconds=parse_duration(value))
    if key == "clear":
        return replace(rule, clear=parse_share(value))
    if key == "cooldown":
        return replace(rule, cooldown_seconds=0.0 if value in ("0", "0s") else parse_duration(value))
    if key == "window" and rule.window_seconds:
        return replace(rule, window_seconds=parse_duration(value))
    expected = "info, warning, critical, for=, clear=, cooldown=" + (", window=" if rule.window_seconds else "")
    raise ValueError(f"expected one of {expected}, not {option!r}")
