"""Outputs: the line on the console, the OTLP record (also over a real connection), and the dispatcher's promises."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from otel_memory import names
from otel_memory.analyzer.model import AlertState
from otel_memory.analyzer.outputs import otlp
from otel_memory.analyzer.outputs.base import AlertChange, Refused, change_id
from otel_memory.analyzer.outputs.console import ConsoleOutput
from otel_memory.analyzer.outputs.dispatcher import Dispatcher
from otel_memory.analyzer.outputs.lane import Lane, RetryPolicy
from otel_memory.analyzer.stats import OutputHealth, Stats
from otel_memory.analyzer.store import Outbox, Store, StoreError
from tests.analyzer.store_samples import T0, alert, assessment, process


def change(number: int = 1, state: AlertState = AlertState.FIRING, at: float = T0 + 60) -> AlertChange:
    changed = alert(number, state)
    return AlertChange(change_id(changed, at), at, changed, assessment(number))


class Recording:
    """An output that keeps what it is given and fails as often as it is told."""

    def __init__(self, name: str = "recording", failures: int = 0) -> None:
        self.name = name
        self.failures = failures
        self.got: list[AlertChange] = []
        self.closed = 0

    def deliver(self, change: AlertChange) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the other side is away")
        self.got.append(change)

    def close(self) -> None:
        self.closed += 1


class Hanging(Recording):
    """An output that does not come back until it is closed."""

    def __init__(self) -> None:
        super().__init__("hanging")
        self.entered = threading.Event()
        self.released = threading.Event()

    def deliver(self, change: AlertChange) -> None:
        self.entered.set()
        self.released.wait(30)

    def close(self) -> None:
        self.released.set()


class Clock:
    def __init__(self) -> None:
        # The outbox notes the real time at which a change came in.
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "analyzer.db")
    yield opened
    opened.close()


@pytest.fixture
def outbox(store: Store) -> Iterator[Outbox]:
    opened = Outbox(store.path)
    yield opened
    opened.close()


def record(
    store: Store, number: int = 1, state: AlertState = AlertState.FIRING, at: float = T0, to: str = "recording"
) -> None:
    with store.transaction():
        store.record_alert_change(alert(number, state), at, outputs=[to])


def lane(output: Recording, outbox: Outbox, stats: Stats, clock: Clock, **policy: Any) -> Lane:
    return Lane(output, outbox, stats, policy=RetryPolicy(**policy), clock=clock, chance=lambda: 0.0)


def health(stats: Stats) -> OutputHealth:
    (only,) = stats.outputs()
    return only


# --- console -----------------------------------------------------------------------------------------------


def test_the_console_line_says_when_what_who_and_how_long() -> None:
    stream = io.StringIO()
    ConsoleOutput(stream).deliver(change())
    assert stream.getvalue() == (
        "2027-01-15T08:01:00Z FIRING warning memory_leak: shop leaks 50 kB/s | shop on box pid 1001 | limit in 2 h | "
        "first suspect route GET /leak (90%) | alert alert-1\n"
    )


def test_a_name_from_the_network_can_not_forge_a_line_or_drive_the_terminal() -> None:
    stream = io.StringIO()
    forged = alert(summary="x\n2027-01-15 FIRING \x1b[2J")
    ConsoleOutput(stream).deliver(AlertChange("id", T0, forged))
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_as_json_the_console_writes_one_object_a_line() -> None:
    stream = io.StringIO()
    ConsoleOutput(stream, json_lines=True).deliver(change())
    record = json.loads(stream.getvalue())
    assert record["change_id"] == f"alert-1.firing.{round((T0 + 60) * 1000)}"
    assert (record["id"], record["state"], record["ends_at"]) == ("alert-1", "firing", None)
    assert record["suspects"][0]["name"] == "GET /leak"
    assert record["time"] == "2027-01-15T08:01:00Z"


# --- OTLP --------------------------------------------------------------------------------------------------


def test_the_record_carries_every_attribute_that_the_contract_names() -> None:
    record = otlp.to_record(change(), observed=T0 + 61)
    assert record.event_name == names.EVENT_ALERT
    assert record.timestamp == int(T0 + 60) * 10**9
    assert record.observed_timestamp == int(T0 + 61) * 10**9
    assert set(record.attributes or {}) == set(names.EVENTS[names.EVENT_ALERT].attributes)
    assert (record.attributes or {})[names.ALERT_SUSPECT] == "route:GET /leak"


def test_what_is_not_known_is_left_out() -> None:
    bare = AlertChange("id", T0, alert(suspects=()))
    assert set(otlp.to_record(bare, T0).attributes or {}) == {
        names.ALERT_ID,
        names.ALERT_NAME,
        names.ALERT_STATE,
        names.ALERT_SEVERITY,
        names.ALERT_SUMMARY,
        names.ALERT_PROCESS_ID,
    }


class Refusing(LogRecordExporter):
    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return LogRecordExportResult.FAILURE

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def test_a_record_that_was_not_taken_raises_so_that_it_is_tried_again() -> None:
    with pytest.raises(ConnectionError):
        otlp.OtlpOutput(Refusing()).deliver(change())


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="grpc or http/protobuf"):
        otlp.build("http://127.0.0.1:1", "http/json")  # type: ignore[arg-type]


def attributes_of(request: logs_service_pb2.ExportLogsServiceRequest) -> tuple[dict[str, str], Any]:
    (resource,) = request.resource_logs
    (scope,) = resource.scope_logs
    (record,) = scope.log_records
    return {pair.key: pair.value.string_value for pair in resource.resource.attributes}, record


def test_over_grpc_the_record_arrives_with_event_name_and_resource() -> None:
    got: list[logs_service_pb2.ExportLogsServiceRequest] = []

    class Service(logs_service_pb2_grpc.LogsServiceServicer):
        def Export(self, request: Any, context: Any) -> logs_service_pb2.ExportLogsServiceResponse:
            got.append(request)
            return logs_service_pb2.ExportLogsServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    output = otlp.build(f"http://127.0.0.1:{port}", "grpc", timeout_seconds=5)
    try:
        output.deliver(change())
    finally:
        output.close()
        server.stop(0).wait()
    resource, record = attributes_of(got[0])
    assert resource["service.name"] == "otel-memory-analyzer"
    assert record.event_name == names.EVENT_ALERT


def test_over_http_the_record_arrives_and_a_refusal_is_noticed() -> None:
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/v1/logs" and len(got) == 1 else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    output = otlp.build(f"http://127.0.0.1:{server.server_port}", "http/protobuf", timeout_seconds=5)
    try:
        output.deliver(change())
        with pytest.raises(ConnectionError):
            output.deliver(change())
    finally:
        output.close()
        server.shutdown()
        thread.join()
        server.server_close()
    record = attributes_of(logs_service_pb2.ExportLogsServiceRequest.FromString(got[0]))[1]
    assert record.event_name == names.EVENT_ALERT


# --- the lane ----------------------------------------------------------------------------------------------


def test_a_change_is_delivered_once(store: Store, outbox: Outbox) -> None:
    output, stats = Recording(), Stats()
    one = lane(output, outbox, stats, Clock())
    record(store)
    assert one.drain() is None
    assert one.drain() is None
    assert [got.alert for got in output.got] == [alert()]
    assert (health(stats).delivered, health(stats).pending) == (1, 0)


def test_a_failure_is_tried_again_after_growing_waits(store: Store, outbox: Outbox) -> None:
    output, stats, clock = Recording(failures=3), Stats(), Clock()
    one = lane(output, outbox, stats, clock, first_seconds=1, longest_seconds=3)
    record(store)
    waits = []
    while not output.got:
        again = one.drain()
        if again is not None:
            waits.append(again - clock.now)
            clock.now = again
    assert waits == [1.0, 2.0, 3.0]
    assert health(stats).failed == 3
    assert health(stats).last_error == "ConnectionError: the other side is away"


def test_before_its_time_a_failed_change_is_not_tried(store: Store, outbox: Outbox) -> None:
    output, clock = Recording(failures=1), Clock()
    one = lane(output, outbox, Stats(), clock)
    record(store)
    one.drain()
    clock.now += 0.5
    one.drain()
    assert output.got == []


def test_of_one_alert_the_changes_keep_their_order_while_others_go_ahead(store: Store, outbox: Outbox) -> None:
    output, clock = Recording(failures=1), Clock()
    one = lane(output, outbox, Stats(), clock)
    record(store, 1, AlertState.FIRING, T0)
    record(store, 1, AlertState.RESOLVED, T0 + 1)
    record(store, 2, AlertState.FIRING, T0 + 2)
    one.drain()
    assert [got.alert.id for got in output.got] == ["alert-2"]
    clock.now += 2
    one.drain()
    assert [(got.alert.id, got.alert.state) for got in output.got[1:]] == [
        ("alert-1", AlertState.FIRING),
        ("alert-1", AlertState.RESOLVED),
    ]


def test_after_too_many_tries_or_too_long_a_change_is_given_up_and_counted(store: Store, outbox: Outbox) -> None:
    for moment, policy in ((T0, {"max_attempts": 3}), (T0 + 1, {"max_age_seconds": 0.0})):
        output, stats, clock = Recording(failures=99), Stats(), Clock()
        one = lane(output, outbox, stats, clock, **policy)
        record(store, at=moment)
        while (again := one.drain()) is not None:
            clock.now = again
        assert health(stats).abandoned == 1
        assert health(stats).pending == 0


def test_of_too_many_the_oldest_are_given_up_and_counted(store: Store, outbox: Outbox) -> None:
    output, stats = Recording(), Stats()
    for number in range(5):
        record(store, number)
    lane(output, outbox, stats, Clock(), max_pending=2).drain()
    assert [got.alert.id for got in output.got] == ["alert-3", "alert-4"]
    assert health(stats).abandoned == 3


def test_a_delivery_that_could_not_be_noted_does_not_go_out_again(
    store: Store, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, clock = Recording(), Clock()
    one = lane(output, outbox, Stats(), clock)
    record(store)

    def full(seq: int) -> None:
        raise StoreError("the disk is full", "full")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "delivered", full)
        again = one.drain()
        assert again is not None
        assert again > clock.now
    one.drain()
    assert len(output.got) == 1
    assert outbox.pending("recording") == 0


def test_a_change_that_the_store_could_not_keep_is_delivered_from_memory(store: Store, outbox: Outbox) -> None:
    output, stats, clock = Recording(failures=1), Stats(), Clock()
    one = lane(output, outbox, stats, clock)
    one.offer(change())
    again = one.drain()
    assert again is not None
    clock.now = again
    assert one.drain() is None
    assert output.got == [change()]


def test_what_is_offered_beyond_the_bound_is_given_up_and_counted(outbox: Outbox) -> None:
    output, stats = Recording(), Stats()
    one = lane(output, outbox, stats, Clock())
    for number in range(Lane.MAX_UNSAVED + 5):
        one.offer(change(number))
    one.drain()
    assert len(output.got) == Lane.MAX_UNSAVED
    assert health(stats).abandoned == 5


def test_chance_takes_up_to_half_of_a_wait() -> None:
    policy = RetryPolicy(first_seconds=2, longest_seconds=10)
    assert [policy.delay(attempt, 0.0) for attempt in (1, 2, 3, 4, 1000)] == [2, 4, 8, 10, 10]
    assert policy.delay(2, 0.999) == pytest.approx(2, abs=0.01)


# --- the dispatcher ----------------------------------------------------------------------------------------


class Signalling(Recording):
    """Tells when it got something."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.arrived = threading.Semaphore(0)

    def deliver(self, change: AlertChange) -> None:
        super().deliver(change)
        self.arrived.release()


