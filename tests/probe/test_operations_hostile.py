"""Tracked operations where nobody expects them: in finalizers, signal handlers, dying interpreters and daemons."""

from __future__ import annotations

import contextlib
import dis
import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from otel_memory import names
from otel_memory.probe import operation
from otel_memory.probe.operations import TABLE, MemoryTracker, monitor_memory
from otel_memory.probe.traced import SharedTracing


@pytest.fixture(autouse=True)
def fresh_table() -> Iterator[None]:
    TABLE.reset_after_fork()
    yield
    assert TABLE.running == {}
    TABLE.failed = 0


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider.get_tracer("test")
    provider.shutdown()


def calls(name: str) -> int:
    return TABLE.aggregate(name).calls


@pytest.mark.parametrize(
    ("name", "told"), [("caf\udce9", "caf\\udce9"), (None, "None"), (7, "7"), ("n" * 600, "n" * 511 + "…")]
)
def test_a_name_is_a_text_that_every_exporter_can_send(name: Any, told: str, tracer: Tracer) -> None:
    with tracer.start_as_current_span("request") as span, MemoryTracker(name):
        pass
    assert calls(told) == 1
    assert cast("Any", span).attributes[names.OPERATION_NAME] == told


def test_a_log_handler_that_is_tracked_itself_is_called_once_a_line(caplog: pytest.LogCaptureFixture) -> None:
    lines = []

    class Handler(logging.Handler):
        @monitor_memory(name="handler", log_level="INFO")
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    caplog.set_level("INFO")
    logging.getLogger().addHandler(handler := Handler())
    try:
        logging.getLogger("shop").info("sold")
        with MemoryTracker("sale", log_level="INFO"):
            pass
    finally:
        logging.getLogger().removeHandler(handler)
    assert [line.split(" | ")[:2] for line in lines] == [["sold"], ["MEMORY", "handler"], ["MEMORY", "sale"]]
    assert calls("handler") == 3


def test_leaving_a_tracker_that_was_never_entered_does_nothing() -> None:
    MemoryTracker("never").__exit__(None, None, None)
    assert calls("never") == 0


def test_a_finalizer_inside_the_spans_own_lock_does_not_wait_for_itself(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection may start while the SDK holds a span's lock, and a finalizer in it may call what is decorated."""
    monkeypatch.setattr(operation, "SPAN_WAIT_SECONDS", 0.01)

    class Node:
        def __init__(self) -> None:
            self.ring = self

        @monitor_memory(name="finalizer")
        def __del__(self) -> None:
            return

    with tracer.start_as_current_span("request") as span:
        assert hasattr(span, "_lock"), "the SDK's span has changed: look for its lock anew"
        Node()
        with span._lock:
            gc.collect()
        assert calls("finalizer") == 1
        assert TABLE.failed == 1, "what couldn't be put on the span is counted"
        monitor_memory(name="later")(lambda: None)()
        attributes: Any = span.attributes  # type: ignore[attr-defined]
        assert attributes[names.OPERATION_NAME] == "later"


def test_a_signal_handler_inside_the_spans_own_lock_does_not_wait_for_itself(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation, "SPAN_WAIT_SECONDS", 0.01)
    handler = monitor_memory(name="handler")(lambda *_: None)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with tracer.start_as_current_span("request") as span, span._lock:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls("handler") == 1


def test_a_lock_that_another_thread_holds_for_a_moment_costs_no_attributes(tracer: Tracer) -> None:
    held, give_back = threading.Event(), threading.Event()
    with tracer.start_as_current_span("request") as span:

        def hold() -> None:
            with span._lock:  # type: ignore[attr-defined]
                held.set()
                give_back.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        threading.Timer(0.01, give_back.set).start()
        monitor_memory(name="patient")(lambda: None)()
        thread.join()
        attributes: Any = span.attributes  # type: ignore[attr-defined]
        assert attributes[names.OPERATION_NAME] == "patient"


def test_a_span_of_another_sdk_needs_no_lock() -> None:
    from opentelemetry import trace

    class Span(trace.NonRecordingSpan):
        def __init__(self) -> None:
            super().__init__(trace.INVALID_SPAN_CONTEXT)
            self.put: dict[str, Any] = {}

        def is_recording(self) -> bool:
            return True

        def set_attributes(self, attributes: Any) -> None:
            self.put.update(attributes)

    span = Span()
    with trace.use_span(span):
        monitor_memory(name="mine")(lambda: None)()
    assert span.put[names.OPERATION_NAME] == "mine"


def test_an_abandoned_generator_that_a_collection_ends_touches_no_span(tracer: Tracer) -> None:
    """The span that happens to be current then is somebody else's."""

    @monitor_memory(name="abandoned")
    def generate(keep: list[object]) -> Iterator[int]:
        keep.append(keep)
        yield 1

    ring: list[object] = []
    running = generate(ring)
    next(running)
    ring.append(running)
    del ring, running
    with tracer.start_as_current_span("bystander") as span:
        gc.collect()
        assert calls("abandoned") == 1
        assert span.attributes == {}  # type: ignore[attr-defined]


def test_an_error_in_a_finalizer_is_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @monitor_memory(name="broken")
        def __del__(self) -> None:
            raise ValueError("in the finalizer")

    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append((told.exc_type, str(told.exc_value))))
    Broken()
    assert seen == [(ValueError, "in the finalizer")]
    assert TABLE.aggregate("broken").errors == 1


def test_a_finalizer_in_the_middle_of_the_shared_tracing_does_not_wait_for_itself() -> None:
    tracing = SharedTracing()
    with tracing._lock:
        use = tracing.begin()
        assert tracing.end(use) is not None


