"""The verb ``doctor``: runs every check, one failing check never hiding another."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from otel_memory.doctor import endpoint, environment, exporters, installation, routes
from otel_memory.doctor.report import Finding, exit_status, print_findings, print_json

Check = Callable[[], Iterator[Finding]]


def checks(environ: Mapping[str, str], timeout_seconds: float) -> Iterator[Check]:
    """Every check, in the order in which one would mend what it finds."""
    yield installation.check_python
    yield installation.check_floors
    yield installation.check_consistency
    yield installation.check_launcher
    yield lambda: installation.check_probe(environ)
    yield lambda: environment.check_settings(environ)
    yield lambda: exporters.check_config_file(environ)
    if not environ.get(exporters.CONFIG_FILE):
        events = bool(environment.settings_of(environ).events)
        yield lambda: environment.check_service(environ)
        yield lambda: exporters.check_exporters(environ, events=events)
        yield lambda: environment.check_interval(environ)
        yield lambda: endpoint.check_endpoint(environ, events=events, timeout_seconds=timeout_seconds)
    yield lambda: installation.check_twice(environ)
    yield lambda: routes.check_routes(environ)
    yield lambda: environment.check_limit(environ)


def diagnose(environ: Mapping[str, str], timeout_seconds: float = endpoint.TIMEOUT_SECONDS) -> Iterator[Finding]:
    """All findings. ``timeout_seconds`` bounds each question that is put to an endpoint."""
    for check in checks(environ, timeout_seconds):
        try:
            yield from check()
        except Exception as error:
            yield Finding("doctor", "failure", f"a check failed by itself: {type(error).__name__}: {error}")


def main(argv: Sequence[str]) -> int:
    """Run the doctor: 0 if nothing failed, 1 if something did."""
    parser = argparse.ArgumentParser(
        prog="otel-memory doctor",
        description=(
            "Check the environment of an application: run it with the same environment variables and the same "
            "Python as the application itself."
        ),
        epilog="exit status: 0 nothing failed (something may still be better), 1 something failed",
    )
    parser.add_argument("--json", action="store_true", help="findings for a program")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=endpoint.TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="longest wait for an endpoint (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    findings = list(diagnose(os.environ, options.timeout))
    if options.json:
        print_json(findings, sys.stdout)
    else:
        print_findings(findings, sys.stdout)
    return exit_status(findings)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 60")
    return value