def test_an_output_that_hangs_does_not_hold_up_another(store: Store) -> None:
    hanging, good, stats = Hanging(), Signalling("good"), Stats()
    dispatcher = Dispatcher(store.path, [hanging, good], stats)
    dispatcher.start()
    try:
        with store.transaction():
            for number in range(3):
                store.record_alert_change(alert(number), T0, outputs=dispatcher.names)
        dispatcher.wake()
        assert hanging.entered.wait(10)
        assert all(good.arrived.acquire(timeout=10) for _ in range(3))
        assert next(found for found in stats.outputs() if found.name == "hanging").busy_since is not None
    finally:
        assert dispatcher.stop(1), "closing the output ends its delivery"


def test_an_output_that_never_ends_is_left_behind_in_bounded_time(store: Store) -> None:
    release = threading.Event()

    class Stubborn(Recording):
        def deliver(self, change: AlertChange) -> None:
            entered.set()
            release.wait(30)

    entered = threading.Event()
    dispatcher = Dispatcher(store.path, [Stubborn()], Stats())
    dispatcher.start()
    record(store)
    dispatcher.wake()
    assert entered.wait(10)
    assert dispatcher.stop(0.1) is False
    release.set()
    assert dispatcher.stop(5) is True


def test_start_and_stop_are_idempotent_and_stop_comes_before_start_too(store: Store) -> None:
    output = Recording()
    dispatcher = Dispatcher(store.path, [output], Stats())
    assert dispatcher.stop()
    dispatcher.start()
    assert dispatcher.stop()
    assert output.closed >= 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("otel-memory-output")]


