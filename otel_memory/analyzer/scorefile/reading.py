"""Series out of a file: CSV, JSON lines, a Prometheus range query's answer, or OTLP as JSON lines; gzipped or not.

Owns which form a file has and which column means what. Never judges. What can't be used in a row is counted; a file
that can't be read at all is refused with ``Unreadable``.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from otel_memory.analyzer.decode import MalformedPayload, decode
from otel_memory.analyzer.envelope import SeriesInput
from otel_memory.analyzer.identity import identify
from otel_memory.analyzer.model import Payload
from otel_memory.analyzer.series import ProcessSeries
from otel_memory.analyzer.windows import Level

TIMES: Final = ("time", "timestamp", "t", "ts", "datetime", "date", "@timestamp")
VALUES: Final = ("value", "memory", "used_memory", "memory_bytes", "rss", "bytes", "process.memory.usage", "heap")
COVARIATES: Final = ("requests", "start_time", "gc_gen2", "heap", "rss")
LIMIT: Final = "limit"
MAX_SERIES: Final = 1_000_000
_MAX_DOCUMENT: Final = 1 << 30
_UNBOUNDED: Final = (Level(0.0, 1 << 40),)
_STEP: Final = 1 << 16

Progress = Callable[[int], None]
"""Called with the bytes of the file that are read."""


class Unreadable(Exception):
    """The file can't be read as any of the forms; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to take, by name; None where the usual names are looked for. ``scale``: bytes in one unit."""

    time: str | None = None
    value: str | None = None
    by: tuple[str, ...] | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Named:
    """One series of the file and what it is called there."""

    name: str
    series: SeriesInput


@dataclass(slots=True)
class Contents:
    """What a file held: its series, and how many rows or points of it could not be used."""

    form: str
    series: list[Named] = field(default_factory=list)
    refused: int = 0


def read(path: Path, columns: Columns, progress: Progress = lambda _: None) -> Contents:
    """All series of a file. Raises ``Unreadable``."""
    try:
        with path.open("rb") as raw:
            contents = _read(raw, columns, progress)
    except OSError as error:
        raise Unreadable(f"{path} can't be read: {error.strerror or error}") from error
    except EOFError as error:
        raise Unreadable(f"{path} ends in the middle of its gzip data") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise Unreadable(f"{path} is no CSV: {error}") from error
    except RecursionError as error:
        raise Unreadable(f"{path}: its JSON is nested too deep") from error
    if not contents.series:
        bad = f"; {contents.refused} rows could not be used" if contents.refused else ""
        raise Unreadable(f"{path} holds no series of memory ({contents.form}){bad}")
    return contents


class _Counted(io.RawIOBase):
    """The raw file, which tells how far it was read."""

    def __init__(self, raw: BinaryIO, progress: Progress) -> None:
        self._raw, self._progress, self._read = raw, progress, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        self._progress(self._read)
        return len(data)


def _read(raw: BinaryIO, columns: Columns, progress: Progress) -> Contents:
    zipped = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    counted = io.BufferedReader(_Counted(raw, progress), _STEP)
    stream: Any = io.BufferedReader(gzip.GzipFile(fileobj=counted), _STEP) if zipped else counted
    first = stream.peek(1)[:1]
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    if first in (b"{", b"["):
        return _json(text, columns)
    return _rows(csv.DictReader(text), columns, "CSV", header=True)


# --- JSON ----------------------------------------------------------------------------------------------------


