"""OTLP over HTTP, driven as an ASGI application: every answer of the specification, and hostile bodies."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.model import Decoded
from otel_memory.analyzer.receivers.base import Encoding, Overloaded, Signal
from otel_memory.analyzer.receivers.http import HttpReceiver, build_app

DATA = Path(__file__).parent.parent / "data" / "otlp"
METRICS = (DATA / "python_sdk_metrics.pb").read_bytes()
PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class FakeIngest:
    """Decodes and remembers; or raises what it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.taken: list[tuple[Signal, Encoding, Decoded]] = []
        self.failure = failure

    async def submit(self, body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
        if self.failure is not None:
            raise self.failure
        decoded = decode(body, signal, encoding)
        self.taken.append((signal, encoding, decoded))
        return decoded


class Unread:
    """A body that must not be read."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        raise AssertionError("the body was read")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def call(
    app: HttpReceiver,
    *,
    path: str = "/v1/metrics",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    content_type: str | None = PROTOBUF,
    chunks: Iterable[bytes | None] = (METRICS,),
) -> Answer | None:
    """One request; a chunk None is a client that goes away, the end of ``chunks`` is the end of the body. None where
    nothing was answered."""
    sent: list[Any] = []
    given = ([("content-type", content_type)] if content_type else []) + list((headers or {}).items())
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given],
    }
    source = iter(chunks)

    async def receive() -> dict[str, Any]:
        for chunk in source:
            if chunk is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": True}
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    if not sent:
        return None
    start, body = sent
    return Answer(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"])


def answered(app: HttpReceiver, **request: Any) -> Answer:
    answer = call(app, **request)
    assert answer is not None
    assert answer.headers["content-length"] == str(len(answer.body))
    return answer


def refused(app: HttpReceiver, status: int, **request: Any) -> str:
    """Asserts that the request is refused with ``status`` and a Status body in its own encoding; gives the reason."""
    answer = answered(app, **request)
    assert answer.status == status
    assert app.refused == {status: 1}
    if answer.headers["content-type"] == JSON:
        reason: str = json.loads(answer.body)["message"]
    else:
        assert answer.headers["content-type"] == PROTOBUF
        reason = Status.FromString(answer.body).message
    assert reason
    return reason


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_protobuf_is_taken_and_answered_in_protobuf(signal: Signal) -> None:
    ingest = FakeIngest()
    body = (DATA / f"python_sdk_{signal}.pb").read_bytes()
    answer = answered(build_app(ingest), path=f"/v1/{signal}", chunks=[body])
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, PROTOBUF, b"")
    assert ingest.taken == [(signal, "protobuf", decode(body, signal, "protobuf"))]


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
def test_json_is_taken_and_answered_in_json(signal: Signal, content_type: str) -> None:
    ingest = FakeIngest()
    body = (DATA / f"curl_{signal}.json").read_bytes()
    answer = answered(build_app(ingest), path=f"/v1/{signal}", content_type=content_type, chunks=[body])
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, JSON, b"{}")
    assert ingest.taken == [(signal, "json", decode(body, signal, "json"))]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(METRICS)),
        ("GZIP", gzip.compress(METRICS)),
        ("deflate", zlib.compress(METRICS)),
        ("identity", METRICS),
        ("", METRICS),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_body_in_chunks_of_any_size_is_unpacked(coding: str, body: bytes, step: int) -> None:
    ingest = FakeIngest()
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    assert answered(build_app(ingest), headers={"content-encoding": coding}, chunks=chunks).status == 200
    assert ingest.taken[0][2] == decode(METRICS, "metrics", "protobuf")


def test_an_empty_body_is_an_empty_request() -> None:
    assert answered(build_app(FakeIngest()), chunks=[]).status == 200


def test_rejected_points_are_a_partial_success() -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="process.memory.usage")
    metric.gauge.data_points.add(as_double=1.0)
    answer = answered(build_app(FakeIngest()), chunks=[request.SerializeToString()])
    partial = ExportMetricsServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, partial.rejected_data_points) == (200, 1)
    assert "without a usable time" in partial.error_message


@pytest.mark.parametrize(("content_type", "body"), [(PROTOBUF, b"nonsense"), (JSON, b"{"), (JSON, b"")])
def test_a_malformed_body_is_400(content_type: str, body: bytes) -> None:
    assert "not" in refused(build_app(FakeIngest()), 400, content_type=content_type, chunks=[body])


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application"])
def test_another_content_type_is_415(content_type: str | None) -> None:
    assert "application/json" in refused(build_app(FakeIngest()), 415, content_type=content_type)


def test_another_charset_is_415() -> None:
    refused(build_app(FakeIngest()), 415, content_type="application/json; charset=utf-16")


def test_another_content_encoding_is_415_and_the_answer_says_which_are_taken() -> None:
    app = build_app(FakeIngest())
    assert "gzip" in refused(app, 415, headers={"content-encoding": "br"})
    assert answered(app, headers={"content-encoding": "br"}).headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("path", ["/", "/v1/metrics/", "/v1/profiles", "/V1/METRICS", "/v1/metrics/../logs"])
def test_another_path_is_404(path: str) -> None:
    assert "/v1/metrics" in refused(build_app(FakeIngest()), 404, path=path)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "post"])
def test_another_method_is_405_and_the_answer_says_which_is_taken(method: str) -> None:
    app = build_app(FakeIngest())
    refused(app, 405, method=method)
    assert answered(app, method=method).headers["allow"] == "POST"


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic secret", "secret", "Bearer secretx"]
)
def test_without_the_token_it_is_401_and_the_body_is_not_read(authorization: str | None) -> None:
    ingest = FakeIngest()
    headers = {} if authorization is None else {"authorization": authorization}

    app = build_app(ingest, token="secret")
    refused(app, 401, headers=headers, chunks=Unread())
    assert answered(app, headers=headers).headers["www-authenticate"] == "Bearer"
    assert not ingest.taken


@pytest.mark.parametrize("authorization", ["Bearer secret", "bearer secret"])
def test_with_the_token_it_is_taken(authorization: str) -> None:
    app = build_app(FakeIngest(), token="secret")
    assert answered(app, headers={"authorization": authorization}).status == 200


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1.0, "1"), (2.5, "3")])
def test_overload_is_503_with_a_time_to_come_again(seconds: float, header: str) -> None:
    app = build_app(FakeIngest(Overloaded(seconds)))
    refused(app, 503)
    assert answered(app).headers["retry-after"] == header


def test_a_fault_of_ours_is_500_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    app = build_app(FakeIngest(RuntimeError("secret detail")))
    assert "secret" not in refused(app, 500)
    assert "secret detail" in caplog.text


# --- size ---------------------------------------------------------------------------------------------------


def test_a_body_of_exactly_the_bound_is_taken_and_one_byte_more_is_413() -> None:
    assert answered(build_app(FakeIngest(), max_body_bytes=len(METRICS))).status == 200
    assert "larger" in refused(build_app(FakeIngest(), max_body_bytes=len(METRICS) - 1), 413)


@pytest.mark.parametrize("length", ["5000", "9" * 19, "9" * 5000])
def test_a_body_that_says_it_is_too_large_is_413_before_it_is_read(length: str) -> None:
    app = build_app(FakeIngest(), max_body_bytes=4999)
    refused(app, 413, headers={"content-length": length}, chunks=Unread())


def test_a_body_without_length_is_read_no_further_than_the_bound() -> None:
    read = 0

    def body() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 100
            yield b"x" * 100

    refused(build_app(FakeIngest(), max_body_bytes=1000), 413, chunks=body())
    assert read <= 1100


def test_exactly_the_bound_unpacks_and_one_byte_more_is_413() -> None:
    packed = gzip.compress(METRICS)
    gzipped = {"content-encoding": "gzip"}
    fits = build_app(FakeIngest(), max_decompressed_bytes=len(METRICS))
    assert answered(fits, headers=gzipped, chunks=[packed]).status == 200
    small = build_app(FakeIngest(), max_decompressed_bytes=len(METRICS) - 1)
    assert "unpacks to more" in refused(small, 413, headers=gzipped, chunks=[packed])


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_bomb_is_413_and_never_unpacked_beyond_the_bound(coding: str, pack: Any) -> None:
    app = build_app(FakeIngest(), max_decompressed_bytes=1000)
    bomb = pack(bytes(50_000_000))
    assert len(bomb) < 100_000
    refused(app, 413, headers={"content-encoding": coding}, chunks=[bomb])


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        gzip.compress(METRICS)[:-9],
        gzip.compress(METRICS)[:-8] + b"\0" * 8,
        b"",
        gzip.compress(METRICS) + b"more",
        gzip.compress(METRICS) + gzip.compress(METRICS),
        zlib.compress(METRICS),
    ],
    ids=["no gzip", "cut", "wrong checksum", "empty", "followed by more", "two streams", "another coding"],
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_bad_gzip_is_400(body: bytes, step: int) -> None:
    ingest = FakeIngest()
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    refused(build_app(ingest), 400, headers={"content-encoding": "gzip"}, chunks=chunks)
    assert not ingest.taken


# --- clients that behave badly --------------------------------------------------------------------------------


def test_a_client_that_goes_away_half_way_gets_no_answer_and_hands_nothing_on() -> None:
    ingest = FakeIngest()
    app = build_app(ingest)
    assert call(app, chunks=[METRICS[:20], None]) is None
    assert not ingest.taken
    assert not app.refused


def test_a_body_that_takes_too_long_is_408() -> None:
    app = build_app(FakeIngest(), read_timeout_seconds=0.05)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/v1/metrics",
        "method": "POST",
        "headers": [(b"content-type", PROTOBUF.encode())],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_all_bodies_together_stay_within_the_bound_and_what_they_held_comes_back() -> None:
    """Two clients that send half a body each fill the bound; a third is told to come again; when they have gone
    there is room."""
    app = build_app(FakeIngest(), max_buffered_bytes=3 * len(METRICS) // 2)
    statuses: list[int] = []
    headers = [(b"content-type", PROTOBUF.encode())]
    scope = {"type": "http", "path": "/v1/metrics", "method": "POST", "headers": headers}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def scenario() -> None:
        gone = asyncio.Event()

        def client(first: bytes, *, stalls: bool) -> Any:
            messages = [{"type": "http.request", "body": first, "more_body": stalls}]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            return app(scope, receive, send)

        half = METRICS[: len(METRICS) // 2]
        stalled = [asyncio.create_task(client(half, stalls=True)) for _ in range(2)]
        await asyncio.sleep(0)
        await client(METRICS, stalls=False)
        assert statuses == [503]
        gone.set()
        await asyncio.gather(*stalled)
        await client(METRICS, stalls=False)

    asyncio.run(scenario())
    assert statuses == [503, 200]


def test_a_failing_ingest_gives_back_what_its_request_held() -> None:
    app = build_app(FakeIngest(RuntimeError("x")), max_buffered_bytes=len(METRICS))
    assert [answered(app).status for _ in range(3)] == [500, 500, 500]


def test_lifespan_is_answered() -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(build_app(FakeIngest())({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
