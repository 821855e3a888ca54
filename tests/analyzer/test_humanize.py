"""Figures as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.humanize import (
    format_bytes,
    format_calls,
    format_duration,
    format_limit,
    format_rate,
    format_share,
    number,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999.4, "999 B"),
        (999.6, "1.0 kB"),
        (10_240, "10.2 kB"),
        (99_960, "100 kB"),
        (999_600, "1.0 MB"),
        (-1.2e6, "-1.2 MB"),
        (3e18, "3000 PB"),
        (math.nan, "unknown"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(512 << 20, "512 MiB"), (3 << 29, "1.5 GiB"), (2 << 30, "2 GiB"), (500_000_000, "500 MB"), (math.inf, "unknown")],
)
def test_a_limit_is_told_as_it_was_set(value: float, text: str) -> None:
    assert format_limit(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2e6, "72.0 MB/min"),
        (2e3, "120 kB/min"),
        (600.0, "2.2 MB/h"),
        (1.4, "5.0 kB/h"),
        (0.0, "0 B/min"),
        (-2e3, "-120 kB/min"),
    ],
)
def test_rates_are_told_in_the_unit_of_time_that_reads_best(value: float, text: str) -> None:
    assert format_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(41.2, "41 calls/s"), (2.5, "2.5 calls/s"), (0.2, "12 calls/min"), (0.001, "3.6 calls/h")]
)
def test_rates_of_calls(value: float, text: str) -> None:
    assert format_calls(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "under 1 s"),
        (42, "42 s"),
        (119.7, "2 min"),
        (240, "4 min"),
        (3599, "1 h"),
        (4800, "1 h 20 min"),
        (7200, "2 h"),
        (40_000, "11 h"),
        (3 * 86_400, "3 days"),
        (-5, "0 s"),
        (math.inf, "unknown"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.934, "93 %"), (0.997, "99 %"), (1.0, "100 %"), (0.004, "under 1 %"), (0.0, "0 %")]
)
def test_a_share_is_never_rounded_up_to_all(share: float, text: str) -> None:
    assert format_share(share) == text


@pytest.mark.parametrize(("value", "text"), [(41.4, "41"), (9.1, "9.1"), (2.0, "2"), (0.42, "0.42"), (0, "0")])
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e17, 1e17))
def test_a_size_is_never_told_with_more_than_three_digits_and_sign(value: float) -> None:
    figure, unit = format_bytes(value).split()
    assert unit in {"B", "kB", "MB", "GB", "TB", "PB"}
    assert len(figure.lstrip("-").replace(".", "")) <= 3
