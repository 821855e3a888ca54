"""Does anything leave the process: which exporters are chosen, are they installed, does anything leave twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Final

from otel_memory.doctor.report import Finding
from otel_memory.doctor.targets import OTLP, Signal, UnsupportedProtocol, entry_points_of, exporter_names

SIGNALS: Final[tuple[Signal, ...]] = ("metrics", "logs", "traces")
CONFIG_FILE: Final = "OTEL_CONFIG_FILE"
_NOT_INSTALLED: Final = "is not installed; the SDK then sets up nothing at all"


def check_config_file(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Does a file configure the SDK instead of the environment."""
    path = environ.get(CONFIG_FILE)
    if not path:
        return
    try:
        metadata.version("opentelemetry-configuration")
    except metadata.PackageNotFoundError:
        yield Finding(CONFIG_FILE, "failure", f"{path}: opentelemetry-configuration {_NOT_INSTALLED}", MEND_CONFIG)
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        yield Finding(CONFIG_FILE, "failure", f"{path} can't be read: {error.strerror}", f"{CONFIG_FILE}=<path>")
        return
    yield Finding(
        CONFIG_FILE,
        "note",
        f"{path} configures the SDK, which then reads no other variable: exporters, endpoints and the service's name "
        "are not checked here",
    )


MEND_CONFIG: Final = "pip install opentelemetry-configuration"


def check_exporters(environ: Mapping[str, str], *, events: bool = True) -> Iterator[Finding]:
    """Each signal's exporters. One that is missing, whatever its signal, leaves the SDK without any."""
    for signal in SIGNALS:
        yield from _check(environ, signal, events=events)


def _check(environ: Mapping[str, str], signal: Signal, *, events: bool) -> Iterator[Finding]:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = exporter_names(environ, signal)
    if not names:
        how = "is none" if environ.get(variable, "").strip() else "is set to nothing, which is none"
        if signal == "metrics":
            yield Finding(variable, "failure", f"{how}: there is nothing to judge", f"{variable}=otlp")
        elif signal == "logs" and events:
            yield Finding(variable, "warning", f"{how}: threshold events are lost", f"{variable}=otlp")
        return
    try:
        chosen = entry_points_of(environ, signal)
    except UnsupportedProtocol as error:
        yield Finding(
            variable, "failure", f"{error}; the SDK then sets up nothing at all", f"{error.variable}=http/protobuf"
        )
        return
    known = {point.name for point in metadata.entry_points(group=f"opentelemetry_{signal}_exporter")}
    missing = [name for name in chosen if name not in known]
    if missing:
        yield Finding(variable, "failure", f"{', '.join(missing)} {_NOT_INSTALLED}", _mend(missing[0], variable, known))
    elif signal == "metrics" and not any(name in OTLP for name in chosen):
        yield Finding(
            variable,
            "warning",
            f"{', '.join(chosen)} alone: no analyzer gets it by OTLP",
            f"{variable}={','.join([*names, 'otlp'])}",
        )
    elif len([name for name in chosen if name in OTLP]) > 1:
        yield Finding(variable, "warning", f"{', '.join(chosen)}: the same leaves by OTLP twice", f"{variable}=otlp")
    elif signal != "traces":
        yield Finding(variable, "ok", ", ".join(chosen))


def _mend(name: str, variable: str, known: set[str]) -> str:
    if name in OTLP:
        return "pip install 'otel-memory[otlp]'"
    if name == "console":
        return "pip install opentelemetry-sdk"
    return f"{variable}=otlp (installed are: {', '.join(sorted(known)) or 'none'})"
