"""The analyzer's settings: flags over environment ``OTEL_MEMORY_*`` over the file over defaults.

Each setting is one field here: its flag, its variable and its key in the file are made from its name. Frozen,
validated once; an error names the setting as the user wrote it.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from otel_memory.analyzer.alerting import AlertingSettings
from otel_memory.analyzer.api_guard import is_loopback

PREFIX: Final = "OTEL_MEMORY_"
MIB: Final = 1024 * 1024
MIN_TOKEN: Final = 8
_EVERYWHERE: Final = ("0.0.0.0", "::")
_SECRETS: Final = frozenset({"token", "alertmanager_token", "webhook_secret", "webhook_urls", "kafka_sasl_password"})
"""What no error shows. The path of a webhook's address is a secret at many services."""


class SettingsError(Exception):
    """A setting is wrong; the message names it, its value and what is expected."""


def default_data_dir() -> Path:
    """Where the analyzer keeps its data if nobody says: below ``$XDG_STATE_HOME``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "otel-memory"


def _names(given: object) -> object:
    """``a, b`` as a list; what is a list already stays one."""
    if isinstance(given, str):
        return [name.strip() for name in given.split(",") if name.strip()]
    return given


def _address(given: str) -> str:
    host = given.strip().removeprefix("[").removesuffix("]")
    if not host:
        raise ValueError("an address or a host name is expected")
    return host


def _token(given: SecretStr) -> SecretStr:
    text = given.get_secret_value()
    if len(text) < MIN_TOKEN:
        raise ValueError(f"at least {MIN_TOKEN} characters are expected")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("only ASCII without blanks can be sent in a header")
    return given


def _endpoint(given: str) -> str:
    try:
        url = urlsplit(given)
        port_is_fine = url.port != 0
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.hostname or not port_is_fine:
        raise ValueError("a URL like http://host:4318 is expected")
    return given


def _address_of(url: str) -> str:
    """What tells two addresses apart: host, port and path, without user and password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}?{parts.query}"


def _addresses(given: tuple[str, ...]) -> tuple[str, ...]:
    told = [_endpoint(url) for url in given]
    if len({_address_of(url) for url in told}) < len(told):
        raise ValueError("an address stands there twice")
    return tuple(told)


def _alertmanagers(given: tuple[str, ...]) -> tuple[str, ...]:
    # As its own documentation gives it, too.
    return _addresses(tuple(url.rstrip("/").removesuffix("/alerts").removesuffix("/api/v2") for url in given))


