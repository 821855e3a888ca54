"""Each file of ``collector-config/`` runs in a real Collector, between real applications, a real Kafka, Prometheus."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from otel_memory.exporters.kafka import KafkaMetricExporter
from otel_memory.exporters.kafka_records import VOLATILE
from tests.harness import Analyzer, Collector, Kafka, Program, Prometheus, free_port, validate, wait_until
from tests.harness.secured_kafka import PASSWORD, USER, SecuredKafka
from tests.harness.topics import TopicReader, create_topics, log_records, numbers

CONFIGS = Path(__file__).resolve().parents[2] / "collector-config"
LOGIN = CONFIGS / "kafka-login.yaml"
TO_KAFKA = ("agent.yaml", "gateway.yaml", "drain.yaml")
BIN = Path(sys.executable).parent
TOPICS = ("otlp_metrics", "otlp_logs")
SETTINGS = "OTEL_PYTHON_MEMORY_KAFKA_"
ADDRESSES = {
    "KAFKA_BROKERS": "127.0.0.1:9092",
    "GATEWAY_ENDPOINT": "127.0.0.1:4317",
    "ANALYZER_OTLP_ENDPOINT": "127.0.0.1:4317",
}

SINK = """
extensions: {health_check: {endpoint: "${env:HEALTH_LISTEN}"}}
receivers: {otlp: {protocols: {http: {endpoint: "${env:OTLP_HTTP_LISTEN}"}}}}
exporters: {file: {path: "${env:OUT}", flush_interval: 50ms}}
service:
  extensions: [health_check]
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:TELEMETRY_PORT}"}}}}]}}
  pipelines: {metrics: {receivers: [otlp], exporters: [file]}, logs: {receivers: [otlp], exporters: [file]}}
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with Kafka() as broker:
        create_topics(broker.bootstrap, *TOPICS, partitions=4)
        yield broker


@pytest.fixture
def reader(kafka: Kafka) -> Iterator[TopicReader]:
    with TopicReader(kafka.bootstrap) as reading:
        yield reading


def collector(name: str, folder: Path, *more: Path, **env: str) -> Collector:
    return Collector(CONFIGS / name, {"QUEUE_DIR": str(folder / name), **env}, more)


def gauge(name: str, value: int, resource: Resource) -> MetricsData:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    provider.get_meter("configs").create_gauge(name, "By").set(value, {"state": "used"})
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data


# --- valid -------------------------------------------------------------------------------------------------------


def test_every_file_is_known_here() -> None:
    runnable = {path.name for path in CONFIGS.glob("*.yaml")} - {"ocb-manifest.yaml", LOGIN.name}
    assert runnable == {"agent.yaml", "gateway.yaml", "sidecar.yaml", "drain.yaml", "forward.yaml"}
    readme = (CONFIGS / "README.md").read_text("utf-8")
    assert {name for name in runnable | {LOGIN.name} if f"`{name}`" not in readme} == set()


@pytest.mark.needs("collector")
@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name.count("-") == 0))
def test_a_file_is_valid_as_it_is(name: str) -> None:
    """With what its head says must be set, and nothing else: the defaults are valid too."""
    head = (CONFIGS / name).read_text("utf-8").partition("\nextensions:")[0]
    needed = set(re.findall(r"^#   ([A-Z_]+) .*must be set", head, re.MULTILINE))
    validate(CONFIGS / name, {key: value for key, value in ADDRESSES.items() if key in needed})


@pytest.mark.parametrize(
    "name", sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name != "ocb-manifest.yaml")
)
def test_the_head_of_a_file_names_each_variable_and_its_default(name: str) -> None:
    head, _, body = (
        (CONFIGS / name).read_text("utf-8").partition("\nextensions:" if name != LOGIN.name else "\nexporters:")
    )
    found = re.findall(r"\$\{env:([A-Z_]+)(?::-([^}]*))?\}", body)
    assert found
    for variable, default in found:
        (line,) = re.findall(rf"^#   {variable} .*$", head, re.MULTILINE)
        assert f"default {default}" in line if default else "must be set" in line or "both must be" in head, line


# --- application -> Collector -> Kafka -----------------------------------------------------------------------------


def resources() -> list[Resource]:
    """Attributes of every type, among them one that is no part of the key."""
    shop: dict[str, Any] = {"service.name": "shop", "process.pid": 17, "share": 0.25, "canary": True}
    return [
        Resource({**shop, "service.instance.id": "one", "process.command_args": ("python", "app.py")}),
        Resource({**shop, "service.instance.id": "two", "zones": ("a", "b"), "empty": ""}),
        *(Resource({"service.name": "shop", "service.instance.id": f"ä-{number}"}) for number in range(20)),
    ]


