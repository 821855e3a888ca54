"""A real Kafka that takes clients only over TLS, with a login or a certificate, beside its plain listener for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.kafka import Kafka
from tests.harness.net import LOOPBACK, free_port
from tests.harness.part import Launch

USER, PASSWORD = "probe", "a-password"

LISTENER = """
listeners={listeners}
advertised.listeners={listeners}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL,MUTUAL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location={certificate}
sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
"""


class SecuredKafka(Kafka):
    """``secured`` is the address of the listener with TLS and SASL PLAIN, ``mutual`` of the one that wants a
    certificate of the client. `certificate`, with `key`, signs itself, and is taken from clients, too."""

    name = "secured-kafka"

    def __init__(self) -> None:
        super().__init__()
        self.certificate = self.folder / "certificate.pem"
        self.key = self.folder / "key.pem"
        self.secured_port = self.mutual_port = 0

    @property
    def secured(self) -> str:
        """For ``bootstrap_servers``."""
        return f"{LOOPBACK}:{self.secured_port}"

    @property
    def mutual(self) -> str:
        """For ``bootstrap_servers``."""
        return f"{LOOPBACK}:{self.mutual_port}"

    def launch(self) -> Launch:
        launch = super().launch()
        if not self.certificate.exists():
            self._certify()
        self.secured_port = self.secured_port or free_port()
        self.mutual_port = self.mutual_port or free_port()
        ports = {
            "PLAINTEXT": self.port,
            "CONTROLLER": self._controller_port,
            "SECURED": self.secured_port,
            "MUTUAL": self.mutual_port,
        }
        properties = self.folder / "server.properties"
        properties.write_text(
            properties.read_text()
            + LISTENER.format(
                listeners=",".join(f"{name}://{LOOPBACK}:{port}" for name, port in ports.items()),
                keystore=self.folder / "keystore.pem",
                certificate=self.certificate,
                user=USER,
                password=PASSWORD,
            )
        )
        return launch

    def _certify(self) -> None:
        subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{LOOPBACK},DNS:localhost"]
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        made = [*argv, "-keyout", str(self.key), "-out", str(self.certificate)]
        subprocess.run(made, check=True, capture_output=True, timeout=60)
        Path(self.folder / "keystore.pem").write_text(self.key.read_text() + self.certificate.read_text())
