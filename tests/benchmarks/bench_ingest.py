"""Ingest: points per second and core, from the bytes of a request to the analyzer's points.

The floor is upb's own parsing of the same bytes, which no Python code can go below; the peer for JSON is protobuf's
``json_format``. ``python -m tests.benchmarks.bench_ingest`` prints the rows.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from otel_memory import names
from otel_memory.analyzer import decode_protobuf
from otel_memory.analyzer.decode import Encoding, Signal, decode
from otel_memory.analyzer.model import Decoded
from otel_memory.analyzer.receivers.http import build_app
from tests.benchmarks.rows import Row, machine_line, median_seconds, print_rows

TITLE = "ingest"
DISTRIBUTIONS = ("protobuf", "opentelemetry-proto")
UNIT = "points/s/core"
_PROCESSES = 40
_TIME_NS = 1_790_000_000 * 10**9
_CUMULATIVE = 2
_Attributes = Mapping[str, str | int]


def request() -> ExportMetricsServiceRequest:
    """1,000 points as a Collector hands them on: 40 processes with 25 series each, of which 5 have no use here."""
    made = ExportMetricsServiceRequest()
    for process in range(_PROCESSES):
        each = made.resource_metrics.add()
        attributes: _Attributes = {
            "service.name": "shop",
            "service.instance.id": f"627cc493-f310-47de-96bd-{process:012}",
            "host.name": f"node-{process % 7}",
            "process.pid": 1000 + process,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": "1.45.1",
        }
        _attributes(each.resource.attributes, attributes)
        metrics = each.scope_metrics.add().metrics
        _gauge(metrics.add(), names.PROCESS_MEMORY_USAGE, [{}], 5e7 + process)
        _gauge(metrics.add(), names.MEMORY_LIMIT, [{names.LIMIT_KIND: "cgroup_v2"}], 5e8)
        _gauge(metrics.add(), names.HEAP_USAGE, [{names.HEAP_KIND: kind} for kind in ("arena", "mmap")], 1e7)
        _gauge(metrics.add(), names.PYTHON_BLOCK_COUNT, [{}], 4e5)
        for index in range(5):
            _gauge(metrics.add(), f"system.unused.{index}", [{}], 1.0)
        _sum(metrics.add(), names.OPERATION_CALLS, [_operation(i, status=True) for i in range(5)], monotonic=True)
        _sum(metrics.add(), names.OPERATION_GROWTH, [_operation(i) for i in range(5)], monotonic=False)
        _histogram(metrics.add(), "http.server.request.duration", [_route(i) for i in range(5)])
    return made


def gauges() -> ExportMetricsServiceRequest:
    """1,000 points of one gauge with two attributes each."""
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add()
    sets = [{names.HTTP_ROUTE: f"/route/{index}", names.HTTP_REQUEST_METHOD: "GET"} for index in range(1000)]
    _gauge(metric, names.PROCESS_MEMORY_USAGE, sets, 5e7)
    return made


def run(runs: int = 7) -> list[Row]:
    """The rows; about ten seconds."""
    return [*_protobuf(runs, "mixed", request()), *_protobuf(runs, "gauges", gauges()), *_json(runs), *_http(runs)]


def _protobuf(runs: int, shape: str, made: ExportMetricsServiceRequest) -> list[Row]:
    body = made.SerializeToString()
    points = decode(body, "metrics", "protobuf").accepted

    def cold() -> None:
        decode_protobuf._CACHE.clear()
        decode(body, "metrics", "protobuf")

    def row(name: str, work: Any) -> Row:
        return Row(f"{shape}: {name}", points / median_seconds(work, runs=runs), UNIT)

    floor = row("upb FromString alone (floor)", lambda: ExportMetricsServiceRequest.FromString(body))
    known = row("decode", lambda: decode(body, "metrics", "protobuf"))
    unknown = row("decode, series never seen before", cold)
    return [floor, known.over(floor), unknown.over(floor)]


def _json(runs: int) -> list[Row]:
    body = json.dumps(json_format.MessageToDict(request(), use_integers_for_enums=True)).encode()
    points = decode(body, "metrics", "json").accepted

    def row(name: str, work: Any) -> Row:
        return Row(f"mixed: {name}", points / median_seconds(work, runs=runs), UNIT)

    floor = row("json.loads alone (floor)", lambda: json.loads(body))
    peer = row("json_format.Parse (peer)", lambda: json_format.Parse(body, ExportMetricsServiceRequest()))
    ours = row("decode of the JSON form", lambda: decode(body, "metrics", "json"))
    return [floor, peer, ours.over(floor), ours.over(peer)]


def _http(runs: int) -> list[Row]:
    """The receiver without a socket: gzip, checks, decode, answer."""
    body = request().SerializeToString()
    packed = gzip.compress(body)
    points = decode(body, "metrics", "protobuf").accepted
    app = build_app(_Decoding())
    headers = [(b"content-type", b"application/x-protobuf"), (b"content-encoding", b"gzip")]
    scope = {"type": "http", "path": "/v1/metrics", "method": "POST", "headers": headers}
    statuses: set[int] = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": packed}

    async def send(message: Any) -> None:
        statuses.add(message.get("status", 200))

    with asyncio.Runner() as runner:
        seconds = median_seconds(lambda: runner.run(app(scope, receive, send)), runs=runs)
    if statuses != {200}:
        raise RuntimeError(f"the receiver answered {statuses}")
    floor = median_seconds(lambda: ExportMetricsServiceRequest.FromString(gzip.decompress(packed)), runs=runs)
    lowest = Row("mixed: gzip and upb alone (floor)", points / floor, UNIT)
    return [lowest, Row("mixed: HTTP receiver, gzip, decode", points / seconds, UNIT).over(lowest)]


class _Decoding:
    async def submit(self, body: bytes, signal: Signal, encoding: Encoding) -> Decoded:
        return decode(body, signal, encoding)


def _attributes(target: Any, attributes: _Attributes) -> None:
    for key, value in attributes.items():
        pair: KeyValue = target.add(key=key)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value


def _gauge(metric: Metric, name: str, sets: Sequence[_Attributes], value: float) -> None:
    metric.name = name
    for attributes in sets:
        point = metric.gauge.data_points.add(time_unix_nano=_TIME_NS, as_double=value)
        _attributes(point.attributes, attributes)


def _sum(metric: Metric, name: str, sets: Sequence[_Attributes], *, monotonic: bool) -> None:
    metric.name = name
    metric.sum.aggregation_temporality = _CUMULATIVE  # type: ignore[assignment]
    metric.sum.is_monotonic = monotonic
    for attributes in sets:
        point = metric.sum.data_points.add(
            time_unix_nano=_TIME_NS, start_time_unix_nano=_TIME_NS - 10**9, as_int=12_345
        )
        _attributes(point.attributes, attributes)


def _histogram(metric: Metric, name: str, sets: Sequence[_Attributes]) -> None:
    metric.name = name
    metric.histogram.aggregation_temporality = _CUMULATIVE  # type: ignore[assignment]
    for attributes in sets:
        point = metric.histogram.data_points.add(
            time_unix_nano=_TIME_NS, start_time_unix_nano=_TIME_NS - 10**9, count=99, sum=3.5
        )
        point.bucket_counts.extend(range(14))
        point.explicit_bounds.extend([0.005 * 2**i for i in range(13)])
        _attributes(point.attributes, attributes)


def _operation(index: int, *, status: bool = False) -> dict[str, str]:
    attributes = {names.OPERATION_NAME: f"shop.orders.step_{index}"}
    if status:
        attributes[names.OPERATION_STATUS] = "success"
    return attributes


def _route(index: int) -> dict[str, str | int]:
    return {
        names.HTTP_ROUTE: f"/orders/{index}",
        names.HTTP_REQUEST_METHOD: "GET",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }


if __name__ == "__main__":
    RUNS = 7
    print_rows(TITLE, run(RUNS), machine_line(DISTRIBUTIONS, runs=RUNS))
