"""Events of real programs: in files, on the console, over forks and sudden ends, held against the published schema."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names
from otel_memory.analyzer.decode import decode
from tests.harness.event_schema import check_events

BIN = Path(sys.executable).parent

GROWS_AND_SHRINKS = """
    import time
    from otel_memory import StructuredLogger
    held = [bytearray(120_000_000)]
    time.sleep(0.6)
    held.clear()
    time.sleep(0.6)
    StructuredLogger("shop").log_memory_event("cart_dropped", "warning", items=3)
"""


def launched(folder: Path, program: str, timeout_seconds: float = 90, **env: str) -> subprocess.CompletedProcess[str]:
    """``program`` under the launcher, in ``folder``."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    return subprocess.run(
        [str(BIN / "opentelemetry-instrument"), sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
        cwd=folder,
        env={
            **clean,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_PYTHON_MEMORY_INTERVAL": "100",
            "OTEL_PYTHON_MEMORY_THRESHOLDS": "none;big=rss>100MiB",
            **env,
        },
    )


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event_name"] == name]


def test_one_event_goes_to_all_sinks_and_is_the_same_in_each(tmp_path: Path) -> None:
    done = launched(
        tmp_path,
        GROWS_AND_SHRINKS,
        OTEL_PYTHON_MEMORY_EVENTS="otlp,file,console",
        OTEL_LOGS_EXPORTER="otlp_file",
        OTEL_METRICS_EXPORTER="otlp_file",
    )
    assert done.returncode == 0, done.stderr
    sources = (tmp_path / "otel-memory-events.jsonl", tmp_path / "otel-memory-logs.jsonl", done.stderr)
    in_file, over_otlp, on_console = (check_events(source) for source in sources)
    assert [event["event_name"] for event in in_file] == [
        names.EVENT_THRESHOLD_CROSSED,
        names.EVENT_THRESHOLD_RECOVERED,
        names.EVENT_APPLICATION,
    ]
    for other in (over_otlp, on_console):
        assert [(event["event_name"], event["attributes"]) for event in other] == [
            (event["event_name"], event["attributes"]) for event in in_file
        ]
    crossed, recovered, told = in_file
    assert crossed["attributes"][names.EVENT_ID] == recovered["attributes"][names.EVENT_ID]
    assert told["attributes"]["items"] == 3
    for line in (tmp_path / "otel-memory-metrics.jsonl").read_bytes().splitlines():
        (payload,) = decode(line, "metrics", "json").payloads
        assert payload.resource["service.name"] == "shop"
        assert payload.points


EVERYTHING = """
    import pathlib, time
    from otel_memory import StructuredLogger, register_evictor, register_gauge

    FILE = pathlib.Path("otel-memory-events.jsonl")
    deadline = time.monotonic() + 75

    def until(name, act=lambda: None):
        while not (FILE.exists() and f'"{name}"' in FILE.read_text()) and time.monotonic() < deadline:
            act()
            time.sleep(0.02)

    class Order:
        def __init__(self, number):
            self.lines = [f"{number} {line}" for line in range(10)]

    orders, began = [], time.monotonic()

    def serve():
        while len(orders) < (time.monotonic() - began) * 4000:
            orders.append(Order(len(orders)))

    register_gauge("broken", lambda: 1 / 0)
    StructuredLogger("shop").log_memory_event("opened", "info", carts=3)
    until("otel_memory.error")
    until("otel_memory.http.listening")
    until("otel_memory.snapshot")
    until("otel_memory.diagnostic_gc")
    began = time.monotonic()
    until("otel_memory.evidence", serve)
    orders.clear()
    pages = {}
    register_evictor("pages", pages)
    for number in range(4500):
        pages[number] = b"x" * 100_000
    until("otel_memory.threshold.crossed")
    until("otel_memory.cleanup")
    until("otel_memory.eviction")
    until("otel_memory.threshold.recovered")
"""
OF_THE_ANALYZER = {names.EVENT_ALERT}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the evidence reads /proc")
@pytest.mark.timeout(150)
def test_one_program_tells_every_event_there_is_and_each_is_as_the_schema_says(tmp_path: Path) -> None:
    done = launched(
        tmp_path,
        EVERYTHING,
        timeout_seconds=120,
        OTEL_METRICS_EXPORTER="otlp_file",
        OTEL_METRIC_EXPORT_INTERVAL="500",
        OTEL_PYTHON_MEMORY_EVENTS="file",
        OTEL_PYTHON_MEMORY_THRESHOLDS="none;big=rss>400MiB:critical",
        OTEL_PYTHON_MEMORY_CLEANUP="critical",
        OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC="4s",
        OTEL_PYTHON_MEMORY_SNAPSHOT_INTERVAL="500",
        OTEL_PYTHON_MEMORY_SNAPSHOT_EVENTS="true",
        OTEL_PYTHON_MEMORY_EVIDENCE_WINDOW="3s",
        OTEL_PYTHON_MEMORY_EVIDENCE_BURST="200",
        OTEL_PYTHON_MEMORY_HTTP="true",
        OTEL_PYTHON_MEMORY_HTTP_PORT="0",
    )
    assert done.returncode == 0, done.stderr
    events = check_events(tmp_path / "otel-memory-events.jsonl")
    told = {event["event_name"] for event in events}
    assert told == names.EVENTS.keys() - OF_THE_ANALYZER, done.stderr
    for event in events:
        required = set(names.EVENTS[event["event_name"]].attributes) - set(names.EVENTS[event["event_name"]].optional)
        assert required <= event["attributes"].keys(), event


