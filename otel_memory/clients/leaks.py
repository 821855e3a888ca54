"""``otel-memory leaks``: the processes that leak, worst first."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from otel_memory import humanize
from otel_memory.clients.api_client import PAGE, ApiClient, ClientError, Json, add_arguments
from otel_memory.clients.replies import Process, read_process
from otel_memory.clients.terminal import Terminal

STYLES: Final = {"leaking": "bold red", "watch": "yellow", "healthy": "green", "unknown": "dim"}
_WIDEST_NAME: Final = 40
_NARROWEST_SUSPECT: Final = 16


def main(argv: Sequence[str]) -> int:
    """List leaks: 0 if there is none, 1 if there is one, 2 if the analyzer could not be asked."""
    parser = argparse.ArgumentParser(
        prog="otel-memory leaks",
        description="List the processes that leak or may leak, by their verdicts, worst first.",
        epilog="exit status: 0 none leaks, 1 one leaks, 2 the analyzer could not be asked",
    )
    parser.add_argument(
        "--threshold", type=_share, help="go by the momentary leak score instead of the verdict: the least one, 0 to 1"
    )
    parser.add_argument("--all", action="store_true", help="list every process, whatever its verdict")
    add_arguments(parser)
    options = parser.parse_args(argv)
    try:
        with ApiClient(options.url, options.token) as client:
            answers = _ask(client, options.threshold, everything=options.all)
        processes = [read_process(answer) for answer in answers]
    except ClientError as error:
        print(f"otel-memory leaks: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"items": answers}, indent=2))
    else:
        terminal = Terminal()
        terminal.show(*listing(processes, options.threshold, terminal, everything=options.all))
    if options.threshold is None:
        return int(any(process.verdict == "leaking" for process in processes))
    return int(any((process.score or 0) >= options.threshold for process in processes))


def _ask(client: ApiClient, threshold: float | None, *, everything: bool) -> list[Json]:
    if everything:
        return list(client.items("/api/v1/processes", {"limit": PAGE}))
    if threshold is not None:
        return list(client.items("/api/v1/leaks", {"threshold": threshold}))
    # By verdict, as the page and the alerts go: the score of one moment comes and goes.
    return [
        answer
        for verdict in ("leaking", "watch")
        for answer in client.items("/api/v1/processes", {"limit": PAGE, "verdict": verdict})
    ]


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def listing(
    processes: Sequence[Process], threshold: float | None, terminal: Terminal, *, everything: bool
) -> list[RenderableType]:
    """What is shown: a table where it fits, else a block for each process, and what to do next."""
    if not processes and everything:
        return [Text("No process has sent anything yet. `otel-memory doctor` checks an application's environment.")]
    if not processes:
        none = "No process leaks." if threshold is None else f"No process has a leak score of {threshold:g} or more."
        return [Text(f"{none} `otel-memory leaks --all` lists them all.")]
    shown: list[RenderableType] = []
    whole = table(processes, bounded=terminal.is_screen)
    if _fits(whole, terminal):
        shown.append(whole)
    else:
        for process in processes:
            shown += block(process)
    return [*shown, Text(), Text(f"The story of one: otel-memory explain {processes[0].id}", style="dim")]


def _fits(shown: Table, terminal: Terminal) -> bool:
    # A table's measure is clipped to the console; asked of a console without end it is the true one.
    roomy = terminal.options.update(max_width=10_000)
    return Measurement.get(terminal, roomy, shown).minimum <= terminal.width


def table(processes: Sequence[Process], *, bounded: bool) -> Table:
    """The processes as a table. ``bounded``: long names are folded, so that the columns keep together."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("service", overflow="fold", no_wrap=not bounded, max_width=_WIDEST_NAME if bounded else None)
    for heading in ("id", "verdict"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("score", "memory", "limit", "growth", "time to limit"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("first suspect", overflow="fold", no_wrap=not bounded, min_width=_NARROWEST_SUSPECT)
    for process in processes:
        shown.add_row(
            Text(process.service),
            Text(process.id),
            Text(process.verdict, style=STYLES.get(process.verdict, "")),
            Text(_or_dash(process.score, lambda v: f"{v:.2f}")),
            Text(_or_dash(process.memory, humanize.format_bytes)),
            Text(_or_dash(process.limit, humanize.format_limit)),
            Text(_or_dash(process.growth, humanize.format_rate)),
            Text(humanize.format_duration(process.reach.estimate) if process.reach else "-"),
            Text(_first_suspect(process)),
        )
    return shown


def block(process: Process) -> list[Text]:
    """One process over several short lines, for a terminal that is too narrow for the table."""
    title = Text.assemble(
        (process.service, "bold"), "  ", (process.verdict, STYLES.get(process.verdict, "")), f"  {process.id}"
    )
    figures = (
        ("score", _or_dash(process.score, lambda v: f"{v:.2f}")),
        ("memory", _or_dash(process.memory, humanize.format_bytes)),
        ("limit", _or_dash(process.limit, humanize.format_limit)),
        ("growth", _or_dash(process.growth, humanize.format_rate)),
        ("time to limit", humanize.format_duration(process.reach.estimate) if process.reach else "-"),
        ("first suspect", _first_suspect(process)),
    )
    return [title, *(Text(f"  {name}: {value}") for name, value in figures)]


def _first_suspect(process: Process) -> str:
    return f"{process.suspects[0].kind} {process.suspects[0].name}" if process.suspects else "-"


def _or_dash(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)
