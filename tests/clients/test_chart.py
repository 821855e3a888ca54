"""The picture: equal stretches of time, gaps that stay gaps, and no alarm where nothing happens."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.clients import chart, explain
from otel_memory.clients.replies import Series, read_series
from otel_memory.clients.terminal import Terminal
from tests.clients.documents import SERIES

BEGIN = datetime(2026, 11, 21, tzinfo=UTC)


def series(*samples: tuple[float, float | None]) -> Series:
    return Series(tuple(BEGIN + timedelta(seconds=s) for s, _ in samples), tuple(v for _, v in samples))


def test_a_rise_is_a_rise_from_the_lowest_to_the_highest_bar() -> None:
    values = chart.columns(series(*((s, 100.0 + s) for s in range(8))), 8)
    assert chart.draw(values) == "▁▂▃▄▅▆▇█"


def test_the_highest_value_of_a_stretch_is_shown() -> None:
    values = chart.columns(series(*((s, 900.0 if s == 37 else 100.0) for s in range(100))), 10)
    assert values == [100.0, 100.0, 100.0, 900.0, *[100.0] * 6]


def test_stretches_are_of_time_and_not_of_samples() -> None:
    """A burst of samples at the end doesn't take the picture's width."""
    samples = [(float(s), 100.0) for s in range(0, 100, 10)] + [(100 + s / 10, 200.0) for s in range(11)]
    values = chart.columns(series(*samples), 10)
    assert values.count(200.0) == 1


def test_a_gap_is_blank_and_a_stretch_between_two_samples_is_not() -> None:
    minutes = [m for m in range(60) if not 20 <= m < 40]
    values = chart.columns(series(*((m * 60.0, 100.0 + m) for m in minutes)), 60)
    drawn = chart.draw(values)
    assert "    " in drawn
    assert len(drawn.split()) == 2, "one gap, no more"
    few = chart.columns(series((0, 100.0), (1, 110.0), (2, 120.0), (3, 130.0), (5, 140.0)), 5)
    assert None not in few


def test_a_flat_series_looks_flat() -> None:
    wobble = [(float(s), 1e8 + (s % 2) * 1e5) for s in range(20)]
    assert set(chart.draw(chart.columns(series(*wobble), 20))) == {"▁"}


@pytest.mark.parametrize(
    "samples", [[], [(0, 1.0)], [(0, None), (1, None)], [(0, 1.0), (0, 2.0)], [(5, 1.0), (0, 2.0)]]
)
def test_too_little_to_draw_is_no_picture(samples: list[tuple[float, float | None]]) -> None:
    assert chart.columns(series(*samples), 60) == []


def test_only_zeros_can_be_drawn() -> None:
    assert chart.draw([0.0, 0.0]) == "▁▁"
    assert chart.draw([None]) == ""


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.none() | st.floats(-1e300, 1e300)), max_size=60),
    st.integers(2, 60),
)
def test_any_series_is_drawn_within_its_width(samples: list[tuple[int, float | None]], width: int) -> None:
    """Whatever a server sends: times in any order, values of any size."""
    assert len(chart.draw(chart.columns(series(*samples), width))) <= width


@pytest.mark.parametrize(
    ("encoding", "bars"), [("utf-8", chart.BARS), ("ascii", chart.ASCII_BARS), ("latin-1", "_.-:")]
)
def test_an_output_without_block_characters_gets_ascii_bars(encoding: str, bars: str) -> None:
    terminal = Terminal(io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    _, drawn, _ = explain.picture(read_series(SERIES), terminal, BEGIN)
    assert set(drawn.plain) & set(bars)
    drawn.plain.encode(encoding)
