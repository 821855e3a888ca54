"""A real Apache Kafka: one broker that is its own controller (KRaft), on free loopback ports."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path

from tests.harness.net import LOOPBACK, free_port
from tests.harness.part import Launch, Part, PartFailed
from tests.harness.process import clean_environment
from tests.parts.kafka import JAVA_MEND, KafkaRecipe
from tests.parts.steps import require_tool

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller}
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""

# A quick start matters more than throughput: the first compiler tier only, a small heap, no mapped class check.
JVM = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.net.preferIPv4Stack=true")


class Kafka(Part):
    """Stop and start again keeps its port and its log folders, so that a broker's restart can be tested."""

    name = "kafka"
    ready_within_seconds = 60.0

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._controller_port = 0
        self._formatted = False
        self._was_ready = False

    @property
    def bootstrap(self) -> str:
        """For ``bootstrap_servers``."""
        return f"{LOOPBACK}:{self.port}"

    def _java(self, *arguments: str) -> list[str]:
        folder = KafkaRecipe().locate()
        assert folder is not None, "Kafka was not fetched: mark the test with needs('kafka')"
        return [require_tool("java", JAVA_MEND), *JVM, "-cp", f"{folder / 'libs'}/*", *arguments]

    def launch(self) -> Launch:
        if not self._was_ready:
            self.port, self._controller_port = free_port(), free_port()
        properties = self.folder / "server.properties"
        data = self.folder / "data"
        properties.write_text(
            PROPERTIES.format(host=LOOPBACK, broker=self.port, controller=self._controller_port, data=data)
        )
        if not self._formatted:
            self._format(properties)
        return Launch(self._java("kafka.Kafka", str(properties)))

    def _format(self, properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        argv = self._java("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(properties))
        done = subprocess.run(
            argv, env=clean_environment(), cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise PartFailed(f"kafka could not format its folder:\n{done.stdout}{done.stderr}")
        self._formatted = True

    def ready(self) -> bool:
        # The line comes after the broker has left its fenced state; the port is open some time before that.
        if "Kafka Server started" not in self.fresh_output():
            return False
        self._was_ready = True
        return True
