"""Which alerts a silence is for: matchers over an alert's labels.

Pure. The rules are Alertmanager's: every matcher must agree, an absent label counts as empty text, a regular
expression must match the whole value, and a silence whose matchers all agree with the empty text is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from otel_memory.analyzer.model import Alert

MAX_PATTERN: Final = 256
MAX_VALUE: Final = 1024
"""Of a longer value only the beginning is looked at by a regular expression."""

# A repeated group with a repetition in it takes exponential time on a value that almost matches.
_NESTED: Final = re.compile(r"\([^()]*[*+{][^()]*\)\s*[*+{]")
_BACKREFERENCE: Final = re.compile(r"\\[1-9]|\(\?P=")


class BadSilence(ValueError):
    """What was given is no silence; the message says why."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label: equal or not (``is_equal``), to a text or a regular expression (``is_regex``)."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True

    def agrees(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels meets the condition."""
        value = labels.get(self.name, "")
        if self.is_regex:
            found = _compiled(self.value).fullmatch(value[:MAX_VALUE]) is not None
        else:
            found = value == self.value
        return found is self.is_equal


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts that agree with every matcher are not told of from ``starts_at`` to ``ends_at`` (s since the epoch)."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: float
    ends_at: float
    created_at: float
    created_by: str = ""
    comment: str = ""

    def active(self, now: float) -> bool:
        """Whether it is in force at ``now`` (s since the epoch)."""
        return self.starts_at <= now < self.ends_at

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it is for an alert with these labels, whenever."""
        return all(matcher.agrees(labels) for matcher in self.matchers)


def labels_of(alert: Alert) -> dict[str, str]:
    """What matchers see of an alert: its labels, and the names that every alert has."""
    own = {"alertname": alert.name, "severity": alert.severity, "process_id": alert.process, "alert_id": alert.id}
    return {**alert.labels, **own}


def check(silence: Silence) -> None:
    """Raises BadSilence where the silence can't be meant so."""
    if not silence.ends_at > silence.starts_at:
        raise BadSilence("ends_at must be later than starts_at")
    for matcher in silence.matchers:
        if not matcher.is_regex:
            continue
        if len(matcher.value) > MAX_PATTERN:
            raise BadSilence(f"matcher {matcher.name}: a regular expression of at most {MAX_PATTERN} characters")
        try:
            _compiled(matcher.value)
        except re.error as error:
            raise BadSilence(f"matcher {matcher.name}: no regular expression: {error}") from error
        if _NESTED.search(matcher.value) or _BACKREFERENCE.search(matcher.value):
            raise BadSilence(
                f"matcher {matcher.name}: a repeated group with a repetition in it, or a back-reference, may take "
                "for ever; write it without"
            )
    if all(matcher.agrees({}) for matcher in silence.matchers):
        raise BadSilence("at least one matcher must not agree with everything (with empty text)")


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)
