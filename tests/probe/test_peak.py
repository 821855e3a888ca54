"""The kernel's resettable peak, shared between operations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_memory.probe.peak import PeakMark

MIB = 1024 * 1024


class Kernel:
    """A recorded ``/proc/self`` whose mark the test sets, and whose resets it sees."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.status = root / "self" / "status"
        self.clear_refs = root / "self" / "clear_refs"
        self.status.parent.mkdir()
        self.clear_refs.write_text("")
        self.mark(100)

    def mark(self, mib: int) -> None:
        self.status.write_text(f"Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t  {mib * 1024} kB\nVmRSS:\t  1 kB\n")

    @property
    def resets(self) -> str:
        return self.clear_refs.read_text()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


@pytest.fixture
def peaks(kernel: Kernel) -> Iterator[PeakMark]:
    peaks = PeakMark(str(kernel.root))
    yield peaks
    peaks.close()


def test_a_use_tells_the_highest_mark_since_it_began(kernel: Kernel, peaks: PeakMark) -> None:
    use = peaks.begin()
    assert use is not None
    assert kernel.resets == "5"
    kernel.mark(130)
    assert peaks.end(use) == 130 * MIB


def test_a_use_that_resets_the_mark_first_tells_the_others_what_it_was(kernel: Kernel, peaks: PeakMark) -> None:
    outer = peaks.begin()
    assert outer is not None
    kernel.mark(500)
    inner = peaks.begin()
    assert inner is not None
    kernel.mark(120)  # as the kernel does at a reset
    assert peaks.end(inner) == 120 * MIB
    assert peaks.end(outer) == 500 * MIB


def test_the_highest_mark_that_was_wiped_out_is_kept_for_the_process(kernel: Kernel, peaks: PeakMark) -> None:
    kernel.mark(700)
    use = peaks.begin()
    kernel.mark(90)
    assert use is not None
    peaks.end(use)
    assert peaks.highest == 700 * MIB


def test_where_there_is_no_mark_every_answer_is_none_and_nothing_is_tried_again(tmp_path: Path) -> None:
    peaks = PeakMark(str(tmp_path))
    assert peaks.begin() is None
    Kernel(tmp_path)
    assert peaks.begin() is None
    assert peaks.highest is None


def test_a_status_without_a_mark_is_a_gap(kernel: Kernel, peaks: PeakMark) -> None:
    kernel.status.write_text("Name:\tpython\nVmHWM:\t soon kB\n")
    assert peaks.begin() is None


def test_a_mark_that_can_not_be_reset_is_not_used(kernel: Kernel, peaks: PeakMark) -> None:
    """Without the reset it would be the peak of the process, and not of the operation."""
    kernel.clear_refs.unlink()
    kernel.clear_refs.mkdir()
    assert peaks.begin() is None


def test_after_a_fork_the_parents_uses_and_highest_are_forgotten(kernel: Kernel, peaks: PeakMark) -> None:
    parents = peaks.begin()
    peaks.reopen()
    assert peaks.highest is None
    assert parents is not None
    kernel.mark(200)
    childs = peaks.begin()
    assert childs is not None
    assert peaks.end(childs) == 200 * MIB
    assert peaks.end(parents) is None, "it belongs to another process"


def test_close_holds_nothing_open_and_may_be_called_again(kernel: Kernel) -> None:
    before = set(os.listdir("/dev/fd"))
    peaks = PeakMark(str(kernel.root))
    use = peaks.begin()
    assert use is not None
    peaks.end(use)
    peaks.close()
    peaks.close()
    assert set(os.listdir("/dev/fd")) == before
