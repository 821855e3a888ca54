"""The spool: in order, bounded, whole or not at all, and what becomes of it when its process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_memory.exporters import spool as spools
from otel_memory.exporters.backlog import Record
from otel_memory.exporters.spool import SPOOL_DAMAGED, SPOOL_FAILED, SPOOL_FULL, Spool, pack, unpack
from tests.harness import wait_until

EVENTS, LOGS, METRICS = range(3)


class Dropped(Counter[tuple[str, str]]):
    def __call__(self, signal: str, reason: str, items: int) -> None:
        self[signal, reason] += items


def record(lane: int, number: int, size: int = 10) -> Record:
    return Record(lane, "topic", b"k" * 16, number.to_bytes(4) + bytes(size), 3)


def numbers(spool: Spool, settle: bool = True, most: int = 10**9) -> list[int]:
    """All that it hands out, in order."""
    found: list[int] = []
    while window := spool.take(most):
        found += [int.from_bytes(each.value[:4]) for each in window.records]
        if not settle:
            break
        spool.settle(window, len(window.records))
    return found


def files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file())


@given(
    st.builds(
        Record,
        st.integers(0, 2),
        st.text("abc", max_size=9),
        st.binary(max_size=20),
        st.binary(),
        st.integers(0, 2**32 - 1),
    )
)
def test_a_record_comes_back_as_it_was(each: Record) -> None:
    data = pack(each)
    assert unpack(data) == (each, len(data))
    assert unpack(b"before" + data + b"after", 6) == (each, 6 + len(data))


@given(st.binary(max_size=60), st.data())
def test_a_record_that_was_changed_is_none(value: bytes, data: st.DataObject) -> None:
    whole = pack(Record(1, "t", b"k", value, 7))
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    assert unpack(whole[:at] + bytes([other]) + whole[at + 1 :]) is None
    assert unpack(whole[:at]) is None


def test_events_before_logs_before_metrics_each_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 2**20, Dropped())
    for number, lane in enumerate([METRICS, LOGS, EVENTS, METRICS, EVENTS, LOGS]):
        assert spool.put(record(lane, number))
    assert spool.waiting[0] == 6
    assert numbers(spool, most=1) == [2, 4, 1, 5, 0, 3]
    assert spool.waiting == (0, 0)


def test_what_is_not_settled_comes_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 2**20, Dropped())
    for number in range(5):
        spool.put(record(METRICS, number))
    window = spool.take(10**9)
    assert window is not None
    spool.settle(window, 2)
    assert numbers(spool, settle=False) == [2, 3, 4]
    assert numbers(spool) == [2, 3, 4]


def test_nothing_is_left_of_a_spool_that_was_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 2**20, Dropped())
    for number in range(50):
        spool.put(record(METRICS, number, 5000))
    assert files(tmp_path)
    assert numbers(spool) == list(range(50))
    spool.abandon("shutdown")
    assert files(tmp_path) == []


def test_it_is_for_this_user_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 2**20, Dropped())
    spool.put(record(EVENTS, 1))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "spool").rglob("*"))
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    spool.abandon("shutdown")


def test_the_bound_keeps_room_for_what_is_urgent_and_counts_what_it_refuses(tmp_path: Path) -> None:
    dropped = Dropped()
    spool = Spool(tmp_path, 1_000_000, dropped)
    kept = sum(spool.put(record(METRICS, number, 10_000)) for number in range(100))
    assert 70 <= kept <= 80
    assert dropped == {("metrics", SPOOL_FULL): 3 * (100 - kept)}
    assert all(spool.put(record(EVENTS, number, 10_000)) for number in range(100, 115))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 1_001_000
    assert numbers(spool) == [*range(100, 115), *range(kept)]
    assert spool.put(record(METRICS, 1, 10_000)), "there is room again"
    spool.abandon("shutdown")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(1, 40_000)), max_size=40))
def test_what_was_put_is_sent_or_dropped_or_waits(actions: list[tuple[bool, int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        dropped = Dropped()
        spool = Spool(Path(folder), 300_000, dropped)
        put = sent = 0
        for putting, lane, size in actions:
            if putting:
                spool.put(record(lane, put, size))
                put += 1
            elif window := spool.take(size):
                count = (len(window.records) + 1) // 2
                spool.settle(window, count)
                sent += count
            assert put == sent + dropped.total() // 3 + spool.waiting[0]
        assert put == sent + dropped.total() // 3 + len(numbers(spool))
        spool.abandon("shutdown")


# --- a disk that is not as it was ------------------------------------------------------------------------------------


def test_damage_costs_the_records_that_it_hit_and_is_counted(tmp_path: Path) -> None:
    dropped = Dropped()
    spool = Spool(tmp_path, 2**20, dropped)
    for number in range(10):
        spool.put(record(METRICS, number, 100))
    (segment,) = [path for path in files(tmp_path) if path.name.startswith("2-")]
    data = bytearray(segment.read_bytes())
    size = len(data) // 10
    data[3 * size + 50] ^= 1  # in the body of the fourth
    data[6 * size] ^= 1  # the mark of the seventh
    segment.write_bytes(data)
    assert numbers(spool) == [0, 1, 2, 4, 5, 7, 8, 9]
    assert dropped == {("metrics", SPOOL_DAMAGED): 2}
    spool.abandon("shutdown")
    assert files(tmp_path) == []


def test_a_segment_that_is_gone_or_cut_ends_nothing(tmp_path: Path) -> None:
    dropped = Dropped()
    spool = Spool(tmp_path, 2**24, dropped)
    for number in range(40):
        spool.put(record(METRICS, number, 100_000))
    segments = [path for path in files(tmp_path) if path.name.startswith("2-")]
    assert len(segments) > 3
    segments[0].unlink()
    os.truncate(segments[1], 150_000)
    found = numbers(spool)
    assert found == sorted(found)
    assert found[-1] == 39
    assert 0 < len(found) < 40
    assert dropped["metrics", SPOOL_DAMAGED] == 2
    spool.abandon("shutdown")


def test_a_folder_that_can_not_be_made_drops_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    dropped = Dropped()
    spool = Spool(tmp_path / "file" / "spool", 2**20, dropped)
    assert not spool.put(record(EVENTS, 1))
    assert dropped == {("events", SPOOL_FAILED): 3}
    assert isinstance(spool.last_error, OSError)


def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    import shutil

    spool = Spool(tmp_path / "spool", 2**20, Dropped())
    spool.put(record(EVENTS, 1))
    shutil.rmtree(tmp_path / "spool")
    spool.put(record(EVENTS, 2))
    assert spool.put(record(EVENTS, 3))
    assert numbers(spool)[-1] == 3
    spool.abandon("shutdown")


# --- the end of a process ----------------------------------------------------------------------------------------

WRITER = """
import sys, pathlib
from otel_memory.exporters.backlog import Record
from otel_memory.exporters.spool import Spool
spool = Spool(pathlib.Path(sys.argv[1]), 2**26, print)
number = 0
while True:
    assert spool.put(Record(number % 3, "topic", b"k", number.to_bytes(4) + bytes(200), 1))
    print(number, flush=True)
    number += 1
