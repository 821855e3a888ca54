"""Memory of graphics processors: with stand-ins that are held against the real modules, and with those themselves.

What runs here on every machine: the real nvidia-ml-py without a driver, and the real torch for processors. What needs a
device says so.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory import names
from otel_memory.probe.background import Background
from otel_memory.probe.config import Settings
from otel_memory.probe.feature import Surroundings
from otel_memory.probe.ledger import Ledger
from otel_memory.probe.parts import Parts
from otel_memory.probe.sources import Gate
from otel_memory.probe.sources.gpu import STALE_SECONDS, GpuFeature, GpuReading, Nvml, loaded_torch, read_torch
from tests.harness import wait_until
from tests.parts.torch import environment as torch_environment

GIB = 1 << 30
MIB = 1 << 20
TORCH_APP = Path(__file__).parents[1] / "programs" / "torch_app.py"


class FakeNvml:
    """The calls of pynvml that are used, over two devices; the second tells little."""

    NVMLError = pynvml.NVMLError

    def __init__(self) -> None:
        self.begun = self.ended = self.asked = 0
        self.hang = threading.Event()
        self.hang.set()

    def nvmlInit(self) -> None:
        self.begun += 1

    def nvmlShutdown(self) -> None:
        self.ended += 1

    def nvmlDeviceGetCount(self) -> int:
        self.asked += 1
        self.hang.wait(60)
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:
        return "GPU-one" if handle == 0 else b"GPU-two"  # bytes from older versions

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA Test 80GB"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        return SimpleNamespace(total=80 * GIB, free=60 * GIB, used=20 * GIB)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        others = SimpleNamespace(pid=1, usedGpuMemory=12 * GIB)
        return [others, SimpleNamespace(pid=os.getpid(), usedGpuMemory=8 * GIB)]


class FakeCuda:
    """The calls of torch.cuda that are used, over two devices, one of them not in use."""

    def __init__(self, initialized: bool = True) -> None:
        self._initialized = initialized

    def is_initialized(self) -> bool:
        return self._initialized

    def device_count(self) -> int:
        return 2

    def memory_allocated(self, device: int) -> int:
        return 3 * GIB if device == 0 else 0

    def memory_reserved(self, device: int) -> int:
        return 4 * GIB if device == 0 else 0

    def max_memory_allocated(self, device: int) -> int:
        return 6 * GIB if device == 0 else 0

    def get_device_properties(self, device: int) -> Any:
        assert device == 0, "a device that isn't used must not be asked about"
        return SimpleNamespace(name="NVIDIA Test 80GB", uuid="one", total_memory=80 * GIB)


def fake_torch(initialized: bool = True) -> Any:
    return SimpleNamespace(cuda=FakeCuda(initialized))


@functools.cache
def run_torch() -> dict[str, Any]:
    """What the application with the real torch says of itself and of the probe."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, TORCH_APP],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        env={**clean, **torch_environment()},
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def feature(ledger: Ledger, gpu: str = "auto", **parts: Any) -> GpuFeature:
    settings = Settings.load({}, gpu=gpu)
    around = Surroundings(settings, Parts(settings, ledger), lambda *_: False, Background(ledger), ledger)
    return GpuFeature(around, **parts)


def values(reader: InMemoryMetricReader) -> dict[str, dict[Any, Any]]:
    data = reader.get_metrics_data()
    metrics = (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics) if data else ()
    return {
        metric.name: {(point.attributes or {}).get(names.HW_ID): point.value for point in metric.data.data_points}
        for metric in metrics
    }


@pytest.fixture
def reader() -> Iterator[tuple[InMemoryMetricReader, MeterProvider]]:
    found = InMemoryMetricReader()
    provider = MeterProvider([found])
    yield found, provider
    provider.shutdown()


def test_the_stand_ins_are_like_the_real_ones() -> None:
    for name, fake in inspect.getmembers(FakeNvml, inspect.isfunction):
        if name.startswith("nvml"):
            real = inspect.signature(getattr(pynvml, name))
            ours = list(inspect.signature(fake).parameters)[1:]
            assert list(real.parameters)[: len(ours)] == ours, name
            more = list(real.parameters.values())[len(ours) :]
            assert all(each.default is not inspect.Parameter.empty for each in more), name
    assert {"total", "free", "used"} <= {field[0] for field in pynvml.c_nvmlMemory_t._fields_}
    assert {"pid", "usedGpuMemory"} <= {field[0] for field in pynvml.c_nvmlProcessInfo_t._fields_}


def test_what_torch_and_the_driver_say_is_emitted(
    ledger: Ledger, reader: tuple[InMemoryMetricReader, MeterProvider]
) -> None:
    nvml, (read, provider) = FakeNvml(), reader
    gpu = feature(ledger, nvml=Nvml(lambda: nvml), torch=fake_torch)
    undo = gpu.register(provider.get_meter(names.SCOPE), Gate(ledger.failed))
    assert values(read) == {}
    gpu.tick(0.0)
    wait_until(lambda: gpu.latest().devices, timeout_seconds=30)
    assert values(read) == {
        names.HW_GPU_MEMORY_USAGE: {"GPU-one": 20 * GIB},
        names.HW_GPU_MEMORY_LIMIT: {"GPU-one": 80 * GIB},
        names.HW_GPU_MEMORY_UTILIZATION: {"GPU-one": 0.25},
        names.GPU_PROCESS_MEMORY_USAGE: {"GPU-one": 8 * GIB},
        names.TORCH_ALLOCATED: {"GPU-one": 3 * GIB},
        names.TORCH_RESERVED: {"GPU-one": 4 * GIB},
        names.TORCH_PEAK: {"GPU-one": 6 * GIB},
        names.TORCH_FRAGMENTATION: {"GPU-one": 0.25},
    }
    assert gpu.latest().devices[1].attributes == {
        names.HW_ID: "GPU-two",
        names.HW_NAME: "NVIDIA Test 80GB",
        names.HW_VENDOR: "NVIDIA",
    }
    undo()
    gpu.close()
    assert values(read) == {}
    assert (nvml.begun, nvml.ended) == (1, 1)
    assert ledger.failures == {}


