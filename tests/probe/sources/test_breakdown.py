"""What resident memory consists of: parsed, split, and held against programs whose memory is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.probe.sources import pymalloc
from otel_memory.probe.sources.breakdown import Breakdown, BreakdownFeature, CHeap, memory_breakdown, split
from otel_memory.probe.sources.pymalloc import Pymalloc
from otel_memory.probe.sources.smaps import Resident, parse

linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system has no smaps")
PARTS = ("python_used", "python_free", "c_used", "c_free", "file", "shared", "stack", "other")
MB = 1_000_000
MIB = 1024 * 1024


def mapping(
    where: str, access: str, kilobytes: int, *, anonymous: int = 0, name: str = "", flags: str = "rd wr"
) -> str:
    inode = 7 if name.startswith("/") else 0
    return (
        f"{where} {access} 00000000 fe:00 {inode}    {name}\n"
        f"Size:  {kilobytes} kB\nRss:   {kilobytes} kB\nPss: 1 kB\nAnonymous:  {anonymous} kB\nVmFlags: {flags} \n"
    )


def total(breakdown: Breakdown) -> int:
    return sum(getattr(breakdown, part) or 0 for part in PARTS)


# --- the kernel's text ---------------------------------------------------------------------------------------


def test_each_mapping_is_told_by_how_it_is_mapped() -> None:
    text = "".join(
        (
            mapping("556000000000-556000010000", "r-xp", 100, name="/usr/bin/python3"),
            mapping("556000010000-556000020000", "rw-p", 30, anonymous=20, name="/usr/lib/a library.so"),
            mapping("556000100000-556000200000", "rw-p", 500, anonymous=500, name="[heap]"),
            mapping("7eff2c000000-7eff2c021000", "rw-p", 40, anonymous=40, flags="rd wr nr"),
            mapping("7eff2c021000-7eff30000000", "---p", 0, flags="mr nr"),
            mapping("7eff38482000-7eff38483000", "---p", 0),
            mapping("7eff38483000-7eff38c83000", "rw-p", 12, anonymous=12, flags="rd wr nh"),
            mapping("7eff39c85000-7eff39ee7000", "rw-p", 1700, anonymous=1700),
            mapping("7eff40000000-7eff40002000", "rw-s", 60, name="/dev/shm/one"),
            mapping("7eff40002000-7eff40003000", "rw-s", 8, name="/memfd:two (deleted)"),
            mapping("7eff40003000-7eff40004000", "rw-s", 4, name="/dev/zero (deleted)"),
            mapping("7fff00000000-7fff00020000", "rw-p", 64, anonymous=64, name="[stack]"),
        )
    ).encode()
    kb = {name: value // 1024 for name, value in ((f, getattr(parse(text), f)) for f in Resident.__slots__)}
    assert kb == {
        "total": 2518,
        "file": 110,
        "shared": 72,
        "c_arenas": 540,
        "stacks": 76,
        "anonymous": 1720,
    }


def test_a_stack_that_grew_together_with_its_neighbour_is_not_taken_for_one() -> None:
    """Kernels before 6.7 don't mark stacks, and merge them with what is mapped after."""
    guard = mapping("7eff38482000-7eff38483000", "---p", 0)
    stack = mapping("7eff38483000-7eff38c83000", "rw-p", 12)
    merged = mapping("7eff38483000-7eff48c83000", "rw-p", 9000)
    assert parse((guard + stack).encode()).stacks == 12 * 1024
    assert parse((guard + merged).encode()).stacks == 0
    assert parse((guard + merged).encode()).anonymous == 9000 * 1024
    assert parse((guard + merged).encode(), stack_bytes=1 << 30).stacks == 9000 * 1024


def test_what_glibc_names_is_believed() -> None:
    named = mapping("1000-2000", "rw-p", 5, name="[anon: glibc: pthread stack: 12]") + mapping(
        "3000-4000", "rw-p", 6, name="[anon: glibc: malloc arena]"
    )
    assert parse(named.encode()) == Resident(total=11 * 1024, stacks=5 * 1024, c_arenas=6 * 1024)


@pytest.mark.parametrize("text", [b"", b"Rss: 12 kB\n", b"\x00\xff"])
def test_a_text_without_a_mapping_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="no mapping"):
        parse(text)


# --- the split ------------------------------------------------------------------------------------------------

sizes = st.integers(0, 1 << 40)


@given(
    resident=st.builds(lambda *parts: Resident(sum(parts), *parts), *(st.integers(0, 1 << 40) for _ in range(5))),
    python=st.none() | st.builds(lambda used, free: Pymalloc(used + free, used), sizes, sizes),
    c_heap=st.none() | st.builds(CHeap, sizes, sizes),
)
def test_the_parts_add_up_to_what_is_resident_whatever_the_allocators_claim(
    resident: Resident, python: Pymalloc | None, c_heap: CHeap | None
) -> None:
    found = split(resident, python, c_heap)
    assert total(found) == found.rss == resident.total
    assert all((getattr(found, part) or 0) >= 0 for part in PARTS)
    assert 0 <= found.error <= found.rss
    assert (found.python_used is None) == (python is None)
    assert (found.c_free is None) == (c_heap is None)


def test_what_was_handed_out_and_never_written_to_is_the_stated_error() -> None:
    resident = Resident(total=50, file=10, c_arenas=5, anonymous=35)
    found = split(resident, Pymalloc(20, 15), CHeap(arena_bytes=4, mmap_bytes=1000))
    assert (found.python_used, found.python_free, found.c_used, found.c_free) == (15, 5, 4 + 15, 1)
    assert found.other == 0
    assert found.error == 50  # 985 of the claimed bytes are not there: no more than everything


