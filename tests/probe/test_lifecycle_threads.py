"""Threads that cannot begin, modules that are half made: the probe holds up nobody and takes neither for whole."""

from __future__ import annotations

import asyncio
import importlib
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_memory.probe import threads
from otel_memory.probe.background import Background
from otel_memory.probe.config import Settings
from otel_memory.probe.isolation import Isolated, in_thread
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.lifecycle import Probe
from otel_memory.probe.loaded import loaded
from otel_memory.probe.threads import DaemonThread


@pytest.fixture
def dies_at_birth(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each new thread ends before it has said that it has begun, as one does that finds no memory."""
    monkeypatch.setattr(threads, "START_SECONDS", 0.05)
    monkeypatch.setattr(threading.Thread, "_bootstrap", lambda _: None)
    yield
    threading._limbo.clear()  # type: ignore[attr-defined]  # where they wait for their first word


def test_a_thread_runs_its_target_as_a_daemon() -> None:
    done: list[tuple[str, bool]] = []
    thread = DaemonThread(lambda word: done.append((word, threading.current_thread().daemon)), "named", ("x",))
    thread.start()
    thread.join(30)
    assert done == [("x", True)]
    assert thread.name == "named"
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()


@pytest.mark.usefixtures("dies_at_birth")
def test_a_start_is_not_waited_for_without_bound() -> None:
    thread = DaemonThread(print, "never")
    with pytest.raises(RuntimeError, match="never has not begun"):
        thread.start()
    assert not thread.is_alive()


@pytest.mark.usefixtures("dies_at_birth")
def test_the_probe_then_does_not_run_and_leaves_nothing() -> None:
    probe = Probe(Settings(interval_seconds=60))
    with pytest.raises(RuntimeError, match="has not begun"):
        probe.start()
    assert not probe.running
    assert probe.stop()
    ledger = Ledger()
    background = Background(ledger)
    assert not background.submit("job", lambda: None)
    assert ledger.failures == {"job": 1}
    assert background.stop(5)
    isolated = Isolated(lambda: None)
    assert isolated.wait(5) == "failed"
    assert "has not begun" in isolated.error
    with pytest.raises(RuntimeError, match="has not begun"):
        asyncio.run(in_thread(time.time))


def test_a_module_counts_as_loaded_once_its_import_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import sys
        from otel_memory.probe.loaded import loaded
        seen = "half_made" in sys.modules, loaded("half_made")
    """
    (tmp_path / "half_made.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    assert loaded("half_made") is None
    module = importlib.import_module("half_made")
    try:
        assert module.seen == (True, None)
        assert loaded("half_made") is module
    finally:
        del sys.modules["half_made"]


def test_a_thread_that_was_renumbered_meanwhile_ends_without_a_word() -> None:
    """As gevent's monkey-patching does it; what an ending thread prints would come as an error of this test."""

    def renumber() -> None:
        active: dict[int, threading.Thread] = vars(threading)["_active"]
        del active[threading.get_ident()]

    thread = DaemonThread(renumber, "renumbered")
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
