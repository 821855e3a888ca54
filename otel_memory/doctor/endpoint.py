"""Does the endpoint that the exporters are set to answer: asked with an empty export request, which changes nothing.

Owns what is asked and what an answer means. Never waits longer than it was told to, whatever the other side does, and
never shows a header's value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from otel_memory.doctor import ask_grpc, ask_http
from otel_memory.doctor.answers import Answer
from otel_memory.doctor.report import Finding, Status
from otel_memory.doctor.targets import (
    BadAddress,
    Signal,
    Target,
    UnsupportedProtocol,
    headers_variable,
    parse_headers,
    targets_of,
)

TIMEOUT_SECONDS: Final = 3.0
_GRACE_SECONDS: Final = 1.0
_CONSEQUENCES: Final[dict[Signal, str]] = {
    "metrics": "there is nothing to judge",
    "logs": "threshold events are lost",
}


def check_endpoint(
    environ: Mapping[str, str],
    *,
    events: bool = True,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[Finding]:
    """Ask the endpoint of the metrics and, where ``events`` leave as logs, that of the logs."""
    silent: set[tuple[str, int]] = set()
    signals: tuple[Signal, ...] = ("metrics", "logs") if events else ("metrics",)
    for signal in signals:
        try:
            targets = targets_of(environ, signal)
        except UnsupportedProtocol:
            continue  # told with the exporters
        for target in targets:
            yield from _check(target, silent, timeout_seconds)
        if targets:
            yield from _check_headers(environ, signal)


def _check(target: Target, silent: set[tuple[str, int]], timeout_seconds: float) -> Iterator[Finding]:
    name = f"endpoint ({target.signal})"
    worst: Status = "failure" if target.signal == "metrics" else "warning"
    try:
        place = target.place
    except BadAddress as error:
        yield Finding(
            name, worst, f"{target.variable}={target.shown!r} is no address: {error}", f"{target.variable}={EXAMPLE}"
        )
        return
    if place in silent:
        return  # once is enough
    answer = ask(target, timeout_seconds)
    if answer.silent:
        silent.add(place)
    status: Status = worst if answer.status == "failure" else answer.status
    detail = f"{target.shown} {answer.detail}"
    if answer.status == "failure":
        detail += f": {_CONSEQUENCES[target.signal]}"
    yield Finding(name, status, detail, answer.mend)


EXAMPLE: Final = "http://127.0.0.1:4318"


def ask(target: Target, timeout_seconds: float) -> Answer:
    """Ask one endpoint, within about ``timeout_seconds``. Never raises."""
    question = ask_grpc.ask if target.protocol == "grpc" else ask_http.ask
    answer = _within(timeout_seconds + _GRACE_SECONDS, lambda: question(target, timeout_seconds))
    if answer is None:
        return Answer("failure", f"does not answer within {timeout_seconds:g} s", silent=True)
    return answer


def _within(seconds: float, question: Callable[[], Answer]) -> Answer | None:
    """The answer, or None when it takes longer: a resolver, or a server that sends a byte now and then, is bounded by
    no time-out of a socket."""
    answers: list[Answer] = []

    def run() -> None:
        try:
            answers.append(question())
        except Exception as error:
            # Its text may hold a header.
            answers.append(Answer("failure", f"could not be asked ({type(error).__name__})"))

    thread = threading.Thread(target=run, name="otel-memory-doctor", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def _check_headers(environ: Mapping[str, str], signal: Signal) -> Iterator[Finding]:
    variable, text = headers_variable(environ, signal)
    _, malformed = parse_headers(text)
    if malformed and (signal == "metrics" or signal.upper() in variable):
        yield Finding(
            "headers",
            "warning",
            f"{variable}: {malformed} of its entries are not name=value, and the exporters drop them",
            f"{variable}=authorization=Bearer%20<token> (several with commas, values percent-encoded)",
        )
