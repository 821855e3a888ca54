"""The text form of threshold rules: environment variable, argument, rules file, declarative file.

Entries are separated by ``;`` or a line break; from ``#`` to the end of its line is a comment. One entry is
``[NAME =] SUBJECT CONDITION [: OPTION]…``, or ``none``, which turns the built-in rules off. Without it entries come
beside the built-in rules, and one that bears a built-in rule's name takes its place. ``SYNTAX`` below is the reference
that docs/settings.md shows. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, cast

from otel_memory import names
from otel_memory.probe.readings import LEAST_READINGS
from otel_memory.probe.thresholds import BUILT_IN, MAX_WINDOW_SECONDS, Comparison, Rule, Severity
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
SYNTAX: Final = (
    ("`rss>512MiB`", "the reading is above a level, in bytes or with a unit"),
    ("`threads>200`", "a count is above that"),
    ("`limit>90%`, `system>85%`", "a share is above that; `limit` is memory in use as a share of the limit"),
    ("`heap>50%`", "of a metric in bytes: its share of the limit is above that"),
    ("`rss>5MB/s`", "it grows faster than that (`/s`, `/min` or `/h`), over a window of 60 s"),
    ("`rss+20%/10min`", "it grew by more than that share over the window"),
    ("`process.paging.faults{system.paging.fault.type=major}>50/s`", "any metric, of its points the chosen ones"),
    ("`name = rss>1GiB`", "a name of its own; else the rule is named as it is written"),
    ("`…:critical`", "severity: `info`, `warning` (the default) or `critical`"),
    ("`…:for=30s`", "crosses only when it has been over the bound for so long"),
    ("`…:clear=80%`", "recovers below that share of the bound; default 90 %, of shares 95 %, of growth 50 %"),
    ("`…:cooldown=5min`", "least time between two crossings; default 15 min; a recovery is never held back"),
    ("`…:window=2min`", "window of a growth"),
    ("`none`", "leaves the built-in rules out"),
)
"""(form, meaning) of all that an entry may say."""

_CONDITION: Final = re.compile(
    r"(?P<subject>[a-zA-Z][a-zA-Z0-9_.]*)\s*(?P<choice>\{\})?\s*(?P<sign>[>+])\s*(?P<bound>[^/]+?)\s*(?:/\s*(?P<per>[^/]+))?"
)
_CHOICE: Final = re.compile(r"\{([^{}]*)\}")
_ENTRY: Final = re.compile(r"(?:[^;\n#{]|\{[^}\n]*\}|\{)+|#[^\n]*")
_PER_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}
_DEFAULT_WINDOW: Final = 60.0
_SHAPE: Final = "a rule such as rss>512MiB:critical, rss+20%/10min, rss>5MB/s or limit>90%"


@dataclass(frozen=True, slots=True)
class Given:
    """What one place asks for: rules of its own, and whether the built-in ones come beside them."""

    own: tuple[Rule, ...] = ()
    built_in: bool = True


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules that ``text`` asks for, the built-in ones among them unless an entry says ``none``.

    Raises:
        ValueError: an entry is not a rule; the message quotes the entry and says what was expected.
    """
    return combine(parse_given(text))


def parse_given(text: str) -> Given:
    """What ``text`` asks for. Raises as ``parse_rules``."""
    return gather(parse_rule(entry) if entry.lower() != "none" else None for entry in _entries(text))


def parse_lines(text: str) -> Given:
    """What the text of a file asks for. Raises as ``parse_rules``, with the number of the line in the message."""
    found: list[Rule | None] = []
    for number, line in enumerate(text.splitlines(), 1):
        for entry in _entries(line):
            try:
                found.append(parse_rule(entry) if entry.lower() != "none" else None)
            except ValueError as error:
                raise ValueError(f"line {number}, {error}") from None
    return gather(found)


def gather(rules: Iterable[Rule | None]) -> Given:
    """Rules of one place; ``None`` stands for the entry ``none``.

    Raises:
        ValueError: two of them bear one name.
    """
    listed = list(rules)
    own = tuple(rule for rule in listed if rule is not None)
    taken = [rule.name for rule in own]
    twice = sorted({name for name in taken if taken.count(name) > 1})
    if twice:
        raise ValueError(f"expected each rule once: {twice[0]!r} stands there twice")
    return Given(own, None not in listed)


def combine(*places: Given) -> tuple[Rule, ...]:
    """The rules of all places, the built-in ones first unless one of the places leaves them out.

    Where two bear one name the later one takes the place of the earlier.

    Raises:
        ValueError: there are more than 64.
    """
    rules = {rule.name: rule for rule in BUILT_IN if all(place.built_in for place in places)}
    for place in places:
        for rule in place.own:
            rules.pop(rule.name, None)
            rules[rule.name] = rule
    if len(rules) > MAX_RULES:
        raise ValueError(f"expected at most {MAX_RULES} rules, not {len(rules)}")
    return tuple(rules.values())


