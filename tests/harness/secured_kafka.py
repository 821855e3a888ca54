"""A real Kafka that takes clients only over TLS and with a login, beside its plain listener for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.kafka import Kafka
from tests.harness.net import LOOPBACK, free_port
from tests.harness.part import Launch

USER, PASSWORD = "probe", "a-password"

LISTENER = """
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller},SECURED://{host}:{secured}
advertised.listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller},SECURED://{host}:{secured}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
"""


class SecuredKafka(Kafka):
    """``secured`` is the address of the listener with TLS and SASL PLAIN; `certificate` signs itself."""

    name = "secured-kafka"

    def __init__(self) -> None:
        super().__init__()
        self.certificate = self.folder / "certificate.pem"
        self.secured_port = 0

    @property
    def secured(self) -> str:
        """For ``bootstrap_servers``."""
        return f"{LOOPBACK}:{self.secured_port}"

    def launch(self) -> Launch:
        launch = super().launch()
        if not self.certificate.exists():
            self._certify()
        self.secured_port = self.secured_port or free_port()
        properties = self.folder / "server.properties"
        properties.write_text(
            properties.read_text()
            + LISTENER.format(
                host=LOOPBACK,
                broker=self.port,
                controller=self._controller_port,
                secured=self.secured_port,
                keystore=self.folder / "keystore.pem",
                user=USER,
                password=PASSWORD,
            )
        )
        return launch

    def _certify(self) -> None:
        key = self.folder / "key.pem"
        subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{LOOPBACK},DNS:localhost"]
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        made = [*argv, "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(made, check=True, capture_output=True, timeout=60)
        Path(self.folder / "keystore.pem").write_text(key.read_text() + self.certificate.read_text())
