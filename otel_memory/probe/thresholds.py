"""Judges readings against rules. Pure: numbers and times in, decisions out; reads no clock and sends nothing.

A rule looks at a ring of readings of one subject: a metric, or those of its points that bear chosen attributes.
A crossing is told once, and so is its recovery; both belong to one episode. What is not known (no reading, no limit, a
window not yet half full) decides nothing: a gap neither starts nor ends an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from otel_memory import names
from otel_memory.probe.readings import Ring

Comparison = Literal["greater_than", "percent_change", "growth_per_second", "share_of_limit"]
Severity = Literal["info", "warning", "critical"]


class Subject(NamedTuple):
    """What a rule reads: ``metric``, of its points those that bear all of ``attributes`` (keys in rising order)."""

    metric: str
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def chosen(self) -> str:
        """The attributes as a user writes them."""
        return ",".join(f"{key}={value}" for key, value in self.attributes)

    def __str__(self) -> str:
        return f"{self.metric}{{{self.chosen}}}" if self.attributes else self.metric


WINDOWED: Final = ("percent_change", "growth_per_second")
MAX_WINDOW_SECONDS: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One threshold.

    ``metric`` names what is read: any gauge, counter or up-down counter of the probe; ``attributes`` choose among its
    points. What stands for several points is their sum, or where the unit is 1 (shares, levels) the highest of them.
    ``comparison`` and ``bound``: ``greater_than`` in the metric's own unit,
    ``percent_change`` in % over the window, ``growth_per_second`` in the metric's unit per second, ``share_of_limit``
    0 to 1 (of a metric in bytes, or ``process.memory.utilization``, which is such a share). ``window_seconds`` is what
    the two growth comparisons look at. The rule speaks when the value has been over the bound for ``for_seconds``, and
    has recovered when it is below ``clear * bound``. ``cooldown_seconds`` is the least time between two told
    crossings; it never holds a recovery back.

    Raises:
        ValueError: a field is out of its range; the message names the field.
    """

    name: str
    metric: str
    comparison: Comparison
    bound: float
    window_seconds: float = 0.0
    for_seconds: float = 0.0
    clear: float = 0.9
    cooldown_seconds: float = 900.0
    severity: Severity = "warning"
    attributes: Mapping[str, str | int] | tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty")
        if self.name.encode(errors="replace") != self.name.encode(errors="surrogatepass"):
            raise ValueError(f"name {self.name!r} is not UTF-8, in which events are sent")
        metric = names.METRICS.get(self.metric)
        if metric is None:
            raise ValueError(f"metric {self.metric!r} is not one of otel-memory's")
        if metric.kind == "histogram":
            raise ValueError(f"metric {self.metric!r} is a histogram; a rule reads gauges and counters")
        object.__setattr__(self, "attributes", _checked(metric, self.attributes))
        if self.comparison not in ("greater_than", "percent_change", "growth_per_second", "share_of_limit"):
            raise ValueError(f"comparison {self.comparison!r} is not known")
        if self.severity not in ("info", "warning", "critical"):
            raise ValueError(f"severity {self.severity!r} is not one of info, warning, critical")
        if not 0 < self.bound < float("inf"):
            raise ValueError(f"bound {self.bound!r} must be above 0")
        if not 0 < self.clear <= 1:
            raise ValueError(f"clear {self.clear!r} must be above 0 and at most 1")
        if not (self.for_seconds >= 0 and self.cooldown_seconds >= 0):
            raise ValueError("for_seconds and cooldown_seconds must be 0 or more")
        if self.comparison in WINDOWED and not 0 < self.window_seconds <= MAX_WINDOW_SECONDS:
            raise ValueError(f"window_seconds {self.window_seconds!r} must be above 0 and at most a day")

    @property
    def unit(self) -> str:
        """Unit of bound and value as events carry it: ``By``, ``s``, ``1``, one of them with ``/s``, or ``%``."""
        unit = names.METRICS[self.metric].unit
        base = unit if unit in ("By", "s") else "1"
        return {"greater_than": base, "growth_per_second": f"{base}/s", "percent_change": "%"}.get(self.comparison, "1")

    @property
    def subject(self) -> Subject:
        """What is read for this rule."""
        return Subject(self.metric, tuple(self.attributes))  # type: ignore[arg-type]  # __post_init__ made it one


def _checked(metric: names.Metric, given: object) -> tuple[tuple[str, str], ...]:
    """The chosen attributes in rising order of their keys.

    Raises:
        ValueError: the metric has no such attribute, or that attribute no such value.
    """
    if not isinstance(given, Mapping | tuple):
        raise ValueError(f"attributes {given!r} must be a dict")
    chosen = {key: str(value) for key, value in dict(given).items()}
    for key, value in chosen.items():
        if key not in metric.attributes:
            known = f"its attributes are {', '.join(metric.attributes)}" if metric.attributes else "it has none"
            raise ValueError(f"attribute {key!r} is not one of {metric.name}: {known}")
        allowed = names.ATTRIBUTES[key].values if key in names.ATTRIBUTES else ()
        if allowed and value not in allowed:
            raise ValueError(f"{key} is one of {', '.join(allowed)}, not {value!r}")
    return tuple(sorted(chosen.items()))