def without_volatile(value: bytes) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest.FromString(value)
    for resource in request.resource_metrics:
        kept = sorted((pair for pair in resource.resource.attributes if pair.key not in VOLATILE), key=lambda p: p.key)
        del resource.resource.attributes[:]
        resource.resource.attributes.extend(kept)
    return request


@pytest.mark.needs("collector", "kafka")
@pytest.mark.parametrize("name", ["agent.yaml", "gateway.yaml"])
def test_the_agent_and_the_gateway_write_what_otlp_kafka_writes(
    name: str, kafka: Kafka, reader: TopicReader, tmp_path: Path
) -> None:
    """Key, partition and value are equal, so either may stand in for the other at any time."""
    metric = f"same.{name.partition('.')[0]}"
    sent = [gauge(metric, number, resource) for number, resource in enumerate(resources())]
    before = {topic: len(reader.read(topic)) for topic in TOPICS}
    with collector(name, tmp_path, KAFKA_BROKERS=kafka.bootstrap) as agent:
        exporter = OTLPMetricExporter(agent.grpc_endpoint, insecure=True)
        for data in sent:
            assert exporter.export(data) is MetricExportResult.SUCCESS
        exporter.shutdown()

        def of_collector() -> list[Any]:
            found = [each for each in reader.read("otlp_metrics") if numbers([each], metric)]
            return found if len(found) == len(sent) else []

        theirs = wait_until(of_collector, timeout_seconds=60, what="all records of the Collector")
    direct = KafkaMetricExporter({SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap})
    for data in sent:
        assert direct.export(data) is MetricExportResult.SUCCESS
    assert direct.force_flush(30_000)
    direct.shutdown()

    def of_exporter() -> list[Any]:
        found = [each for each in reader.read("otlp_metrics") if numbers([each], metric)]
        return [each for each in found if each not in theirs] if len(found) == 2 * len(sent) else []

    ours = wait_until(of_exporter, timeout_seconds=60, what="all records of the exporter")
    by_number = {numbers([each], metric)[0]: each for each in theirs}
    assert len({each.partition for each in theirs}) > 1, "there is something to be told apart"
    for mine in ours:
        its = by_number[numbers([mine], metric)[0]]
        assert (mine.key, mine.partition, mine.headers) == (its.key, its.partition, its.headers)
        assert len(mine.key or b"") == 16
        assert without_volatile(mine.value) == without_volatile(its.value)
        (resource,) = mine.metrics().resource_metrics
        assert resource
    assert len(reader.read("otlp_logs")) == before["otlp_logs"]


@pytest.mark.needs("collector", "kafka")
def test_an_application_through_sidecar_and_gateway_into_kafka(
    kafka: Kafka, reader: TopicReader, tmp_path: Path
) -> None:
    resource = Resource({"service.name": "behind-a-sidecar"})
    with (
        collector("gateway.yaml", tmp_path, KAFKA_BROKERS=kafka.bootstrap) as gateway,
        collector("sidecar.yaml", tmp_path, GATEWAY_ENDPOINT=f"127.0.0.1:{gateway.grpc_port}") as sidecar,
    ):
        exporter = OTLPMetricExporter(sidecar.grpc_endpoint, insecure=True)
        assert exporter.export(gauge("by.sidecar", 1, resource)) is MetricExportResult.SUCCESS
        gateway.kill()
        assert exporter.export(gauge("by.sidecar", 2, resource)) is MetricExportResult.SUCCESS, "it needs no gateway"
        exporter.shutdown()
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(
            SimpleLogRecordProcessor(OTLPLogExporter(sidecar.grpc_endpoint, insecure=True))
        )
        provider.get_logger("configs").emit(event_name="otel_memory.test", timestamp=1, body="told")
        provider.shutdown()
        sidecar.kill()
        gateway.start()
        sidecar.start()
        wait_until(
            lambda: set(numbers(reader.read("otlp_metrics"), "by.sidecar")) == {1, 2},
            timeout_seconds=60,
            what="both values in Kafka",
        )
        wait_until(
            lambda: [each for each in log_records(reader.read("otlp_logs")) if each.body.string_value == "told"],
            timeout_seconds=60,
            what="the event in Kafka",
        )


