"""``otel-memory alerts``: what fires and what is pending, and, followed, every change.

Owns the filters and the lines. Where alerts come from is ``alert_feed`` (an analyzer) or ``alert_topic`` (Kafka).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Final

from rich.text import Text

from otel_memory.clients.alert_feed import AnalyzerFeed, Feed
from otel_memory.clients.api_client import ApiClient, ClientError, Json, add_arguments
from otel_memory.clients.replies import Alert, read_alert
from otel_memory.clients.terminal import Terminal, local_moment

STATES: Final = ("pending", "firing", "resolved")
SEVERITIES: Final = ("warning", "critical")
STYLES: Final = {"firing": "bold red", "pending": "yellow", "resolved": "green"}
_KAFKA: Final = {
    "security_protocol": "PLAINTEXT (the default), SSL, SASL_PLAINTEXT or SASL_SSL",
    "sasl_mechanism": "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
    "sasl_username": "user of the login",
    "sasl_password": "its password; better by the variable",
    "ssl_cafile": "certificates of the authorities to trust (PEM)",
    "ssl_certfile": "this client's own certificate (PEM)",
    "ssl_keyfile": "its key (PEM)",
}


def main(argv: Sequence[str]) -> int:
    """Show alerts: 0 if none fires, 1 if one does, 2 if they can't be had."""
    options = _parser().parse_args(argv)
    try:
        if options.kafka_bootstrap:
            from otel_memory.clients.alert_topic import TopicFeed

            with TopicFeed(options.kafka_bootstrap, options.kafka_alerts_topic, _security(options)) as feed:
                return _show(feed, options)
        with ApiClient(options.url, options.token) as client:
            return _show(AnalyzerFeed(client), options)
    except ClientError as error:
        print(f"otel-memory alerts: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-memory alerts",
        description="Show what fires and what is pending, from an analyzer or from the topic that analyzers write to.",
        epilog="exit status: 0 none fires, 1 one fires (with --follow: fired), 2 the alerts could not be had",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with every change, until Ctrl-C")
    parser.add_argument("--all", action="store_true", help="those that are over, too")
    parser.add_argument("--state", type=_some(STATES), help=f"only these, with commas: {', '.join(STATES)}")
    parser.add_argument("--severity", type=_some(SEVERITIES), help=f"only these, with commas: {', '.join(SEVERITIES)}")
    parser.add_argument("--service", metavar="NAME", help="only of this service; * and ? stand for anything")
    parser.add_argument("--name", help="only this alert: memory_leak or memory_limit_near; * and ? stand for anything")
    parser.add_argument("--count", type=_positive, metavar="N", help="end after N lines")
    add_arguments(parser)
    kafka = parser.add_argument_group("from Kafka")
    kafka.add_argument("--kafka-bootstrap", metavar="HOST:PORT", help="brokers, with commas (no environment variable)")
    kafka.add_argument(
        "--kafka-alerts-topic",
        metavar="TOPIC",
        default=os.environ.get("OTEL_MEMORY_KAFKA_ALERTS_TOPIC") or "memory-alerts",
        help="the topic (OTEL_MEMORY_KAFKA_ALERTS_TOPIC; default: memory-alerts)",
    )
    for name, text in _KAFKA.items():
        variable = f"OTEL_MEMORY_KAFKA_{name.upper()}"
        kafka.add_argument(
            f"--kafka-{name.replace('_', '-')}",
            metavar=name.rpartition("_")[2].upper(),
            default=os.environ.get(variable),
            help=f"{text} ({variable})",
        )
    return parser


def _some(known: Sequence[str]) -> Callable[[str], frozenset[str]]:
    def convert(text: str) -> frozenset[str]:
        given = frozenset(part.strip() for part in text.split(",") if part.strip())
        if not given or not given <= set(known):
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(known)}")
        return given

    return convert


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _security(options: argparse.Namespace) -> dict[str, str]:
    given = {name: getattr(options, f"kafka_{name}") for name in _KAFKA}
    return {name: value for name, value in given.items() if value}


def _show(feed: Feed, options: argparse.Namespace) -> int:
    source = feed.follow(_complain) if options.follow else iter(feed.current())
    fired = 0
    shown: list[Json] = []
    terminal = Terminal()
    for document, alert in islice(_wanted(source, options), options.count):
        fired |= alert.state == "firing"
        if not options.json:
            terminal.show(line(alert, datetime.now().astimezone(), terminal))
        elif options.follow:
            print(json.dumps(document, separators=(",", ":")), flush=True)
        else:
            shown.append(document)
        if terminal.quiet:
            # The reader went away.
            break
    if options.follow:
        return fired
    if options.json:
        print(json.dumps({"items": shown}, indent=2))
    elif not fired:
        print("No alert is firing.", flush=True)
    return fired


def _wanted(source: Iterator[Json], options: argparse.Namespace) -> Iterator[tuple[Json, Alert]]:
    for document in source:
        alert = read_alert(document)
        if not options.follow and not options.all and options.state is None and alert.state == "resolved":
            continue
        if options.state is not None and alert.state not in options.state:
            continue
        if options.severity is not None and alert.severity not in options.severity:
            continue
        if options.service is not None and not fnmatchcase(alert.service, options.service):
            continue
        if options.name is not None and not fnmatchcase(alert.name, options.name):
            continue
        yield document, alert


def line(alert: Alert, now: datetime, terminal: Terminal) -> Text:
    """One alert on a line (a terminal may fold it)."""
    where = alert.service if alert.host is None else f"{alert.service} on {alert.host}"
    rest = f" {alert.severity} {alert.name}: {alert.summary} | {where} | alert {alert.id}"
    if alert.silenced:
        rest += " | silenced"
    style = STYLES.get(alert.state, "") if terminal.is_screen else ""
    return Text.assemble(f"{local_moment(alert.at, now)} ", (alert.state.upper(), style), rest)


def _complain(text: str) -> None:
    print(f"otel-memory alerts: {text}", file=sys.stderr, flush=True)