def test_an_allocator_that_does_not_tell_leaves_its_bytes_in_other() -> None:
    found = split(Resident(total=50, file=10, c_arenas=5, anonymous=35), None, None)
    assert (found.python_used, found.c_used, found.other) == (None, None, 40)
    assert found.python_fragmentation is None
    assert found.c_fragmentation is None


# --- the interpreter's own count --------------------------------------------------------------------------------


def run(code: str, **environ: str) -> Any:
    """The JSON that ``code`` prints last, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@linux
def test_the_interpreters_count_follows_what_is_allocated_and_prints_nothing() -> None:
    code = (
        "import json; from otel_memory.probe.sources import pymalloc; before = pymalloc.read();"
        "kept = [{} for _ in range(100_000)]; after = pymalloc.read(); size = kept[0].__sizeof__() + 16;"
        "print(json.dumps([before.used_bytes, after.used_bytes, after.arena_bytes, size * 100_000]))"
    )
    before, after, arenas, expected = run(code)
    assert expected * 0.9 < after - before < expected * 1.2
    assert after <= arenas


@linux
def test_asking_leaves_no_garbage_behind() -> None:
    code = (
        "import gc, json; from otel_memory.probe.sources import pymalloc; pymalloc.read(); gc.collect(); gc.disable();"
        "found = [pymalloc.read() is None for _ in range(3)]; print(json.dumps([found, gc.collect()]))"
    )
    assert run(code) == [[False] * 3, 0]


@linux
def test_an_interpreter_without_its_own_allocator_tells_nothing() -> None:
    code = "import json; from otel_memory.probe.sources import pymalloc; print(json.dumps(pymalloc.read()))"
    assert run(code, PYTHONMALLOC="malloc") is None


def test_where_the_function_is_missing_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymalloc.ctypes, "pythonapi", SimpleNamespace())
    assert pymalloc.read() is None


# --- a program whose memory is known ----------------------------------------------------------------------------

PROGRAM = """
import ctypes, gc, json, mmap, tempfile, threading
from otel_memory.probe.sources.breakdown import memory_breakdown
told = []
def tell():
    found = memory_breakdown()
    told.append(found.to_dict() | {"python_fragmentation": found.python_fragmentation,
                                   "c_fragmentation": found.c_fragmentation})
tell()
objects = [{} for _ in range(400_000)]; tell()
del objects[::2]; tell()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [libc.malloc(4000) for _ in range(20_000)]
for block in blocks: ctypes.memset(block, 1, 4000)
tell()
for block in blocks[::2]: libc.free(block)
tell()
big = bytearray(b"x") * 50_000_000; tell()
with tempfile.TemporaryFile() as file:
    file.truncate(40_000_000)
    mapped = mmap.mmap(file.fileno(), 40_000_000, access=mmap.ACCESS_READ)
    sum(mapped[i] for i in range(0, 40_000_000, 4096)); tell()
shared = mmap.mmap(-1, 30_000_000)
for i in range(0, 30_000_000, 4096): shared[i] = 1
tell()
print(json.dumps(told))
"""


@linux
@pytest.mark.skipif(not hasattr(__import__("psutil"), "heap_info"), reason="psutil can't ask this C library")
def test_every_part_of_a_real_program_is_found_within_a_twentieth() -> None:
    told = run(PROGRAM)
    changes = [{part: after[part] - before[part] for part in PARTS} for before, after in pairwise(told)]
    for found in told:
        assert sum(found[part] for part in PARTS) == found["rss"]
        assert found["error"] < 3 * MB
    objects, freed, blocks, half, big, mapped, shared = changes
    assert objects["python_used"] == pytest.approx(400_000 * 64, rel=0.05)
    assert freed["python_used"] == pytest.approx(-200_000 * 64, rel=0.05)
    assert freed["python_free"] == pytest.approx(200_000 * 64, rel=0.1)
    assert blocks["c_used"] == pytest.approx(20_000 * 4016, rel=0.05)
    assert half["c_used"] == pytest.approx(-10_000 * 4016, rel=0.05)
    assert half["c_free"] == pytest.approx(10_000 * 4016, rel=0.05)
    assert big["c_used"] == pytest.approx(50 * MB, rel=0.05)
    assert mapped["file"] == pytest.approx(40 * MB, rel=0.05)
    assert shared["shared"] == pytest.approx(30 * MB, rel=0.05)
    assert told[1]["python_fragmentation"] < 0.2 < 0.35 < told[2]["python_fragmentation"]
    assert told[3]["c_fragmentation"] < 0.1 < 0.4 < told[4]["c_fragmentation"]


@linux
def test_reading_this_process_adds_up() -> None:
    found = memory_breakdown()
    assert found is not None
    assert total(found) == found.rss
    assert found.file > 0
    assert found.stack > 0


def test_where_there_is_no_proc_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)
    assert memory_breakdown() is None


# --- the feature --------------------------------------------------------------------------------------------------


def test_it_is_measured_in_the_background_on_its_own_cadence() -> None:
    known = Breakdown(100, 10, 10, 40, 0, 20, 0, 10, 10, 0)
    submitted: list[Callable[[], object]] = []

    def submit(_part: str, job: Callable[[], object]) -> bool:
        submitted.append(job)
        return True

    around: Any = SimpleNamespace(
        settings=SimpleNamespace(slow_interval_seconds=1000.0), background=SimpleNamespace(submit=submit)
    )
    feature = BreakdownFeature(around, lambda: known)
    feature.tick(0.0)
    assert feature.latest is None
    assert feature.status() == {}
    submitted.pop()()
    assert feature.latest == known
    assert feature.status()["c_used"] == 40
    feature.tick(1.0)
    assert submitted == []
    feature.after_fork()
    assert feature.latest is None
    feature.tick(2.0)
    assert len(submitted) == 1
