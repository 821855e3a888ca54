"""Pure: samples -> buckets, and the choice of samples that a chart needs.

Owns the arithmetic of rollups and display. Knows no database and no clock. A bucket keeps real samples (its lowest,
highest and last, each with its time), so that a chart never shows a value that was not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

FIVE_MINUTES: Final = 300
HOUR: Final = 3600
GAP_FACTOR: Final = 4.0
"""A pause of more than this many usual intervals is a gap: two lost samples are not yet one."""

Floats = npt.NDArray[np.float64]


class Bucket(NamedTuple):
    """The samples of one series in [start, start + step). Times are seconds since the epoch."""

    start: int
    samples: int
    sum: float
    min: float
    min_at: float
    max: float
    max_at: float
    last: float
    last_at: float


def floor(time: float, step: int) -> int:
    """The start of the bucket that ``time`` falls in."""
    return int(time // step) * step


def summarize(rows: Sequence[tuple[float, float]], step: int) -> list[Bucket]:
    """Buckets of ``step`` seconds from (time, value) rows in order of time."""
    buckets: list[Bucket] = []
    start, end, count, total = 0, float("-inf"), 0, 0.0
    low = low_at = high = high_at = last = last_at = 0.0
    for time, value in rows:
        if time >= end:
            if count:
                buckets.append(Bucket(start, count, total, low, low_at, high, high_at, last, last_at))
            start = floor(time, step)
            end, count, total = start + step, 0, 0.0
            low = high = value
            low_at = high_at = time
        count += 1
        total += value
        last, last_at = value, time
        if value < low:
            low, low_at = value, time
        elif value > high:
            high, high_at = value, time
    if count:
        buckets.append(Bucket(start, count, total, low, low_at, high, high_at, last, last_at))
    return buckets


def merge(buckets: Iterable[Bucket], step: int) -> list[Bucket]:
    """Buckets of ``step`` seconds from finer ones in order of time."""
    merged = []
    for start, group in groupby(buckets, key=lambda bucket: floor(bucket.start, step)):
        parts = list(group)
        low = min(parts, key=lambda bucket: bucket.min)
        high = max(parts, key=lambda bucket: bucket.max)
        merged.append(
            Bucket(
                start,
                sum(bucket.samples for bucket in parts),
                sum(bucket.sum for bucket in parts),
                low.min,
                low.min_at,
                high.max,
                high.max_at,
                parts[-1].last,
                parts[-1].last_at,
            )
        )
    return merged


class Piece(NamedTuple):
    """A stretch of one series: ``gap_after[i]`` says that samples are missing between i and i + 1."""

    times: Floats
    values: Floats
    gap_after: npt.NDArray[np.bool_]


def raw_piece(rows: Sequence[tuple[float, float]]) -> Piece:
    """Samples as they are. A gap is a pause of more than GAP_FACTOR median intervals."""
    data = np.asarray(rows, dtype=np.float64).reshape(-1, 2)
    gaps = np.zeros(len(data), dtype=np.bool_)
    if len(data) > 2:
        intervals = np.diff(data[:, 0])
        gaps[:-1] = intervals > GAP_FACTOR * float(np.median(intervals))
    return Piece(data[:, 0], data[:, 1], gaps)


def bucket_piece(buckets: Sequence[Bucket], step: int) -> Piece:
    """The lowest, highest and last sample of each bucket. A gap is a missing bucket."""
    times: list[float] = []
    values: list[float] = []
    gaps: list[bool] = []
    for index, bucket in enumerate(buckets):
        chosen = sorted({(bucket.min_at, bucket.min), (bucket.max_at, bucket.max), (bucket.last_at, bucket.last)})
        times += [time for time, _ in chosen]
        values += [value for _, value in chosen]
        missing = index + 1 < len(buckets) and buckets[index + 1].start > bucket.start + step
        gaps += [False] * (len(chosen) - 1) + [missing]
    return Piece(np.asarray(times), np.asarray(values), np.asarray(gaps, dtype=np.bool_))


def join(pieces: Sequence[tuple[Piece, float]]) -> Piece:
    """One stretch from several in order of time, each with the pause (s) that is a gap behind it."""
    filled = [(piece, pause) for piece, pause in pieces if len(piece.times)]
    if not filled:
        return raw_piece(())
    for (piece, pause), (after, _) in pairwise(filled):
        piece.gap_after[-1] = after.times[0] - piece.times[-1] > pause
    return Piece(
        np.concatenate([piece.times for piece, _ in filled]),
        np.concatenate([piece.values for piece, _ in filled]),
        np.concatenate([piece.gap_after for piece, _ in filled]),
    )


def thin(piece: Piece, points: int) -> tuple[list[float], list[float | None]]:
    """At most ``points`` points (at least 4) for a chart: first, last, and each stretch's lowest and highest.

    A gap becomes one point without a value in its middle. Where gaps would take more than a third of the points,
    the longest ones stay.
    """
    times, values = piece.times, piece.values
    count = len(times)
    if not count:
        return [], []
    gaps = np.flatnonzero(piece.gap_after[:-1])
    if len(gaps) > points // 3:
        lengths = times[gaps + 1] - times[gaps]
        gaps = np.sort(gaps[np.argsort(lengths)[::-1][: points // 3]])
    room = points - len(gaps)
    if count <= room:
        kept = np.arange(count)
    else:
        bins = max(1, (room - 2) // 2)
        span = times[-1] - times[0]
        slots = np.minimum(((times - times[0]) / span * bins).astype(np.int64), bins - 1)
        order = np.lexsort((values, slots))
        edges = np.flatnonzero(np.diff(slots[order]))
        lows = order[np.concatenate(([0], edges + 1))]
        highs = order[np.concatenate((edges, [count - 1]))]
        kept = np.unique(np.concatenate(([0], lows, highs, [count - 1])))
    shown_times = times[kept].tolist()
    shown: list[float | None] = values[kept].tolist()
    # From the back, so that earlier positions stay right.
    for gap in gaps[::-1]:
        position = int(np.searchsorted(kept, gap, side="right"))
        shown_times.insert(position, float((times[gap] + times[gap + 1]) / 2))
        shown.insert(position, None)
    return shown_times, shown
