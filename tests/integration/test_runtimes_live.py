"""Programs of other runtimes under their own OpenTelemetry instrumentation: the leaking told from the healthy."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Analyzer, Program, wait_until
from tests.parts.recipes import CachedRecipe
from tests.parts.runtimes import PROGRAMS, GoEmitterRecipe, JavaAgentRecipe, NodeEmitterRecipe
from tests.parts.steps import require_tool

SECONDS = 180
"""For how long the programs run at most; a verdict comes after about half of it."""
MAX_HEAP_MIB = 256


def found(recipe: CachedRecipe) -> Path:
    folder = recipe.locate()
    assert folder is not None
    return folder


def java(mode: str) -> list[str]:
    agent = found(JavaAgentRecipe()) / JavaAgentRecipe.program
    program = str(PROGRAMS / "java" / "App.java")
    return [require_tool("java", ""), f"-Xmx{MAX_HEAP_MIB}m", f"-javaagent:{agent}", program, mode, str(SECONDS)]


def go(mode: str) -> list[str]:
    return [str(found(GoEmitterRecipe()) / GoEmitterRecipe.program), mode, str(SECONDS)]


def node(mode: str) -> list[str]:
    return [require_tool("node", ""), str(found(NodeEmitterRecipe()) / "app.cjs"), mode, str(SECONDS)]


@pytest.mark.slow
@pytest.mark.timeout(330)
@pytest.mark.needs("java_agent", "go_emitter", "node_emitter")
def test_leaking_programs_of_three_runtimes_are_told_from_healthy_ones(analyzer: Analyzer) -> None:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": analyzer.http_endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "GOMEMLIMIT": "512MiB",
    }
    leaking = {"java-leak", "go-leak", "node-leak"}

    def processes() -> dict[str, dict[str, Any]]:
        return {one["service_name"]: one for one in analyzer.get("/api/v1/processes")["items"]}

    with contextlib.ExitStack() as stack:
        for name, command in (("java", java), ("go", go), ("node", node)):
            for mode in ("leak", "healthy"):
                service = f"{name}-{mode}"
                env = {**settings, "OTEL_SERVICE_NAME": service}
                stack.enter_context(Program(command(mode), env=env, name=service))
        wait_until(
            lambda: {name for name, one in processes().items() if one["verdict"] == "leaking"} >= leaking,
            what="each leaking program is called leaking",
            every=1.0,
            timeout_seconds=SECONDS - 10,
        )
        known = processes()
    assert {name for name, one in known.items() if one["verdict"] == "leaking"} == leaking
    assert known.keys() == leaking | {"java-healthy", "go-healthy", "node-healthy"}
    assert (known["java-leak"]["limit_bytes"], known["java-leak"]["limit_kind"]) == (MAX_HEAP_MIB * 2**20, "jvm_heap")
    assert (known["go-leak"]["limit_bytes"], known["go-leak"]["limit_kind"]) == (512 * 2**20, "go_memory_limit")
    assert known["node-leak"]["limit_bytes"] is None
    assert known["node-leak"]["runtime"].startswith("nodejs")
    assert analyzer.get("/api/v1/leaks?threshold=0.8")["items"]
