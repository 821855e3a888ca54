"""How the exporters reach Kafka and within which bounds: from the environment, or from settings in the same names.

Owns the forms of these variables. A bound that is not valid is told and its default taken. A value that decides who
may read what is sent (the protocol, the login, certificates) has no such substitute: the options then are not
``usable``, and the exporter sends nothing, says so, and counts it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from otel_memory.exporters.file_options import parse_size

PREFIX: Final = "OTEL_PYTHON_MEMORY_KAFKA_"
PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
COMPRESSIONS: Final = ("none", "gzip", "lz4", "zstd")
MOST_RECORD_BYTES: Final = 100 * 2**20
LEAST_RECORD_BYTES: Final = 1_000
MOST_FLUSH_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """``problems`` are sentences about values that were not valid. Two exporters with equal options share a sender."""

    bootstrap_servers: str = "localhost:9092"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    metrics_topic: str = "otlp_metrics"
    logs_topic: str = "otlp_logs"
    compression: str = "zstd"
    max_buffer_bytes: int = 16 * 2**20
    max_record_bytes: int = 900_000
    spool_path: str = ""
    """Absolute; empty for none."""
    spool_max_bytes: int = 64 * 2**20
    flush_timeout: float = 5.0
    """Seconds for what waits when the application ends."""
    problems: tuple[str, ...] = field(default=(), compare=False)
    usable: bool = True

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> KafkaOptions:
        """The options that ``environ`` asks for."""
        return _Reader(environ).read()

    def client(self) -> dict[str, Any]:
        """What a client of kafka-python needs to reach the brokers."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        if self.security_protocol.endswith("SSL"):
            arguments |= {
                "ssl_cafile": self.ssl_cafile or None,
                "ssl_certfile": self.ssl_certfile or None,
                "ssl_keyfile": self.ssl_keyfile or None,
            }
        return arguments


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []
        self._usable = True

    def read(self) -> KafkaOptions:
        default = KafkaOptions()
        protocol = self._one_of("SECURITY_PROTOCOL", PROTOCOLS, default.security_protocol)
        mechanism = self._one_of("SASL_MECHANISM", MECHANISMS, default.sasl_mechanism)
        username, password = self._text("SASL_USERNAME"), self._environ.get(PREFIX + "SASL_PASSWORD", "")
        if protocol.startswith("SASL") and not (username and password):
            self._refuse(f"{PREFIX}SECURITY_PROTOCOL={protocol} needs {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD")
        if username and not protocol.startswith("SASL"):
            # Whoever sets a login believes that it is used.
            self._refuse(f"{PREFIX}SASL_USERNAME is set, but {PREFIX}SECURITY_PROTOCOL={protocol} uses no login")
        files = {name: self._file(name) for name in ("SSL_CAFILE", "SSL_CERTFILE", "SSL_KEYFILE")}
        if any(files.values()) and not protocol.endswith("SSL"):
            self._refuse(f"{PREFIX}SSL_… is set, but {PREFIX}SECURITY_PROTOCOL={protocol} uses no TLS")
        compression = (self._text("COMPRESSION") or default.compression).lower()
        if compression not in COMPRESSIONS:
            self._problem("COMPRESSION", f"one of {', '.join(COMPRESSIONS)}")
            compression = default.compression
        record = self._size("MAX_RECORD_BYTES", default.max_record_bytes)
        if not LEAST_RECORD_BYTES <= record <= MOST_RECORD_BYTES:
            self._problem("MAX_RECORD_BYTES", f"a size from {LEAST_RECORD_BYTES} bytes to 100MiB")
            record = default.max_record_bytes
        return KafkaOptions(
            bootstrap_servers=self._servers(default.bootstrap_servers),
            security_protocol=protocol,
            sasl_mechanism=mechanism,
            sasl_username=username,
            sasl_password=password,
            ssl_cafile=files["SSL_CAFILE"],
            ssl_certfile=files["SSL_CERTFILE"],
            ssl_keyfile=files["SSL_KEYFILE"],
            metrics_topic=self._topic("METRICS_TOPIC", default.metrics_topic),
            logs_topic=self._topic("LOGS_TOPIC", default.logs_topic),
            compression=compression,
            max_buffer_bytes=self._size("MAX_BUFFER_BYTES", default.max_buffer_bytes),
            max_record_bytes=record,
            spool_path=os.path.abspath(path) if (path := self._text("SPOOL_PATH")) else "",
            spool_max_bytes=self._size("SPOOL_MAX_BYTES", default.spool_max_bytes),
            flush_timeout=self._milliseconds("FLUSH_TIMEOUT", default.flush_timeout),
            problems=tuple(self._problems),
            usable=self._usable,
        )

    def _text(self, name: str) -> str:
        return self._environ.get(PREFIX + name, "").strip()

    def _problem(self, name: str, expected: str) -> None:
        self._problems.append(f"{PREFIX}{name}={self._text(name)!r}: expected {expected}. The default is taken.")

    def _refuse(self, problem: str) -> None:
        self._problems.append(f"{problem}. Nothing is sent to Kafka.")
        self._usable = False

    def _one_of(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        text = self._text(name).upper() or default
        if text not in allowed:
            self._refuse(f"{PREFIX}{name}={self._text(name)!r}: expected one of {', '.join(allowed)}")
            return default
        return text

    def _file(self, name: str) -> str:
        path = self._text(name)
        if path and not Path(path).is_file():
            self._refuse(f"{PREFIX}{name}={path!r}: expected a file in PEM form; there is none")
        return os.path.abspath(path) if path else ""

    def _servers(self, default: str) -> str:
        text = self._text("BOOTSTRAP_SERVERS") or default
        servers = [server.strip() for server in text.split(",")]
        if not all(_is_server(server) for server in servers):
            self._refuse(f"{PREFIX}BOOTSTRAP_SERVERS={text!r}: expected host:port, several with commas")
        return ",".join(servers)

    def _topic(self, name: str, default: str) -> str:
        topic = self._text(name) or default
        plain = topic.replace("_", "").replace("-", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum() and len(topic) <= 249):
            self._refuse(f"{PREFIX}{name}={topic!r}: expected at most 249 letters, digits, '.', '_' and '-'")
        return topic

    def _size(self, name: str, default: int) -> int:
        if not (text := self._text(name)):
            return default
        size = parse_size(text)
        if size is None:
            self._problem(name, "a size in bytes or with a unit, as 10MiB")
            return default
        return size

    def _milliseconds(self, name: str, default: float) -> float:
        if not (text := self._text(name)):
            return default
        if not (text.isascii() and text.isdecimal() and int(text) <= MOST_FLUSH_MS):
            self._problem(name, f"milliseconds, from 0 to {MOST_FLUSH_MS}")
            return default
        return int(text) / 1000


def _is_server(server: str) -> bool:
    host, colon, port = server.rpartition(":")
    if not colon:
        return bool(server)  # kafka-python takes port 9092
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536