def test_what_waits_for_an_output_that_is_gone_is_dropped_at_start(store: Store, outbox: Outbox) -> None:
    record(store, to="gone")
    dispatcher = Dispatcher(store.path, [Recording()], Stats())
    dispatcher.start()
    dispatcher.stop()
    assert outbox.pending("gone") == 0


def test_without_resuming_nothing_of_an_earlier_run_is_delivered(store: Store, outbox: Outbox) -> None:
    record(store)
    output = Recording()
    dispatcher = Dispatcher(store.path, [output], Stats(), resume=False)
    dispatcher.start()
    dispatcher.stop()
    assert (output.got, outbox.pending("recording")) == ([], 0)


def test_it_is_said_of_each_change_that_it_is_done_with(store: Store, outbox: Outbox) -> None:
    """Delivered, refused, or not wanted: none of them is owed any more."""
    done: list[tuple[str, str, str]] = []

    class Picky(Recording):
        def wants(self, change: AlertChange) -> bool:
            return change.alert.id != "alert-2"

        def deliver(self, change: AlertChange) -> None:
            if change.alert.id == "alert-3":
                raise Refused("never")
            if change.alert.id == "alert-4":
                raise ConnectionError("later")
            super().deliver(change)

    for number in (1, 2, 3, 4):
        record(store, number)
    one = Lane(
        Picky(),
        outbox,
        Stats(),
        policy=RetryPolicy(),
        clock=Clock(),
        chance=lambda: 0.0,
        told=lambda output, alert, change: done.append((output, alert.id, change)),
    )
    one.drain()
    expected = [("recording", f"alert-{number}", change_id(alert(number), T0)) for number in (1, 2, 3)]
    assert sorted(done) == expected


