"""The source ``gpu``: memory of graphics processors, as torch's caching allocator and as the driver see it.

Torch is asked where the application has loaded it and has begun to use a device; it is never imported here, and asking
starts nothing. The driver is asked through NVML (``pynvml``, from the package nvidia-ml-py). A call into the driver may
hang for as long as the driver does: all of it runs on a thread of its own, and a reading that has grown old is a gap.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Observation

from otel_memory import names
from otel_memory.probe.background import Background
from otel_memory.probe.feature import Feature, Surroundings
from otel_memory.probe.sources import observe_metrics, one
from otel_memory.probe.sources.cadence import Budget

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from otel_memory.probe.sources import Gate, Undo

PART: Final = "gpu"
EVERY_SECONDS: Final = 5.0
STALE_SECONDS: Final = 30.0
STOP_SECONDS: Final = 0.5
MAX_DEVICES: Final = 64
VENDOR: Final = "NVIDIA"

_logger: Final = logging.getLogger("otel_memory.probe")


@dataclass(frozen=True, slots=True)
class TorchMemory:
    """What torch's caching allocator holds on one device. Bytes."""

    id: str
    name: str
    allocated: int
    reserved: int
    peak: int

    @property
    def fragmentation(self) -> float | None:
        """Share of the reserved bytes that no tensor uses."""
        return (self.reserved - self.allocated) / self.reserved if self.reserved > 0 else None

    @property
    def attributes(self) -> dict[str, str | int]:
        return {names.HW_ID: self.id, names.HW_NAME: self.name}


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What the driver says of one device. Bytes; None is "could not be read"."""

    id: str
    name: str
    used: int | None
    limit: int | None
    by_this_process: int | None

    @property
    def utilization(self) -> float | None:
        return self.used / self.limit if self.used is not None and self.limit else None

    @property
    def attributes(self) -> dict[str, str | int]:
        return {names.HW_ID: self.id, names.HW_NAME: self.name, names.HW_VENDOR: VENDOR}


@dataclass(frozen=True, slots=True)
class GpuReading:
    """All devices at one time."""

    torch: tuple[TorchMemory, ...] = ()
    devices: tuple[DeviceMemory, ...] = ()


def loaded_torch(modules: Mapping[str, Any] = sys.modules) -> Any | None:
    """The module torch if the application has imported it, to the end; None else."""
    torch = modules.get("torch")
    if torch is None or getattr(getattr(torch, "__spec__", None), "_initializing", False):
        return None
    return torch


def read_torch(torch: Any) -> tuple[TorchMemory, ...]:
    """Each device that torch uses in this process. Begins nothing: none where torch hasn't begun to use one."""
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return ()
    found = []
    for index in range(min(cuda.device_count(), MAX_DEVICES)):
        reserved, peak = cuda.memory_reserved(index), cuda.max_memory_allocated(index)
        if not reserved and not peak:
            continue  # a device that this process doesn't use
        properties = cuda.get_device_properties(index)
        uuid = getattr(properties, "uuid", None)
        found.append(
            TorchMemory(
                id=f"cuda:{index}" if uuid is None else f"GPU-{uuid}",
                name=str(properties.name),
                allocated=cuda.memory_allocated(index),
                reserved=reserved,
                peak=peak,
            )
        )
    return tuple(found)


