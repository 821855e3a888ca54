"""Writes what comes from the code: parts of ``docs/``, the launcher's constants: ``python -m tests.generate_docs``.

``tests/test_docs.py`` fails where a file and the code have drifted apart.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from otel_memory import names
from otel_memory.analyzer.config import PREFIX as ANALYZER_PREFIX
from otel_memory.analyzer.config import Settings as AnalyzerSettings
from otel_memory.analyzer.suggestion_shapes import SHAPES
from otel_memory.probe.config import descriptions
from otel_memory.probe.rules import METRICS, SYNTAX
from otel_memory.probe.thresholds import BUILT_IN
from tests import event_schema, kafka_schemas

ROOT = Path(__file__).parent.parent


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
    for setting in descriptions().values():
        yield f"| `{setting.variable}` | {cell(setting.shown)} | {cell(setting.meaning)} |"
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
        "`OTEL_PYTHON_MEMORY_THRESHOLDS` holds rules with `;` between them, `OTEL_PYTHON_MEMORY_THRESHOLDS_FILE` names "
        "a file with one or several a line, in which `#` begins a comment; a list of rules in a declarative file. A "
        "rule of your own stands beside the built-in ones; one that bears the name of a built-in rule, or the "
        "variable's of one in the file, takes its place. In code: `Rule` and `add_rule`, `remove_rule`. At most 64."
    )
    yield ""
    yield "| written | means |"
    yield "|---|---|"
    for form, meaning in SYNTAX:
        yield f"| {cell(form)} | {cell(meaning)} |"
    yield ""
    yield (
        "What is read is one of "
        + ", ".join(f"`{short}` (`{metric}`)" for short, metric in METRICS.items())
        + ", or the full name of any counter, up-down counter or gauge of [conventions.md](conventions.md). Attributes "
        "in braces choose among its points, `{key=value,key=value}`; a value holds neither `,` nor a brace. Several "
        "points count as their sum, or as the highest of them where the unit is 1. Growth is the slope of a robust "
        "line (repeated medians) through the window, told once half the window is filled; one step, such as a model "
        "that is loaded, is no growth. A window holds at least twelve readings: with a long interval it is widened."
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
    yield "## Metrics that the analyzer sends"
    yield ""
    yield (
        "Of each process that it judges, in the scope `otel_memory.analyzer`, with a resource that names that process; "
        "only where `--scores-otlp-endpoint` is set ([alerts.md](alerts.md#scores-as-metrics))."
    )
    yield ""
    yield "| metric | unit | instrument | attributes | what |"
    yield "|---|---|---|---|---|"
    for metric in names.ANALYZER_METRICS.values():
        attributes = ", ".join(f"`{a}`" for a in metric.attributes) or "-"
        yield f"| `{metric.name}` | `{metric.unit}` | {metric.kind} | {attributes} | {cell(metric.description)} |"
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
    yield (
        "Log records with an event name and flat attributes, in the scope `otel_memory`. "
        "[events.schema.json](events.schema.json) has them as a JSON schema, for each line of the file and of the "
        "console. An attribute is always there unless it says that it may be absent."
    )
    for event in names.EVENTS.values():
        yield ""
        yield f"### `{event.name}`"
        yield ""
        yield event.description
        yield ""
        for name in event.attributes:
            yield f"- `{name}`{' (may be absent)' if name in event.optional else ''}"


def event_schema_page() -> Iterator[str]:
    """docs/events.schema.json."""
    yield json.dumps(event_schema.schema(), indent=1)


def kafka_page(made: Callable[[], object]) -> Callable[[], Iterator[str]]:
    """One of the documents about the topics."""

    def lines() -> Iterator[str]:
        yield json.dumps(made(), indent=1)

    return lines


def environment_variables() -> Iterator[str]:
    """otel_memory/probe/environment_variables.py: constants alone, because the launcher imports it at every start."""
    yield '"""The environment variables of the probe, one constant each, for the launcher\'s ``--help`` and flags.'
    yield ""
    yield "Made from ``config.py`` by ``python -m tests.generate_docs``. The launcher makes a command-line flag of"
    yield "every ``OTEL_*`` name in this module and fails to start when another package defines the same name. So only"
    yield "names with our own prefix may ever stand here."
    yield '"""'
    for setting in descriptions().values():
        meaning = setting.meaning[0].upper() + setting.meaning[1:]
        text = f"{meaning}. Default: {setting.shown}.".replace("`", "``")
        yield ""
        yield f'{setting.variable} = "{setting.variable}"'
        yield "\n".join(textwrap.wrap(f'"""{text}"""', 110, break_long_words=False))


def suggestions() -> Iterator[str]:
    """docs/suggestions.md."""
    yield "# Suggestions"
    yield ""
    yield "Made from the code by `python -m tests.generate_docs`."
    yield ""
    yield (
        "`GET /api/v1/suggestions`, the process view of the page and `otel-memory explain` say what could be done "
        "about memory that grows: each suggestion is tied to what was measured (a finding of the process itself, a "
        "diagnostic collection, what its memory consists of, the routes that its growth follows), has a severity and "
        "the effect to be expected, and leads to one of the shapes below."
    )
    yield ""
    yield (
        "Severity: `high` where a leaking process meets its limit within a day, or has no limit and the finding is "
        "sure; `medium` for other leaks; `low` for what is not sure yet, or would only help to see more. The same "
        "suggestion for several instances of a service is one, with all of them in it."
    )
    for shape in SHAPES.values():
        yield ""
        yield f"## {shape.name.replace('_', ' ').capitalize()}"
        yield ""
        yield f"**{shape.title}.** {shape.what}"
        yield ""
        yield f"- See that it is this: {shape.check}"
        yield f"- Mend: {shape.mend}."
        if shape.example:
            yield ""
            yield "```"
            yield shape.example
            yield "```"


PAGES = {
    "docs/suggestions.md": suggestions,
    "docs/settings.md": settings,
    "docs/conventions.md": conventions,
    "docs/events.schema.json": event_schema_page,
    "docs/memory-alerts.schema.json": kafka_page(kafka_schemas.alerts),
    "docs/memory-assessments.schema.json": kafka_page(kafka_schemas.assessments),
    "docs/kafka.asyncapi.json": kafka_page(kafka_schemas.asyncapi),
    "otel_memory/probe/environment_variables.py": environment_variables,
}


def page(name: str) -> str:
    """The text of one generated file."""
    return "\n".join(PAGES[name]()) + "\n"


def main() -> None:
    """Write every file."""
    argparse.ArgumentParser(prog="python -m tests.generate_docs", description=__doc__).parse_args()
    for name in PAGES:
        (ROOT / name).write_text(page(name), "utf-8")
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
