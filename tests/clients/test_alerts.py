"""`otel-memory alerts`: status, filters, lines; nothing missed and nothing told twice when a connection is lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import httpx
import pytest

from otel_memory.clients import alerts
from otel_memory.clients.alert_feed import AnalyzerFeed, Known
from otel_memory.clients.alert_topic import _event
from otel_memory.clients.api_client import MAX_EVENT_BYTES, ApiClient, ClientError, Json


def alert(number: int = 1, state: str = "firing", **more: Any) -> Json:
    """An alert as REST gives it."""
    return {
        "id": f"{number:016x}",
        "name": "memory_leak",
        "severity": "critical",
        "state": state,
        "process": "0123456789abcdef",
        "starts_at": "2026-11-21T10:00:00Z",
        "ends_at": "2026-11-21T10:09:00Z" if state == "resolved" else None,
        "fired_at": None if state == "pending" else "2026-11-21T10:00:10Z",
        "summary": "shop leaks 1.2 MB/min",
        "labels": {"service_name": "shop", "host_name": "box"},
        "silenced_by": [],
        **more,
    }


def sse(*events: tuple[str, Json]) -> bytes:
    return b": otel-memory\n\n" + b"".join(
        f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events
    )


class Analyzer:
    """Answers with ``items``; each entry of ``streams`` is one connection's events, then the connection ends."""

    def __init__(self, items: list[Json], streams: list[bytes] | None = None) -> None:
        self.items = items
        self.streams = streams or []
        self.later: list[Json] | None = None
        """What the list says once it was asked for."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/stream":
            if not self.streams:
                raise httpx.ConnectError("refused")
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=self.streams.pop(0))
        items, self.items = self.items, self.items if self.later is None else self.later
        return httpx.Response(200, json={"items": items})

    def client(self) -> ApiClient:
        return ApiClient("http://analyzer", transport=httpx.MockTransport(self))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(analyzer: Analyzer, *argv: str) -> int:
        @contextmanager
        def connect(_url: str, _token: str | None) -> Iterator[ApiClient]:
            with analyzer.client() as client:
                yield client

        monkeypatch.setattr(alerts, "ApiClient", connect)
        monkeypatch.setattr("otel_memory.clients.alert_feed.FIRST_PAUSE_SECONDS", 0.01)
        return alerts.main(argv)

    monkeypatch.setenv("TZ", "UTC")
    return run


Run = Callable[..., int]


def test_what_fires_is_status_one_and_what_is_over_is_left_out(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    analyzer = Analyzer([alert(1), alert(2, "pending", silenced_by=["s"]), alert(3, "resolved")])
    assert run(analyzer) == 1
    firing, pending = capsys.readouterr().out.splitlines()
    assert firing.endswith("FIRING critical memory_leak: shop leaks 1.2 MB/min | shop on box | alert 0000000000000001")
    assert "PENDING" in pending
    assert pending.endswith("| silenced")


def test_nothing_that_fires_is_status_zero_and_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Analyzer([alert(1, "resolved")])) == 0
    assert capsys.readouterr().out == "No alert is firing.\n"


@pytest.mark.parametrize(
    ("argv", "numbers", "status"),
    [
        (("--all",), [1, 2, 3], 1),
        (("--state", "resolved,pending"), [2, 3], 0),
        (("--severity", "warning"), [2], 0),
        (("--service", "sh*"), [1], 1),
        (("--service", "nobody"), [], 0),
        (("--name", "*near"), [2], 0),
        (("--count", "1"), [1], 1),
    ],
)
def test_filters(
    run: Run, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], numbers: list[int], status: int
) -> None:
    near = {"severity": "warning", "name": "memory_limit_near", "labels": {"service_name": "cart"}}
    analyzer = Analyzer([alert(1), alert(2, "pending", **near), alert(3, "resolved", labels={"service_name": "x"})])
    assert run(analyzer, "--json", *argv) == status
    items = json.loads(capsys.readouterr().out)["items"]
    assert [int(item["id"], 16) for item in items] == numbers


@pytest.mark.parametrize("argv", [("--state", "loud"), ("--severity", ""), ("--count", "0")])
def test_a_wrong_filter_is_named(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        alerts.main(argv)
    assert stop.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_followed_each_state_comes_once_whatever_is_repeated_or_lost(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told again with new figures is no change; what happened while the connection was lost comes after it."""
    analyzer = Analyzer([alert(1, "pending"), alert(9, "resolved")])
    analyzer.streams = [
        sse(("process", {"id": "p"}), ("alert", alert(1)), ("alert", alert(1, summary="shop leaks 2 MB/min"))),
        sse(("alert", alert(1)), ("alert", alert(2, "pending")), ("alert", alert(1, "resolved"))),
    ]
    # What the list says after the second connection was opened.
    analyzer.later = [alert(1), alert(2, "pending")]
    assert run(analyzer, "--follow", "--json", "--count", "4") == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(int(one["id"], 16), one["state"]) for one in told] == [
        (1, "pending"),
        (1, "firing"),
        (2, "pending"),
        (1, "resolved"),
    ]


def test_an_analyzer_that_was_never_there_is_an_error_and_one_that_comes_back_is_waited_for() -> None:
    said: list[str] = []
    pauses: list[float] = []
    analyzer = Analyzer([alert(1)])
    with analyzer.client() as client, pytest.raises(ClientError, match="no analyzer answers"):
        next(AnalyzerFeed(client, sleep=pauses.append).follow(said.append))
    assert (said, pauses) == ([], [])

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            analyzer.items = [alert(1, "resolved")]
            analyzer.streams = [sse()]

    analyzer.streams = [sse()]
    with analyzer.client() as client:
        changes = AnalyzerFeed(client, sleep=sleep).follow(said.append)
        assert [next(changes)["state"], next(changes)["state"]] == ["firing", "resolved"]
    assert pauses == [1.0, 2.0, 4.0]
    assert len(said) == 2
    assert said[0].startswith("no analyzer answers at http://analyzer")


def test_a_stream_that_is_none_or_has_no_end_is_an_error() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/html"}, content=b"<html>")

    def endless(request: httpx.Request) -> httpx.Response:
        kind = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=kind, content=b"data: " + b"x" * (MAX_EVENT_BYTES + 10))

    for handler, says in ((page, "no otel-memory analyzer"), (endless, "an event of more than")):
        with (
            ApiClient("http://analyzer", transport=httpx.MockTransport(handler)) as client,
            pytest.raises(ClientError, match=says),
            cast("AbstractContextManager[Iterator[Any]]", client.stream("/api/v1/stream")) as events,
        ):
            list(events)


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_memory.clients.alert_feed.MAX_KNOWN", 2)
    known = Known()
    assert [known.news(alert(number)) for number in (1, 2, 2, 3, 1)] == [True, True, False, True, True]
    assert len(known._told) == 2


def test_names_from_outside_can_not_drive_the_terminal(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {"service_name": "a\x1b]0;owned\x07b\nFIRING"}
    run(Analyzer([alert(1, labels=hostile, summary="x\x1b[2J")]))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [b"", None, b"\xff", b"[]", b"{}", b'{"type": "other"}', b'{"type": "otel_memory.alert.changed", "data": {}}'],
)
def test_a_record_that_is_no_alert_is_told_apart(value: bytes | None) -> None:
    assert _event(value) is None


def test_without_kafka_python_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kafka", None)
    assert alerts.main(["--kafka-bootstrap", "127.0.0.1:9"]) == 2
    assert "pip install 'otel-memory[kafka]'" in capsys.readouterr().err
