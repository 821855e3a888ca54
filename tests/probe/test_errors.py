"""The exceptions: one base, bytes as the truth, readable, and whole after pickling."""

from __future__ import annotations

import builtins
import pickle

import pytest

import otel_memory
from otel_memory import EvictionError, MemoryWatchError, MonitoringError, ThresholdError, check_memory
from otel_memory.probe import guard, vitals

MIB = 1024 * 1024
EXAMPLES = [
    ThresholdError("warning", 700 * MIB, 614 * MIB),
    EvictionError(100 * MIB, 40 * MIB, ["sessions failed: OSError: disk full"]),
    EvictionError(100 * MIB, None),
    MonitoringError("not here"),
    MemoryWatchError("something"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_all_have_the_one_base_and_survive_pickling(error: MemoryWatchError) -> None:
    assert isinstance(error, MemoryWatchError)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_threshold_error_has_the_documented_fields() -> None:
    error = ThresholdError("warning", 700 * MIB, 614 * MIB)
    assert (error.threshold_type, error.current_mb, error.threshold_mb) == ("warning", 700.0, 614.0)
    assert (error.current_bytes, error.threshold_bytes) == (700 * MIB, 614 * MIB)
    assert str(error) == "memory is 700 MiB, over the threshold 'warning' of 614 MiB"


def test_an_eviction_error_has_the_documented_fields() -> None:
    error = EvictionError(100 * MIB, 40 * MIB, ["a failed", "b hangs"])
    assert (error.target_mb, error.freed_mb, error.errors) == (100.0, 40.0, ("a failed", "b hangs"))
    assert str(error) == "eviction freed 40.0 MiB of the 100 MiB asked for: a failed; b hangs"


def test_what_could_not_be_measured_is_none_and_no_zero() -> None:
    error = EvictionError(100 * MIB, None)
    assert error.freed_bytes is None
    assert error.freed_mb is None
    assert "an unknown amount" in str(error)


def test_the_face_shadows_no_builtin() -> None:
    assert not [name for name in otel_memory.__all__ if not name.startswith("__") and hasattr(builtins, name)]


def test_a_guard_raises_above_its_threshold_and_tells_the_memory_below_it() -> None:
    assert check_memory("import", threshold_bytes=1 << 50) > 5 * MIB
    with pytest.raises(ThresholdError) as caught:
        check_memory("import", threshold_bytes=2 * MIB)
    assert (caught.value.threshold_type, caught.value.threshold_mb) == ("import", 2.0)
    assert caught.value.current_bytes > 5 * MIB


def test_a_guard_knows_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_use_and_limit", lambda: (3 * MIB, 4 * MIB))
    assert check_memory(share_of_limit=0.8) == 3 * MIB
    with pytest.raises(ThresholdError) as caught:
        check_memory(share_of_limit=0.5)
    assert caught.value.threshold_bytes == 2 * MIB
    monkeypatch.setattr(guard, "_use_and_limit", lambda: (3 * MIB, None))
    with pytest.raises(MonitoringError, match="give threshold_bytes instead"):
        check_memory(share_of_limit=1)


def test_a_guard_reads_the_real_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "_own", None)
    monkeypatch.setenv("OTEL_PYTHON_MEMORY_LIMIT", "3MiB")
    with pytest.raises(ThresholdError) as caught:
        check_memory(share_of_limit=1)
    assert caught.value.threshold_bytes == 3 * MIB


def test_a_guard_that_is_asked_nonsense_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({}, {"threshold_bytes": 1, "share_of_limit": 1}, {"threshold_bytes": 0}, {"share_of_limit": 85}):
        with pytest.raises(ValueError):
            check_memory("x", **wrong)  # type: ignore[arg-type]
    monkeypatch.setattr(guard, "read_rss", lambda: None)
    with pytest.raises(MonitoringError):  # not "all is well"
        check_memory("x", threshold_bytes=1)
