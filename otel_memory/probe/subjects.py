"""How the value of a rule's subject is read: through the same functions that hand the meter its observations.

Owns nothing but the way from several observations to one number. So a rule may be about any metric that the probe or
one of its features emits, and reads it without the meter, whether or not anybody collects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe.thresholds import Subject


def value_of(subject: Subject, observations: Iterable[Observation]) -> float | None:
    """The subject's value: the sum of the points that bear its attributes, or their highest where the unit is 1.

    None where there is no such point. Shares, levels and ratios have the unit 1; bytes, seconds and counts add up.
    """
    values = [
        each.value
        for each in observations
        if not subject.attributes or _bears(each.attributes or {}, subject.attributes)
    ]
    if not values:
        return None
    return max(values) if names.METRICS[subject.metric].unit == "1" else sum(values)


def _bears(attributes: Mapping[str, object], chosen: tuple[tuple[str, str], ...]) -> bool:
    return all(str(attributes.get(key)) == value for key, value in chosen)