class Numbers:
    """A thread that exports a gauge with 0, 1, 2 … as an SDK does; it goes on once the Collector has accepted one."""

    def __init__(self, endpoint: str, metric: str) -> None:
        self._exporter = HttpMetricExporter(f"{endpoint}/v1/metrics", timeout=2)
        self._metric = metric
        self.accepted = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Numbers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _run(self) -> None:
        resource = Resource({"service.name": "counts"})
        for number in count():
            data = gauge(self._metric, number, resource)
            while self._exporter.export(data) is not MetricExportResult.SUCCESS:
                if self._ending.wait(0.1):
                    return
            self.accepted = number + 1
            if self._ending.wait(0.01):
                return

    def more(self, count: int) -> None:
        """Wait until so many more were accepted."""
        goal = self.accepted + count
        wait_until(lambda: self.accepted >= goal, timeout_seconds=60, what=f"{goal} requests accepted")

    def end(self) -> None:
        self._ending.set()
        self._thread.join(30)


@pytest.mark.needs("collector", "kafka")
@pytest.mark.slow
def test_nothing_is_lost_when_a_collector_is_killed_between_application_and_kafka(tmp_path: Path) -> None:
    """Killed with -9 under load, with and without brokers: all that it accepted comes to Kafka."""
    with Kafka() as kafka, TopicReader(kafka.bootstrap) as reader:
        create_topics(kafka.bootstrap, *TOPICS)
        with (
            collector("agent.yaml", tmp_path, KAFKA_BROKERS=kafka.bootstrap) as agent,
            Numbers(agent.http_endpoint, "sequence") as sender,
        ):
            for _ in range(3):
                sender.more(30)
                agent.kill()
                agent.start()
            sender.more(30)
            kafka.kill()
            sender.more(60)  # the brokers are away, and it goes on
            agent.kill()
            agent.start()
            sender.more(30)
            agent.kill()
            agent.start()
            kafka.start()
            sender.more(10)
            agent.kill()  # while it sends what waited
            agent.start()
            sender.more(10)
            sender.end()
            expected = set(range(sender.accepted))
            assert len(expected) > 200

            def missing() -> set[int]:
                return expected - set(numbers(reader.read("otlp_metrics"), "sequence"))

            wait_until(lambda: not missing(), timeout_seconds=90, every=0.5, what="every number in Kafka")


# --- Kafka -> Collector -> OTLP, Prometheus --------------------------------------------------------------------------

SHOP = """
import time
from opentelemetry import metrics
calls = metrics.get_meter("shop").create_counter("shop.calls")
while True:
    calls.add(1)
    time.sleep(0.05)
"""


@pytest.mark.needs("collector", "kafka", "prometheus")
@pytest.mark.slow
def test_an_application_over_kafka_is_seen_in_prometheus_and_by_an_analyzer(kafka: Kafka, tmp_path: Path) -> None:
    """opentelemetry-instrument -> otlp_kafka -> Kafka -> drain.yaml -> Prometheus' API, and the analyzer's REST."""
    page = free_port()
    shop = Program(
        [str(BIN / "opentelemetry-instrument"), sys.executable, "-c", SHOP],
        env={
            "OTEL_SERVICE_NAME": "drained-shop",
            "OTEL_METRICS_EXPORTER": "otlp_kafka",
            "OTEL_LOGS_EXPORTER": "otlp_kafka",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap,
        },
        name="shop",
    )
    with (
        Analyzer() as analyzer,
        collector(
            "drain.yaml",
            tmp_path,
            KAFKA_BROKERS=kafka.bootstrap,
            OTLP_ENDPOINT=analyzer.http_endpoint,
            PROMETHEUS_LISTEN=f"127.0.0.1:{page}",
        ),
        Prometheus(f"127.0.0.1:{page}") as prometheus,
        shop,
    ):
        usage = 'process_memory_usage_bytes{service_name="drained-shop"}'
        found = wait_until(lambda: prometheus.query(usage), timeout_seconds=60, what="memory in Prometheus")
        assert float(found[0]["value"][1]) > 10_000_000
        assert "process_command_args" not in found[0]["metric"]
        calls = 'increase(shop_calls_total{service_name="drained-shop"}[30s])'
        rates = wait_until(lambda: prometheus.query(calls), timeout_seconds=60, what="the shop's own counter")
        wait_until(lambda: float(prometheus.query(calls)[0]["value"][1]) > 0, timeout_seconds=60, what="its increase")
        assert rates

        def at_the_analyzer() -> Any:
            return [
                each for each in analyzer.get("/api/v1/processes")["items"] if each["service_name"] == "drained-shop"
            ]

        (process,) = wait_until(at_the_analyzer, timeout_seconds=60, what="the shop at the analyzer")
        assert process["memory_bytes"] > 10_000_000


