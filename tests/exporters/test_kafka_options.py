"""The settings of the Kafka exporters: forms, substitutes, and what has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_memory.exporters.kafka_options import PREFIX, KafkaOptions


def read(**settings: str) -> KafkaOptions:
    return KafkaOptions.read({PREFIX + name: value for name, value in settings.items()})


def test_nothing_set_is_a_plain_broker_of_this_machine() -> None:
    assert read() == KafkaOptions()
    assert read(BOOTSTRAP_SERVERS=" ", SPOOL_PATH="") == KafkaOptions()
    assert read().client() == {"bootstrap_servers": ["localhost:9092"], "security_protocol": "PLAINTEXT"}


def test_each_setting_is_taken(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    options = read(
        BOOTSTRAP_SERVERS="a:1, [::1]:2",
        SECURITY_PROTOCOL="sasl_ssl",
        SASL_MECHANISM="scram-sha-512",
        SASL_USERNAME="me",
        SASL_PASSWORD=" with a blank",
        SSL_CAFILE=str(certificate),
        METRICS_TOPIC="m",
        LOGS_TOPIC="l",
        COMPRESSION="LZ4",
        MAX_BUFFER_BYTES="1MiB",
        MAX_RECORD_BYTES="10kB",
        SPOOL_PATH=str(tmp_path),
        SPOOL_MAX_BYTES="2MiB",
        FLUSH_TIMEOUT="250",
    )
    assert options.problems == ()
    assert options.usable
    assert options.client() == {
        "bootstrap_servers": ["a:1", "[::1]:2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "me",
        "sasl_plain_password": " with a blank",
        "ssl_cafile": str(certificate),
        "ssl_certfile": None,
        "ssl_keyfile": None,
    }
    assert (options.metrics_topic, options.logs_topic, options.compression) == ("m", "l", "lz4")
    assert (options.max_buffer_bytes, options.max_record_bytes, options.spool_max_bytes) == (2**20, 10_000, 2**21)
    assert (options.spool_path, options.flush_timeout) == (str(tmp_path), 0.25)
    assert "with a blank" not in repr(options)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("COMPRESSION", "rar", "one of none, gzip, lz4, zstd"),
        ("MAX_BUFFER_BYTES", "much", "a size in bytes"),
        ("MAX_RECORD_BYTES", "10", "from 1000 bytes"),
        ("MAX_RECORD_BYTES", "1GiB", "to 100MiB"),
        ("SPOOL_MAX_BYTES", "-1", "a size in bytes"),
        ("FLUSH_TIMEOUT", "1.5", "milliseconds"),
        ("FLUSH_TIMEOUT", "600001", "to 600000"),
    ],
)
def test_a_bound_that_is_not_valid_is_told_and_its_default_taken(name: str, value: str, expected: str) -> None:
    options = read(**{name: value})
    assert options == KafkaOptions()
    assert options.usable
    (problem,) = options.problems
    assert problem.startswith(f"{PREFIX}{name}={value!r}: ")
    assert expected in problem


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"SECURITY_PROTOCOL": "TLS"}, "expected one of PLAINTEXT, SSL"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_USERNAME": "me"}, "needs"),
        ({"SASL_USERNAME": "me", "SASL_PASSWORD": "secret"}, "uses no login"),
        ({"SASL_MECHANISM": "KERBEROS"}, "expected one of PLAIN"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CAFILE": "/no/such/file"}, "there is none"),
        ({"SSL_CAFILE": __file__}, "uses no TLS"),
        ({"BOOTSTRAP_SERVERS": "a:port"}, "expected host:port"),
        ({"BOOTSTRAP_SERVERS": "a:9092,"}, "expected host:port"),
        ({"METRICS_TOPIC": "a topic"}, "letters, digits"),
    ],
)
def test_what_decides_who_may_read_has_no_substitute(settings: dict[str, str], expected: str) -> None:
    options = read(**settings)
    assert not options.usable
    assert any(expected in problem and problem.endswith("Nothing is sent to Kafka.") for problem in options.problems)
    assert "secret" not in " ".join(options.problems)
