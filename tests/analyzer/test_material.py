"""What has grown counts only beyond an allocator's own unrest."""

from __future__ import annotations

import numpy as np
import pytest

from otel_memory.analyzer.material import CAPPED, cap_immaterial, rise
from otel_memory.analyzer.model import Trend
from otel_memory.analyzer.scoring import ScoreResult

MB = 1e6


def result(score: float = 0.9, since: float | None = None) -> ScoreResult:
    return ScoreResult(score, 1000.0, None, Trend.INCREASING, ("it rose",), since=since)


def line(start: float, end: float, samples: int = 100) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(samples, dtype=float), np.linspace(start, end, samples)


@pytest.mark.parametrize(
    ("start", "end", "capped"),
    [
        (100 * MB, 102 * MB, True),
        (100 * MB, 120 * MB, False),
        (5 * MB, 5.9 * MB, True),
        (5 * MB, 7.5 * MB, False),
        (10_000 * MB, 10_300 * MB, True),
        (10_000 * MB, 11_000 * MB, False),
    ],
)
def test_a_rise_is_material_beyond_four_per_cent_and_a_megabyte(start: float, end: float, capped: bool) -> None:
    times, values = line(start, end)
    judged = cap_immaterial(result(), times, values)
    assert (judged.score == CAPPED) is capped
    assert ("unrest" in judged.reasons[-1]) is capped


def test_only_the_rise_since_the_beginning_of_the_growth_counts() -> None:
    times, values = line(50 * MB, 100 * MB)
    assert cap_immaterial(result(since=50.0), times, values).score == 0.9
    assert cap_immaterial(result(since=93.0), times, values).score == CAPPED


def test_a_peak_at_the_end_is_no_rise() -> None:
    times, values = line(100 * MB, 100 * MB)
    values[-2:] += 50 * MB
    assert rise(times, values, None) == 0


def test_a_low_score_and_an_empty_window_stay_as_they_are() -> None:
    times, values = line(100 * MB, 101 * MB)
    assert cap_immaterial(result(0.3), times, values).score == 0.3
    assert cap_immaterial(result(), np.array([]), np.array([])).score == 0.9
    assert cap_immaterial(result(since=98.0), times, values).score == 0.9


def test_a_heap_with_its_garbage_needs_more_until_collections_were_seen() -> None:
    times, values = line(30 * MB, 50 * MB)
    assert cap_immaterial(result(), times, values).score == 0.9
    judged = cap_immaterial(result(), times, values, with_garbage=True)
    assert judged.score == CAPPED
    assert "garbage that the next collection frees" in judged.reasons[-1]
    values[::20] -= 2 * MB
    assert cap_immaterial(result(), times, values, with_garbage=True).score == 0.9
    times, values = line(30 * MB, 90 * MB)
    assert cap_immaterial(result(), times, values, with_garbage=True).score == 0.9