@pytest.mark.needs("collector", "kafka")
@pytest.mark.slow
def test_a_drain_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """What its receiver had not taken is not committed: after kill -9, and while the receiver is away."""
    out = tmp_path / "out.jsonl"
    with (
        Kafka() as kafka,
        Collector(SINK, {"OUT": str(out)}) as sink,
        collector(
            "drain.yaml",
            tmp_path,
            KAFKA_BROKERS=kafka.bootstrap,
            OTLP_ENDPOINT=sink.http_endpoint,
            PROMETHEUS_LISTEN=f"127.0.0.1:{free_port()}",
        ) as drain,
    ):
        create_topics(kafka.bootstrap, *TOPICS)
        exporter = KafkaMetricExporter({SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap})
        resource = Resource({"service.name": "counts"})

        def write(*values: int) -> None:
            for value in values:
                assert exporter.export(gauge("sequence", value, resource)) is MetricExportResult.SUCCESS
            assert exporter.force_flush(30_000)

        def arrived() -> set[int]:
            found = set()
            for line in out.read_text().splitlines() if out.exists() else []:
                try:
                    for scope in json.loads(line)["resourceMetrics"][0]["scopeMetrics"]:
                        found |= {int(point["asInt"]) for point in scope["metrics"][0]["gauge"]["dataPoints"]}
                except ValueError:
                    continue  # cut by a kill
            return found

        write(*range(50))
        wait_until(arrived, timeout_seconds=90, what="the first numbers")
        drain.kill()
        write(*range(50, 100))
        drain.start()
        wait_until(lambda: 99 in arrived(), timeout_seconds=90, what="what came while the drain was away")
        sink.kill()
        write(*range(100, 150))
        wait_until(lambda: "retry" in drain.fresh_output(), timeout_seconds=60, what="its first retry")
        drain.kill()
        sink.start()
        drain.start()
        wait_until(lambda: arrived() == set(range(150)), timeout_seconds=90, what="every number")
        exporter.shutdown()


# --- brokers with TLS and a login ------------------------------------------------------------------------------------


@pytest.mark.needs("collector", "kafka")
@pytest.mark.slow
def test_login_and_tls_of_brokers_for_collectors_and_exporters(tmp_path: Path) -> None:
    with SecuredKafka() as kafka, TopicReader(kafka.bootstrap) as reader:
        create_topics(kafka.bootstrap, *TOPICS)
        env = {
            "KAFKA_BROKERS": kafka.secured,
            "KAFKA_CA_FILE": str(kafka.certificate),
            "KAFKA_USER": USER,
            "KAFKA_PASSWORD": PASSWORD,
            "KAFKA_MECHANISM": "PLAIN",
        }
        for name in TO_KAFKA:
            validate(CONFIGS / name, env, LOGIN)
        secured = {
            SETTINGS + "BOOTSTRAP_SERVERS": kafka.secured,
            SETTINGS + "SECURITY_PROTOCOL": "SASL_SSL",
            SETTINGS + "SSL_CAFILE": str(kafka.certificate),
            SETTINGS + "SASL_USERNAME": USER,
            SETTINGS + "SASL_PASSWORD": PASSWORD,
        }
        resource = Resource({"service.name": "secured"})
        direct = KafkaMetricExporter(secured)
        assert direct.export(gauge("secured", 1, resource)) is MetricExportResult.SUCCESS
        assert direct.force_flush(30_000)
        direct.shutdown()
        with collector("agent.yaml", tmp_path, LOGIN, **env) as agent:
            exporter = OTLPMetricExporter(agent.grpc_endpoint, insecure=True)
            assert exporter.export(gauge("secured", 2, resource)) is MetricExportResult.SUCCESS
            exporter.shutdown()
            wait_until(
                lambda: numbers(reader.read("otlp_metrics"), "secured") == [1, 2], timeout_seconds=60, what="both"
            )
        out = tmp_path / "out.jsonl"
        with Collector(SINK, {"OUT": str(out)}) as sink:
            page = {"PROMETHEUS_LISTEN": f"127.0.0.1:{free_port()}", "OTLP_ENDPOINT": sink.http_endpoint}
            with collector("drain.yaml", tmp_path, LOGIN, **env, **page):
                wait_until(lambda: out.read_text().count('"secured"'), timeout_seconds=90, what="metrics drained")
        refused = KafkaMetricExporter({**secured, SETTINGS + "SASL_PASSWORD": "another"})
        refused.export(gauge("secured", 3, resource))
        sender = refused.writer.sender
        assert sender is not None
        wait_until(
            lambda: "Authentication failed" in str(sender.last_error), timeout_seconds=60, what="why nothing is taken"
        )
        refused.shutdown(100)
        assert numbers(reader.read("otlp_metrics"), "secured") == [1, 2]


def test_the_encoder_is_that_of_otlp() -> None:
    """The premise of the comparison above: what the SDK's OTLP exporter sends is what otlp_kafka encodes."""
    data = gauge("g", 1, Resource({"service.name": "s"}))
    assert isinstance(encode_metrics(data), ExportMetricsServiceRequest)
