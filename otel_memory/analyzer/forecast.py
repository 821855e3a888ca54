"""How long until the limit is reached, with an interval, or why that can't be said.

Owns the extrapolation. Never finds the growth itself: level, growth and their errors come from the scoring.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from otel_memory.analyzer.model import TimeToLimit

_Z80: Final = 1.2816
"""Half of the width of an 80 % interval of the normal distribution, in standard deviations."""
CALIBRATION: Final = 0.8
"""Share of the errors that the interval takes: the growth is the middle one of three slopes, whose error is less than
that of one. With it 80 % of the intervals hold on the recorded traces (``bench_judgement`` prints how many)."""
GROWTH_ERROR: Final = 0.03
"""Relative error of a growth rate beyond its own: the future is not exactly like the past. Chosen, not fitted;
``bench_judgement`` prints how often the interval then holds."""
YOUNG_ERROR: Final = 1.0
"""Relative error of a growth rate that was seen over one sample; it shrinks with their square root. What has grown for
ten samples may be the end of a warm-up in part. Chosen on live programs in their first minute."""
FARTHEST: Final = 10 * 365 * 86400.0
"""Seconds beyond which a forecast means nothing."""


class Forecast(NamedTuple):
    """The time to the limit, or None with the reason for it."""

    time_to_limit: TimeToLimit | None
    reason: str | None


def time_to_limit(
    level: float,
    limit: float | None,
    growth: float,
    growth_error: float,
    level_error: float = 0.0,
    samples: int | None = None,
) -> Forecast:
    """Seconds until ``level`` (bytes, now) reaches ``limit`` (bytes) at ``growth`` (By/s).

    ``growth_error`` and ``level_error`` are standard deviations; the first one already counts only independent
    samples. ``samples`` is how many the growth has been seen over (None: many). The interval is where the limit is
    reached between the growth's 10 % and 90 % quantile; ``high`` is None where the lower of these is no growth.
    """
    if limit is None or not math.isfinite(limit) or limit <= 0:
        return Forecast(None, "no limit is known")
    if not math.isfinite(level) or not math.isfinite(growth) or growth <= 0:
        return Forecast(None, "memory does not grow")
    gap = limit - level
    if gap <= 0:
        return Forecast(TimeToLimit(0.0, 0.0, 0.0), None)
    estimate = gap / growth
    if estimate > FARTHEST:
        return Forecast(None, "at this growth the limit is more than ten years away")
    young = 0.0 if samples is None else YOUNG_ERROR / math.sqrt(max(samples, 1))
    width = _Z80 * CALIBRATION
    error = width * math.hypot(max(growth_error, 0.0), GROWTH_ERROR * growth, young * growth)
    near = max(gap - width * max(level_error, 0.0), 0.0)
    far = gap + width * max(level_error, 0.0)
    low = near / (growth + error)
    high = far / (growth - error) if growth > error else None
    return Forecast(TimeToLimit(estimate, low, high if high is None or high <= FARTHEST else None), None)
