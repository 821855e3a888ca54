"""Checks of the environment's settings: the probe's own, interval, the service's name and instance, the limit."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from otel_memory import humanize
from otel_memory.doctor.report import Finding
from otel_memory.probe.config import Settings, SettingsError, unknown_variables
from otel_memory.probe.sources.limits import LimitsReading, LimitsSource
from otel_memory.probe.sources.process import ProcessSource

DEFAULT_INTERVAL_MS: Final = 60_000.0
SUFFICIENT_SAMPLES: Final = 40
"""About how many samples a verdict takes: the fewest that are scored, and some more for the score to persist."""
SLOW_INTERVAL_SECONDS: Final = 30.0
INSTANCE: Final = "service.instance.id"


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The probe's settings; its defaults where what is set is not valid, which ``check_settings`` tells."""
    try:
        return Settings.load(environ)
    except SettingsError:
        return Settings()


def check_settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Are the probe's own settings valid."""
    for text in unknown_variables(environ):
        yield Finding("settings", "warning", text)
    try:
        settings = Settings.load(environ)
    except SettingsError as error:
        yield Finding("settings", "failure", str(error), f"correct {error.setting}; without that the probe stays off")
        return
    if not settings.enabled:
        yield Finding(
            "settings", "failure", "OTEL_SDK_DISABLED=true switches everything off", "unset OTEL_SDK_DISABLED"
        )
        return
    yield Finding(
        "settings", "ok", f"one reading every {settings.interval_seconds:g} s, {len(settings.rules)} threshold rules"
    )
    if not settings.events:
        yield Finding("events", "note", "OTEL_PYTHON_MEMORY_EVENTS=none: threshold rules are not evaluated")


def check_interval(environ: Mapping[str, str]) -> Iterator[Finding]:
    """How long a verdict will take."""
    variable = "OTEL_METRIC_EXPORT_INTERVAL"
    text = environ.get(variable, "").strip()
    try:
        milliseconds = float(text) if text else DEFAULT_INTERVAL_MS
    except ValueError:
        yield Finding(
            "interval", "warning", f"{variable}={text!r} is no number: the SDK takes 60000", f"{variable}=10000"
        )
        milliseconds = DEFAULT_INTERVAL_MS
    if not 0 < milliseconds < math.inf:
        yield Finding(
            "interval", "failure", f"{variable}={text!r}: the SDK exports nothing with that", f"{variable}=10000"
        )
        return
    seconds = milliseconds / 1000
    takes = humanize.format_duration(max(60.0, seconds * SUFFICIENT_SAMPLES))
    detail = f"one sample every {seconds:g} s: a verdict takes about {takes}"
    if seconds > SLOW_INTERVAL_SECONDS:
        yield Finding("interval", "note", detail, f"for a faster one: {variable}=10000 (milliseconds)")
    else:
        yield Finding("interval", "ok", detail)


def resource_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """What ``OTEL_RESOURCE_ATTRIBUTES`` sets, read as the SDK does."""
    pairs = (pair.partition("=") for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in pair)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def check_service(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Will people know which service it is, and its processes be told apart."""
    attributes = resource_attributes(environ)
    name = environ.get("OTEL_SERVICE_NAME") or attributes.get("service.name")
    if name:
        yield Finding("service name", "ok", name)
    else:
        yield Finding(
            "service name",
            "warning",
            "is not set: it will be called unknown_service",
            "OTEL_SERVICE_NAME=<your service>",
        )
    instance = attributes.get(INSTANCE)
    if instance:
        yield Finding(
            "instance",
            "note",
            f"{INSTANCE} is set to {instance}: every process that is started with it (but for the children that it "
            "forks) is taken for the same one",
            f"leave {INSTANCE} out of OTEL_RESOURCE_ATTRIBUTES, unless each process gets its own",
        )
    elif _sdk_makes_instances() is False:
        yield Finding(
            "instance",
            "warning",
            f"this SDK sets no {INSTANCE}: processes of one service are taken for a single one",
            "pip install --upgrade 'otel-memory[otlp]', or a service.instance.id of its own for each process",
        )


def _sdk_makes_instances() -> bool | None:
    """Whether the installed SDK gives each process an instance id of its own; None where there is no SDK."""
    try:
        resources = importlib.import_module("opentelemetry.sdk.resources")
    except ImportError:
        return None
    return hasattr(resources, "ServiceInstanceIdResourceDetector")


def read_limits(configured_bytes: int | None) -> LimitsReading:
    """The limits of this process, read as the probe does."""
    process = ProcessSource()
    try:
        return LimitsSource(process.read, configured_bytes=configured_bytes).read()
    finally:
        process.close()


def check_limit(
    environ: Mapping[str, str], read: Callable[[int | None], LimitsReading] = read_limits
) -> Iterator[Finding]:
    """Is the limit seen that will end the process."""
    reading = read(settings_of(environ).limit_bytes)
    limit, kind = reading.limit_bytes, reading.kind
    if limit is None:
        yield Finding(
            "limit", "warning", "none was found, so no time to the limit can be told", "OTEL_PYTHON_MEMORY_LIMIT=512MiB"
        )
        return
    size = humanize.format_limit(limit)
    if kind == "host":
        yield Finding(
            "limit",
            "note",
            f"{size}, the whole host: nothing narrower limits this process",
            "give the container a limit, or set a budget: OTEL_PYTHON_MEMORY_LIMIT=512MiB",
        )
    else:
        yield Finding("limit", "ok", f"{size}, set by {_KINDS.get(kind or '', str(kind))}")
    if reading.high_bytes is not None and reading.high_bytes < limit:
        high = humanize.format_limit(reading.high_bytes)
        yield Finding("limit", "note", f"above {high} (memory.high) the kernel slows the process down before it")
    others = [found for found in reading.limits if found.kind == "cgroup_v2" or found.kind == "cgroup_v1"]
    if kind == "configured" and any(found.limit_bytes > limit for found in others):
        wider = humanize.format_limit(min(found.limit_bytes for found in others))
        yield Finding("limit", "note", f"the container's own is {wider}")


_KINDS: Final = {
    "configured": "OTEL_PYTHON_MEMORY_LIMIT",
    "cgroup_v2": "the container (cgroup v2)",
    "cgroup_v1": "the container (cgroup v1)",
    "rlimit": "the resource limit of its address space (ulimit -v)",
}
