"""Writes the parts of ``docs/`` that come from the code: ``python -m tests.generate_docs``.

``tests/test_docs.py`` fails where a file and the code have drifted apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from otel_memory import names
from otel_memory.analyzer.config import PREFIX as ANALYZER_PREFIX
from otel_memory.analyzer.config import Settings as AnalyzerSettings
from otel_memory.probe.config import PREFIX as PROBE_PREFIX
from otel_memory.probe.config import Configuration
from otel_memory.probe.thresholds import BUILT_IN

DOCS = Path(__file__).parent.parent / "docs"

PROBE_SETTINGS = {
    "interval": ("1000", "time between two readings, in milliseconds or with a unit (`500ms`, `2s`)"),
    "slow_interval": ("30000", "time between two readings of what is dear to read (shared and private memory)"),
    "limit": ("none", "budget of the process in bytes or with a unit (`512MiB`); the narrowest of it, the container's, "
                      "the resource limit and the host's memory counts"),
    "thresholds": ("the built-in rules", "threshold rules, see below; `none` switches them all off"),
    "events": ("otlp", "where events go: `otlp` (the application's logger provider) or `none`"),
    "pressure_levels": ("0.7,0.85,0.95", "shares of the limit from which the pressure level is medium, high, critical"),
    "operation_log": ("false", "one log line for every call of a decorated operation, at level INFO"),
}  # fmt: skip


def cell(text: object) -> str:
    """Text that is safe inside a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def settings() -> Iterator[str]:
    """docs/settings.md."""
    yield "# Settings"
    yield ""
    yield "Made from the code by `python -m tests.generate_docs`."
    yield ""
    yield "## In the process"
    yield ""
    yield (
        "Environment variables, or arguments of `MemoryInstrumentor().instrument(…)` with the name in lower case and "
        "without the prefix, or keys under `instrumentation/development: python: otel_memory:` of OpenTelemetry's "
        "declarative configuration. One that is not valid is named in the log with what was expected; the application "
        "then runs on without the probe."
    )
    yield ""
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for field in fields(Configuration):
        default, meaning = PROBE_SETTINGS[field.name]
        yield f"| `{PROBE_PREFIX}{field.name.upper()}` | {cell(default)} | {cell(meaning)} |"
    yield ""
    yield (
        "The standard variables of OpenTelemetry do what they always do: `OTEL_SDK_DISABLED`, `OTEL_METRICS_EXPORTER`, "
        "`OTEL_LOGS_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_PROTOCOL`, "
        "`OTEL_METRIC_EXPORT_INTERVAL` (ms), `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=otel_memory`."
    )
    yield ""
    yield "### Threshold rules"
    yield ""
    yield (
        "Rules are separated by `;`. `rss>512MiB` compares a reading, `rss+20%/10min` its growth in per cent over a "
        "window, `rss>5MB/s` its growth per second, `limit>85%` the share of the limit in use. A severity may follow: "
        "`rss>512MiB:critical`. A rule of your own stands beside the built-in ones; `none` first leaves those out."
    )
    yield ""
    yield "| built-in rule | metric | comparison | bound | window | severity |"
    yield "|---|---|---|---|---|---|"
    for rule in BUILT_IN:
        window = f"{rule.window_seconds:g} s" if rule.window_seconds else "-"
        bound = f"{rule.comparison} | {rule.bound:g}"
        yield f"| {cell(rule.name)} | `{rule.metric}` | {bound} | {window} | {rule.severity} |"
    yield ""
    yield "## The analyzer"
    yield ""
    yield (
        "Flags of `otel-memory serve`, over environment variables, over the TOML file that `--config FILE` or "
        f"`{ANALYZER_PREFIX}CONFIG` names (keys as the flags, with `_`), over the defaults."
    )
    yield ""
    yield "| flag | variable | default | meaning |"
    yield "|---|---|---|---|"
    for name, info in AnalyzerSettings.model_fields.items():
        default = "`$XDG_STATE_HOME/otel-memory`" if name == "data_dir" else info.get_default()
        default = {None: "none", True: "true", False: "false", (): "none"}.get(default, default)
        flag, variable = f"--{name.replace('_', '-')}", f"{ANALYZER_PREFIX}{name.upper()}"
        yield f"| `{flag}` | `{variable}` | {cell(default)} | {cell(info.description)} |"
    yield ""
    yield (
        "The reading verbs (`leaks`, `explain`) take `--url` or `OTEL_MEMORY_URL` and `--token` or `OTEL_MEMORY_TOKEN`."
    )


def conventions() -> Iterator[str]:
    """docs/conventions.md."""
    yield "# Metrics, attributes and events"
    yield ""
    yield (
        "Made from `otel_memory/names.py` by `python -m tests.generate_docs`. Names that OpenTelemetry's semantic "
        "conventions define are used as they are; our own begin with `otel_memory.`. Where contrib's system-metrics "
        "instrumentation already emits a conventional name, the probe does not emit it a second time."
    )
    yield ""
    yield "## Metrics"
    yield ""
    yield "| metric | unit | instrument | attributes | what | convention |"
    yield "|---|---|---|---|---|---|"
    for metric in names.METRICS.values():
        attributes = ", ".join(f"`{a}`" for a in metric.attributes) or "-"
        origin = "OpenTelemetry" if metric.conventional else "own"
        kind = f"`{metric.unit}` | {metric.kind}"
        yield f"| `{metric.name}` | {kind} | {attributes} | {cell(metric.description)} | {origin} |"
    yield ""
    yield "## Attributes of our own"
    yield ""
    yield "| attribute | type | what | values |"
    yield "|---|---|---|---|"
    for attribute in names.ATTRIBUTES.values():
        values = ", ".join(f"`{v}`" for v in attribute.values) or "-"
        yield f"| `{attribute.name}` | {attribute.type} | {cell(attribute.description)} | {values} |"
    yield ""
    yield "## Events"
    yield ""
    yield "Log records with an event name and flat attributes, in the scope `otel_memory`."
    for event in names.EVENTS.values():
        yield ""
        yield f"### `{event.name}`"
        yield ""
        yield event.description
        yield ""
        for name in event.attributes:
            yield f"- `{name}`"


PAGES = {"settings.md": settings, "conventions.md": conventions}


def page(name: str) -> str:
    """The text of one generated page."""
    return "\n".join(PAGES[name]()) + "\n"


def main() -> None:
    """Write every page."""
    argparse.ArgumentParser(prog="python -m tests.generate_docs", description=__doc__).parse_args()
    for name in PAGES:
        (DOCS / name).write_text(page(name), "utf-8")
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
