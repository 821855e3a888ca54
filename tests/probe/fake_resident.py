"""Resident memory that changes only when a test says so, as operations read it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from otel_memory.probe import operation, operation_wrappers
from otel_memory.probe.sources.process_readings import RAW_END


class FakeResident:
    """``read`` gives the bytes; None or an ``OSError`` is a reading that fails."""

    descriptor = -1

    def __init__(self, read: Callable[[], int | None]) -> None:
        self.rss_bytes = read

    def pread(self, _descriptor: int, _length: int, _offset: int) -> bytes:
        rss_bytes = self.rss_bytes()
        if rss_bytes is None:
            raise OSError("unreadable")
        return b"%d%b" % (rss_bytes, RAW_END)

    def rss_of(self, raw: bytes) -> int | None:
        return int(raw.removesuffix(RAW_END))


def pretend(monkeypatch: pytest.MonkeyPatch, read: Callable[[], int | None]) -> None:
    """Operations read what ``read`` gives until the test ends."""
    fake = FakeResident(read)
    monkeypatch.setattr(operation, "_RESIDENT", fake)
    monkeypatch.setattr(operation_wrappers, "_RESIDENT", fake)
    monkeypatch.setattr(operation_wrappers, "_pread", fake.pread)