def test_an_event_is_in_the_file_when_the_program_is_killed_right_after(tmp_path: Path) -> None:
    """A program over its limit does not live long."""
    done = launched(
        tmp_path,
        """
        import os, pathlib, signal, time
        held = bytearray(120_000_000)
        file, deadline = pathlib.Path("otel-memory-events.jsonl"), time.monotonic() + 60
        while not (file.exists() and b"threshold.crossed" in file.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        OTEL_PYTHON_MEMORY_EVENTS="file",
    )
    assert done.returncode == -signal.SIGKILL
    (event,) = check_events(tmp_path / "otel-memory-events.jsonl")
    assert event["event_name"] == names.EVENT_THRESHOLD_CROSSED


def test_forked_processes_share_a_file_and_each_event_says_whose_it_is(tmp_path: Path) -> None:
    done = launched(
        tmp_path,
        """
        import os, sys, time
        from otel_memory import StructuredLogger
        time.sleep(0.3)
        children = []
        for number in range(4):
            pid = os.fork()
            if not pid:
                for count in range(25):
                    StructuredLogger("child").log_memory_event("x", number=number, count=count, text="x" * 300)
                sys.exit()
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
        StructuredLogger("parent").log_memory_event("x", number=-1, count=0, children=children)
        """,
        OTEL_PYTHON_MEMORY_EVENTS="file",
        OTEL_PYTHON_MEMORY_THRESHOLDS="none",
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "otel-memory-events.jsonl"
    events = named(check_events(path), names.EVENT_APPLICATION)
    told = sorted((event["attributes"]["number"], event["attributes"]["count"]) for event in events)
    assert told == sorted([(-1, 0), *((number, count) for number in range(4) for count in range(25))])
    (parent,) = [event for event in events if event["attributes"]["number"] == -1]
    pids = {event["attributes"]["number"]: str(event["attributes"][names.PROCESS_PID]) for event in events}
    assert [pids[number] for number in range(4)] == parent["attributes"]["children"]
    instances: dict[object, set[object]] = {}
    for line in path.read_bytes().splitlines():
        (payload,) = decode(line, "logs", "json").payloads
        for event in payload.events:
            instances.setdefault(event.attributes[names.PROCESS_PID], set()).add(
                payload.resource["service.instance.id"]
            )
    assert all(len(own) == 1 for own in instances.values()), "a process has one identity"
    assert len(set.union(*instances.values())) == 5, "and no two have the same"


def test_a_flood_of_application_logs_pushes_no_event_out(tmp_path: Path) -> None:
    done = launched(
        tmp_path,
        """
        import logging, time
        from opentelemetry._logs import get_logger, SeverityNumber
        from otel_memory import StructuredLogger
        StructuredLogger("shop").log_memory_event("precious")
        logger = get_logger("app")
        for number in range(20_000):
            logger.emit(body="x" * 100, severity_number=SeverityNumber.INFO)
        """,
        OTEL_PYTHON_MEMORY_EVENTS="otlp,file",
        OTEL_LOGS_EXPORTER="otlp_file",
        OTEL_PYTHON_MEMORY_FILE_MAX_BYTES="200kB",
        OTEL_PYTHON_MEMORY_FILE_KEEP="1",
    )
    assert done.returncode == 0, done.stderr
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() >= {"otel-memory-logs.jsonl", "otel-memory-logs.jsonl.1", "otel-memory-events.jsonl"}
    assert max(sizes.values()) <= 200_000
    assert len(sizes) == 3
    (event,) = check_events(tmp_path / "otel-memory-events.jsonl")
    assert event["attributes"][names.APPLICATION_EVENT_TYPE] == "precious"


def test_a_file_that_cannot_be_written_is_told_on_the_other_sink_and_harms_nobody(tmp_path: Path) -> None:
    """The failure of one sink is itself an event, once."""
    done = launched(
        tmp_path,
        "print('here', flush=True)\n" + textwrap.dedent(GROWS_AND_SHRINKS) + "print('and here')",
        OTEL_PYTHON_MEMORY_EVENTS="file,console",
        OTEL_PYTHON_MEMORY_FILE_PATH="/proc/no-such-folder/",
    )
    assert (done.returncode, done.stdout) == (0, "here\nand here\n")
    events = check_events(done.stderr)
    assert len(named(events, names.EVENT_THRESHOLD_CROSSED)) == 1
    (error,) = named(events, names.EVENT_ERROR)
    assert error["attributes"][names.PROBE_PART] == "events.file"
    assert error["attributes"][names.EXCEPTION_TYPE] == "FileNotFoundError"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "2>/dev/full"])
def test_a_program_without_standard_streams_runs_as_before(tmp_path: Path, streams: str) -> None:
    program = textwrap.dedent(GROWS_AND_SHRINKS) + "open('done', 'w').close()"
    (tmp_path / "app.py").write_text(program)
    launcher = f"exec {BIN}/opentelemetry-instrument {sys.executable} app.py {streams}"
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))},
        **dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none"),
        "OTEL_PYTHON_MEMORY_EVENTS": "console,file",
        "OTEL_PYTHON_MEMORY_INTERVAL": "100",
        "OTEL_PYTHON_MEMORY_THRESHOLDS": "none;big=rss>100MiB",
    }
    done = subprocess.run(["sh", "-c", launcher], cwd=tmp_path, env=env, timeout=60, check=False)
    assert done.returncode in (0, 120), "120: Python itself could not flush its standard error"
    assert (tmp_path / "done").exists()
    assert len(named(check_events(tmp_path / "otel-memory-events.jsonl"), names.EVENT_THRESHOLD_CROSSED)) == 1


def test_a_console_that_nobody_reads_does_not_keep_the_program_from_its_end(tmp_path: Path) -> None:
    """A full pipe blocks whoever writes into it: here the thread of that sink, and nothing else."""
    program = """
        from otel_memory import MemoryInstrumentor, StructuredLogger
        MemoryInstrumentor().instrument(events="console", thresholds="none")
        for number in range(1000):
            StructuredLogger().log_memory_event("x", text="x" * 400)
        print("done", flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        assert child.wait(60) == 0, "ended, and not by an abort of the interpreter"
        out, err = child.communicate()
        assert out == b"done\n"
        assert 0 < len(check_events(err.decode().rpartition("\n")[0])) < 1000
    finally:
        child.kill()
        child.wait()


def test_without_a_sink_of_its_own_the_probe_loads_no_sdk(tmp_path: Path) -> None:
    program = """
        import sys
        from otel_memory import MemoryInstrumentor
        MemoryInstrumentor().instrument(interval=100)
        print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))))
    """
    argv = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_sink_without_its_extra_is_named_and_the_program_runs_on(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["opentelemetry.sdk"] = None
        from otel_memory import MemoryInstrumentor
        MemoryInstrumentor().instrument(events="file")
        print("runs")
    """
    argv = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "runs\n")
    assert "OTEL_PYTHON_MEMORY_EVENTS='file'" in done.stderr
    assert "pip install 'otel-memory[otlp]'" in done.stderr


def test_the_sinks_end_with_the_probe_and_come_again(tmp_path: Path) -> None:
    program = """
        import json, threading
        from otel_memory import MemoryInstrumentor, StructuredLogger
        def threads():
            return sorted(thread.name for thread in threading.enumerate())
        before = threads()
        for number in range(3):
            MemoryInstrumentor().instrument(events="file", thresholds="none")
            assert StructuredLogger().log_memory_event("x", number=number)
            MemoryInstrumentor().uninstrument()
            assert not StructuredLogger().log_memory_event("lost")
        print(json.dumps([before, threads()]))
    """
    argv = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert before == after
    events = check_events(tmp_path / "otel-memory-events.jsonl")
    assert [event["attributes"]["number"] for event in events] == [0, 1, 2]
