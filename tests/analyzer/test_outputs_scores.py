"""Scores as metrics: their form, that what is not known has no point, and what happens to what can't be sent."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from otel_memory import names
from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.model import Assessment, Verdict
from otel_memory.analyzer.outputs.scores import BATCH, NAME, SUSPECTS, ScoreExporter, to_resource_metrics
from otel_memory.analyzer.stats import OutputHealth, Stats
from tests.analyzer.store_samples import T0, assessment, process
from tests.harness import wait_until


class Exporter(MetricExporter):
    """Keeps what it is given; ``fails`` as often as that says."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__()
        self.fails = fails
        self.requests: list[MetricsData] = []
        self.closed = threading.Event()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        if self.fails:
            self.fails -= 1
            return MetricExportResult.FAILURE
        self.requests.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.closed.set()

    def counts(self) -> list[int]:
        return [len(request.resource_metrics) for request in self.requests]


class Bench:
    def __init__(self, fails: int = 0) -> None:
        self.exporter = Exporter(fails)
        self.known: dict[str, Assessment] = {}
        self.stats = Stats()
        self.scores = ScoreExporter(
            self.exporter, self.known.values, self.stats, interval_seconds=0.01, clock=lambda: T0
        )

    def judged(self, *assessments: Assessment) -> None:
        self.known.update((one.process.id, one) for one in assessments)

    @property
    def health(self) -> OutputHealth:
        (only,) = self.stats.outputs()
        return only


def points(one: Assessment) -> dict[tuple[str, str], float]:
    (scope,) = to_resource_metrics(one).scope_metrics
    assert scope.scope.name == names.ANALYZER_SCOPE
    return {
        (metric.name, "/".join(str(value) for value in (point.attributes or {}).values())): point.value  # type: ignore[union-attr]
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_every_metric_that_the_contract_names_is_there_with_its_unit() -> None:
    (scope,) = to_resource_metrics(assessment()).scope_metrics
    told = {metric.name: (metric.unit, metric.description) for metric in scope.metrics}
    assert told == {name: (one.unit, one.description) for name, one in names.ANALYZER_METRICS.items()}
    for metric in scope.metrics:
        allowed = set(names.ANALYZER_METRICS[metric.name].attributes)
        for point in metric.data.data_points:
            assert set(point.attributes or ()) == allowed
            assert point.time_unix_nano == round(assessment().last_seen * 1e9)


def test_the_resource_is_that_of_the_process() -> None:
    resource = to_resource_metrics(assessment()).resource.attributes
    one = process()
    assert resource == {
        names.SERVICE_NAME: one.service_name,
        names.SERVICE_VERSION: one.service_version,
        names.SERVICE_INSTANCE_ID: one.service_instance_id,
        names.HOST_NAME: one.host_name,
        names.PROCESS_PID: one.pid,
        names.LEAK_PROCESS_ID: one.id,
    }


def test_what_is_not_known_has_no_point_and_of_the_verdicts_one_is_held() -> None:
    bare = replace(
        assessment(),
        verdict=Verdict.UNKNOWN,
        leak_score=None,
        growth_bytes_per_second=None,
        time_to_limit=None,
        suspects=(),
    )
    assert points(bare) == {
        (names.LEAK_STATUS, verdict.value): float(verdict is Verdict.UNKNOWN) for verdict in Verdict
    }


def test_of_many_suspects_the_first_are_told() -> None:
    (one,) = assessment().suspects
    many = replace(assessment(), suspects=tuple(replace(one, name=f"GET /{n}") for n in range(10)))
    told = [key for key in points(many) if key[0] == names.LEAK_SUSPECT_GROWTH]
    assert [name for _, name in told] == [f"route/GET /{n}" for n in range(SUSPECTS)]


def test_the_analyzer_has_no_use_for_them_itself() -> None:
    body = encode_metrics(MetricsData([to_resource_metrics(assessment())])).SerializeToString()
    decoded = decode(body, "metrics", "protobuf")
    assert (decoded.rejected, [list(payload.points) for payload in decoded.payloads]) in ((0, []), (0, [[]]))


def test_what_was_sent_is_sent_again_only_once_it_was_judged_anew() -> None:
    bench = Bench()
    bench.judged(assessment(1), assessment(2))
    bench.scores.send()
    bench.scores.send()
    bench.judged(assessment(2, last_seen=T0 + 999))
    bench.scores.send()
    assert bench.exporter.counts() == [2, 1]
    assert (bench.health.name, bench.health.delivered, bench.health.last_delivered) == (NAME, 3, T0)


def test_many_go_in_parts() -> None:
    bench = Bench()
    bench.judged(*(assessment(number) for number in range(2 * BATCH + 1)))
    bench.scores.send()
    assert bench.exporter.counts() == [BATCH, BATCH, 1]


def test_what_could_not_be_sent_is_superseded_and_the_failure_told_until_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(fails=2)
    bench.judged(assessment(1))
    bench.scores.send()
    bench.judged(assessment(1, last_seen=T0 + 500, leak_score=0.5))
    bench.scores.send()
    assert (bench.health.failed, bench.health.failing_since, bench.health.delivered) == (2, T0, 0)
    assert len([one for one in caplog.records if "did not take" in one.getMessage()]) == 1, "once an outage"
    bench.judged(assessment(1, last_seen=T0 + 600, leak_score=0.6))
    bench.scores.send()
    assert (bench.health.failing_since, bench.health.delivered) == (None, 1)
    (request,) = bench.exporter.requests
    (scope,) = request.resource_metrics[0].scope_metrics
    assert scope.metrics[0].data.data_points[0].value == 0.6  # type: ignore[union-attr]


def test_processes_that_are_forgotten_are_forgotten_here_too() -> None:
    bench = Bench()
    bench.judged(assessment(1), assessment(2))
    bench.scores.send()
    bench.known.clear()
    bench.scores.send()
    assert bench.scores._sent == {}


def test_a_stop_ends_the_thread_and_closes_the_exporter() -> None:
    bench = Bench()
    bench.judged(assessment(1))
    bench.scores.start()
    assert wait_until(lambda: bench.exporter.counts() == [1])
    bench.scores.stop()
    bench.scores.stop()
    assert bench.exporter.closed.is_set()
    assert not bench.scores._thread.is_alive()
