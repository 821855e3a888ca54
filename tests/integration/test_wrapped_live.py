"""Operations named in the setting, in real programs: no line of the program knows of the probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names

BIN = Path(sys.executable).parent

JOBS = """
HELD = []

def checkout(pages):
    HELD.append(b"x" * (4_000_000 * pages))

async def refill():
    HELD.append(b"y" * 4_000_000)

class Report:
    def build(self):
        for part in range(3):
            HELD.append(b"z" * 2_000_000)
            yield part
    @classmethod
    def empty(cls):
        return cls()
"""
APP = """
import asyncio, multiprocessing
from opentelemetry import trace
from shop.jobs import Report, checkout
from shop import jobs

tracer = trace.get_tracer("app")

def child(queue):
    with tracer.start_as_current_span("in the child") as span:
        checkout(1)
        queue.put(dict(span.attributes))

if __name__ == "__main__":
    with tracer.start_as_current_span("checkout"):
        checkout(2)
    with tracer.start_as_current_span("refill"):
        asyncio.run(jobs.refill())
    with tracer.start_as_current_span("report"):
        list(Report().build())
    with tracer.start_as_current_span("empty"):
        Report.empty()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print("CHILD", __import__("json").dumps(queue.get(timeout=30)))
    process.join(30)
"""


def spans(text: str) -> Iterator[dict[str, Any]]:
    decoder, position = json.JSONDecoder(), 0
    while (position := text.find("{\n", position)) >= 0:
        document, position = decoder.raw_decode(text, position)
        yield document


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "jobs.py").write_text(JOBS)
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def run(folder: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    exporters = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "console"}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=90, check=False, cwd=folder, env={**clean, **exporters, **env}
    )


def test_spans_bear_the_memory_of_what_ran_in_them_with_no_change_of_the_code(program: Path) -> None:
    launcher = str(BIN / "opentelemetry-instrument")
    done = run(
        program,
        *(launcher, sys.executable, "app.py"),
        OTEL_PYTHON_MEMORY_OPERATIONS="shop.jobs:*,shop.jobs:Report.*",
    )
    assert done.returncode == 0, done.stderr
    child = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("CHILD"))[6:])
    found = {span["name"]: span["attributes"] for span in spans(done.stdout)}
    delta = names.OPERATION_MEMORY_DELTA
    assert found["checkout"][names.OPERATION_NAME] == "shop.jobs.checkout"
    assert found["checkout"][delta] >= 7_500_000
    assert found["refill"][names.OPERATION_NAME] == "shop.jobs.refill"
    assert found["refill"][delta] >= 1_000_000
    assert found["report"][names.OPERATION_NAME] == "shop.jobs.Report.build"
    assert found["report"][delta] >= 3_000_000
    assert found["empty"][names.OPERATION_NAME] == "shop.jobs.Report.empty"
    assert child[names.OPERATION_NAME] == "shop.jobs.checkout", "a forked process measures for itself"
    assert child[delta] >= 3_000_000


def test_a_program_whose_module_fails_sees_its_own_error_and_nothing_of_ours(program: Path) -> None:
    (program / "shop" / "jobs.py").write_text("raise LookupError('of the module')")
    launcher = str(BIN / "opentelemetry-instrument")
    done = run(program, launcher, sys.executable, "app.py", OTEL_PYTHON_MEMORY_OPERATIONS="shop.jobs:*")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "LookupError: of the module"
    assert "otel-memory" not in done.stderr


def test_instrumented_by_hand_the_modules_that_are_there_are_measured_too_until_uninstrument(program: Path) -> None:
    (program / "by_hand.py").write_text(
        "import pickle, sys\n"
        "from shop import jobs\n"
        "from otel_memory import MemoryInstrumentor\n"
        "from otel_memory.probe.operations import TABLE\n"
        "original, finders = jobs.checkout, list(sys.meta_path)\n"
        "MemoryInstrumentor().instrument(operations='shop.jobs:checkout, shop.other:f')\n"
        "assert jobs.checkout is not original\n"
        "jobs.checkout(1)\n"
        "assert pickle.loads(pickle.dumps(jobs.checkout)) is jobs.checkout\n"
        "MemoryInstrumentor().uninstrument()\n"
        "assert jobs.checkout is original\n"
        "assert sys.meta_path == finders\n"
        "print('calls', TABLE.aggregate('shop.jobs.checkout').calls)\n"
    )
    done = run(program, sys.executable, "by_hand.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "calls 1\n", "")
