"""kill -9 of the analyzer in mid-alert, then a start: the alert is still there, with the same id, fired once.

The leak is made up and comes through the real HTTP receiver at speed: its event times lie in the past, so minutes of
it take seconds. What the outside saw is what the console printed and what an OTLP receiver of our own was sent.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_memory import names
from tests.analyzer.made_up import LEAKING_ROUTE, MadeUp
from tests.harness import Analyzer, wait_until

PAST_SECONDS = 900
MOST_SAMPLES = 300
_CHANGE = re.compile(r"^\S+ (PENDING|FIRING|RESOLVED) \S+ memory_leak: .* \| alert ([0-9a-f]{16})$", re.MULTILINE)


class AlertReceiver:
    """Where the analyzer sends its alerts: keeps (alert id, state, time in ns) of each record."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[tuple[str, str, int]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = ExportLogsServiceRequest.FromString(body)
                for resource in request.resource_logs:
                    for record in (one for scope in resource.scope_logs for one in scope.log_records):
                        said = {pair.key: pair.value.string_value for pair in record.attributes}
                        key = (said[names.ALERT_ID], said[names.ALERT_STATE], record.time_unix_nano)
                        receiver.received.append(key)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def states(self) -> list[str]:
        return [state for _, state, _ in self.received]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def outside() -> Iterator[AlertReceiver]:
    receiver = AlertReceiver()
    yield receiver
    receiver.close()


