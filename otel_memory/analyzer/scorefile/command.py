"""The verb ``otel-memory score``: arguments, progress, and what is printed."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from otel_memory import humanize
from otel_memory.analyzer.scorefile import plot
from otel_memory.analyzer.scorefile.reading import Columns, Contents, Named, Unreadable, read
from otel_memory.analyzer.scoring import ScoreResult, score_batch

LARGE: Final = 16 << 20
"""Bytes of a file from which on its reading is reported, and of series their scoring."""
MANY: Final = 5000
SURE: Final = 0.8
_BATCH: Final = 1000
_EVERY_SECONDS: Final = 0.5
_UNITS: Final = {
    "": 1,
    "b": 1,
    "by": 1,
    "k": 1024,
    "m": 1 << 20,
    "g": 1 << 30,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}


def main(argv: Sequence[str]) -> int:
    """Score a file: 0 if nothing reaches the threshold, 1 if something does, 2 if the file could not be scored."""
    options = _parser().parse_args(argv)
    try:
        contents = _load(options)
        found = _scored(contents.series, _Progress("scored", len(contents.series), MANY))
        found.sort(key=lambda pair: -pair[1].score)
        if options.plot is not None:
            plot.draw(options.plot, found)
    except (Unreadable, plot.CanNotDraw) as error:
        print(f"otel-memory score: {error}", file=sys.stderr)
        return 2
    if options.json:
        _print_json(contents, found)
    else:
        _print_text(contents, found, options)
    return int(any(result.score >= options.threshold for _, result in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-memory score",
        description="Judge the series of memory in a file: CSV with a header, JSON lines, OTLP as JSON lines, or the "
        "answer to a Prometheus range query; gzipped or not. Every series is judged once, at its end.",
        epilog="exit status: 0 no score reaches the threshold, 1 one does, 2 the file could not be scored",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=_picture, metavar="OUT", help="draw the worst series to OUT.png or OUT.svg")
    parser.add_argument("--threshold", type=_share, default=0.5, help="the least score that counts, 0 to 1 (0.5)")
    parser.add_argument("--limit", type=_size, help="the limit where the file names none: 512MiB")
    parser.add_argument("--time", metavar="COLUMN", help="the column of times: s, ms, µs, ns or ISO 8601")
    parser.add_argument("--value", metavar="COLUMN", help="the column of memory in use")
    parser.add_argument("--by", metavar="COLUMN,…", help="columns that tell series apart (those that are no numbers)")
    parser.add_argument("--unit", type=_unit, default=1.0, help="what memory is given in: By (default), kB, MiB, …")
    return parser


def _load(options: argparse.Namespace) -> Contents:
    path: Path = options.file
    size = path.stat().st_size if path.is_file() else 0
    by = None if options.by is None else tuple(options.by.split(","))
    progress = _Progress("read", size, LARGE)
    contents = read(path, Columns(options.time, options.value, by, options.unit), progress)
    progress.end()
    if options.limit is not None:
        contents.series = [
            one if one.series.limit is not None else replace(one, series=one.series._replace(limit=options.limit))
            for one in contents.series
        ]
    return contents


def _scored(series: Sequence[Named], progress: _Progress) -> list[tuple[Named, ScoreResult]]:
    found: list[tuple[Named, ScoreResult]] = []
    for first in range(0, len(series), _BATCH):
        batch = series[first : first + _BATCH]
        found.extend(zip(batch, score_batch([one.series for one in batch]), strict=True))
        progress(len(found))
    progress.end()
    return found


class _Progress:
    """A line on stderr that says how far it is; nothing for what is over at once, nothing where nobody looks."""

    def __init__(self, word: str, total: int, least: int) -> None:
        self._word, self._total = word, total
        self._wanted = total >= least and sys.stderr.isatty()
        self._last = time.monotonic()
        self._shown = False

    def __call__(self, done: int) -> None:
        if self._wanted and (now := time.monotonic()) - self._last >= _EVERY_SECONDS:
            self._last, self._shown = now, True
            print(f"\r{self._word} {100 * done / self._total:3.0f} %", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print("\r" + " " * 30, end="\r", file=sys.stderr, flush=True)


def _verdict(result: ScoreResult, threshold: float) -> str:
    if not result.sufficient:
        return "unknown"
    if result.score >= threshold:
        return "leaking" if result.score >= max(SURE, threshold) else "watch"
    return "healthy"


def _print_text(contents: Contents, found: Sequence[tuple[Named, ScoreResult]], options: argparse.Namespace) -> None:
    for named, result in found:
        verdict = _verdict(result, options.threshold)
        print(f"{verdict:<8} {result.score:.2f}  {humanize.printable(named.name)}")
        for line in _lines(result):
            print(f"    {line}")
    counts = _counts(found, options.threshold)
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    refused = f"; {contents.refused} rows or points could not be used" if contents.refused else ""
    print(f"{len(found)} series ({contents.form}): {summary}{refused}")
    if options.plot is not None:
        more = f", the worst {plot.MOST} of them" if len(found) > plot.MOST else ""
        print(f"drawn to {options.plot}{more}")


def _lines(result: ScoreResult) -> Iterator[str]:
    yield from result.reasons
    reach = result.time_to_limit
    if reach is not None:
        high = "never" if reach.high is None else humanize.format_duration(reach.high)
        low = humanize.format_duration(reach.low)
        yield f"the limit is reached in {humanize.format_duration(reach.estimate)} (80 %: {low} to {high})"
    elif result.growth_rate > 0 and result.forecast_reason:
        yield f"no forecast: {result.forecast_reason}"


def _counts(found: Sequence[tuple[Named, ScoreResult]], threshold: float) -> dict[str, int]:
    counts = dict.fromkeys(("leaking", "watch", "healthy", "unknown"), 0)
    for _, result in found:
        counts[_verdict(result, threshold)] += 1
    return counts


def _print_json(contents: Contents, found: Sequence[tuple[Named, ScoreResult]]) -> None:
    items = [_item(named, result) for named, result in found]
    print(json.dumps({"form": contents.form, "refused": contents.refused, "items": items}, indent=2, allow_nan=False))


def _item(named: Named, result: ScoreResult) -> dict[str, Any]:
    reach = result.time_to_limit
    return {
        "name": named.name,
        "samples": len(named.series.times),
        "leak_score": result.score if result.sufficient else None,
        "confidence": result.confidence,
        "trend": str(result.trend),
        "growth_bytes_per_second": result.growth_rate if result.sufficient else None,
        "leaking_since": result.since,
        "time_to_limit_seconds": None
        if reach is None
        else {"estimate": reach.estimate, "low": reach.low, "high": reach.high},
        "forecast_reason": result.forecast_reason,
        "reasons": list(result.reasons),
    }


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"a share above 0 and at most 1 is wanted, not {text!r}")
    return share


def _size(text: str) -> float:
    parts = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    try:
        size = float(parts[1]) * _UNITS[parts[2].lower()] if parts else math.nan
    except (ValueError, KeyError):
        size = math.nan
    if not size > 0:
        raise argparse.ArgumentTypeError(f"a size above 0 is wanted, as 512MiB, not {text!r}")
    return size


def _unit(text: str) -> float:
    if text.lower() not in _UNITS:
        raise argparse.ArgumentTypeError(f"a unit is wanted (By, kB, MB, GB, KiB, MiB, GiB), not {text!r}")
    return float(_UNITS[text.lower()])


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in plot.SUFFIXES:
        raise argparse.ArgumentTypeError(f"a file that ends in .png or .svg is wanted, not {text!r}")
    return path