def _json(text: io.TextIOWrapper, columns: Columns) -> Contents:
    line = text.readline()
    try:
        first = json.loads(line)
    except ValueError:
        first = None
    rest = (one for one in text if one.strip())
    if isinstance(first, dict) and "resourceMetrics" in first:
        return _otlp(line, rest)
    if isinstance(first, dict) and not _is_prometheus(first):
        return _rows(_objects(first, rest), columns, "JSON lines", header=False)
    document = first
    if document is None:
        try:
            document = json.loads(line + text.read(_MAX_DOCUMENT))
        except ValueError as error:
            raise Unreadable(f"neither JSON lines nor a JSON document: {error}") from error
    if isinstance(document, dict) and _is_prometheus(document):
        return _prometheus(document, columns.scale)
    if isinstance(document, dict) and "resourceMetrics" in document:
        return _otlp(json.dumps(document), ())
    if isinstance(document, list) and all(isinstance(row, dict) for row in document):
        return _rows(document, columns, "JSON rows", header=False)
    raise Unreadable("this JSON is neither rows, nor OTLP metrics, nor the answer to a Prometheus range query")


def _objects(first: dict[str, Any], rest: Iterable[str]) -> Iterator[dict[str, Any]]:
    yield first
    for line in rest:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        # What is no object has no columns, so that it is counted as a row that can't be used.
        yield row if isinstance(row, dict) else {}


def _is_prometheus(document: Mapping[str, Any]) -> bool:
    data = document.get("data")
    if document.get("status") == "error" and "errorType" in document:
        return True
    return "resultType" in document or (isinstance(data, dict) and "resultType" in data)


def _prometheus(document: Mapping[str, Any], scale: float) -> Contents:
    if document.get("status") == "error":
        raise Unreadable(f"Prometheus answered with an error: {document.get('error', 'it does not say which')}")
    data = document.get("data", document)
    if data["resultType"] != "matrix":
        raise Unreadable(
            f"the answer is a {data['resultType']}, not a matrix: ask /api/v1/query_range, which gives a series"
        )
    contents = Contents("Prometheus range query")
    for one in data.get("result", ()):
        table = _Table()
        for pair in one.get("values", ()) if isinstance(one, dict) else ():
            try:
                time, value = pair
                table.add(float(time), float(value) * scale, {}, None)
            except (TypeError, ValueError):
                contents.refused += 1
        if len(table.times):
            contents.series.append(Named(_labels(one.get("metric")), table.series()))
    return contents


def _labels(metric: Any) -> str:
    if not isinstance(metric, dict):
        return "value"
    labels = ", ".join(f'{key}="{value}"' for key, value in sorted(metric.items()) if key != "__name__")
    return f"{metric.get('__name__', '')}{{{labels}}}"


def _otlp(first: str, rest: Iterable[str]) -> Contents:
    contents = Contents("OTLP JSON")
    known: dict[str, ProcessSeries] = {}
    for line in _chained(first, rest):
        try:
            decoded = decode(line.encode(), "metrics", "json")
        except MalformedPayload:
            contents.refused += 1
            continue
        contents.refused += decoded.rejected
        for payload in decoded.payloads:
            if isinstance(payload, Payload):
                _take(payload, known)
    for series in known.values():
        memory = series.memory
        if memory is None:
            continue
        times, values = memory.arrays(0)
        limit = None if series.limit_bytes is None else float(series.limit_bytes)
        info = series.info
        name = " ".join(part for part in (info.service_name, info.service_instance_id) if part)
        contents.series.append(Named(name, SeriesInput(times, values, limit, series.covariates(0))))
    return contents


