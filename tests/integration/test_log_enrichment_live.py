"""Log enrichment of a real program under the launcher: JSON formatter, structlog, and OTLP logs on the console."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names
from tests.harness.process import clean_environment

BIN = Path(sys.executable).parent
PROGRAM = Path(__file__).parents[1] / "programs" / "log_app.py"
MB = 1_000_000

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the program forks")


def run(**settings: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the program wrote itself, and what left as OTLP log records."""
    environment = clean_environment(
        {
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "console",
            **settings,
        }
    )
    done = subprocess.run(
        [BIN / "opentelemetry-instrument", sys.executable, PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    own, otlp = [], []
    decoder, text = json.JSONDecoder(), done.stdout
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        (otlp if "severity_number" in document else own).append(document)
        text = text[end:]
    return own, otlp


@pytest.mark.parametrize("handler", ["contrib", "sdk"])
def test_all_three_kinds_of_records_are_enriched(handler: str) -> None:
    settings = {"OTEL_PYTHON_MEMORY_LOG_ENRICHMENT": "true"}
    if handler == "sdk":  # the SDK's own, older way; contrib's then keeps out of it
        settings["OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"] = "true"
    own, otlp = run(**settings)

    opened, taken = (each for each in own if each.get("message") in ("open", "order taken"))
    assert opened["otel_memory_rss"] > 10 * MB
    assert opened["otel_memory_operation"] is None
    assert opened["otel_memory_change"] is None
    assert taken["order"] == 7
    assert taken["otel_memory_operation"] == "take order"
    assert 19 * MB < taken["otel_memory_change"] < 60 * MB
    assert taken["otel_memory_rss"] > opened["otel_memory_rss"]
    assert len(taken["otel_memory_trace_id"]) == 32

    structured = next(each for each in own if each.get("event") == "order taken too")
    assert structured["otel_memory_operation"] == "take order"
    assert structured["otel_memory_trace_id"] == taken["otel_memory_trace_id"]
    assert structured["otel_memory_change"] > 19 * MB

    record = next(each for each in otlp if each["body"] == "order taken")
    attributes = record["attributes"]
    assert attributes[names.LOG_MEMORY_USAGE] == taken["otel_memory_rss"], "one reading, wherever it goes"
    assert attributes[names.LOG_MEMORY_DELTA] == taken["otel_memory_change"]
    assert attributes[names.OPERATION_NAME] == "take order"
    assert attributes["order"] == 7
    assert record["trace_id"] == f"0x{taken['otel_memory_trace_id']}"
    assert not any(name.startswith("otel_memory_") for name in attributes)
    assert set(next(each for each in otlp if each["body"] == "open")["attributes"]) & set(attributes) >= {
        names.LOG_MEMORY_USAGE
    }

    parent, child = (next(each for each in own if each.get("message") == who) for who in ("parent", "child"))
    assert parent["pid"] != child["pid"]
    assert child["otel_memory_rss"] > 10 * MB, "the child's own reading"


def test_without_the_setting_nothing_is_added() -> None:
    own, otlp = run()
    assert not any(name.startswith("otel_memory") for each in own if "message" in each for name in each)
    record = next(each for each in otlp if each["body"] == "order taken")
    assert not any(name.startswith("otel_memory") for name in record["attributes"])
