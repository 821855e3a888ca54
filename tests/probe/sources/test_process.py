"""The process source on recorded trees, on this process, and on descriptors that somebody else has closed."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading

import psutil
import pytest

from otel_memory import names
from otel_memory.probe.sources.process import ProcessReading, ProcessSource, SlowReading
from otel_memory.version import __version__

MiB = 1 << 20
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc of this process")


def recorded(tree, **kwargs) -> ProcessSource:
    return ProcessSource(str(tree / "proc"), page_size=4096, ticks_per_second=100, boot_clock=lambda: 3700.5, **kwargs)


def descriptors() -> set[str]:
    """Targets of this process's descriptors, by number."""
    gc.collect()  # what other tests have left
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            continue
    return found


def statm_descriptors() -> list[int]:
    return [int(entry.split()[0]) for entry in descriptors() if entry.endswith("/statm")]


# --- recorded trees -----------------------------------------------------------------------------------------


def test_a_recorded_process_is_read_to_the_byte(trees):
    """The command's name holds blanks and parentheses; VmHWM is above the present size."""
    source = recorded(trees / "host")
    assert source.read() == ProcessReading(
        rss_bytes=9812 * 4096,
        virtual_bytes=23441 * 4096,
        peak_bytes=51200 * 1024,
        minor_faults=10482,
        major_faults=3,
        thread_count=7,
        uptime_seconds=100.5,
    )
    assert source.rss() == 9812 * 4096
    source.close()


def test_shared_and_private_come_from_smaps_rollup_and_descriptors_are_counted(trees):
    source = recorded(trees / "host")
    assert source.read_slow() == SlowReading(
        shared_bytes=(11400 + 24) * 1024, private_bytes=(1056 + 26768) * 1024, fd_count=5
    )


def test_without_smaps_rollup_shared_is_what_belongs_to_files_and_an_unreadable_count_is_none(trees):
    source = recorded(trees / "rlimit")
    assert source.read_slow() == SlowReading(3120 * 4096, (9812 - 3120) * 4096, None)


def test_slow_readings_come_at_their_cadence(trees, clock, monkeypatch):
    source = recorded(trees / "host", clock=clock, slow_interval_seconds=30.0)
    first = source.latest_slow()
    clock.now += 29.9
    assert source.latest_slow() is first
    clock.now += 30.0
    assert source.latest_slow() is not first


def test_callbacks_hand_out_one_reading_while_it_is_fresh(trees, clock):
    source = recorded(trees / "host", clock=clock, fresh_seconds=1.0)
    first = source.latest()
    clock.now += 0.9
    assert source.latest() is first
    clock.now += 0.1
    assert source.latest() is not first


@pytest.mark.parametrize(
    ("statm", "why"),
    [
        ("", "empty, as of a process that is gone"),
        ("0 0 0 0 0 0 0\n", "a zombie has no memory, which is not a memory of 0 bytes"),
        ("23441 9812 3120 702 0 14377 7\n", "dt is always 0: this is somebody else's file"),
        ("a b c d 0 f 0\n", "no numbers"),
        ("23441 9812 0\n", "too few fields, though it ends like a statm"),
    ],
)
def test_a_statm_that_is_none_is_a_gap(trees, tmp_path, statm, why):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text(statm)
    source = ProcessSource(str(tmp_path))
    reading = source.read()
    assert (reading.rss_bytes, reading.virtual_bytes, reading.peak_bytes) == (None, None, None), why
    if why.startswith("too few"):
        assert source.rss() == 9812 * os.sysconf("SC_PAGE_SIZE"), "the quick check is no more than that"
    else:
        assert source.rss() is None, why
    source.close()


