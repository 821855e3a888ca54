"""Packages in real processes: real imports under the hook and without it, the launcher, a package that leaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_memory import names

BIN = Path(sys.executable).parent


def environment(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    return {**clean, **more}


def run(program: str, *launcher: str, cwd: Path | None = None, **env: str) -> str:
    argv = [*launcher, sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=110, check=False, env=environment(**env), cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def documents(text: str) -> Iterator[dict[str, Any]]:
    decoder, position = json.JSONDecoder(), 0
    while (position := text.find("{", position)) >= 0:
        document, position = decoder.raw_decode(text, position)
        yield document


# --- imports --------------------------------------------------------------------------------------------------

LOADED = """
import json, sys
def what_is_loaded():
    return sorted(
        (name, type(getattr(module.__spec__, "loader", None)).__name__, getattr(module, "__file__", None))
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("numpy", "fastapi", "pydantic", "starlette") and module.__spec__ is not None
    )
"""

PLAIN = """
import numpy, fastapi
print(json.dumps(what_is_loaded()))
"""

TRACKED = """
import importlib._bootstrap as bootstrap, time
before = bootstrap._load_unlocked, bootstrap._exec
from otel_memory import track_imports
from otel_memory.probe.reader import read_rss
rss, began = read_rss(), time.perf_counter()
with track_imports() as imports:
    import numpy, fastapi
rss, seconds = read_rss() - rss, time.perf_counter() - began
undone = (bootstrap._load_unlocked, bootstrap._exec) == before
def cost(each):
    return {"own": each.own._asdict(), "inclusive": each.inclusive._asdict()}
