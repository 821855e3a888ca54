"""``otel-memory explain ID``: the whole story of one process, in plain words with the figures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

from rich.text import Text

from otel_memory import humanize
from otel_memory.clients import chart
from otel_memory.clients.api_client import ApiClient, ClientError, add_arguments
from otel_memory.clients.leaks import STYLES
from otel_memory.clients.lookup import find_process
from otel_memory.clients.replies import (
    Finding,
    Process,
    Series,
    Suggestion,
    Suspect,
    read_process,
    read_series,
)
from otel_memory.clients.terminal import Terminal, local_moment

CHART_WIDTH: Final = 60
CHART_POINTS: Final = 240
MAX_EVENTS: Final = 5
SILENT_SECONDS: Final = 300.0
"""After so long without a word a process is told to be silent: exporters speak every minute, or more often."""

MOST_FOUND: Final = 3
PARTS: Final = {
    "python_used": "Python objects",
    "python_free": "kept free by Python",
    "c_used": "C allocator, in use",
    "c_free": "kept free by the C allocator",
    "file": "files",
    "shared": "shared memory",
    "stack": "stacks of threads",
    "other": "other",
}
WIDEST_PART: Final = max(map(len, PARTS.values()))

_LIMITS: Final = {
    "configured": "set by OTEL_PYTHON_MEMORY_LIMIT",
    "cgroup_v2": "set by its container",
    "cgroup_v1": "set by its container",
    "rlimit": "a resource limit of its address space",
    "host": "all of the host's memory",
    "jvm_heap": "the most that the JVM's heap may take",
    "go_memory_limit": "GOMEMLIMIT",
}


def main(argv: Sequence[str]) -> int:
    """Explain one process: 0 if it is well, 1 if it leaks or may leak, 2 if it could not be asked about."""
    parser = argparse.ArgumentParser(
        prog="otel-memory explain",
        description="Tell the whole story of one process.",
        epilog="exit status: 0 it is well, 1 it leaks or may leak, 2 it could not be asked about",
    )
    parser.add_argument("process", metavar="ID", help="the process's id, the beginning of it, or its service's name")
    add_arguments(parser)
    options = parser.parse_args(argv)
    terminal = Terminal()
    try:
        with ApiClient(options.url, options.token) as client:
            answer = find_process(client, options.process)
            process = read_process(answer)
            series = None if options.json else _memory(client, process)
    except ClientError as error:
        print(f"otel-memory explain: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(answer, indent=2))
    else:
        terminal.show(*story(process, series, terminal, datetime.now().astimezone()))
    return int(process.verdict in ("leaking", "watch"))


def _memory(client: ApiClient, process: Process) -> Series | None:
    path = f"/api/v1/processes/{quote(process.id, safe='')}/series"
    answer = client.get(path, {"metric": "memory", "points": CHART_POINTS})
    return None if answer is None else read_series(answer)


def story(process: Process, series: Series | None, terminal: Terminal, now: datetime) -> list[Text]:
    """The lines of the story; ``now`` carries the zone that times are told in."""
    lines = [
        Text.assemble(
            (process.service, "bold"), "  ", (process.verdict, STYLES.get(process.verdict, "")), f"  {process.id}"
        ),
        *([Text(who(process), style="dim")] if who(process) else []),
        Text(),
        Text(headline(process, now)),
    ]
    lines += picture(series, terminal, now) if series is not None else []
    lines += _section("Why", [Text(f"- {reason}") for reason in process.reasons])
    lines += _section("What grows", [_suspect(place, s) for place, s in enumerate(process.suspects, 1)])
    lines += _section("What it found itself", _found(process.findings[0]) if process.findings else [])
    lines += _section("Where the memory is", _parts(process))
    lines += _section(
        "What it told",
        [Text(f"- {local_moment(e.time, now)}  {e.body or e.name}") for e in process.events[:MAX_EVENTS]],
    )
    lines += _section("What to do", [_advice(place, one) for place, one in enumerate(process.suggestions, 1)])
    return lines


def _section(title: str, content: list[Text]) -> list[Text]:
    return [Text(), Text(title, style="bold"), *content] if content else []


def _suspect(place: int, suspect: Suspect) -> Text:
    figures = [
        None if suspect.growth is None else humanize.format_rate(suspect.growth),
        None if suspect.share is None else f"{humanize.format_share(suspect.share)} of the growth",
        None if suspect.confidence is None else f"confidence {humanize.format_share(suspect.confidence)}",
    ]
    return Text.assemble(
        f"{place}. ",
        (f"{suspect.kind} {suspect.name}", "bold"),
        f"  {', '.join(figure for figure in figures if figure)}",
        f"\n   {suspect.evidence}" if suspect.evidence else "",
    )


def _advice(place: int, suggestion: Suggestion) -> Text:
    return Text.assemble(
        f"{place}. ",
        (suggestion.message, "bold"),
        f" ({suggestion.severity})\n   {suggestion.recommendation}.",
        f"\n   {suggestion.effect}." if suggestion.effect else "",
        (f"\n   {suggestion.link}", "dim") if suggestion.link else "",
    )


def _found(finding: Finding) -> list[Text]:
    lines = [Text(finding.summary)] if finding.summary else []
    for title, ones in (("allocated at", finding.sites), ("held by", finding.holders), ("types", finding.types)):
        if ones:
            lines.append(Text.assemble((f"{title}: ", "dim"), ", ".join(ones[:MOST_FOUND])))
    return [*lines, *(Text(f"- {note}") for note in finding.notes)]


def _parts(process: Process) -> list[Text]:
    total = sum(size for _, size in process.breakdown)
    return [
        Text(f"{PARTS.get(part, part):<{WIDEST_PART}}  {humanize.format_bytes(size):>9}  {size / total:>4.0%}")
        for part, size in process.breakdown
        if size >= total / 100 > 0
    ]


def who(process: Process) -> str:
    """What is known about the process besides its name."""
    parts = (
        process.version and f"version {process.version}",
        process.host and f"host {process.host}",
        None if process.pid is None else f"pid {process.pid}",
        process.runtime,
        process.instance and f"instance {process.instance}",
    )
    return ", ".join(part for part in parts if part)


def headline(process: Process, now: datetime) -> str:
    """What, how fast and until when, in a few sentences."""
    return " ".join(filter(None, (_silence(process, now), _memory_now(process), _growth(process, now))))


def _silence(process: Process, now: datetime) -> str:
    if process.last_seen is None:
        return ""
    silent = (now - process.last_seen).total_seconds()
    return f"It was last heard of {humanize.format_duration(silent)} ago." if silent >= SILENT_SECONDS else ""


def _memory_now(process: Process) -> str:
    if process.memory is None:
        return "Its memory is not known."
    used = f"It uses {humanize.format_bytes(process.memory)}"
    if not process.limit:
        return f"{used}; its limit is not known."
    whose = _LIMITS.get(process.limit_kind or "", "")
    return (
        f"{used}, {humanize.format_share(process.memory / process.limit)} of its limit of "
        f"{humanize.format_limit(process.limit)}{f' ({whose})' if whose else ''}."
    )


def _growth(process: Process, now: datetime) -> str:
    if process.verdict == "unknown":
        return "There is too little to judge it by yet."
    if process.verdict == "healthy":
        return "Nothing in it points to a leak."
    grows = "It leaks" if process.verdict == "leaking" else "It may leak"
    if process.growth is not None:
        grows += f" {humanize.format_rate(process.growth)}"
    if process.leaking_since is not None:
        grows += f" since {local_moment(process.leaking_since, now)}"
    reach = process.reach
    if reach is None:
        return f"{grows}. When that meets a limit can't be told."
    high = "or longer" if reach.high is None else f"to {humanize.format_duration(reach.high)}"
    return (
        f"{grows}, and reaches the limit in about {humanize.format_duration(reach.estimate)} "
        f"({humanize.format_duration(reach.low)} {high})."
    )


def picture(series: Series, terminal: Terminal, now: datetime) -> list[Text]:
    """Memory over time and what its ends are; nothing where there is too little to draw."""
    values = chart.columns(series, min(CHART_WIDTH, terminal.width))
    known = [value for value in series.values if value is not None]
    if not values or not known:
        return []
    bars = chart.BARS if terminal.can_show(chart.BARS) else chart.ASCII_BARS
    times = [time for time, value in zip(series.times, series.values, strict=True) if value is not None]
    caption = (
        f"{local_moment(times[0], now)} to {local_moment(times[-1], now)}, "
        f"{humanize.format_bytes(min(known))} to {humanize.format_bytes(max(known))}"
    )
    return [Text(), Text(chart.draw(values, bars), no_wrap=True), Text(caption, style="dim")]