_GIB: Final = 1024**3
BUILT_IN: Final = (
    Rule("process_memory_high", names.PROCESS_MEMORY_USAGE, "greater_than", 1 * _GIB, clear=0.95),
    Rule("system_memory_high", names.SYSTEM_MEMORY_UTILIZATION, "greater_than", 0.85, for_seconds=10, clear=0.95),
    Rule("memory_growth", names.PROCESS_MEMORY_USAGE, "percent_change", 20, window_seconds=600, clear=0.5),
    Rule("memory_growth_fast", names.PROCESS_MEMORY_USAGE, "growth_per_second", 5e6, window_seconds=60, clear=0.5),
    Rule(
        "memory_growth_very_fast",
        names.PROCESS_MEMORY_USAGE,
        "growth_per_second",
        10e6,
        window_seconds=60,
        clear=0.5,
        severity="critical",
    ),
    Rule("memory_limit_near", names.PROCESS_MEMORY_UTILIZATION, "share_of_limit", 0.85, clear=0.95),
    Rule(
        "memory_limit_close",
        names.PROCESS_MEMORY_UTILIZATION,
        "share_of_limit",
        0.95,
        clear=0.95,
        severity="critical",
    ),
)


@dataclass(frozen=True, slots=True)
class Episode:
    """A crossing that was told and has not recovered. ``serial`` counts the rule's episodes from 1."""

    serial: int
    started_at: float
    peak: float


@dataclass(frozen=True, slots=True)
class State:
    """What one rule remembers between two evaluations. The same object as long as nothing changes: a new one at every
    reading would hold fast, until the next, memory around it that the program has long given back."""

    judged: bool = False
    """Whether there was ever a reading that it could be judged by."""
    over_since: float | None = None
    told_at: float | None = None
    episodes: int = 0
    episode: Episode | None = None


@dataclass(frozen=True, slots=True)
class Crossing:
    """A change worth telling. ``value`` and ``peak`` are in the rule's unit; ``duration`` is 0 for a crossing."""

    rule: Rule
    kind: Literal["crossed", "recovered"]
    time: float
    value: float
    peak: float
    serial: int
    duration: float = field(default=0.0)


def evaluate(rule: Rule, state: State, ring: Ring, limit: float | None, now: float) -> tuple[State, Crossing | None]:
    """Judge the newest reading of ``ring`` by ``rule``, if it is of ``now``: a failed one leaves all as it is.

    ``limit`` (bytes, or None where unknown) serves ``share_of_limit`` alone. ``now`` is on the clock of the ring.
    Returns the new state, and a crossing or recovery if this reading makes one.
    """
    latest = ring.latest
    if latest is None or latest.time < now:
        return state, None
    value = compared_value(rule, ring, limit)
    if value is None:
        return state, None
    if not state.judged:
        state = replace(state, judged=True)
    if state.episode is not None:
        return _in_episode(rule, state, state.episode, value, now)
    if value <= rule.bound:
        return state if state.over_since is None else replace(state, over_since=None), None
    over_since = state.over_since
    if over_since is None:
        over_since = now
        state = replace(state, over_since=over_since)
    cooling = state.told_at is not None and now - state.told_at < rule.cooldown_seconds
    if now - over_since < rule.for_seconds or cooling:
        return state, None
    episode = Episode(state.episodes + 1, now, value)
    state = replace(state, over_since=None, told_at=now, episodes=episode.serial, episode=episode)
    return state, Crossing(rule, "crossed", now, value, value, episode.serial)


def _in_episode(rule: Rule, state: State, episode: Episode, value: float, now: float) -> tuple[State, Crossing | None]:
    if value > episode.peak:
        episode = replace(episode, peak=value)
        state = replace(state, episode=episode)
    if value >= rule.clear * rule.bound:
        return state, None
    recovery = Crossing(rule, "recovered", now, value, episode.peak, episode.serial, now - episode.started_at)
    return replace(state, episode=None), recovery


def compared_value(rule: Rule, ring: Ring, limit: float | None) -> float | None:
    """What ``rule`` compares with its bound, or None where the readings can't tell."""
    latest = ring.latest
    if latest is None:
        return None
    if rule.comparison == "greater_than":
        return latest.value
    if rule.comparison == "share_of_limit":
        if rule.metric == names.PROCESS_MEMORY_UTILIZATION:
            return latest.value  # already a share, and of what the limit really bounds
        return latest.value / limit if limit else None
    growth = ring.growth(rule.window_seconds)
    if growth is None or rule.comparison == "growth_per_second":
        return None if growth is None else growth.per_second
    return 100 * growth.per_second * growth.span_seconds / growth.start if growth.start > 0 else None