print(json.dumps({
    "loaded": what_is_loaded(), "undone": undone, "rss": rss, "seconds": seconds,
    "packages": {each.name: cost(each) for each in imports.packages()},
    "modules": {each.name: {**cost(each), "parent": each.parent} for each in imports.modules()},
    "total": imports.total()._asdict(), "dropped": imports.dropped,
}))
"""


@pytest.fixture(scope="module")
def tracked() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(LOADED + TRACKED))
    return found


def test_imports_under_the_hook_are_those_without_it(tracked: dict[str, Any]) -> None:
    assert tracked["loaded"] == json.loads(run(LOADED + PLAIN))
    assert len(tracked["loaded"]) > 100
    assert tracked["undone"]


def test_own_costs_add_up_to_what_the_process_grew(tracked: dict[str, Any]) -> None:
    modules, total = tracked["modules"].values(), tracked["total"]
    assert tracked["dropped"] == 0
    for size in ("rss_bytes", "heap_bytes", "blocks"):
        own = sum(each["own"][size] for each in modules)
        top = sum(each["inclusive"][size] for each in modules if each["parent"] is None)
        assert own == top == total[size] == sum(each["own"][size] for each in tracked["packages"].values())
    assert sum(each["own"]["time_seconds"] for each in modules) == pytest.approx(total["time_seconds"])
    # All that these statements did but for finding files.
    assert total["rss_bytes"] == pytest.approx(tracked["rss"], rel=0.1)
    assert 0.5 * tracked["seconds"] < total["time_seconds"] <= tracked["seconds"]


def test_what_imports_others_takes_at_least_what_they_take_within_it(tracked: dict[str, Any]) -> None:
    for each in tracked["modules"].values():
        assert each["inclusive"]["time_seconds"] >= each["own"]["time_seconds"] >= 0
    numpy, fastapi = tracked["packages"]["numpy"], tracked["packages"]["fastapi"]
    assert numpy["own"]["rss_bytes"] > 4_000_000
    assert fastapi["inclusive"]["rss_bytes"] > fastapi["own"]["rss_bytes"]
    # What FastAPI is made of counts for it as long as nobody had it before.
    assert fastapi["inclusive"]["rss_bytes"] > tracked["packages"]["pydantic"]["own"]["rss_bytes"]


# --- the launcher ---------------------------------------------------------------------------------------------


def test_the_setting_alone_gives_the_metrics_of_packages() -> None:
    program = """
    import json, tracemalloc
    tracemalloc.start()
    held = json.loads(json.dumps(["x" * 1000 + str(i) for i in range(3000)]))
    import wave, numpy, time
    from opentelemetry.metrics import get_meter_provider
    from otel_memory import get_lazy_loader
    end = time.monotonic() + 60
    loader = get_lazy_loader()
    while time.monotonic() < end and not (loader.monitor.last_live.packages or {}).get("json"):
        time.sleep(0.05)
    time.sleep(0.4)  # the sampler's next beat
    """
    text = run(
        program,
        str(BIN / "opentelemetry-instrument"),
        *("--traces_exporter", "none", "--logs_exporter", "none", "--metrics_exporter", "console"),
        OTEL_PYTHON_MEMORY_PACKAGES="true",
        OTEL_PYTHON_MEMORY_PACKAGES_INTERVAL="200",
        OTEL_PYTHON_MEMORY_INTERVAL="100",
    )
    points: dict[str, dict[str, Any]] = {}
    for document in documents(text):
        for resource in document["resource_metrics"]:
            for scope in resource["scope_metrics"]:
                for metric in scope["metrics"]:
                    for point in metric["data"]["data_points"]:
                        package = point["attributes"].get(names.PACKAGE_NAME)
                        if package:
                            points.setdefault(metric["name"], {})[package] = point["value"]
    assert points[names.PACKAGE_IMPORT_USAGE]["numpy"] > 4_000_000
    assert points[names.PACKAGE_IMPORT_INCLUSIVE]["numpy"] >= points[names.PACKAGE_IMPORT_USAGE]["numpy"]
    assert points[names.PACKAGE_IMPORT_TIME]["numpy"] > 0
    assert "wave" in points[names.PACKAGE_IMPORT_TIME]
    assert points[names.PACKAGE_LIVE_USAGE]["json"] > 3_000_000
    assert all(len(each) <= 20 for each in points.values())


def test_nothing_is_wrapped_without_the_setting_and_nothing_is_left_after_uninstrument() -> None:
    program = """
    import importlib._bootstrap as bootstrap
    before = bootstrap._load_unlocked, bootstrap._exec
    from otel_memory import MemoryInstrumentor
    MemoryInstrumentor().instrument()
    assert (bootstrap._load_unlocked, bootstrap._exec) == before
    MemoryInstrumentor().uninstrument()
    for _ in range(2):
        MemoryInstrumentor().instrument(packages=True)
        assert bootstrap._load_unlocked is not before[0]
        import wave
        MemoryInstrumentor().uninstrument()
        assert (bootstrap._load_unlocked, bootstrap._exec) == before
    print("undone")
    """
    assert run(program) == "undone\n"


# --- over time ------------------------------------------------------------------------------------------------


def test_a_package_that_leaks_is_named_with_score_trend_and_advice(tmp_path: Path) -> None:
    (tmp_path / "leaky_shop.py").write_text("seen = []\ndef order(i):\n    seen.append('x' * 50_000 + str(i))\n")
    (tmp_path / "tidy_shop.py").write_text("seen = []\ndef order(i):\n    seen[:] = ['x' * 500_000 + str(i)]\n")
    program = """
    import json, tracemalloc
    from otel_memory import get_lazy_loader
    loader = get_lazy_loader()
    tracemalloc.start()
    loader.monitor._clock = lambda: seconds
    leaky, tidy = loader.lazy("leaky_shop"), loader.lazy("tidy_shop")
    for minute in range(12):
        seconds = 60.0 * minute
        for i in range(20):
            leaky.order(i), tidy.order(i)
        loader.update_all_memory_metrics()
    print(json.dumps([
        loader.detect_memory_leaks(), loader.get_memory_usage_summary(),
        loader.get_memory_optimization_suggestions(), loader.get_package_memory_info("tidy_shop"),
    ]))
    """
    leaks, summary, suggestions, tidy = json.loads(run(program, PYTHONPATH=str(tmp_path)))
    assert [each["package_name"] for each in leaks] == ["leaky_shop"]
    assert leaks[0]["leak_score"] >= 0.9
    assert leaks[0]["memory_trend"] == "increasing"
    assert leaks[0]["memory_growth_rate"] == pytest.approx(20 * 50_000 / 60, rel=0.1)
    assert leaks[0]["current_memory_usage"] == pytest.approx(12 * 20 * 50_000, rel=0.1)
    assert [each["package_name"] for each in summary["packages_with_leaks"]] == ["leaky_shop"]
    assert (suggestions[0]["type"], suggestions[0]["package_name"]) == ("memory_leak", "leaky_shop")
    assert tidy["memory_metrics"]["memory_trend"] == "stable"
    assert tidy["memory_metrics"]["memory_leak_score"] == 0
    assert tidy["memory_metrics"]["current_memory_usage"] == pytest.approx(500_000, rel=0.2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_children_of_threads_that_import_go_on_importing() -> None:
    program = """
    import multiprocessing, sys, threading
    from otel_memory import get_lazy_loader, track_imports
    MODULES = ["wave", "email.message", "xml.dom.minidom", "csv", "sqlite3", "http.server", "xmlrpc.client"]
    tracker = track_imports()
    stop = threading.Event()
    def importing(name):
        while not stop.is_set():
            for each in (name, name + "_is_missing"):
                sys.modules.pop(each, None)
                try:
                    __import__(each)
                except ImportError:
                    pass
    def child():
        loader = get_lazy_loader()
        for name in MODULES:
            loader.load(name)
        loader.update_all_memory_metrics()
        assert loader.get_package_memory_info("wave")["is_loaded"]
    if __name__ == "__main__":
        import warnings
        warnings.simplefilter("ignore")
        get_lazy_loader()
        threads = [threading.Thread(target=importing, args=(each,)) for each in ("colorsys", "sched")]
        for thread in threads:
            thread.start()
        context = multiprocessing.get_context("fork")
        for _ in range(10):
            process = context.Process(target=child)
            process.start()
            process.join(30)
            assert process.exitcode == 0, process.exitcode
        stop.set()
        tracker.stop()
        print("well")
    """
    assert run(program).splitlines()[-1] == "well"
