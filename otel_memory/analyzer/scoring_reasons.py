"""Puts what the scoring measured into sentences that a person can check on the chart. Owns the wording alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from otel_memory.analyzer import shapes
from otel_memory.analyzer.evidence import LATE, Evidence
from otel_memory.humanize import format_bytes, format_duration, format_rate, format_share

SUSPICIOUS = 0.5


@dataclass(frozen=True, slots=True)
class Facts:
    """What is said of one series: bytes, By/s, seconds, shares. ``shape`` is the likeliest class of shape,
    ``growing`` the weight of the growing ones, ``age`` that of the process (s) where the growth must be younger,
    else None, ``restarts`` how often the process was seen to restart, ``present``
    False where the life before the last restart was judged."""

    score: float
    rises: bool
    growth: float
    shape: int
    growing: float
    seconds: float
    growing_seconds: float
    turning_seconds: float
    rise: float
    late_share: float
    late_rise: float
    wobble: float
    jump: float
    load_change: float
    age: float | None
    restarts: int
    present: bool

    @classmethod
    def of(
        cls, evidence: Evidence, row: int, score: float, rises: bool, growth: float, restarts: int, present: bool
    ) -> Facts:
        """The facts of one row of the evidence."""
        seconds = float(evidence.grid.seconds[row])
        rise, late_rise = float(evidence.rise[row]), float(evidence.late_rise[row])
        return cls(
            score=score,
            rises=rises,
            growth=growth,
            shape=int(evidence.classes[row].argmax()),
            growing=float(evidence.classes[row, shapes.GROWING]),
            seconds=seconds,
            growing_seconds=(1 - float(evidence.since[row])) * seconds,
            turning_seconds=(1 - float(evidence.turning[row])) * seconds,
            rise=rise,
            late_share=late_rise / rise if rise > 0 else 0.0,
            late_rise=late_rise,
            wobble=float(evidence.wobble[row]),
            jump=float(evidence.jump[row]),
            load_change=float(evidence.load_change[row]),
            age=float(evidence.grid.age[row]) if evidence.new[row] >= SUSPICIOUS else None,
            restarts=restarts,
            present=present,
        )


def sentences(facts: Facts) -> tuple[str, ...]:
    """The sentences for one series, the most telling first."""
    said = [_what(facts)]
    if facts.rises:
        said.extend(_growing(facts))
    if facts.restarts:
        times = "once" if facts.restarts == 1 else f"{facts.restarts} times"
        said.append(f"the process restarted {times} in this time; each of its lives is looked at by itself")
    if not facts.present:
        said.append("it has just restarted: this is said of the life before")
    return tuple(said)


def _what(facts: Facts) -> str:
    span, late = format_duration(facts.seconds), format_duration(LATE * facts.seconds)
    if facts.rises:
        rise = format_bytes(max(facts.late_rise, 0.0))
        return f"the floor rose {rise} in {late} and still rises at the end ({format_rate(facts.growth)})"
    if facts.score >= SUSPICIOUS and facts.growth > 0:
        grows, hidden = format_rate(facts.growth), format_bytes(facts.wobble)
        return f"the floor seems to rise over {span} ({grows}), so far by less than what comes and goes ({hidden})"
    if facts.shape == shapes.STEPS and facts.jump > 2 * facts.wobble:
        ago = format_duration(facts.turning_seconds)
        return f"one step of {format_bytes(facts.jump)}, and level since ({ago})"
    if facts.shape == shapes.STOPPED and facts.rise > 2 * facts.wobble:
        ago = format_duration(facts.turning_seconds)
        return f"the floor rose {format_bytes(facts.rise)} and has been level for {ago}"
    if facts.shape == shapes.SLOWING and facts.rise > 2 * facts.wobble:
        kept = format_share(max(min(facts.late_share, 1.0), 0.0))
        state = "still warming up" if facts.late_rise > facts.wobble else "warmed up"
        return f"{state}: the rise of {format_bytes(facts.rise)} in {span} slows down, {kept} of it in the later {late}"
    if facts.late_rise < -2 * facts.wobble:
        return f"the floor fell {format_bytes(-facts.late_rise)} in {late}"
    return f"the floor did not rise over {span} beyond what comes and goes ({format_bytes(facts.wobble)})"


def _growing(facts: Facts) -> list[str]:
    said = []
    if facts.score < SUSPICIOUS:
        said.append(f"it can't be told yet from a warm-up or a cache that fills: {format_duration(facts.seconds)} seen")
    elif facts.growing_seconds < 0.9 * facts.seconds:
        said.append(f"it has grown for {format_duration(facts.growing_seconds)}")
    if facts.age is not None:
        said.append(f"it has run for {format_duration(facts.age)}: it can't have grown like this all the time")
    if facts.jump < 0.34 * facts.rise and facts.score >= SUSPICIOUS:
        parts = f"{format_bytes(facts.jump)} of {format_bytes(facts.rise)}"
        said.append(f"no single step makes it up: the largest is {parts}")
    if math.isfinite(facts.load_change):
        change = facts.load_change
        if change < -0.15:
            said.append(f"requests fell by {format_share(min(-change, 1.0))} in the same time")
        elif change <= 0.15:
            said.append("requests stayed level in the same time")
        elif facts.score >= SUSPICIOUS:
            said.append(f"requests rose by {change * 100:.0f} %, which does not explain it")
    return said
