"""The formats of /proc: what is no such file is None or empty, never an error."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory.probe.sources import procfs
from otel_memory.probe.sources.procfs import Stat, Statm


@given(st.binary(max_size=300))
def test_no_content_is_an_error(data):
    procfs.parse_statm(data)
    procfs.parse_stat(data)
    procfs.parse_sizes(data)
    procfs.parse_stall(data)
    procfs.parse_address_space_limit(data)


@given(st.tuples(*(st.integers(1, 1 << 40) for _ in range(5))))
def test_a_statm_is_read_back(numbers):
    virtual, resident, shared, text, data = numbers
    line = f"{virtual} {resident} {shared} {text} 0 {data} 0\n".encode()
    assert procfs.parse_statm(line) == Statm(virtual, resident, shared)


@given(st.text(max_size=16).filter(lambda name: "\x00" not in name))
def test_no_name_of_a_command_shifts_the_fields(name):
    tail = " S 1 1 1 0 -1 0 11 0 22 0 1 1 0 0 20 0 33 0 44 5 6 7\n"
    assert procfs.parse_stat(f"9 ({name})".encode() + tail.encode()) == Stat(11, 22, 33, 44)


def test_sizes_are_in_bytes_and_other_lines_are_left_out():
    data = b"Name:\tVmHWM: 5 kB x\nVmHWM:\t    12 kB\nThreads:\t7\nHugePages_Total:       3\nBad:  -1 kB\n"
    assert procfs.parse_sizes(data) == {"VmHWM": 12 * 1024}
    assert procfs.parse_sizes(None) == {}


def test_stalls_are_in_seconds():
    data = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=x\nother total=1\n"
    assert procfs.parse_stall(data) == {"some": 1.5}
    assert procfs.parse_stall(None) == {}


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        (b"Max address space         1073741824           unlimited            bytes     \n", 1 << 30),
        (b"Max address space         unlimited            unlimited            bytes     \n", None),
        (b"Max address space\n", None),
        (b"Max resident set          1000                 1000                 bytes     \n", None),
    ],
)
def test_the_soft_limit_of_the_address_space(line, limit):
    assert procfs.parse_address_space_limit(b"Limit  Soft Limit  Hard Limit  Units\n" + line) == limit


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc of this process")
def test_what_this_kernel_writes_is_understood():
    assert procfs.parse_statm(procfs.read_file("/proc/self/statm")).resident > 0
    assert procfs.parse_stat(procfs.read_file("/proc/self/stat")).threads >= 1
    assert procfs.parse_sizes(procfs.read_file("/proc/self/status"))["VmHWM"] > 1 << 20
    assert procfs.parse_sizes(procfs.read_file("/proc/meminfo"))["MemTotal"] > 1 << 20
    if os.path.exists("/proc/pressure/memory"):
        assert set(procfs.parse_stall(procfs.read_file("/proc/pressure/memory"))) <= {"some", "full"}
    assert procfs.read_file("/proc/self/no-such-file") is None
