"""The instrumentor and the public face: thin, and harmless whatever goes wrong."""

from __future__ import annotations

import ast
import gc
import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from importlib.metadata import distribution
from typing import Any

import pytest
from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_memory
from otel_memory import MemoryInstrumentor, names
from otel_memory.probe import instrumentor as module
from otel_memory.probe.config import PREFIX, descriptions
from otel_memory.probe.sampler import THREAD_NAME


@pytest.fixture(autouse=True)
def _uninstrumented() -> Iterator[None]:
    yield
    if MemoryInstrumentor()._probe is not None:
        MemoryInstrumentor().uninstrument()


def runs() -> bool:
    return THREAD_NAME in [thread.name for thread in threading.enumerate()]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_instrument_starts_and_uninstrument_undoes_as_often_as_one_likes() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    before = (len(gc.callbacks), threading.active_count())
    for _ in range(5):
        MemoryInstrumentor().instrument(meter_provider=provider, interval=60_000)
        assert runs()
        assert MemoryInstrumentor().is_instrumented_by_opentelemetry
        data: Any = reader.get_metrics_data()
        (scope,) = data.resource_metrics[0].scope_metrics
        assert scope.scope.name == names.SCOPE
        MemoryInstrumentor().uninstrument()
        assert not runs()
        assert not MemoryInstrumentor().is_instrumented_by_opentelemetry
    assert (len(gc.callbacks), threading.active_count()) == before
    provider.shutdown()


def test_making_it_again_forgets_nothing() -> None:
    """BaseInstrumentor is a singleton whose ``__init__`` runs at each call."""
    MemoryInstrumentor().instrument(interval=60_000)
    probe = MemoryInstrumentor()._probe
    assert probe is not None
    MemoryInstrumentor()
    assert MemoryInstrumentor()._probe is probe


def test_a_second_instrument_is_refused_by_the_base_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    MemoryInstrumentor().instrument(interval=60_000)
    probe = MemoryInstrumentor()._probe
    MemoryInstrumentor().instrument(interval=1000)
    assert MemoryInstrumentor()._probe is probe
    assert MemoryInstrumentor().is_instrumented_by_opentelemetry
    assert "already instrumented" in caplog.text


def test_an_invalid_argument_is_logged_once_and_a_second_try_is_welcome(caplog: pytest.LogCaptureFixture) -> None:
    MemoryInstrumentor().instrument(interval="x")
    assert not runs()
    (error,) = errors(caplog)
    assert "interval='x': expected milliseconds" in error
    assert "runs on without" in error
    assert not MemoryInstrumentor().is_instrumented_by_opentelemetry
    MemoryInstrumentor().instrument(interval=60_000)
    assert runs()


def test_an_invalid_variable_is_logged_with_its_name(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "THRESHOLDS", "rss>lots")
    MemoryInstrumentor().instrument()
    assert not runs()
    assert errors(caplog)[0].startswith("otel-memory: OTEL_PYTHON_MEMORY_THRESHOLDS='rss>lots': in 'rss>lots': ")


def test_a_misspelt_variable_is_a_warning_and_the_probe_runs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "INTERVALL", "5")
    MemoryInstrumentor().instrument(interval=60_000)
    assert runs()
    assert "did you mean OTEL_PYTHON_MEMORY_INTERVAL?" in caplog.text


def test_a_disabled_sdk_disables_the_probe(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    MemoryInstrumentor().instrument()
    assert not runs()
    assert errors(caplog) == []
    assert not MemoryInstrumentor().is_instrumented_by_opentelemetry


@pytest.mark.parametrize("error", [RuntimeError("no thread"), ImportError("broken"), MemoryError(), KeyError("x")])
def test_whatever_goes_wrong_at_the_start_is_logged_and_never_raised(
    error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("otel_memory.probe.lifecycle.Probe.start", fail)
        MemoryInstrumentor().instrument(interval=60_000)
    assert not runs()
    assert len(errors(caplog)) == 1
    MemoryInstrumentor().instrument(interval=60_000)
    assert runs()


def test_whatever_goes_wrong_at_the_end_is_logged_and_never_raised(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    MemoryInstrumentor().instrument(interval=60_000)
    probe = MemoryInstrumentor()._probe
    assert probe is not None

    def fail(*_: object) -> None:
        raise RuntimeError("stuck")

    with monkeypatch.context() as patch:
        patch.setattr("otel_memory.probe.lifecycle.Probe.stop", fail)
        MemoryInstrumentor().uninstrument()
    assert len(errors(caplog)) == 1
    assert not MemoryInstrumentor().is_instrumented_by_opentelemetry
    probe.stop()


def test_uninstrument_before_instrument_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    MemoryInstrumentor().uninstrument()
    assert errors(caplog) == []


def test_it_depends_on_nothing_on_both_paths() -> None:
    """The launcher reads the distribution's extra ``instruments``, a call by hand reads the method."""
    assert MemoryInstrumentor().instrumentation_dependencies() == ()
    assert get_dist_dependency_conflicts(distribution("otel-memory")) is None


def test_each_setting_is_an_argument_and_none_is_not_given() -> None:
    keys = descriptions()
    assert "interval" in keys
    MemoryInstrumentor().instrument(**dict.fromkeys(keys))
    assert runs()


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
sub = interpreters.create()
code = '''
import sys
sys.path[:] = {path!r}
from otel_memory.probe.interpreter import in_main_interpreter
print("main" if in_main_interpreter() else "sub", flush=True)
'''.format(path=sys.path)
failure = (getattr(interpreters, "run_string", None) or interpreters.exec)(sub, code)
assert failure is None, failure
interpreters.destroy(sub)
from otel_memory.probe.interpreter import in_main_interpreter
print("main" if in_main_interpreter() else "sub")
"""


def test_a_subinterpreter_is_told_from_the_main_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SUBINTERPRETER)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["sub", "main"]


def test_a_subinterpreter_is_refused_politely(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "in_main_interpreter", lambda: False)
    MemoryInstrumentor().instrument()
    assert not runs()
    assert errors(caplog) == []
    assert "subinterpreter" in caplog.text


# --- the public face ----------------------------------------------------------------------------------------


def test_the_face_names_what_the_contract_names_and_each_name_is_there() -> None:
    wanted = {"MemoryInstrumentor", "monitor_memory", "MemoryTracker", "ResourceMonitor", "format_bytes", "Rule"}
    assert wanted <= set(otel_memory.__all__) <= set(dir(otel_memory))
    assert all(getattr(otel_memory, name) is not None for name in otel_memory.__all__)
    assert otel_memory.__version__ == distribution("otel-memory").version
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        otel_memory.nothing_of_the_kind


def test_importing_the_face_or_the_launchers_variables_loads_nothing_of_ours_and_no_telemetry() -> None:
    code = (
        "import sys, otel_memory, otel_memory.probe.environment_variables;"
        "print([m for m in sys.modules if m.startswith(('otel_memory', 'opentelemetry', 'psutil'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert set(ast.literal_eval(done.stdout)) == {
        "otel_memory.version",
        "otel_memory",
        "otel_memory.probe",
        "otel_memory.probe.environment_variables",
    }


def test_a_running_probe_loads_no_sdk_of_its_own() -> None:
    code = (
        "import sys; from otel_memory import MemoryInstrumentor; MemoryInstrumentor().instrument();"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'numpy', 'grpc'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
