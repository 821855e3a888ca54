"""Asking what objects refer to never harms the interpreter that is asked."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from otel_memory.probe.referents import referents

FREED_ITERATORS = """
import _asyncio, asyncio, resource
from otel_memory.probe.referents import referents

resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))

async def waits():
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(10)]
    for number, future in enumerate(futures):
        loop.call_soon(future.set_result, number)
    return [await future for future in futures]

for _ in range(3):
    assert asyncio.run(waits()) == list(range(10))
    for _ in range(3):
        (namespace,) = referents(_asyncio)
        assert namespace is vars(_asyncio)
print("well")
"""


def test_the_free_iterators_of_asyncio_are_left_alone() -> None:
    """With ``gc.get_referents`` this ends in a MemoryError on Python 3.12.0 to 3.12.5."""
    argv = [sys.executable, "-c", FREED_ITERATORS]
    root = Path(__file__).parents[2]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=root)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


def test_a_module_refers_to_its_namespace_and_all_else_to_what_the_collector_says() -> None:
    module = ModuleType("m")
    inner: list[object] = []
    outer = [inner, {"a": inner}]
    assert referents(outer) == gc.get_referents(outer)
    assert {id(each) for each in referents(outer, module)} == {*map(id, outer), id(vars(module))}
    assert referents() == []


def test_no_module_of_the_probe_asks_the_collector_itself() -> None:
    probe = Path(__file__).parents[2] / "otel_memory" / "probe"
    asking = [path.name for path in probe.rglob("*.py") if "gc.get_referents(" in path.read_text("utf-8")]
    assert asking == ["referents.py"]