def test_a_reset_mark_does_not_lower_the_peak_until_the_process_is_another(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text("100 10 1 1 0 1 0\n")
    status = tmp_path / "self" / "status"
    source = ProcessSource(str(tmp_path), page_size=4096)
    status.write_text("VmHWM:\t     200 kB\n")
    assert source.read().peak_bytes == 200 * 1024
    status.write_text("VmHWM:\t      40 kB\n")
    assert source.read().peak_bytes == 200 * 1024
    source.reopen()
    assert source.read().peak_bytes == 40 * 1024
    status.write_text("VmHWM:\t       8 kB\n")
    source.reopen()
    assert source.read().peak_bytes == 10 * 4096, "the mark lags behind what is resident now"
    source.close()


def test_metrics_of_a_recorded_process(trees, exported, gate, failures):
    source = recorded(trees / "host")
    undo = source.register(exported.meter, gate)
    points = exported.points()
    info = points.pop(names.PROCESS_INFO)
    assert points == {
        names.PROCESS_MEMORY_USAGE: {(): 9812 * 4096},
        names.PROCESS_MEMORY_VIRTUAL: {(): 23441 * 4096},
        names.PROCESS_PAGING_FAULTS: {("minor",): 10482, ("major",): 3},
        names.PROCESS_THREAD_COUNT: {(): 7},
        names.PROCESS_FD_COUNT: {(): 5},
        names.PROCESS_UPTIME: {(): 100.5},
        names.MEMORY_PEAK: {(): 51200 * 1024},
        names.MEMORY_SHARED: {(): 11424 * 1024},
        names.MEMORY_PRIVATE: {(): 27824 * 1024},
    }
    # host.name, otel_memory.version, process.pid, process.runtime.name, process.runtime.version
    ((attributes, value),) = info.items()
    assert value == 1
    assert attributes[1:] == (__version__, os.getpid(), "cpython", platform.python_version())
    assert failures == []
    undo()
    assert exported.metrics() == []


def test_what_could_not_be_read_is_left_out(trees, exported, gate, failures):
    source = recorded(trees / "rlimit")
    source.register(exported.meter, gate)
    source.close()
    assert exported.names() == [names.PROCESS_INFO]
    assert failures == []


def test_fifty_lives_on_one_meter_emit_once_each_and_leave_no_descriptor(trees, exported, gate):
    before = descriptors()
    for _ in range(50):
        source = recorded(trees / "host")
        undo = source.register(exported.meter, gate)
        assert exported.points()[names.PROCESS_MEMORY_USAGE] == {(): 9812 * 4096}
        undo()
        source.close()
        assert exported.metrics() == []
    assert descriptors() == before


# --- this process -------------------------------------------------------------------------------------------


@on_linux
def test_this_process_agrees_with_proc_and_psutil():
    source = ProcessSource()
    process = psutil.Process()
    reading, slow = source.read(), source.read_slow()
    memory = process.memory_info()
    assert reading.rss_bytes == pytest.approx(memory.rss, abs=2 * MiB)
    assert source.rss() == pytest.approx(memory.rss, abs=2 * MiB)
    assert reading.virtual_bytes == pytest.approx(memory.vms, abs=16 * MiB)
    assert reading.peak_bytes >= reading.rss_bytes
    assert reading.thread_count == process.num_threads() >= threading.active_count()
    assert reading.minor_faults > 1000
    assert slow.shared_bytes + slow.private_bytes == pytest.approx(reading.rss_bytes, abs=2 * MiB)
    assert slow.private_bytes == pytest.approx(process.memory_full_info().uss, abs=2 * MiB)
    # Process.create_time() is rounded to clock ticks, and to the wall clock.
    assert reading.uptime_seconds == pytest.approx(psutil.time.time() - process.create_time(), abs=2.0)
    source.close()


@on_linux
def test_descriptors_are_counted_alike_listed_and_by_the_directory_size():
    source = ProcessSource()
    with tempfile.TemporaryFile(), tempfile.TemporaryFile():
        true = len(os.listdir("/proc/self/fd")) - 1
        assert [source.read_slow().fd_count for _ in range(3)] == [true] * 3
    assert source.read_slow().fd_count == true - 2
    source.close()


@on_linux
def test_resident_memory_follows_an_allocation():
    source = ProcessSource()
    before = source.rss()
    block = bytearray(os.urandom(1) * (64 * MiB))
    assert source.rss() - before == pytest.approx(64 * MiB, abs=4 * MiB)
    del block
    source.close()


def test_without_proc_psutil_reads_the_same(tmp_path):
    source = ProcessSource(str(tmp_path / "missing"))
    process = psutil.Process()
    reading, slow = source.read(), source.read_slow()
    assert source.rss() == pytest.approx(process.memory_info().rss, abs=2 * MiB)
    assert reading.rss_bytes == pytest.approx(process.memory_info().rss, abs=2 * MiB)
    assert reading.virtual_bytes >= reading.rss_bytes
    assert reading.peak_bytes >= reading.rss_bytes
    assert reading.minor_faults > 1000
    assert reading.thread_count == process.num_threads()
    assert reading.uptime_seconds == pytest.approx(psutil.time.time() - process.create_time(), abs=2.0)
    assert 0 < slow.private_bytes <= reading.rss_bytes + 2 * MiB
    assert slow.fd_count == pytest.approx(process.num_fds(), abs=1)
    source.close()
    assert (source.rss(), source.read(), source.read_slow()) == (None, ProcessReading(), SlowReading())
    source.reopen()
    assert source.rss() == pytest.approx(process.memory_info().rss, abs=2 * MiB)


def test_a_process_that_is_gone_is_a_gap_and_not_an_error(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    sources = [ProcessSource(pid=child.pid), ProcessSource(str(tmp_path), pid=child.pid)]
    before = [(source.rss(), source.read().uptime_seconds) for source in sources]
    child.communicate(b"\n")
    assert all(rss > MiB and uptime < 30 for rss, uptime in before)
    for source in sources:
        assert (source.rss(), source.read(), source.read_slow()) == (None, ProcessReading(), SlowReading())
        source.close()


# --- the descriptor -----------------------------------------------------------------------------------------


@on_linux
def test_a_descriptor_that_somebody_closed_is_opened_again_once():
    source = ProcessSource()
    before = len(statm_descriptors())
    os.close(source._reader._statm.descriptor)
    assert source.rss() > MiB
    assert source.read().rss_bytes > MiB
    assert len(statm_descriptors()) == before
    source.close()


@on_linux
@pytest.mark.parametrize(
    "content",
    [b"hello, world\n", b"", b"1 2 3\n", b"23441 9812 3120 702 0 14377 0\n", None],
    ids=["text", "empty", "numbers", "another statm", "pipe"],
)
def test_a_descriptor_number_that_is_now_somebody_elses_is_neither_believed_nor_closed(tmp_path, content):
    source = ProcessSource()
    number = source._reader._statm.descriptor
    if content is None:
        theirs, write_end = os.pipe()
    else:
        (tmp_path / "theirs").write_bytes(content)
        theirs, write_end = os.open(tmp_path / "theirs", os.O_RDWR), None
    os.dup2(theirs, number)
    os.close(theirs)
    true_bytes = psutil.Process().memory_info().rss
    # A statm of another process is told by its identity, which the second's reading looks at, not each call.
    assert source.read().rss_bytes == pytest.approx(true_bytes, abs=4 * MiB)
    assert source.rss() == pytest.approx(true_bytes, abs=4 * MiB)
    source.close()
    os.fstat(number)  # still theirs: raises if it was closed
    os.close(number)
    if write_end is not None:
        os.close(write_end)


@on_linux
def test_a_collected_source_and_a_closed_one_hold_nothing_open():
    before = statm_descriptors()
    source = ProcessSource()
    assert len(statm_descriptors()) == len(before) + 1
    del source
    assert statm_descriptors() == before
    source = ProcessSource()
    source.close()
    source.close()
    assert statm_descriptors() == before
    assert (source.rss(), source.read().rss_bytes) == (None, None)
    assert statm_descriptors() == before, "reading after close() opens nothing"
    source.reopen()
    assert source.rss() > MiB
    source.close()


@on_linux
def test_the_descriptor_is_not_inherited_by_programs_and_never_takes_the_place_of_a_standard_stream():
    program = (
        "import os\n"
        "for fd in (0, 1): os.close(fd)\n"
        "from otel_memory.probe.sources.process import ProcessSource\n"
        "source = ProcessSource()\n"
        "fd = source._reader._statm.descriptor\n"
        "free = [n for n in (0, 1) if not os.path.exists(f'/proc/self/fd/{n}')]\n"
        "assert fd > 2 and free == [0, 1] and not os.get_inheritable(fd), (fd, free)\n"
        "assert source.rss() > 1 << 20\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stderr) == (0, b"")


@on_linux
def test_reading_from_many_threads_while_the_descriptor_is_closed_leaks_none():
    source = ProcessSource()
    before = len(statm_descriptors())
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            size = source.rss()
            if size is not None and not MiB < size < 1 << 40:
                wrong.append(size)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        fd = source._reader._statm.descriptor
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:
                pass
        source.read()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert source.rss() > MiB
    assert len(statm_descriptors()) == before
    source.close()


# --- forks --------------------------------------------------------------------------------------------------

FORKS = """
import json, os, sys
from otel_memory.probe.sources.process import ProcessSource

source = ProcessSource()
ballast = bytearray(b"x" * (40 << 20))
parent = source.read()
source.read_slow()
report, write = os.pipe()
child = os.fork()
if child == 0:
    if sys.argv[1] == "reopen":
        source.reopen()
    minor = source.read().minor_faults
    mine = bytearray(b"y" * (100 << 20))
    reading = source.read()
    with open("/proc/self/statm") as file:
        true = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    fds = sum(os.readlink(f"/proc/self/fd/{n}").endswith("/statm") for n in os.listdir("/proc/self/fd")
              if os.path.exists(f"/proc/self/fd/{n}"))
    pid = source._observe_info()[0].attributes["process.pid"]
    os.write(write, json.dumps({"rss": reading.rss_bytes, "call": source.rss(), "true": true, "fds": fds,
        "peak": reading.peak_bytes, "pid": pid, "own": os.getpid(), "minor": minor,
        "uptime": reading.uptime_seconds}).encode())
    os._exit(0)
os.waitpid(child, 0)
child = json.loads(os.read(report, 4096))
print(json.dumps({"parent": parent.rss_bytes, "minor": parent.minor_faults, "child": child}))
"""


@on_linux
@pytest.mark.parametrize("how", ["reopen", "forgotten"])
def test_a_forked_child_reads_itself(how):
    """``forgotten``: the hook after the fork didn't run; the reading of every second still notices."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.stderr == ""
    parent, child = (found := json.loads(done.stdout)), found["child"]
    assert child["rss"] == pytest.approx(child["true"], abs=4 * MiB)
    assert child["call"] == pytest.approx(child["true"], abs=4 * MiB)
    assert child["rss"] > parent["parent"] + 80 * MiB
    assert child["peak"] >= child["rss"]
    assert child["pid"] == child["own"]
    assert child["uptime"] < 30
    assert child["fds"] == 1, "the parent's descriptor is closed, not kept beside the new one"
    assert child["minor"] < 5000 < parent["minor"], "faults are the child's own"


def test_a_peak_that_somebody_wiped_out_is_still_the_peak() -> None:
    """An operation that asks for its own peak resets the kernel's mark between two readings."""
    wiped: list[int | None] = [None]
    source = ProcessSource(wiped_peak=lambda: wiped[0])
    kernel = source.peak_bytes()
    assert kernel is not None
    wiped[0] = kernel + 512 * MiB
    assert source.peak_bytes() == kernel + 512 * MiB
    source.close()