# --- in an interpreter of its own ---------------------------------------------------------------------------------


def run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def test_an_interpreter_that_shuts_down_still_runs_what_is_decorated() -> None:
    """Objects that outlive the modules call decorated methods when the probe's globals are gone."""
    done = run("""
        import sys
        from otel_memory import MemoryTracker, monitor_memory

        class Late:
            def __init__(self, name):
                self.name = name
                self.out = sys.__stdout__
                self.tracker = MemoryTracker("late")
            @monitor_memory
            def close(self):
                with self.tracker:
                    self.out.write(self.name + " closed\\n")
                    self.out.flush()
            def __del__(self):
                self.close()

        sys.kept = Late("sys")
        import builtins
        builtins.kept = Late("builtins")
        import otel_memory.probe.operation as o, otel_memory.probe.operation_wrappers as w
        o.kept, w.kept = Late("operation"), Late("wrappers")
    """)
    assert done.returncode == 0
    assert done.stderr == ""
    assert sorted(done.stdout.split(" closed\n")[:-1]) == ["builtins", "operation", "sys", "wrappers"]


def test_a_daemon_thread_in_an_operation_does_not_disturb_the_end() -> None:
    done = run("""
        import threading, time
        from otel_memory import monitor_memory

        @monitor_memory
        def forever():
            while True:
                time.sleep(0.001)
                work()
        @monitor_memory
        def work(): pass
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.05)
    """)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("flags", [["-O"], ["-OO"], ["-X", "dev", "-W", "error"], ["-I"]])
def test_interpreter_flags_change_nothing(flags: list[str]) -> None:
    if flags == ["-I"]:
        pytest.importorskip("otel_memory")
    done = run(
        """
        import sys
        sys.path.insert(0, ".")
        import asyncio
        from otel_memory import MemoryTracker, monitor_memory
        from otel_memory.probe.operations import TABLE

        @monitor_memory
        def function(): return 1
        @monitor_memory
        def generator():
            yield 2
        @monitor_memory(trace_malloc=True, peak=True)
        async def coroutine():
            await asyncio.sleep(0)
            async with MemoryTracker("block") as tracker: pass
            return 3
        print(function(), *generator(), asyncio.run(coroutine()), TABLE.failed, sum(a.calls for a in TABLE._called()))
        """,
        *flags,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["1", "2", "3", "0", "4"]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel has no resettable peak")
def test_a_daemon_that_closes_every_descriptor_finds_its_own_files_untouched(tmp_path: Path) -> None:
    """The number of a descriptor that was kept may be a file of the application's by now."""
    path = tmp_path / "precious"
    path.write_text("precious")
    done = run(f"""
        import os
        from otel_memory import MemoryTracker
        from otel_memory.probe.operations import PEAK, TABLE

        def peak():
            with MemoryTracker("x", peak=True): pass

        peak()
        os.closerange(3, 256)
        mine = [os.open({str(path)!r}, os.O_RDWR) for _ in range(20)]
        peak()
        use = PEAK.begin()
        print(PEAK.end(use) is not None, TABLE.failed)
        PEAK.reopen()
        assert all(os.fstat(fd).st_size == 8 for fd in mine)
    """)
    assert done.stderr == ""
    assert done.stdout.split() == ["True", "0"]
    assert path.read_text() == "precious"


def test_ctrl_c_in_the_middle_of_an_operation_leaves_nothing_open() -> None:
    @monitor_memory(name="interrupted")
    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), MemoryTracker("outer"):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (calls("interrupted"), calls("outer")) == (1, 1)


# --- broken off anywhere ------------------------------------------------------------------------------------------


class Interrupter:
    """Raises ``KeyboardInterrupt`` once, where the interpreter may do so in the probe's code for operations: after the
    beginning of a function, after a call, and where a loop goes round; ``at`` is the number of such places to pass."""

    PLACES = ("RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD")

    def __init__(self, at: int) -> None:
        self.left = at
        self.last: dict[FrameType, str] = {}
        self.seen = ""

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Any:
        code = frame.f_code
        if not code.co_filename.endswith(("probe/operation.py", "probe/operation_wrappers.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last, self.last[frame] = self.last.get(frame, ""), dis.opname[code.co_code[frame.f_lasti]]
            if last in self.PLACES and self.last[frame] != "PUSH_EXC_INFO":  # a call that raised isn't such a place
                self.left -= 1
                if self.left == 0:
                    self.seen = f"{code.co_qualname}, line {frame.f_lineno}"
                    raise KeyboardInterrupt
        return self


def _function() -> None:
    monitor_memory(name="broken off")(lambda: None)()


def _nested() -> None:
    inner = monitor_memory(name="inner")(lambda: None)
    monitor_memory(name="broken off")(lambda: inner())()


def _failing() -> None:
    def fail() -> None:
        raise KeyError

    with contextlib.suppress(KeyError):
        monitor_memory(name="broken off")(fail)()


def _traced() -> None:
    monitor_memory(name="broken off", peak=True)(lambda: None)()


def _block() -> None:
    with MemoryTracker("broken off"):
        pass


@pytest.mark.parametrize("program", [_function, _nested, _failing, _traced, _block])
def test_a_measurement_that_is_broken_off_anywhere_leaves_nothing_open(program: Callable[[], None]) -> None:
    """``Ctrl-C``, or whatever a signal handler raises, may come wherever a function is called."""
    program()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for it only when tracing begins
    for at in itertools.count(1):
        interrupter = Interrupter(at)
        before = calls("broken off")
        sys.settrace(interrupter)
        try:
            program()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert TABLE.running == {}, interrupter.seen
        assert calls("broken off") - before <= 1, interrupter.seen
        if interrupter.left > 0:
            break
    assert at > 5
