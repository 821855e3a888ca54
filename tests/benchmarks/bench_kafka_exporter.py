"""What the exporter ``otlp_kafka`` costs its application, and what a broker that is killed for a minute costs it.

The first half is the caller's own time, against encoding alone. The second half is paired: two programs run at the same
time, each with a broker of its own; one broker is killed with -9 and stays away. What is compared are slices of five
seconds of the same moments. ``python -m tests.benchmarks.bench_kafka_exporter [SECONDS]`` prints the rows.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from array import array
from pathlib import Path

import psutil
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

from otel_memory.exporters.kafka import KafkaMetricExporter
from tests.benchmarks.rows import Rounds, Row, in_turns, machine_line, microseconds, print_rows
from tests.harness import Kafka, Program, free_port
from tests.harness.topics import TopicReader, create_topics, log_records

TITLE = "kafka exporter"
DISTRIBUTIONS = ("kafka-python", "opentelemetry-sdk")
SETTINGS = "OTEL_PYTHON_MEMORY_KAFKA_"
SLICE_SECONDS = 5.0
POINTS = 60
FLOOR = f"encoding {POINTS} data points (floor)"
PROGRAM = "tests.benchmarks.outage_program"
BIN = Path(sys.executable).parent


def _data() -> MetricsData:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource({"service.name": "bench"}), shutdown_on_exit=False)
    meter = provider.get_meter("bench")
    for number in range(POINTS // 4):
        gauge = meter.create_gauge(f"bench.gauge.{number}", "By")
        for state in range(4):
            gauge.set(number * 1_000_003, {"state": f"state {state}"})
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data


def hand_over(runs: int = 7) -> list[Row]:
    """What one export costs the thread that calls it."""
    data = _data()
    with Kafka() as kafka, tempfile.TemporaryDirectory() as folder:
        create_topics(kafka.bootstrap, "otlp_metrics", "otlp_logs")
        dead = f"127.0.0.1:{free_port()}"
        base = {SETTINGS + "FLUSH_TIMEOUT": "0"}
        exporters = {
            "export, brokers up": {SETTINGS + "BOOTSTRAP_SERVERS": kafka.bootstrap},
            "export, brokers gone": {SETTINGS + "BOOTSTRAP_SERVERS": dead},
            "export, brokers gone, into the spool": {
                SETTINGS + "BOOTSTRAP_SERVERS": dead,
                SETTINGS + "SPOOL_PATH": folder,
                SETTINGS + "SPOOL_MAX_BYTES": "1GiB",
            },
        }
        made = {name: KafkaMetricExporter({**base, **env}) for name, env in exporters.items()}
        measures = {FLOOR: microseconds(lambda: encode_metrics(data).SerializeToString())}
        for name, exporter in made.items():
            measures[name] = microseconds(lambda exporter=exporter: exporter.export(data))  # type: ignore[misc]
        found = in_turns(measures, "µs", runs)
        live = made["export, brokers up"]
        live.force_flush(30_000)
        count = 2000
        began = time.process_time()
        for _ in range(count):
            live.export(data)
        live.force_flush(60_000)
        whole = Row("export and sending, all threads", (time.process_time() - began) / count * 1e6, "µs")
        for exporter in made.values():
            exporter.shutdown()
    floor = found[FLOOR]
    return [floor.row(), *(found[name].over(floor) for name in made), whole.over(floor.row())]


class _Application:
    """One program with its broker."""

    def __init__(self, name: str, folder: Path) -> None:
        self.kafka = Kafka().start()
        create_topics(self.kafka.bootstrap, "otlp_metrics", "otlp_logs")
        self.folder = folder / name
        self.folder.mkdir()
        self.stop_file = self.folder / "stop"
        self.program = Program(
            [str(BIN / "opentelemetry-instrument"), sys.executable, "-m", PROGRAM, str(self.stop_file)],
            env={
                "OTEL_SERVICE_NAME": name,
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_METRICS_EXPORTER": "otlp_kafka",
                "OTEL_LOGS_EXPORTER": "otlp_kafka",
                "OTEL_METRIC_EXPORT_INTERVAL": "1000",
                "OTEL_PYTHON_MEMORY_EVENTS": "kafka",
                SETTINGS + "BOOTSTRAP_SERVERS": self.kafka.bootstrap,
                SETTINGS + "SPOOL_PATH": str(self.folder / "spool"),
                SETTINGS + "FLUSH_TIMEOUT": "60000",
            },
            cwd=Path(__file__).resolve().parents[2],
            name=name,
        ).start()
        # The launcher is replaced by the program.
        self._process = psutil.Process(self.program.pid)

    def usage(self) -> tuple[float, int]:
        """Processor seconds so far and resident bytes."""
        times = self._process.cpu_times()
        return times.user + times.system, self._process.memory_info().rss

    def end(self) -> list[tuple[float, float]]:
        """Stop the program. When each operation began, and its seconds."""
        self.stop_file.touch()
        assert self.program.wait(120), self.program.tail()
        assert self.program.stop() == 0, self.program.tail()
        found = array("d")
        data = self.stop_file.with_suffix(".times").read_bytes()
        found.frombytes(data)
        return list(zip(found[::2], found[1::2], strict=True))

    def lost(self, emitted: int) -> int:
        """Log records that did not arrive."""
        with TopicReader(self.kafka.bootstrap) as reader:
            found = {each.body.string_value for each in log_records(reader.read("otlp_logs"))}
        return emitted - sum(f"number {number}" in found for number in range(emitted))

    def close(self) -> None:
        self.program.close()
        self.kafka.close()


def _slices(times: list[tuple[float, float]], began: float, ended: float, share: float) -> list[float]:
    """The quantile of each slice, in microseconds."""
    found = []
    for number in range(int((ended - began) / SLICE_SECONDS)):
        start = began + number * SLICE_SECONDS
        values = sorted(each for at, each in times if start <= at < start + SLICE_SECONDS)
        found.append(values[min(len(values) - 1, int(len(values) * share))] * 1e6)
    return found


def outage(seconds: float = 60.0) -> list[Row]:
    """One broker killed for ``seconds``, after as long a time in which all was well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both = [_Application("stays", folder), _Application("goes", folder)]
        goes = both[1]
        try:
            time.sleep(10)
            phases: dict[str, tuple[float, float]] = {}
            used: dict[str, list[tuple[float, int]]] = {"all is well": [each.usage() for each in both]}
            began = time.monotonic()
            time.sleep(seconds)
            phases["all is well"] = began, time.monotonic()
            used["killed"] = [each.usage() for each in both]
            goes.kafka.kill()
            began = time.monotonic()
            time.sleep(seconds)
            phases["killed"] = began, time.monotonic()
            used["after"] = [each.usage() for each in both]
            goes.kafka.start()
            time.sleep(15)
            times = [each.end() for each in both]
            lost = [each.lost(len(its)) for each, its in zip(both, times, strict=True)]
        finally:
            for each in both:
                each.close()
    rows = []
    order = list(used)
    for phase, (began, ended) in phases.items():
        for label, share in (("median", 0.5), ("p99", 0.99)):
            mine = Rounds(f"operation, {label}, {phase}", "µs", _slices(times[1], began, ended, share))
            its = Rounds("its twin, whose broker stays", "µs", _slices(times[0], began, ended, share))
            rows.append(mine.over(its))
        after = used[order[order.index(phase) + 1]]
        cpu = [1000 * (end[0] - start[0]) / (ended - began) for start, end in zip(used[phase], after, strict=True)]
        twin = Row("its twin", cpu[0], "ms/s")
        rows.append(Row(f"processor time, {phase}", cpu[1], "ms/s").over(twin))
        rows.append(Row(f"resident memory, change, {phase}", (after[1][1] - used[phase][1][1]) / 1e6, "MB"))
    rows.append(Row("log records emitted", len(times[1]), "records"))
    rows.append(Row("  of them lost, with a spool", lost[1], "records"))
    rows.append(Row("  lost by its twin", lost[0], "records"))
    return rows


def main(seconds: float = 60.0, runs: int = 7) -> None:
    """Print the rows."""
    rows = hand_over(runs)
    print_rows(f"{TITLE}: handing over", rows, machine_line(DISTRIBUTIONS, runs=runs))
    slices = int(seconds / SLICE_SECONDS)
    print_rows(f"{TITLE}: broker killed for {seconds:g} s", outage(seconds), machine_line(DISTRIBUTIONS, runs=slices))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
