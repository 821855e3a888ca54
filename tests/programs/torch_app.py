"""An application that computes with torch on the processor and keeps every result: what the probe can say about it.

Prints one JSON object with what it saw of itself, before and after, and of a forked child.
"""

import inspect
import json
import multiprocessing
import sys
import time

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_memory import MemoryInstrumentor, count_instances, memory_breakdown
from otel_memory.probe.lifecycle import running_probe

READ_WITHIN_SECONDS = 60
CALLS = "is_initialized device_count memory_allocated memory_reserved max_memory_allocated get_device_properties"
kept = []


def metric_names(reader):
    data = reader.get_metrics_data()
    return sorted(m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics)


def gpu_status():
    """What the probe's source says once it has read."""
    end = time.monotonic() + READ_WITHIN_SECONDS
    while time.monotonic() < end:
        status = next(each for each in running_probe().features if each.part == "gpu").status()
        if status["problem"]:  # it looked at torch, then asked a driver that isn't there
            return status
        time.sleep(0.05)
    raise TimeoutError("the source was never read")


def look(torch):
    return {
        "gpu": gpu_status(),
        "begun": torch.cuda.is_initialized(),
        "failures": dict(running_probe().ledger.failures),
    }


def child(torch, answer):
    answer.put(look(torch))


def main():
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    MemoryInstrumentor().instrument(interval=100)
    time.sleep(0.3)
    early = "torch" in sys.modules
    import torch

    before = memory_breakdown().c_used
    kept.extend(torch.full((512, 1024), float(step)) @ torch.ones(1024, 512) for step in range(32))  # 1 MB each
    seen = look(torch)
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    forked = fork.Process(target=child, args=(torch, answer))
    forked.start()
    in_child = answer.get()
    forked.join()
    json.dump(
        {
            "version": torch.__version__,
            "device": torch.cuda.is_available(),
            "early": early,
            "parameters": {call: [*inspect.signature(getattr(torch.cuda, call)).parameters] for call in CALLS.split()},
            "seen": seen,
            "child": in_child,
            "metrics": metric_names(reader),
            "tensors": count_instances(torch.Tensor),
            "grown_in_c": memory_breakdown().c_used - before,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