def judgeable(rule: Rule, interval_seconds: float) -> Rule:
    """``rule`` with a window that holds at least twelve readings, because fewer than six are no trend."""
    least = min(2 * LEAST_READINGS * interval_seconds, MAX_WINDOW_SECONDS)
    return replace(rule, window_seconds=least) if 0 < rule.window_seconds < least else rule


def _entries(text: str) -> Iterator[str]:
    for match in _ENTRY.finditer(text):
        entry = match[0].strip()
        if entry and not entry.startswith("#"):
            yield entry


def parse_rule(entry: str) -> Rule:
    """One rule from its text form.

    Raises:
        ValueError: the message quotes ``entry`` and says what was expected.
    """
    try:
        return _parse_rule(entry.strip())
    except ValueError as error:
        raise ValueError(f"in {entry!r}: {error}") from None


def _parse_rule(entry: str) -> Rule:
    # What stands in braces is taken out first: an attribute's value may hold any of the signs that mean something else.
    choice = _CHOICE.search(entry)
    plain = entry if choice is None else f"{entry[: choice.start()]}{{}}{entry[choice.end() :]}"
    head, *options = (part.strip() for part in plain.split(":"))
    given, equals, condition = head.rpartition("=")
    if equals and not given.strip():
        raise ValueError("expected a name before '='")
    name = given.strip() or re.sub(r"\s+", "", condition).replace("{}", "" if choice is None else choice[0], 1)
    if len(name) > MAX_NAME:
        raise ValueError(f"expected a name of at most {MAX_NAME} characters")
    match = _CONDITION.fullmatch(condition.strip())
    if match is None or "{" in plain.replace("{}", "", 1 if match["choice"] else 0):
        if "{" in plain or "}" in plain:
            raise ValueError("expected attributes in one pair of braces behind the metric: heap{key=value,…}>512MiB")
        raise ValueError(f"expected {_SHAPE}")
    metric = _metric(match["subject"].lower(), match["sign"])
    attributes = () if choice is None else _attributes(metric, choice[1])
    rule = _condition(name, metric, match["sign"], match["bound"].lower(), (match["per"] or "").lower() or None)
    rule = replace(rule, attributes=attributes)
    for option in options:
        rule = _with_option(rule, option)
    return rule


def _metric(subject: str, sign: str) -> names.Metric:
    metric = names.METRICS.get(METRICS.get(subject, subject))
    if metric is None:
        close = difflib.get_close_matches(subject, [*METRICS, *names.METRICS], n=1, cutoff=0.8)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(
            f"expected one of {', '.join(METRICS)} or the name of a metric before {sign!r}, not {subject!r}{meant}"
        )
    return metric


def _attributes(metric: names.Metric, text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for each in text.split(","):
        key, equals, value = (part.strip() for part in each.partition("="))
        if not equals or not key or not value:
            raise ValueError(f"expected attributes such as {{{(*metric.attributes, 'key')[0]}=value}}")
        pairs.append((key, value))
    return tuple(pairs)


def _condition(name: str, metric: names.Metric, sign: str, bound: str, per: str | None) -> Rule:
    if sign == "+":
        if not bound.endswith("%") or per is None:
            raise ValueError("expected a growth such as rss+20%/10min")
        window = parse_duration(per)
        return Rule(name, metric.name, "percent_change", _percent(bound), window_seconds=window, clear=0.5)
    if metric.name in (METRICS["limit"], METRICS["system"]):
        if per is not None:
            raise ValueError("expected a share such as limit>85%")
        comparison: Comparison = "share_of_limit" if metric.name == METRICS["limit"] else "greater_than"
        return Rule(name, metric.name, comparison, parse_share(bound), clear=0.95)
    if metric.unit == "By" and bound.endswith("%") and per is None:
        return Rule(name, metric.name, "share_of_limit", parse_share(bound), clear=0.95)
    level = _level(metric.unit, bound)
    if per is None:
        return Rule(name, metric.name, "greater_than", level)
    if per not in _PER_SECONDS:
        raise ValueError(f"expected a rate per s, min or h, not per {per!r}")
    rate = level / _PER_SECONDS[per]
    return Rule(name, metric.name, "growth_per_second", rate, window_seconds=_DEFAULT_WINDOW, clear=0.5)


def _level(unit: str, bound: str) -> float:
    if unit == "By":
        return parse_size(bound)
    if unit == "s":
        return parse_duration(bound)
    if unit == "1" and bound.endswith("%"):
        return parse_share(bound)
    return _count(bound)


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