def test_before_torch_is_there_nothing_is_loaded_and_nobody_is_asked(ledger: Ledger) -> None:
    def load() -> Any:
        raise AssertionError

    gpu = feature(ledger, nvml=Nvml(load), torch=lambda: None)
    for _ in range(3):
        gpu.tick(0.0)
    gpu.close()
    assert gpu.latest() == GpuReading()
    assert ledger.failures == {}


def test_torch_that_has_not_begun_to_use_a_device_gives_nothing() -> None:
    assert read_torch(fake_torch(initialized=False)) == ()
    assert read_torch(SimpleNamespace()) == (), "a part of it, still being imported"
    importing = SimpleNamespace(__spec__=SimpleNamespace(_initializing=True))
    assert loaded_torch({"torch": importing}) is None
    assert loaded_torch({}) is None


def test_a_driver_that_hangs_keeps_nobody_waiting_and_what_is_old_is_a_gap(ledger: Ledger) -> None:
    nvml, now = FakeNvml(), [100.0]
    gpu = feature(ledger, nvml=Nvml(lambda: nvml), torch=fake_torch, clock=lambda: now[0])
    gpu.tick(now[0])
    wait_until(lambda: gpu.latest().devices and not gpu._budget.due(), timeout_seconds=30)
    nvml.hang.clear()
    now[0] += 10

    def ask() -> bool:
        gpu.tick(now[0])  # hangs, elsewhere
        return nvml.asked == 2

    wait_until(ask, timeout_seconds=30)
    gpu.tick(now[0])
    assert gpu.latest().devices, "still fresh"
    now[0] += STALE_SECONDS + 1
    assert gpu.latest() == GpuReading()
    gpu.close()
    assert nvml.ended == 0, "no call beside one that hangs"
    nvml.hang.set()


def test_torch_that_fails_is_counted_and_the_driver_still_asked(ledger: Ledger) -> None:
    torch = fake_torch()
    torch.cuda.memory_reserved = lambda _device: 1 // 0
    gpu = feature(ledger, nvml=Nvml(FakeNvml), torch=lambda: torch)
    gpu.tick(0.0)
    wait_until(lambda: gpu.latest().devices, timeout_seconds=30)
    assert gpu.latest().torch == ()
    assert ledger.failures == {"gpu": 1}
    gpu.close()


def test_the_real_library_without_a_driver_is_silent_by_default_and_told_where_asked_for(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        pass
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this machine has a driver")
    for setting in ("auto", "true"):
        gpu = feature(ledger, setting, torch=fake_torch if setting == "auto" else lambda: None)
        gpu.tick(0.0)
        wait_until(lambda gpu=gpu: gpu.status()["problem"], timeout_seconds=30)
        gpu.close()
        assert ("the driver can't be asked: NVMLError" in caplog.text) is (setting == "true")
    assert ledger.failures == {}


def test_without_the_package_the_extra_is_named(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Any:
        raise ModuleNotFoundError("No module named 'pynvml'")

    gpu = feature(ledger, "true", nvml=Nvml(load), torch=lambda: None)
    gpu.tick(0.0)
    wait_until(lambda: "install otel-memory[gpu]" in caplog.text, timeout_seconds=30)
    gpu.close()


def test_a_program_without_torch_loads_neither_torch_nor_nvml() -> None:
    program = (
        "import sys, time; from otel_memory import MemoryInstrumentor\n"
        "MemoryInstrumentor().instrument(interval=100); time.sleep(0.5); MemoryInstrumentor().uninstrument()\n"
        "assert not {'torch', 'pynvml', 'curl_cffi'} & set(sys.modules)"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60, env=clean
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("torch")
def test_the_real_torch_is_asked_without_being_begun_and_its_tensors_are_counted() -> None:
    told = run_torch()
    assert told["early"] is False, "the probe must not load it"
    assert told["device"] is False, "Debian's build is for processors alone"
    for place in (told["seen"], told["child"]):
        assert place["gpu"]["torch"] == [] == place["gpu"]["devices"]
        assert place["begun"] is False
        assert place["failures"] == {}
    assert not [name for name in told["metrics"] if "gpu" in name or "torch" in name]
    assert told["tensors"] == 32
    # What torch's import still held is freed meanwhile: a few MiB.
    assert told["grown_in_c"] >= 24 * MIB, "tensors on the processor stand in the heap of C"


@pytest.mark.needs("torch")
def test_the_stand_in_for_torch_takes_what_the_real_one_takes() -> None:
    for call, parameters in run_torch()["parameters"].items():
        assert list(inspect.signature(getattr(FakeCuda(), call)).parameters) == parameters, call


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch with a device is not here: NOT looked at")
def test_a_real_device_is_told_by_torch() -> None:
    program = (
        "import torch; from otel_memory.probe.sources.gpu import loaded_torch, read_torch\n"
        "assert loaded_torch() is torch; assert read_torch(torch) == (); assert not torch.cuda.is_initialized()\n"
        "if torch.cuda.is_available():\n"
        "    held = torch.zeros(1 << 20, device='cuda'); (found,) = read_torch(torch)\n"
        "    assert found.allocated >= 4 << 20 <= found.reserved and found.id.startswith('GPU-'), found\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