class Feeder:
    """Sends the samples of one process, each once it was told that the one before is taken."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.process = MadeUp(begin=float(int(time.time())) - PAST_SECONDS)
        self.next = 0
        self._analyzer = analyzer
        self._client = httpx.Client(trust_env=False, timeout=30)

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            reply = self._client.post(
                f"{self._analyzer.http_endpoint}/v1/metrics",
                content=self.process.body(self.next),
                headers={"content-type": "application/x-protobuf"},
            )
            reply.raise_for_status()
            self.next += 1

    def send_until(self, seen: Callable[[], Any]) -> None:
        while not seen():
            assert self.next < MOST_SAMPLES, "the alert did not change in time"
            self.send()

    def close(self) -> None:
        self._client.close()


def only(items: list[dict[str, Any]]) -> dict[str, Any]:
    (item,) = items
    return item


def alert_of(analyzer: Analyzer) -> dict[str, Any] | None:
    items = analyzer.get("/api/v1/alerts")["items"]
    return items[0] if items else None


def state_is(analyzer: Analyzer, state: str) -> Callable[[], bool]:
    def seen() -> bool:
        alert = alert_of(analyzer)
        return alert is not None and alert["state"] == state

    return seen


def printed(analyzer: Analyzer) -> list[tuple[str, str]]:
    """What the console said of the alert over all runs: (state, alert id)."""
    return [(state.lower(), alert) for state, alert in _CHANGE.findall(analyzer.output())]


def history(analyzer: Analyzer, process_id: str) -> tuple[list[str], list[float | None]]:
    reply = analyzer.get(f"/api/v1/processes/{process_id}/series?metric=memory&points=5000")
    return reply["times"], reply["values"]


@pytest.mark.parametrize("killed_while", ["pending", "firing"])
def test_an_alert_survives_kill_9_and_every_change_is_told_once(
    killed_while: str, outside: AlertReceiver, tmp_path: Path
) -> None:
    with Analyzer("--alerts-otlp-endpoint", outside.endpoint, data_dir=tmp_path / "data") as analyzer:
        feeder = Feeder(analyzer)
        try:
            feeder.send_until(state_is(analyzer, killed_while))
            expected = {"pending": ["pending"], "firing": ["pending", "firing"]}[killed_while]
            wait_until(lambda: outside.states == expected, what="the first changes at the receiver")
            before = alert_of(analyzer)
            process = only(analyzer.get("/api/v1/processes")["items"])
            kept = history(analyzer, process["id"])
            sent = feeder.next

            analyzer.kill()
            assert analyzer.status == -9
            analyzer.start()

            assert before is not None
            after = alert_of(analyzer)
            assert after is not None
            for field in ("id", "name", "state", "starts_at", "ends_at", "process", "severity"):
                assert after[field] == before[field], field
            assert only(analyzer.get("/api/v1/processes")["items"]) == process
            assert history(analyzer, process["id"]) == kept
            assert len(kept[0]) == sent

            # The windows are there again: the very next samples are judged with all that was before.
            for _ in range(5):
                feeder.send()
                judged = only(analyzer.get("/api/v1/processes")["items"])
                assert judged["verdict"] == "leaking"
                assert judged["leak_score"] > 0.5
                assert judged["time_to_limit_seconds"] is not None
                assert judged["suspects"][0]["name"] == f"GET {LEAKING_ROUTE}"
            feeder.send_until(state_is(analyzer, "firing"))
            feeder.send(20)
            wait_until(lambda: "firing" in outside.states, what="the firing alert at the receiver")
            firing = alert_of(analyzer)
            assert firing is not None
            assert (firing["id"], firing["starts_at"]) == (before["id"], before["starts_at"])
            assert len(history(analyzer, process["id"])[0]) == feeder.next
            wait_until(lambda: _pending(analyzer) == 0, what="empty outboxes")
        finally:
            feeder.close()
        assert outside.states == ["pending", "firing"]
        assert {alert for alert, _, _ in outside.received} == {before["id"]}
        assert printed(analyzer) == [("pending", before["id"]), ("firing", before["id"])]
        # One more start finds nothing to tell.
        analyzer.kill()
        analyzer.start()
        again = alert_of(analyzer)
        assert again is not None
        assert again["state"] == "firing"
        assert _pending(analyzer) == 0
        assert len(outside.received) == len(printed(analyzer)) == 2


def _pending(analyzer: Analyzer) -> int:
    outputs = analyzer.get("/api/v1/summary")["health"]["outputs"]
    assert {output["name"] for output in outputs} == {"console", "otlp"}
    return sum(output["pending"] for output in outputs)


def test_a_change_that_the_receiver_could_not_take_is_delivered_by_the_next_run(tmp_path: Path) -> None:
    """The outside is down while the alert changes, and the analyzer is killed before it is up again."""
    receiver = AlertReceiver()
    endpoint = receiver.endpoint
    port = int(endpoint.rpartition(":")[2])
    receiver.close()
    with Analyzer("--alerts-otlp-endpoint", endpoint, "--no-console", data_dir=tmp_path / "data") as analyzer:
        feeder = Feeder(analyzer)
        try:
            feeder.send_until(state_is(analyzer, "firing"))
        finally:
            feeder.close()
        analyzer.kill()
        receiver = AlertReceiver(port)
        try:
            analyzer.start()
            wait_until(lambda: len(receiver.received) >= 2, timeout_seconds=20, what="the changes")
            assert receiver.states == ["pending", "firing"]
        finally:
            receiver.close()


def test_what_was_acknowledged_is_in_the_history_after_kill_9(tmp_path: Path) -> None:
    """Requests from several processes at once, killed in the middle: an answer of 200 means kept."""
    with Analyzer("--no-console", data_dir=tmp_path / "data") as analyzer:
        begin = float(int(time.time())) - PAST_SECONDS
        acknowledged: dict[str, list[int]] = {f"i{number}": [] for number in range(4)}
        stop = threading.Event()

        def send(instance: str) -> None:
            process = MadeUp(instance=instance, begin=begin, leak_per_call=0)
            with httpx.Client(trust_env=False, timeout=10) as client:
                for index in range(2000):
                    if stop.is_set():
                        return
                    try:
                        reply = client.post(
                            f"{analyzer.http_endpoint}/v1/metrics",
                            content=process.body(index),
                            headers={"content-type": "application/x-protobuf"},
                        )
                    except httpx.HTTPError:
                        return
                    if reply.status_code == 200:
                        acknowledged[instance].append(index)

        threads = [threading.Thread(target=send, args=(instance,)) for instance in acknowledged]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(len(sent) >= 20 for sent in acknowledged.values()), timeout_seconds=30)
        analyzer.kill()
        stop.set()
        for thread in threads:
            thread.join()
        analyzer.start()
        items = analyzer.get("/api/v1/processes")["items"]
        assert {item["service_instance_id"] for item in items} == set(acknowledged)
        for item in items:
            times, _ = history(analyzer, item["id"])
            sent = acknowledged[item["service_instance_id"]]
            assert len(times) >= len(sent)
            assert json.dumps(times) == json.dumps(sorted(set(times)))
