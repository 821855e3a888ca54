"""Checks of what is installed: versions against floors and each other, the launcher, the entry point, who else emits.

Reads the metadata of installed packages; imports none of them but our own probe.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from otel_memory.doctor.report import Finding
from otel_memory.version import __version__

DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
LAUNCHER: Final = "opentelemetry-instrument"
EVERYTHING: Final = "pip install 'otel-memory[otlp]'"
SYSTEM_METRICS: Final = "opentelemetry-instrumentation-system-metrics"
_ALL_EXPORTERS: Final = "opentelemetry-exporter-otlp"
_DISTRO: Final = "opentelemetry-distro"


def installed(name: str) -> str | None:
    """Version of an installed distribution, or ``None``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def disabled_instrumentations(environ: Mapping[str, str]) -> set[str]:
    """The instrumentors that the launcher is told to leave out; ``*`` is all of them."""
    return {name.strip() for name in environ.get(DISABLED, "").split(",") if name.strip()}


def check_python() -> Iterator[Finding]:
    """The interpreter and our own version."""
    yield Finding(
        "python", "ok", f"{platform.python_implementation()} {platform.python_version()}, otel-memory {__version__}"
    )


def floors(extra: str = "otlp") -> list[Requirement]:
    """What we and our extra ask of OpenTelemetry, by our own metadata, so that the floors stand in one place."""
    try:
        texts = metadata.requires("otel-memory") or []
    except metadata.PackageNotFoundError:
        return []
    requirements = [Requirement(text) for text in texts]
    return [
        r
        for r in requirements
        if r.name.startswith("opentelemetry") and (r.marker is None or r.marker.evaluate({"extra": extra}))
    ]


def check_floors() -> Iterator[Finding]:
    """Is everything of the extra ``otlp`` there, and new enough."""
    for requirement in floors():
        version = installed(requirement.name)
        wanted = f"{requirement.name}{requirement.specifier}"
        if version is None:
            yield from _absent(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                requirement.name, "failure", f"{version} is too old, {wanted} is needed", f"pip install '{wanted}'"
            )
        else:
            yield Finding(requirement.name, "ok", version)


def _absent(name: str) -> Iterator[Finding]:
    if name == _ALL_EXPORTERS:
        return  # only bundles the exporters; the check of those says which one is missing
    if name == _DISTRO:
        others = sorted(
            point.name
            for point in metadata.entry_points(group="opentelemetry_configurator")
            if not point.value.startswith("opentelemetry.distro:")
        )
        if others:
            yield Finding(name, "note", f"is not installed; {', '.join(others)} configures the SDK in its place")
            return
        yield Finding(name, "failure", "is not installed, so the launcher sets up no SDK", EVERYTHING)
        return
    yield Finding(name, "failure", "is not installed", EVERYTHING)


def check_consistency() -> Iterator[Finding]:
    """Do the installed packages of OpenTelemetry want each other as they are: the betas pin one another exactly."""
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if not name.startswith("opentelemetry"):
            continue
        for text in distribution.requires or []:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            if not requirement.name.startswith("opentelemetry"):
                continue
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = installed(requirement.name)
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                yield Finding(
                    name,
                    "warning",
                    f"{distribution.version} wants {requirement.name}{requirement.specifier}, but {version} is there",
                    f"pip install --upgrade {name} {requirement.name}",
                )


def check_launcher() -> Iterator[Finding]:
    """Is ``opentelemetry-instrument`` beside the interpreter that runs this."""
    folders = {Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))}
    if f"{os.name}_user" in sysconfig.get_scheme_names():
        folders.add(Path(sysconfig.get_path("scripts", f"{os.name}_user")))
    if any(shutil.which(LAUNCHER, path=str(folder)) for folder in folders):
        yield Finding("launcher", "ok", f"{LAUNCHER} is there")
        return
    found = shutil.which(LAUNCHER)
    if found is None:
        yield Finding("launcher", "failure", f"{LAUNCHER} is not there", EVERYTHING)
    else:
        yield Finding(
            "launcher",
            "warning",
            f"{found} belongs to another environment than {sys.executable}",
            "install the application, otel-memory[otlp] and the launcher into one environment",
        )


def check_probe(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Will the launcher load the probe."""
    found = metadata.entry_points(group="opentelemetry_instrumentor", name="otel_memory")
    disabled = disabled_instrumentations(environ)
    if not found:
        yield Finding(
            "probe", "failure", "its entry point is missing", "pip install --force-reinstall --no-deps otel-memory"
        )
    elif disabled & {"otel_memory", "*"}:
        yield Finding("probe", "failure", f"{DISABLED} switches it off", f"take otel_memory (or *) out of {DISABLED}")
    else:
        try:
            next(iter(found)).load()
        except Exception as error:
            yield Finding(
                "probe",
                "failure",
                f"can't be loaded: {type(error).__name__}: {error}",
                "pip install --force-reinstall otel-memory",
            )
        else:
            yield Finding("probe", "ok", f"{LAUNCHER} will load it")


def check_twice(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Does anything else emit what the probe emits."""
    version = installed(SYSTEM_METRICS)
    if version is None or disabled_instrumentations(environ) & {"system_metrics", "*"}:
        yield Finding("emitted twice", "ok", "nothing: the probe alone reads this process")
    else:
        yield Finding(
            "emitted twice",
            "note",
            f"nothing: {SYSTEM_METRICS} {version} is there too, and the probe leaves it the names that it emits",
            f"to save its cost (milliseconds a collection): {DISABLED}=system_metrics",
        )