def _chained(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _take(payload: Payload, known: dict[str, ProcessSeries]) -> None:
    info = identify(payload.resource)
    if info is None:
        return
    series = known.get(info.id)
    if series is None:
        if len(known) >= MAX_SERIES:
            raise Unreadable(f"more than {MAX_SERIES} processes")
        series = known[info.id] = ProcessSeries(info, levels=_UNBOUNDED)
    series.add(payload)


# --- rows ----------------------------------------------------------------------------------------------------


class _Table:
    """The columns of one series while they are read."""

    def __init__(self) -> None:
        self.times, self.values = array("d"), array("d")
        self.columns: dict[str, array[float]] = {}
        self.limit: float | None = None

    def add(self, time: float, value: float, covariates: Mapping[str, float], limit: float | None) -> None:
        self.times.append(time)
        self.values.append(value)
        for name, number in covariates.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = array("d", [math.nan]) * (len(self.times) - 1)
            column.append(number)
        if limit is not None:
            self.limit = limit

    def series(self) -> SeriesInput:
        columns = {name: np.array(column) for name, column in self.columns.items()}
        return SeriesInput(np.array(self.times), np.array(self.values), self.limit, columns or None)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What each column of the rows means."""

    time: str
    value: str
    by: tuple[str, ...]
    covariates: tuple[str, ...]
    limit: bool


def _rows(rows: Iterable[Mapping[str, Any]], columns: Columns, form: str, *, header: bool) -> Contents:
    contents = Contents(form)
    tables: dict[tuple[str, ...], _Table] = {}
    meaning: _Meaning | None = None
    for row in rows:
        if meaning is None:
            meaning = _meaning(row, columns)
        try:
            time, value = _time(row[meaning.time]), float(row[meaning.value]) * columns.scale
        except (KeyError, TypeError, ValueError, OverflowError):
            contents.refused += 1
            continue
        if not math.isfinite(time) or not math.isfinite(value):
            contents.refused += 1
            continue
        key = tuple(str(row.get(name, "")) for name in meaning.by)
        table = tables.get(key)
        if table is None:
            if len(tables) >= MAX_SERIES:
                raise Unreadable(f"more than {MAX_SERIES} series: name the columns that tell series apart with --by")
            table = tables[key] = _Table()
        covariates = {name: _covariate(name, row.get(name), columns.scale) for name in meaning.covariates}
        limit = _number(row.get(LIMIT)) * columns.scale if meaning.limit else math.nan
        table.add(time, value, covariates, limit if math.isfinite(limit) else None)
    if meaning is None and header:
        raise Unreadable("the file is empty: a CSV needs a header line with the names of its columns")
    for key, table in tables.items():
        name = ", ".join(key) or (meaning.value if meaning else "value")
        contents.series.append(Named(name, table.series()))
    return contents


def _meaning(row: Mapping[str, Any], columns: Columns) -> _Meaning:
    """By the first row: its names, and which of its cells are numbers."""
    names = [str(name) for name in row]
    time = _column(names, columns.time, TIMES, "time", "--time")
    value = _column([name for name in names if name != time], columns.value, VALUES, "memory", "--value")
    covariates = tuple(name for name in COVARIATES if name in names and name != value)
    if columns.by is not None:
        missing = [name for name in columns.by if name not in names]
        if missing:
            raise Unreadable(f"there is no column {missing[0]!r}; there are {', '.join(names)}")
        by = columns.by
    else:
        known = {time, value, LIMIT, *covariates}
        by = tuple(name for name in names if name not in known and not _is_number(row[name]))
    return _Meaning(time, value, by, covariates, LIMIT in names)


def _column(names: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, option: str) -> str:
    lowered = {name.strip().lower(): name for name in reversed(names)}
    for name in (wanted,) if wanted is not None else usual:
        if name in names:
            return name
        if name.lower() in lowered:
            return lowered[name.lower()]
    asked = f"no column {wanted!r}" if wanted is not None else f"no column that is called like {what}"
    raise Unreadable(f"there is {asked}; name it with {option}. There are: {', '.join(names) or 'none'}")


def _time(cell: Any) -> float:
    """Seconds since the epoch from a number (s, ms, µs or ns, told apart by size) or ISO 8601 (UTC if not said)."""
    try:
        number = float(cell)
    except ValueError:
        moment = datetime.fromisoformat(str(cell).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    size = abs(number)
    return number / (1e9 if size > 1e17 else 1e6 if size > 1e14 else 1e3 if size > 1e11 else 1.0)


def _covariate(name: str, cell: Any, scale: float) -> float:
    if name == "start_time":
        try:
            return _time(cell)
        except (TypeError, ValueError):
            return math.nan
    return _number(cell) * (scale if name in {"heap", "rss"} else 1.0)


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def _is_number(cell: Any) -> bool:
    return not isinstance(cell, str) or math.isfinite(_number(cell)) or not cell.strip()