def _brokers(given: tuple[str, ...]) -> tuple[str, ...]:
    for broker in given:
        host, colon, port = broker.rpartition(":")
        if not (colon and host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError("HOST:PORT is expected, several with commas between them")
    return given


def _topic(given: str) -> str:
    if not (0 < len(given) <= 249 and all(one.isascii() and (one.isalnum() or one in "._-") for one in given)):
        raise ValueError("at most 249 letters, digits, '.', '_' and '-' are expected")
    return given


Bytes = Annotated[ByteSize, Field(ge=1024)]
Secret = Annotated[SecretStr, AfterValidator(_token)]
OtlpProtocol = Literal["grpc", "http/protobuf"]


class Settings(BaseSettings):
    """Settings of ``otel-memory serve``. Made by :func:`load`; by itself it takes its arguments alone."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1", description="address that every port is bound to"
    )
    http_port: int = Field(8431, ge=0, le=65535, description="port of page, REST and SSE; 0: any free one")
    otlp_grpc_port: int = Field(4317, ge=0, le=65535, description="port of OTLP over gRPC; 0: any free one")
    otlp_http_port: int = Field(4318, ge=0, le=65535, description="port of OTLP over HTTP; 0: any free one")
    data_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=default_data_dir, description="folder of the history and the alerts"
    )
    token: Secret | None = Field(None, description="bearer token that every request must carry")
    insecure_no_auth: bool = Field(False, description="allow an address other than loopback without a token")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        (), description="names by which a reverse proxy asks for the page, with commas between them"
    )
    max_body_bytes: Bytes = Field(
        ByteSize(4 * MIB), description="largest OTLP request as it comes over the wire, in bytes or like 4MiB"
    )
    max_decompressed_bytes: Bytes = Field(
        ByteSize(8 * MIB), description="largest OTLP request after decompression, in bytes or like 8MiB"
    )
    queue_bytes: Bytes = Field(
        ByteSize(128 * MIB), description="OTLP that may wait before senders are told to wait, in bytes or like 128MiB"
    )
    max_processes: int = Field(20_000, ge=1, description="processes kept in memory; the longest silent one makes room")
    idle_seconds: float = Field(3600.0, ge=1, le=604800, description="a process silent for so long is taken for gone")
    alert_for_seconds: float = Field(
        10.0, ge=0, le=86400, description="how long a leak must hold before its alert fires"
    )
    alert_cooldown_seconds: float = Field(
        300.0, ge=0, le=86400, description="how long after its end an alert can't begin again"
    )
    alert_young_seconds: float = Field(
        75.0, ge=0, le=86400, description="how long a new process is not called leaking; less where its limit is near"
    )
    page_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="where people open the page, for links in alerts; default: http://HOST:PORT"
    )
    console: bool = Field(True, description="print each change of an alert on standard output")
    console_json: bool = Field(False, description="print it as JSON, one object a line")
    alerts_otlp_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="OTLP endpoint that changes of alerts are sent to as logs"
    )
    alerts_otlp_protocol: OtlpProtocol = Field("http/protobuf", description="its protocol: grpc or http/protobuf")
    alertmanager_urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names), AfterValidator(_alertmanagers)] = (
        Field((), description="Prometheus Alertmanagers to tell of alerts, with commas between them: every instance")
    )
    alertmanager_token: Secret | None = Field(None, description="bearer token for them")
    alertmanager_repeat_seconds: float = Field(
        60.0, ge=1, le=240, description="how often they are told again of what fires"
    )
    webhook_urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names), AfterValidator(_addresses)] = Field(
        (), description="addresses that alerts are posted to as JSON, with commas between them"
    )
    webhook_secret: Secret | None = Field(None, description="key that the messages are signed with (HMAC-SHA256)")
    webhook_group_seconds: float = Field(
        5.0, ge=0, le=3600, description="how long a message waits for other alerts of the same service and version"
    )
    scores_otlp_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="OTLP endpoint that scores, growth and times to the limit are sent to as metrics"
    )
    scores_otlp_protocol: OtlpProtocol = Field("http/protobuf", description="its protocol: grpc or http/protobuf")
    scores_seconds: float = Field(15.0, ge=1, le=3600, description="how often they are sent")
    kafka_bootstrap: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names), AfterValidator(_brokers)] = Field(
        (), description="Kafka brokers as HOST:PORT, with commas between them: judge what is there, no OTLP ports"
    )
    kafka_group: Annotated[str, AfterValidator(_topic)] = Field(
        "otel-memory", description="consumer group of the analyzers that share the work"
    )
    kafka_instance: Annotated[str, AfterValidator(_topic)] | None = Field(
        None, description="this analyzer in its group, the same over restarts; default: HOSTNAME-PORT"
    )
    kafka_advertised_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="where other analyzers read this one's charts; default: http://HOST:PORT"
    )
    kafka_metrics_topic: Annotated[str, AfterValidator(_topic)] = Field(
        "otlp_metrics", description="topic of metrics (otlp_proto)"
    )
    kafka_logs_topic: Annotated[str, AfterValidator(_topic)] = Field(
        "otlp_logs", description="topic of logs (otlp_proto)"
    )
    kafka_alerts_topic: Annotated[str, AfterValidator(_topic)] = Field(
        "memory-alerts", description="topic that changes of alerts are written to"
    )
    kafka_assessments_topic: Annotated[str, AfterValidator(_topic)] = Field(
        "memory-assessments", description="compacted topic of the latest judgements"
    )
    kafka_dead_letter_topic: Annotated[str, AfterValidator(_topic)] | None = Field(
        None, description="topic for records that can't be decoded; without one they are counted and passed"
    )
    kafka_create_topics: bool = Field(False, description="make the topics that are not there")
    kafka_window_seconds: float = Field(
        21600.0, ge=600, le=604800, description="how far back a process is judged, and the log replayed"
    )
    kafka_session_seconds: float = Field(
        20.0, ge=1, le=1800, description="how long after its last sign of life an analyzer's partitions are taken over"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    kafka_sasl_username: str | None = Field(None, description="user of the login")
    kafka_sasl_password: SecretStr | None = Field(None, description="its password; better by the variable")
    kafka_ssl_cafile: FilePath | None = Field(None, description="certificates of the authorities to trust (PEM)")
    kafka_ssl_certfile: FilePath | None = Field(None, description="this client's own certificate (PEM)")
    kafka_ssl_keyfile: FilePath | None = Field(None, description="its key (PEM)")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """:func:`load` lays the sources over each other: it takes the environment as an argument."""
        return (init_settings,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not is_loopback(self.host) and self.token is None and not self.insecure_no_auth:
            raise ValueError(
                f"--host {self.host} can be reached from outside: set a token (--token or {PREFIX}TOKEN), "
                "or say --insecure-no-auth if something else keeps strangers away"
            )
        if self.queue_bytes < self.max_decompressed_bytes + 1024:
            raise ValueError(
                f"--queue-bytes {self.queue_bytes} must be 1024 more than --max-decompressed-bytes "
                f"{self.max_decompressed_bytes} at least, else the largest request could never be taken"
            )
        ports = [port for port in (self.http_port, self.otlp_grpc_port, self.otlp_http_port) if port]
        if len(set(ports)) < len(ports):
            raise ValueError("--http-port, --otlp-grpc-port and --otlp-http-port must be different ports")
        told = {"alerts_otlp_endpoint": self.alerts_otlp_endpoint, "scores_otlp_endpoint": self.scores_otlp_endpoint}
        for name, endpoint in told.items():
            if endpoint is not None and self._is_own(endpoint):
                raise ValueError(
                    f"{flag_of(name)} {endpoint} is this analyzer itself; name the place that should be told"
                )
        for secret, address in (("alertmanager_token", "alertmanager_urls"), ("webhook_secret", "webhook_urls")):
            if getattr(self, secret) is not None and not getattr(self, address):
                raise ValueError(f"{flag_of(secret)} is for nobody: name an address with {flag_of(address)}")
        self._kafka_fits_together()
        return self

    def _kafka_fits_together(self) -> None:
        login = self.kafka_security_protocol.startswith("SASL")
        if login and not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise ValueError(
                f"--kafka-security-protocol {self.kafka_security_protocol} needs --kafka-sasl-username and "
                f"{variable_of('kafka_sasl_password')}"
            )
        if self.kafka_sasl_username and not login:
            raise ValueError(
                f"--kafka-sasl-username is set, but --kafka-security-protocol {self.kafka_security_protocol} "
                "uses no login"
            )
        if self.kafka_ssl_cafile and not self.kafka_security_protocol.endswith("SSL"):
            raise ValueError(
                f"--kafka-ssl-cafile is set, but --kafka-security-protocol {self.kafka_security_protocol} uses no TLS"
            )

    def _is_own(self, endpoint: str) -> bool:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        if port not in (self.otlp_grpc_port, self.otlp_http_port, self.http_port):
            return False
        # Bound to every address, or to loopback under any of its names.
        everywhere = self.host in _EVERYWHERE
        return host == self.host or (is_loopback(host) and (everywhere or is_loopback(self.host)))

    @property
    def token_text(self) -> str | None:
        """The token in clear, for those who compare it."""
        return clear(self.token)

    @property
    def alerting(self) -> AlertingSettings:
        """What the judgement needs of them."""
        return AlertingSettings(
            for_seconds=self.alert_for_seconds,
            cooldown_seconds=self.alert_cooldown_seconds,
            young_seconds=self.alert_young_seconds,
        )

    @property
    def page_address(self) -> str | None:
        """Where people open the page, as far as that is known before it listens."""
        if self.page_url is not None:
            return self.page_url.rstrip("/")
        if self.http_port == 0 or self.host in _EVERYWHERE:
            return None
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.http_port}"


def clear(secret: SecretStr | None) -> str | None:
    """A secret in clear."""
    return None if secret is None else secret.get_secret_value()


def flag_of(name: str) -> str:
    """The flag of the field ``name``."""
    return f"--{name.replace('_', '-')}"


def variable_of(name: str) -> str:
    """The environment variable of the field ``name``."""
    return f"{PREFIX}{name.upper()}"


def _is_switch(info: FieldInfo) -> bool:
    return info.annotation is bool


def add_arguments(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """One flag for each setting whose name begins with ``prefix``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file of settings ({PREFIX}CONFIG)")
    for name, info in Settings.model_fields.items():
        if not name.startswith(prefix):
            continue
        default = info.get_default(call_default_factory=True, validated_data={})
        text = f"{info.description} ({variable_of(name)}; default: {'none' if default in (None, ()) else default})"
        # A % would be taken for a placeholder.
        text = text.replace("%", "%%")
        if _is_switch(info):
            parser.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            parser.add_argument(flag_of(name), metavar=name.rpartition("_")[2].upper(), help=text)


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings from flags (``None``: not given), environment (empty: not given) and the file that either names.

    Raises:
        SettingsError: naming the setting, its value and what is expected.
    """
    layers: list[tuple[dict[str, Any], str]] = []
    path = flags.get("config") or environ.get(f"{PREFIX}CONFIG")
    if path:
        layers.append((_read_file(Path(path)), f"{path}: "))
    from_environment = {
        name: environ[variable_of(name)] for name in Settings.model_fields if environ.get(variable_of(name))
    }
    layers.append((from_environment, PREFIX))
    layers.append(({name: value for name, value in flags.items() if value is not None and name != "config"}, "--"))
    values: dict[str, Any] = {}
    named: dict[str, str] = {}
    for layer, origin in layers:
        values.update(layer)
        for name in layer:
            named[name] = {"--": flag_of(name), PREFIX: variable_of(name)}.get(origin, f"{origin}{name}")
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, named)) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: is no TOML: {error}") from error
    unknown = sorted(set(document) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(f"{path}: {unknown[0]!r} is not a setting; known are: {', '.join(Settings.model_fields)}")
    return document


def _explain(error: ValidationError, named: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(message)
            continue
        name = str(problem["loc"][0])
        hidden = name in _SECRETS or "@" in str(problem["input"])
        value = "(not shown)" if hidden else repr(problem["input"])
        lines.append(f"{named.get(name, name)}={value}: {message[0].lower()}{message[1:]}")
    return "\n".join(lines)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from a command line and an environment; prints help and exits where asked.

    Raises:
        SettingsError: a setting is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="otel-memory serve",
        description="Run the analyzer: it takes OTLP, judges every process's memory, and shows it on a page.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    return load(vars(parser.parse_args(list(argv))), environ)