def test_two_outputs_of_one_name_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="different names"):
        Dispatcher(store.path, [Recording(), Recording()], Stats())


def test_over_a_kill_every_change_comes_at_least_once_with_its_id(tmp_path: Path) -> None:
    """A child records changes and delivers them into a file; it is killed in the midst, and the rest goes out after."""
    program = r"""
import os
import sys
from pathlib import Path
from otel_memory.analyzer.model import Alert, AlertState
from otel_memory.analyzer.outputs.dispatcher import Dispatcher
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store import Store
class Out:
    name = "recording"
    def deliver(self, change):
        os.write(1, f"delivered {change.id}\n".encode())
    def close(self): pass
store = Store.open(Path(sys.argv[1]))
dispatcher = Dispatcher(store.path, [Out()], Stats())
dispatcher.start()
for number in range(100_000):
    with store.transaction():
        alert = Alert(f"a{number}", "memory_leak", "warning", AlertState.FIRING, "p", 0.0, None, "s", "d")
        change = store.record_alert_change(alert, float(number), outputs=["recording"])
    os.write(1, f"recorded {change.id}\n".encode())
    dispatcher.wake()
"""
    path = tmp_path / "analyzer.db"
    lines: list[str] = []
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.endswith("\n"):
                lines.append(line)
            if min(sum(kind in seen for seen in lines) for kind in ("recorded", "delivered")) == 20:
                child.send_signal(signal.SIGKILL)
    recorded = [line.split()[1] for line in lines if line.startswith("recorded")]
    before = [line.split()[1] for line in lines if line.startswith("delivered")]
    assert recorded
    assert before
    store, output = Store.open(path), Recording()
    outbox = Outbox(path)
    lane(output, outbox, Stats(), Clock()).drain()
    after = [got.id for got in output.got]
    assert set(recorded) <= set(before) | set(after)
    assert len(set(before) & set(after)) <= 1, "at most the one that was under way comes again"
    outbox.close()
    store.close()


def test_a_process_is_named_by_its_service_alone_where_nothing_else_is_known() -> None:
    stream = io.StringIO()
    bare = assessment(process=process(host_name=None, pid=None), time_to_limit=None)
    ConsoleOutput(stream).deliver(AlertChange("id", T0, alert(), bare))
    assert "| shop |" in stream.getvalue()
