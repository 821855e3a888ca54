"""Diagnostic collections in real programs under ``opentelemetry-instrument``: on growth, on a schedule, by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names

BIN = Path(sys.executable).parent

LEAKING = """
import gc, os, time

gc.disable()  # as programs do that found the collector slow

class Session:
    def __init__(self, user):
        self.user = user
        self.buffer = bytearray(60_000)
        self.handlers = {"close": self.on_close}

    def on_close(self):
        self.handlers.clear()

end = time.monotonic() + 40
while time.monotonic() < end and not os.path.exists(os.environ["RUNS"]):
    Session(f"secret{os.urandom(4).hex()}@example.org")
    time.sleep(0.002)
print("garbage", gc.garbage, "debug", gc.get_debug(), "enabled", gc.isenabled())
time.sleep(0.5)
"""

SCHEDULED = """
import os, time
from otel_memory import diagnostic_gc_run

def lines():
    try:
        with open(os.environ["RUNS"]) as file:
            return file.read().count("\\n")
    except OSError:
        return 0

end = time.monotonic() + 40
while time.monotonic() < end and lines() < 1:
    time.sleep(0.05)
child = os.fork()
if child == 0:
    while time.monotonic() < end and lines() < 3:
        time.sleep(0.05)
    os._exit(0)
os.waitpid(child, 0)
diagnostic_gc_run()
"""


def run(program: str, tmp_path: Path, **env: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    runs = tmp_path / "runs.jsonl"
    done = subprocess.run(
        [
            str(BIN / "opentelemetry-instrument"),
            *("--traces_exporter", "none", "--metrics_exporter", "none", "--logs_exporter", "console"),
            *(sys.executable, "-W", "ignore", "-c", program),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
        env={
            **clean,
            "RUNS": str(runs),
            "OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC_FILE": str(runs),
            "OTEL_PYTHON_MEMORY_INTERVAL": "100",
            **env,
        },
    )
    assert done.returncode == 0, done.stderr
    return done, [json.loads(line) for line in runs.read_text().splitlines()] if runs.exists() else []


def test_growth_of_a_real_program_triggers_a_run_that_names_the_cycle(tmp_path: Path) -> None:
    done, runs = run(
        LEAKING,
        tmp_path,
        OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC="growth",
        OTEL_PYTHON_MEMORY_THRESHOLDS="none; growing=rss+5%/2s",
    )
    (found,) = runs
    assert found["reason"] == "growth"
    assert "Session.handlers['close'] -> method.__self__ -> Session" in [chain["path"] for chain in found["chains"]]
    assert {"path": "method.__self__ -> Session", "count": found["holders"][0]["count"]} in found["holders"]
    sessions = next(each["count"] for each in found["types"] if each["name"] == "__main__.Session")
    assert sessions >= 20
    freed = found["before"]["heap_bytes"] - found["after"]["heap_bytes"]
    assert freed > sessions * 60_000 * 0.5, "measured"
    assert "garbage [] debug 0 enabled False" in done.stdout
    assert names.EVENT_DIAGNOSTIC_GC in done.stdout
    assert names.DIAGNOSTIC_GC_CHAINS in done.stdout
    assert "secret" not in done.stdout
    assert "secret" not in json.dumps(runs)
    assert "failed" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_schedule_goes_on_in_a_forked_child_and_runs_by_hand_are_recorded(tmp_path: Path) -> None:
    _done, runs = run(SCHEDULED, tmp_path, OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC="1s")
    assert [each["reason"] for each in runs].count("manual") == 1
    scheduled = [each for each in runs if each["reason"] == "schedule"]
    assert len(scheduled) >= 3
    assert len({each["pid"] for each in scheduled}) == 2, "parent and child"