class Nvml:
    """The driver, by NVML; begun with the first reading. ``load`` imports pynvml.

    Raises from ``read``: ``ImportError`` without the package, ``pynvml.NVMLError`` without driver or device.
    """

    def __init__(self, load: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> None:
        self._load = load
        self._begun: tuple[Any, int] | None = None

    def read(self) -> tuple[DeviceMemory, ...]:
        nvml = self._begin()
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(min(nvml.nvmlDeviceGetCount(), MAX_DEVICES)))
        return tuple(self._read_device(nvml, handle) for handle in handles)

    def close(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None and begun[1] == os.getpid():
            begun[0].nvmlShutdown()

    def _begin(self) -> Any:
        pid = os.getpid()
        if self._begun is None or self._begun[1] != pid:
            nvml = self._load()
            nvml.nvmlInit()
            self._begun = nvml, pid
        return self._begun[0]

    def _read_device(self, nvml: Any, handle: Any) -> DeviceMemory:
        memory = self._or_none(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        running = self._or_none(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        return DeviceMemory(
            id=_text(nvml.nvmlDeviceGetUUID(handle)),
            name=_text(nvml.nvmlDeviceGetName(handle)),
            used=None if memory is None else int(memory.used),
            limit=None if memory is None else int(memory.total),
            by_this_process=None if running is None else _used_by(os.getpid(), running),
        )

    @staticmethod
    def _or_none(nvml: Any, ask: Callable[[Any], Any], handle: Any) -> Any:
        """What a device doesn't tell, or not to us, is not known."""
        try:
            return ask(handle)
        except nvml.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _used_by(pid: int, running: Iterable[Any]) -> int | None:
    """Bytes of process ``pid``. None if it isn't listed: in a container the driver knows it by another number."""
    found = [each.usedGpuMemory for each in running if each.pid == pid]
    known = [int(used) for used in found if used is not None]
    return sum(known) if known else None


class GpuFeature(Feature):
    """Reads every few seconds where there is something to read."""

    part = PART

    def __init__(
        self,
        around: Surroundings,
        *,
        nvml: Nvml | None = None,
        torch: Callable[[], Any | None] = loaded_torch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = around.ledger
        self._asked_for = around.settings.gpu == "true"
        self._nvml: Nvml | None = nvml or Nvml()
        self._torch = torch
        self._clock = clock
        self._budget = Budget(EVERY_SECONDS, clock=clock)
        self._background = Background(around.ledger)  # the probe's own would hang with the driver
        self._read_at: float | None = None
        self._reading = GpuReading()
        self._problem: str | None = None

    def register(self, meter: Meter, gate: Gate) -> Undo:
        return observe_metrics(
            meter,
            gate,
            PART,
            {
                names.HW_GPU_MEMORY_USAGE: lambda: self._devices(lambda each: each.used),
                names.HW_GPU_MEMORY_LIMIT: lambda: self._devices(lambda each: each.limit),
                names.HW_GPU_MEMORY_UTILIZATION: lambda: self._devices(lambda each: each.utilization),
                names.GPU_PROCESS_MEMORY_USAGE: lambda: self._devices(lambda each: each.by_this_process),
                names.TORCH_ALLOCATED: lambda: self._in_torch(lambda each: each.allocated),
                names.TORCH_RESERVED: lambda: self._in_torch(lambda each: each.reserved),
                names.TORCH_PEAK: lambda: self._in_torch(lambda each: each.peak),
                names.TORCH_FRAGMENTATION: lambda: self._in_torch(lambda each: each.fragmentation),
            },
        )

    def tick(self, now: float) -> None:
        if (self._asked_for or self._torch() is not None) and self._budget.due():
            self._background.submit(PART, lambda: self._budget.run(self._read))

    def latest(self) -> GpuReading:
        """The last reading; an empty one where it is old, because the driver hangs."""
        if self._read_at is None or self._clock() - self._read_at > STALE_SECONDS:
            return GpuReading()
        return self._reading

    def after_fork(self) -> None:
        self._background.after_fork()
        self._read_at = None
        self._budget.reset()

    def close(self) -> None:
        nvml, self._nvml = self._nvml, None
        if self._background.stop(STOP_SECONDS) and nvml is not None:  # never beside a call that hangs
            nvml.close()

    def status(self) -> Mapping[str, Any]:
        reading = self.latest()
        return {
            "torch": [
                {"id": each.id, "reserved": each.reserved, "allocated": each.allocated} for each in reading.torch
            ],
            "devices": [{"id": each.id, "used": each.used, "limit": each.limit} for each in reading.devices],
            "problem": self._problem,
        }

    def _read(self) -> None:
        self._reading = GpuReading(self._read_torch(), self._read_driver())
        self._read_at = self._clock()

    def _read_torch(self) -> tuple[TorchMemory, ...]:
        torch = self._torch()
        try:
            return () if torch is None else read_torch(torch)
        except Exception as error:  # of the driver, through torch
            self._ledger.failed(PART, error)
            return ()

    def _read_driver(self) -> tuple[DeviceMemory, ...]:
        nvml = self._nvml
        if nvml is None:
            return ()
        try:
            return nvml.read()
        except ImportError:
            self._give_up("the package nvidia-ml-py is missing; install otel-memory[gpu]")
        except Exception as error:  # pynvml.NVMLError and what an unusual driver makes of it
            self._give_up(f"the driver can't be asked: {type(error).__name__}: {error}")
        return ()

    def _give_up(self, problem: str) -> None:
        self._nvml = None
        self._problem = problem
        if self._asked_for:
            _logger.warning("otel-memory: OTEL_PYTHON_MEMORY_GPU=true: %s", problem)

    def _devices(self, value: Callable[[DeviceMemory], float | None]) -> Iterable[Observation]:
        for each in self.latest().devices:
            yield from one(value(each), each.attributes)

    def _in_torch(self, value: Callable[[TorchMemory], float | None]) -> Iterable[Observation]:
        for each in self.latest().torch:
            yield from one(value(each), each.attributes)