"""


def test_every_record_that_was_kept_survives_kill_9(tmp_path: Path) -> None:
    """Killed as it writes: what ``put`` had returned for is there, for exactly one of those who come next."""
    spool_path, told = tmp_path / "spool", tmp_path / "told"
    with told.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(spool_path)], stdout=output, cwd=Path.cwd()
        )
    try:
        wait_until(lambda: told.read_bytes().count(b"\n") > 2000, timeout_seconds=60, what="records in the spool")
        alive = Spool(spool_path, 2**26, Dropped())
        assert alive.adopt() == 0, "its owner lives"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = told.read_bytes().count(b"\n")
    dropped = Dropped()
    first, second = Spool(spool_path, 2**26, dropped), Spool(spool_path, 2**26, dropped)
    assert (first.adopt(), second.adopt()) == (1, 0)
    assert numbers(second) == []
    found = numbers(first)
    assert sorted(found)[:kept] == list(range(kept))
    assert len(found) in (kept, kept + 1), "the last one may have been written and not told"
    assert [number % 3 for number in found] == sorted(number % 3 for number in found), "the most urgent first"
    assert all(lane == sorted(lane) for rest in range(3) for lane in [[n for n in found if n % 3 == rest]])
    assert dropped.total() <= 1, "the one that was cut"
    for each in (first, second):
        each.abandon("shutdown")
    assert files(spool_path) == []


def test_a_successor_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    one = Spool(tmp_path, 2**20, Dropped())
    for number in range(6):
        one.put(record(LOGS, number))
    window = one.take(10**9)
    assert window is not None
    one.settle(window, 4)
    one.abandon("shutdown")
    two = Spool(tmp_path, 2**20, Dropped())
    assert two.adopt() == 1
    two.put(record(LOGS, 100))
    assert numbers(two) == [4, 5, 100], "the older folder first"
    two.abandon("shutdown")


def test_after_a_fork_the_parents_records_stay_the_parents(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 2**20, Dropped())
    spool.put(record(EVENTS, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads
        pid = os.fork()
    if not pid:
        code = 1
        try:
            spool.after_fork()
            assert spool.waiting == (0, 0)
            assert spool.adopt() == 0
            assert spool.put(record(EVENTS, 2))
            assert numbers(spool) == [2]
            spool.abandon("shutdown")
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert numbers(spool) == [1]
    spool.abandon("shutdown")
    assert files(tmp_path) == []


def test_a_folder_that_was_never_finished_is_cleared_away_once_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = tmp_path / f"{spools.NEW}1-2-3"
    unfinished.mkdir(parents=True)
    spool = Spool(tmp_path, 2**20, Dropped())
    spool.adopt()
    assert unfinished.exists()
    monkeypatch.setattr(spools, "STALE_SECONDS", -1.0)
    spool.adopt()
    assert not unfinished.exists()


def test_what_lies_about_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    spool = Spool(tmp_path, 2**20, Dropped())
    assert spool.adopt() == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "folder").is_dir()
