"""The probe's settings: read once from environment and arguments, validated, then frozen.

An argument wins over the environment; both take the same forms. Owns what is valid; starts nothing and logs nothing.
Every :class:`SettingsError` names the user's own setting, its value and what is expected.

A setting is one field of :class:`Settings`. From it come the environment variable, the argument, the key of the
declarative file, its row in ``docs/settings.md`` and its constant in ``environment_variables.py`` (the last two are
written by ``python -m tests.generate_docs``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from otel_memory.probe import setting_forms as forms
from otel_memory.probe.rules import Given, combine, judgeable
from otel_memory.probe.thresholds import BUILT_IN, Rule

PREFIX: Final = "OTEL_PYTHON_MEMORY_"
SDK_DISABLED: Final = "OTEL_SDK_DISABLED"


class SettingsError(ValueError):
    """A setting is wrong. ``setting`` is the name that the user wrote: a variable or an argument."""

    def __init__(self, setting: str, value: object, problem: str) -> None:
        shown = repr(value)
        super().__init__(f"{setting}={shown if len(shown) <= 200 else shown[:197] + '...'}: {problem}")
        self.setting = setting
        self.value = value


@dataclass(frozen=True, slots=True)
class Description:
    """What stands about one setting beside its value. ``key`` is the argument; the variable is its upper case."""

    key: str
    convert: Callable[[Any], Any]
    shown: str
    """The default as a user would write it."""
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.key.upper()


def _setting(key: str, default: Any, convert: Callable[[Any], Any], shown: str, meaning: str) -> Any:
    return field(default=default, metadata={"setting": Description(key, convert, shown, meaning)})


@dataclass(frozen=True, slots=True)
class Settings:
    """Valid settings. Durations are seconds, sizes bytes, levels shares of the limit."""

    enabled: bool = True
    interval_seconds: float = _setting(
        *("interval", 1.0, forms.interval(0.1, 3600), "1000"),
        "time between two readings, in milliseconds or with a unit (`500ms`, `2s`)",
    )
    slow_interval_seconds: float = _setting(
        *("slow_interval", 30.0, forms.interval(0.1, 86400), "30000"),
        "time between two readings of what is dear to read (shared and private memory, open descriptors)",
    )
    limit_bytes: int | None = _setting(
        *("limit", None, forms.size, "none"),
        "budget of the process in bytes or with a unit (`512MiB`); the narrowest of it, the container's, "
        "the resource limit and the host's memory counts",
    )
    rules: tuple[Rule, ...] = _setting(
        *("thresholds", BUILT_IN, forms.rules, "the built-in rules"),
        "threshold rules, see below; `none` switches the built-in ones off",
    )
    rules_file: Given = _setting(  # noqa: RUF009 - a field, as all the others
        *("thresholds_file", Given(), forms.rules_file, "none"),
        "file of threshold rules, one a line, `#` begins a comment; a rule of `THRESHOLDS` takes the place of one that "
        "bears its name here",
    )
    events: tuple[str, ...] = _setting(
        *("events", ("otlp",), forms.choices(("otlp", "kafka", "file", "console")), "otlp"),
        "where events go: `otlp` (the application's logger provider), `kafka`, `file` (JSON lines), `console` (one "
        "line of JSON each to standard error), several with commas; or `none`",
    )
    pressure_levels: tuple[float, float, float] = _setting(
        *("pressure_levels", (0.7, 0.85, 0.95), forms.levels, "0.7,0.85,0.95"),
        "shares of the limit from which the pressure level is medium, high, critical",
    )
    operation_log: bool = _setting(
        *("operation_log", False, forms.flag, "false"),
        "one log line for every call of a decorated operation, at level INFO",
    )
    cleanup: tuple[str, ...] = _setting(
        *("cleanup", (), forms.choices(("periodic", "critical")), "none"),
        "when memory is cleaned up by itself: `periodic` (gently), `critical` (aggressively, when a critical threshold "
        "about memory is crossed), both with a comma, or `none`",
    )
    cleanup_interval_seconds: float = _setting(
        *("cleanup_interval", 600.0, forms.interval(1, 86400), "600000"),
        "time between two periodic cleanups",
    )

    file_path: str = _setting(
        *("file_path", "otel-memory-{signal}.jsonl", forms.file_template, "otel-memory-{signal}.jsonl"),
        "file of the exporters `otlp_file` and of the events' sink `file`; a folder takes the default name; `{signal}` "
        "(`metrics`, `logs`, `traces`, `events`; put before the suffix where it is left out) and `{pid}` are replaced",
    )
    file_max_bytes: int = _setting(
        *("file_max_bytes", 10 * 2**20, forms.size, "10MiB"), "size of such a file from which it is rotated"
    )
    file_keep: int = _setting(*("file_keep", 5, forms.whole(0, 1000), "5"), "rotated files kept beside the current one")

    kafka_bootstrap_servers: str = _setting(
        *("kafka_bootstrap_servers", "localhost:9092", forms.text, "localhost:9092"),
        "Kafka's brokers as `host:port`, several with commas, for the exporters `otlp_kafka` and the events' sink "
        "`kafka`",
    )
    kafka_security_protocol: str = _setting(
        *("kafka_security_protocol", "PLAINTEXT", forms.text, "PLAINTEXT"),
        "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`",
    )
    kafka_sasl_mechanism: str = _setting(
        *("kafka_sasl_mechanism", "PLAIN", forms.text, "PLAIN"), "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`"
    )
    kafka_sasl_username: str | None = _setting(
        *("kafka_sasl_username", None, forms.text, "none"), "login at the brokers, with a protocol that has one"
    )
    kafka_sasl_password: str | None = field(
        default=None,
        repr=False,
        metadata={"setting": Description("kafka_sasl_password", forms.text, "none", "password of that login")},
    )
    kafka_ssl_cafile: str | None = _setting(
        *("kafka_ssl_cafile", None, forms.text, "none"),
        "file of the authority that signed the brokers' certificates, in PEM form; else the system's",
    )
    kafka_ssl_certfile: str | None = _setting(
        *("kafka_ssl_certfile", None, forms.text, "none"), "certificate of this client, in PEM form"
    )
    kafka_ssl_keyfile: str | None = _setting(
        *("kafka_ssl_keyfile", None, forms.text, "none"), "its private key, in PEM form"
    )
    kafka_metrics_topic: str = _setting(
        *("kafka_metrics_topic", "otlp_metrics", forms.text, "otlp_metrics"), "topic of metrics"
    )
    kafka_logs_topic: str = _setting(
        *("kafka_logs_topic", "otlp_logs", forms.text, "otlp_logs"), "topic of log records and events"
    )
    kafka_compression: str = _setting(
        *("kafka_compression", "zstd", forms.text, "zstd"), "of what is sent: `none`, `gzip`, `lz4` or `zstd`"
    )
    kafka_max_buffer_bytes: int = _setting(
        *("kafka_max_buffer_bytes", 16 * 2**20, forms.size, "16MiB"),
        "what may wait in memory for Kafka; past it the oldest metrics go first, and events last",
    )
    kafka_max_record_bytes: int = _setting(
        *("kafka_max_record_bytes", 900_000, forms.size, "900000"),
        "size above which what is sent is split into several records; at most the topic's `max.message.bytes`",
    )
    kafka_spool_path: str | None = _setting(
        *("kafka_spool_path", None, forms.text, "none"),
        "folder in which what waits for Kafka is kept instead, so that it outlives the process; several processes "
        "share it",
    )
    kafka_spool_max_bytes: int = _setting(
        *("kafka_spool_max_bytes", 64 * 2**20, forms.size, "64MiB"),
        "what one process keeps there at most; past it the newest is dropped, events last",
    )
    kafka_flush_timeout: int = _setting(
        *("kafka_flush_timeout", 5000, forms.whole(0, 600_000), "5000"),
        "how long the end of the application waits for Kafka to take the rest, in milliseconds",
    )

    diagnostic_gc: float | str | None = _setting(
        *("diagnostic_gc", None, forms.schedule_or_growth, "none"),
        "when a diagnostic garbage collection runs by itself: a time between two (`10min`), `growth` (when a threshold "
        "rule about the growth of memory is crossed), or `none`",
    )
    diagnostic_gc_file: str | None = _setting(
        *("diagnostic_gc_file", None, forms.text, "none"),
        "file to which every diagnostic run, also one called by hand, appends a line of JSON; at 4 MiB it becomes "
        "`<name>.1`",
    )

    operations: tuple[str, ...] = _setting(
        *("operations", (), forms.operations, "none"),
        "functions to measure without touching the code, from when their modules are imported: "
        "`package.module:function`, `package.module:Class.method`, `package.module:Class.*`, `package.module:*`",
    )
    live_objects: tuple[str, ...] = _setting(
        *("live_objects", (), forms.classes, "none"),
        "classes whose instances are counted: `package.module:Class`, with commas between them",
    )
    gpu: str = _setting(
        *("gpu", "auto", forms.one_of("auto", "true", "false"), "auto"),
        "memory of graphics processors: `auto` (where the application has loaded torch), `true` (by the driver, torch "
        "or not), `false`",
    )
    snapshot_interval_seconds: float = _setting(
        *("snapshot_interval", 30.0, forms.interval(0.1, 86400), "30000"),
        "time between two snapshots; no shorter than the interval",
    )
    snapshots: int = _setting(
        *("snapshots", 2880, forms.or_none(forms.whole(0, 100_000), 0), "2880"),
        "snapshots that are kept (2880 at 30 s are a day, in 144 kB); `0` or `none` takes none",
    )
    snapshot_events: bool = _setting(
        *("snapshot_events", False, forms.flag, "false"), "one event `otel_memory.snapshot` for each snapshot"
    )
    log_enrichment: bool = _setting(
        *("log_enrichment", False, forms.flag, "false"),
        "memory, change, operation and trace id on the records of the application's loggers",
    )
    packages: bool = _setting(
        *("packages", False, forms.flag, "false"),
        "what each import costs from here on, and live bytes by package while tracemalloc is on",
    )
    packages_interval_seconds: float = _setting(
        *("packages_interval", 30.0, forms.interval(0.1, 86400), "30000"),
        "time between two measurements of all packages",
    )
    packages_live_blocks: int = _setting(
        *("packages_live_blocks", 300_000, forms.whole(0, 100_000_000), "300000"),
        "traced blocks above which live bytes by package are not measured (a snapshot stops the program 0.25 µs each)",
    )

    evidence: tuple[str, ...] = _setting(
        *("evidence", ("census", "burst"), forms.choices(("census", "burst")), "census,burst"),
        "what is done to find out what grows, once memory has been growing for a while: `census` (count objects by "
        "type, find who holds the growing containers), `burst` (tracemalloc for a moment), or `none`",
    )
    evidence_window_seconds: float = _setting(
        *("evidence_window", 45.0, forms.interval(1, 86400), "45000"),
        "for how long the floor of memory must have risen before evidence is looked for",
    )
    evidence_share: float = _setting(
        *("evidence_share", 0.01, forms.share, "1%"),
        "share of the time that tracemalloc may be on while memory grows",
    )
    evidence_burst_seconds: float = _setting(
        *("evidence_burst", 1.0, forms.interval(0.1, 60), "1000"),
        "for how long one burst traces with tracemalloc, all its pieces of a fifth of a second together; between them "
        "the program has four times as long to itself",
    )
    evidence_frames: int = _setting(
        *("evidence_frames", 2, forms.whole(1, 25), "2"),
        "frames of a traceback that a burst keeps, to find the program's own line below a library's; more cost more. "
        "Where a piece of a burst saw only a library's lines, the next ones keep 12",
    )
    evidence_max_pause_seconds: float = _setting(
        *("evidence_max_pause", 0.05, forms.interval(0.001, 10), "50"),
        "longest time that one look may hold the interpreter; a process too large for it is not counted, and says so",
    )

    http: bool = _setting(
        *("http", False, forms.flag, "false"),
        "serve the endpoints of this process (`/internal/memory/…`, `/api/packages/memory/…`) on an address of its "
        "own; needs the extra `http`",
    )
    http_host: str = _setting(
        *("http_host", "127.0.0.1", forms.text, "127.0.0.1"),
        "address that the endpoints listen on; any but a loopback one demands a token",
    )
    http_port: int = _setting(
        *("http_port", 8432, forms.whole(0, 65535), "8432"),
        "port of the endpoints; where it is taken (by another worker), the next free one; `0` is any free one",
    )
    http_token: str | None = _setting(
        *("http_token", None, forms.secret, "none"),
        "token that every request has to carry: `Authorization: Bearer TOKEN`",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str], **arguments: Any) -> Settings:
        """Settings from ``environ`` and ``arguments`` (by the settings' keys; None is "not given").

        Raises:
            SettingsError: a value is not valid, or an argument is not known.
        """
        known = descriptions()
        for name, value in arguments.items():
            if name not in known:
                raise SettingsError(name, value, f"is not a setting of the probe{_did_you_mean(name, known)}")
        if environ.get(SDK_DISABLED, "").strip().lower() == "true":
            return cls(enabled=False)
        found: dict[str, Any] = {}
        written: dict[str, tuple[str, object]] = {}
        for name, description in _by_field().items():
            setting, value = description.key, arguments.get(description.key)
            if value is None:
                setting, value = description.variable, environ.get(description.variable, "").strip() or None
            if value is None:
                continue
            written[name] = setting, value
            try:
                found[name] = description.convert(value)
            except (ValueError, TypeError, OverflowError) as error:
                raise SettingsError(setting, value, str(error)) from None
        interval = found.get("interval_seconds", cls().interval_seconds)
        slow = found.setdefault("slow_interval_seconds", max(cls().slow_interval_seconds, interval))
        if slow < interval:
            raise SettingsError(
                *written["slow_interval_seconds"], f"expected at least the interval, which is {interval:g} s"
            )
        host = found.get("http_host", cls().http_host)
        if found.get("http") and not found.get("http_token") and not _is_loopback(host):
            raise SettingsError(
                *written["http_host"], f"others reach this address: expected {PREFIX}HTTP_TOKEN too, or 127.0.0.1"
            )
        try:
            rules = combine(found.get("rules_file", Given()), found.get("rules", Given()))
        except ValueError as error:
            raise SettingsError(*written.get("rules", written.get("rules_file", ("", ""))), str(error)) from None
        return cls(**{**found, "rules": tuple(judgeable(rule, interval) for rule in rules)})


def _by_field() -> dict[str, Description]:
    return {each.name: each.metadata["setting"] for each in fields(Settings) if each.metadata}


def descriptions() -> dict[str, Description]:
    """What stands about each setting, by its key, in the order of :class:`Settings`."""
    return {description.key: description for description in _by_field().values()}


def in_variables(settings: Settings) -> dict[str, str]:
    """``settings`` that are a text or a number, in the names and the forms of the environment variables."""
    return {
        description.variable: str(value)
        for name, description in _by_field().items()
        if isinstance(value := getattr(settings, name), str | int) and not isinstance(value, bool)
    }


def unknown_variables(environ: Iterable[str]) -> list[str]:
    """One sentence for each ``OTEL_PYTHON_MEMORY_*`` variable that is not a setting of this version."""
    known = {description.variable for description in descriptions().values()}
    return [
        f"{name} is not a setting of this version of otel-memory and has no effect{_did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    ]


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    # What all names begin with makes any two of them alike, so the rest is compared.
    by_rest = {each.removeprefix(PREFIX): each for each in known}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), list(by_rest), n=1, cutoff=0.75)
    return f" (did you mean {by_rest[close[0]]}?)" if close else ""


def _is_loopback(host: str) -> bool:
    from otel_memory.probe.http.access import is_loopback  # only who asks for the endpoints pays for it

    return is_loopback(host)
